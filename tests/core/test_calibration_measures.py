"""Calibration error and Brier score against hand-worked values."""

import numpy as np
import pytest

from tutelage.core.stats.calibration import brier_score, expected_calibration_error

MUTATIONS = [
    (
        "src/tutelage/core/stats/calibration.py",
        "np.ceil(confidence * bins).astype(int) - 1",
        "np.floor(confidence)",
    ),
    (
        "src/tutelage/core/stats/calibration.py",
        "((probs - truth) ** 2).sum(axis=1)",
        "((probs - truth) ** 2).max(axis=1)",
    ),
]


def test_expected_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    right = np.array([True, False, True, True])
    # Two bins of ten: |0.95 - 0.5| and |0.55 - 1|, each with half of the items.
    assert expected_calibration_error(confidence, right, bins=10) == pytest.approx(0.45)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([True, False])) == 0.0
    assert np.isnan(expected_calibration_error(np.array([]), np.array([], dtype=bool)))


def test_brier_score_equals_sklearn_for_two_classes():
    from sklearn.metrics import brier_score_loss

    rng = np.random.default_rng(0)
    p, y = rng.random(50), rng.integers(0, 2, 50)
    # Summed over both classes it is twice the score of one.
    assert brier_score(np.column_stack([1 - p, p]), y) == pytest.approx(2 * brier_score_loss(y, p))
