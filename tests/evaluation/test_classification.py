"""evaluation.classification against scikit-learn."""

import numpy as np
import pytest

from toy.labelled import labelled
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError
from tutelage.evaluation._classes import macro_f1
from tutelage.models.toy import tiny_causal_lm

PROOF = {"evaluation.classification": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/classification.py", "        require_gold(row, where)\n", ""),
    ("src/tutelage/evaluation/_classes.py", "if source != GOLD:", "if False:"),
    (
        "src/tutelage/evaluation/_classes.py",
        "scores.append(2 * both / either)",
        "scores.append(both / either)",
    ),
    ("src/tutelage/evaluation/_classes.py", "right = predicted == labels", "right = predicted <= labels"),
    ("src/tutelage/evaluation/_classes.py", "top >= model.threshold", "top <= model.threshold"),
]


@pytest.fixture(scope="module")
def classifier():
    return build("adapters.tfidf_classifier").convert({}, labelled(8, ("animals", "food", "tools"), noise=0.7), {})


def test_measures_equal_scikit_learn(classifier):
    from sklearn.metrics import accuracy_score, f1_score, log_loss

    data = labelled(12, ("animals", "food", "tools"), seed=1, noise=0.8)
    result = build("evaluation.classification").evaluate(classifier, data, {})
    truth = data.column("label").to_pylist()
    probs = classifier.predict_proba(data.column("text").to_pylist())
    said = [classifier.labels.names[k] for k in probs.argmax(1)]
    assert 0.4 < result.estimate < 1
    assert result.estimate == pytest.approx(accuracy_score(truth, said))
    assert result.extra["macro_f1"] == pytest.approx(f1_score(truth, said, average="macro"))
    assert result.extra["nll"] == pytest.approx(log_loss(truth, probs, labels=classifier.labels.names))
    assert result.interval is not None and result.n_items == 36 and result.direction == 1
    table = result.items.table
    assert table.column("prediction").to_pylist() == said and table.column("target").to_pylist() == truth
    assert "answered" not in result.extra and result.extra["calibrated"] == 0.0


def test_macro_f1_counts_classes_that_are_only_predicted():
    assert macro_f1(np.array([0, 1, 1]), np.array([0, 0, 0])) == pytest.approx(((2 / 4) + 0) / 2)


def test_an_abstaining_classifier_is_measured_on_what_it_answers(classifier):
    data = labelled(12, ("animals", "food", "tools"), seed=1, noise=0.8)
    top = classifier.predict_proba(data.column("text").to_pylist()).max(1)
    sure = classifier.calibrated(None, float(np.median(top)))
    result = build("evaluation.classification").evaluate(sure, data, {})
    right = np.array(result.items.table.column("score").to_pylist())
    assert result.extra["answered"] == pytest.approx((top >= np.median(top)).mean())
    assert result.extra["precision_answered"] == pytest.approx(right[top >= np.median(top)].mean())
    assert result.estimate == pytest.approx(right.mean()), "accuracy stays that of all rows"


def test_a_machines_label_measures_nothing(classifier):
    with pytest.raises(InputError, match="machine's label measures nothing") as caught:
        build("evaluation.classification").evaluate(classifier, labelled(2, label_source="teacher:x"), {})
    assert "teacher:x" in str(caught.value)
    with pytest.raises(InputError, match="not a class"):
        strange = Dataset.from_rows([{"id": "a", "text": "cat", "label": "dogs"}])
        build("evaluation.classification").evaluate(classifier, strange, {})
    with pytest.raises(ConfigError, match="only a classifier"):
        build("evaluation.classification").evaluate(tiny_causal_lm(), labelled(2), {})


def test_a_class_that_is_never_answered_is_told(classifier):
    with pytest.warns(UserWarning, match="never answers"):
        build("evaluation.classification").evaluate(classifier, labelled(1, ("animals",)), {})
