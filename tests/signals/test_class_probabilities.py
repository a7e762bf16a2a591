"""signals.class_probabilities: what a classifier says of rows."""

import numpy as np
import pytest

from toy.labelled import labelled
from tutelage.core.apply import score_dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError
from tutelage.models.toy import tiny_causal_lm
from tutelage.signals.class_probabilities import uncertainty

PROOF = {"signals.class_probabilities": ["consistent", "verified"]}
MUTATIONS = [
    (
        "src/tutelage/signals/class_probabilities.py",
        "ordered[:, -1] - ordered[:, -2]",
        "ordered[:, -1] - ordered[:, 0]",
    ),
    ("src/tutelage/signals/class_probabilities.py", "/ np.log(probs.shape[1])", "/ np.log(2)"),
    (
        "src/tutelage/signals/class_probabilities.py",
        "confidence < model.threshold",
        "confidence > model.threshold",
    ),
]


def test_uncertainty_equals_scipy():
    from scipy.stats import entropy

    probs = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    confidence, margin, doubt = uncertainty(probs)
    assert confidence.tolist() == [0.7, 1.0, 1 / 3]
    assert np.allclose(margin, [0.5, 1.0, 0.0])
    assert np.allclose(doubt, entropy(probs, base=3, axis=1))
    assert [column.tolist() for column in uncertainty(np.ones((1, 1)))] == [[1.0], [1.0], [0.0]]


def test_columns_say_what_the_classifier_says():
    made = build("adapters.tfidf_classifier").convert({}, labelled(8), {})
    data = labelled(5, seed=1, noise=0.8)
    probs = made.predict_proba(data.column("text").to_pylist())
    sure = made.calibrated(None, float(np.median(probs.max(1))))
    scored = score_dataset(build("signals.class_probabilities"), data, {"model": sure})
    assert np.allclose(scored.column("predicted_probs").to_pylist(), probs)
    assert set(map(tuple, scored.column("classes").to_pylist())) == {("animals", "tools")}
    assert scored.column("predicted").to_pylist() == [made.labels.names[k] for k in probs.argmax(1)]
    assert scored.column("abstained").to_pylist() == (probs.max(1) < np.median(probs.max(1))).tolist()
    plain = score_dataset(build("signals.class_probabilities"), data, {"model": made})
    assert not any(plain.column("abstained").to_pylist())


def test_another_kind_of_model_is_refused():
    with pytest.raises(ConfigError, match="gives no classes"):
        score_dataset(build("signals.class_probabilities"), labelled(1), {"model": tiny_causal_lm()})
