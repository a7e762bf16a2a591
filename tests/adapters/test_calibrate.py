"""adapters.calibrate: temperature and the threshold for a wanted precision."""

import numpy as np
import pytest

from toy.labelled import labelled
from tutelage.adapters.calibrate import abstain_threshold, fit_temperature
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError
from tutelage.models.classifier import softmax
from tutelage.models.toy import tiny_causal_lm

PROOF = {"adapters.calibrate": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/core/stats/calibration.py", "logits / np.exp(log_t)", "logits * np.exp(log_t)"),
    ("src/tutelage/adapters/calibrate.py", "for t in (1.0, temperature)", "for t in (temperature, temperature)"),
    ("src/tutelage/adapters/calibrate.py", "beta.ppf(1 - level, k, n - k + 1)", "beta.ppf(0.5, k, n - k + 1)"),
    ("src/tutelage/adapters/calibrate.py", "            break\n", "            continue\n"),
    ("src/tutelage/adapters/calibrate.py", "if text_hash(text) in model.fitted_on:", "if False:"),
]


def draws(n, temperature, seed, classes=3):
    """Logits whose softmax at `temperature` gives the labels' true probabilities."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3.0, size=(n, classes))
    probs = softmax(logits / temperature)
    return logits, np.array([rng.choice(classes, p=p) for p in probs])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_planted_temperature_is_found(temperature):
    logits, labels = draws(6000, temperature, 0)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.08)


def test_the_threshold_is_the_clopper_pearson_bound_walked_downwards():
    from scipy.stats import binomtest

    confidence = np.linspace(0.99, 0.5, 60)
    right = np.ones(60, dtype=bool)
    right[[35, 40, 41, 43, 44]] = False
    found = abstain_threshold(confidence, right, 0.9, 0.9)
    n = int((confidence >= found).sum())

    def bound(count):
        hits = int(right[:count].sum())
        return binomtest(hits, count, alternative="greater").proportion_ci(0.9, "exact").low

    assert bound(n) >= 0.9 > bound(n + 1)
    assert all(bound(count) >= 0.9 for count in range(22, n + 1)), "nothing before it failed"
    assert abstain_threshold(confidence[:21], right[:21], 0.9, 0.9) is None, "21 right answers show too little"
    assert abstain_threshold(np.full(60, 0.9), right, 0.9, 0.9) is None, "equal confidences are answered together"


def test_the_promise_holds_in_simulated_studies():
    """True precision above the chosen threshold falls short of the wanted one in at most a tenth of the draws."""
    short = studies = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        confidence = rng.uniform(0.4, 1.0, 150)
        found = abstain_threshold(confidence, rng.random(150) < confidence, 0.85, 0.9)
        if found is not None:
            studies += 1
            short += (found + 1.0) / 2 < 0.85  # the mean of a uniform confidence above the threshold
    assert studies > 30 and short / 300 <= 0.1


def test_out_of_fold_scores_serve_when_no_rows_are_held_out():
    made = build("adapters.tfidf_classifier").convert({}, labelled(20), {})
    found = build("adapters.calibrate", {"precision": 0.8, "confidence": 0.8}).convert({"base": made}, None, {})
    assert found.calibration.held_out == "out of fold" and found.calibration.rows == 40
    logits, labels = np.array(made.out_of_fold.logits), np.array(made.out_of_fold.labels)
    assert found.calibration.temperature == fit_temperature(logits, labels)
    assert found.calibration.ece_after < found.calibration.ece_before
    assert found.threshold is not None and found.facts["abstention"]["reached"]
    assert made.calibration is None, "the classifier given is left as it was"


def test_held_out_rows_serve_and_rows_it_was_fitted_on_are_refused():
    data = labelled(20)
    made = build("adapters.tfidf_classifier").convert({}, data, {})
    found = build("adapters.calibrate").convert({"base": made}, labelled(10, seed=1), {})
    assert (found.calibration.held_out, found.calibration.rows, found.threshold) == ("held-out rows", 20, None)
    with pytest.raises(InputError, match="fitted on a row") as caught:
        build("adapters.calibrate").convert({"base": made}, data, {})
    assert "row 0-000" in str(caught.value)


def test_what_cannot_be_shown_is_said():
    made = build("adapters.tfidf_classifier").convert({}, labelled(4), {})
    with pytest.warns(UserWarning, match="8 rows cannot show a precision of 0.99"):
        found = build("adapters.calibrate", {"precision": 0.99}).convert({"base": made}, None, {})
    assert found.threshold is None and not found.facts["abstention"]["reached"]


def test_nothing_to_calibrate_is_one_clear_error():
    with pytest.raises(ConfigError, match="only a classifier"):
        build("adapters.calibrate").convert({"base": tiny_causal_lm()}, None, {})
    made = build("adapters.tfidf_classifier").convert({}, labelled(1), {})
    with pytest.raises(ConfigError, match="nothing to calibrate on"):
        build("adapters.calibrate").convert({"base": made}, None, {})
