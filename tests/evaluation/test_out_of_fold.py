"""evaluation.out_of_fold: scores of rows by fits without them."""

import numpy as np
import pytest

from toy.labelled import labelled
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError
from tutelage.core.stats.compare import compare
from tutelage.models.classifier import TfidfFeatures

PROOF = {"evaluation.out_of_fold": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/adapters/_heads.py", "probs[~held] * up", "probs[~held]"),
    ("src/tutelage/adapters/_heads.py", "held = fold == number", "held = fold == number + 1"),
    (
        "src/tutelage/evaluation/out_of_fold.py",
        "model.probabilities(np.array(kept.logits))",
        "model.probabilities(-np.array(kept.logits))",
    ),
]


def fitted(C=1.0):
    return build("adapters.tfidf_classifier", {"C": C, "folds": 4}).convert({}, labelled(10, noise=0.85), {})


def test_equals_cross_validation_by_scikit_learn():
    from sklearn.linear_model import LogisticRegression

    from tutelage.adapters._heads import folds_of

    data = labelled(10, noise=0.85)
    texts, labels = data.column("text").to_pylist(), np.array(data.column("label").to_pylist())
    vectors = TfidfFeatures.fit(texts).vectors(texts)
    fold = folds_of((labels == "tools").astype(int), 4, 0)
    said = np.empty(20, dtype=object)
    for number in range(4):
        seen = fold != number
        up = {name: 10 / (labels[seen] == name).sum() for name in ("animals", "tools")}
        model = LogisticRegression(max_iter=1000, class_weight=up).fit(vectors[seen], labels[seen])
        said[~seen] = model.predict(vectors[~seen])
    result = build("evaluation.out_of_fold").evaluate(fitted(), None, {})
    assert 0.5 < result.estimate < 1 and result.estimate == (said == labels).mean()
    assert result.items.table.column("prediction").to_pylist() == said.tolist()
    assert result.n_items == 20 and result.interval is not None


def test_two_rows_a_class_are_enough_for_a_fair_figure():
    """Without making up for the fold, the class that lost one of its two rows would never be answered."""
    found = [build("adapters.tfidf_classifier").convert({}, labelled(2, seed=s, noise=0.2), {}) for s in range(8)]
    results = [build("evaluation.out_of_fold").evaluate(model, None, {}).estimate for model in found]
    assert np.mean(results) > 0.7


def test_two_classifiers_of_the_same_rows_are_compared_row_by_row():
    one, two = (build("evaluation.out_of_fold").evaluate(fitted(C), None, {}) for C in (1.0, 1e-6))
    found = compare(one.items, two.items, direction=1)
    assert found.n_items == 20 and found.estimate == pytest.approx(one.estimate - two.estimate)


def test_a_classifier_without_such_scores_is_refused():
    lonely = build("adapters.tfidf_classifier").convert({}, labelled(1), {})
    with pytest.raises(ConfigError, match="kept no out-of-fold scores"):
        build("evaluation.out_of_fold").evaluate(lonely, None, {})
