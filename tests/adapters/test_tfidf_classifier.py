"""adapters.tfidf_classifier: logistic regression on TF-IDF, the baseline."""

import numpy as np
import pytest

from toy.labelled import labelled
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import InputError
from tutelage.models.classifier import TfidfFeatures, softmax

PROOF = {"adapters.tfidf_classifier": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/adapters/_heads.py", "if loss < least - 1e-9:", "if loss > least - 1e-9:"),
    ("src/tutelage/adapters/tfidf_classifier.py", 'inputs.get("labels")', "None"),
    ("src/tutelage/adapters/_heads.py", "LogisticRegression(C=C,", "LogisticRegression(C=C * 9,"),
    (
        "src/tutelage/adapters/_heads.py",
        "bias = np.full(probs.shape[1], -np.inf)",
        "bias = np.zeros(probs.shape[1])",
    ),
    ("src/tutelage/adapters/_heads.py", "np.maximum(logits[asked], -50.0)", "logits[asked]"),
]


@pytest.mark.parametrize("kinds", [("animals", "tools"), ("animals", "tools", "food")])
def test_equals_scikit_learn_on_the_same_features(kinds):
    from sklearn.linear_model import LogisticRegression

    data, other = labelled(8, kinds), labelled(5, kinds, seed=1)
    made = build("adapters.tfidf_classifier", {"C": 2.0}).convert({}, data, {})
    texts = data.column("text").to_pylist()
    features = TfidfFeatures.fit(texts)
    model = LogisticRegression(C=2.0, max_iter=10_000, tol=1e-8).fit(
        features.vectors(texts), data.column("label").to_pylist()
    )
    asked = other.column("text").to_pylist()
    assert made.labels.names == tuple(model.classes_)
    assert np.allclose(made.predict_proba(asked), model.predict_proba(features.vectors(asked)), atol=1e-4)
    assert (
        made.predict_proba(asked).argmax(1)
        == np.array([sorted(kinds).index(k) for k in other.column("label").to_pylist()])
    ).mean() > 0.8


def test_the_strength_is_chosen_by_the_likelihood_of_labels_that_a_fit_did_not_see():
    data = labelled(12, noise=0.6)
    chosen = build("adapters.tfidf_classifier").convert({}, data, {})
    losses = {}
    for C in (1.0, 10.0, 100.0, 1000.0):
        kept = build("adapters.tfidf_classifier", {"C": C}).convert({}, data, {}).out_of_fold
        said = softmax(np.array(kept.logits))[np.arange(24), list(kept.labels)]
        losses[C] = -np.log(said).mean()
    assert chosen.facts["C"] == min(losses, key=losses.get) != 1.0
    # Labels that have nothing to do with the texts are best left alone.
    rows = list(data.rows())
    for number, row in enumerate(rows):
        row["label"] = ("animals", "tools")[number // 2 % 2]
    assert build("adapters.tfidf_classifier").convert({}, Dataset.from_rows(rows), {}).facts["C"] == 1.0
    assert build("adapters.tfidf_classifier").convert({}, labelled(1), {}).facts["C"] == 10.0


def test_a_class_of_the_schema_without_rows_is_never_predicted():
    schema = Dataset.from_rows([{"label": "food"}, {"label": "tools"}, {"label": "animals"}])
    with pytest.warns(UserWarning, match="no labelled row is of class food"):
        made = build("adapters.tfidf_classifier").convert({}, labelled(4), {"labels": schema})
    assert made.labels.names == ("food", "tools", "animals")
    probs = made.predict_proba(["cat dog", "saw nail"])
    assert (probs[:, 0] == 0).all() and probs.argmax(1).tolist() == [2, 1]
    assert np.isfinite(np.array(made.out_of_fold.logits)).all()
    assert made.facts["rows_by_class"] == {"food": 0, "tools": 4, "animals": 4}


def test_out_of_fold_scores_are_by_classifiers_that_did_not_see_the_row():
    data = labelled(6)
    made = build("adapters.tfidf_classifier", {"folds": 3, "seed": 2}).convert({}, data, {})
    kept = made.out_of_fold
    assert len(kept.labels) == 12 and np.isfinite(np.array(kept.logits)).all()
    # A row whose label contradicts all others is fitted when it is seen, and missed when it is not.
    rows = list(data.rows())
    rows[0]["label"] = "tools"
    wrong = build("adapters.tfidf_classifier", {"C": 1e4}).convert({}, Dataset.from_rows(rows), {})
    inside = wrong.predict_proba([rows[0]["text"]])[0]
    outside = softmax(np.array(wrong.out_of_fold.logits))[0]
    assert wrong.labels.names[inside.argmax()] == "tools" and wrong.labels.names[outside.argmax()] == "animals"
    other = build("adapters.tfidf_classifier", {"folds": 3, "seed": 3}).convert({}, data, {})
    assert other.out_of_fold != kept, "another seed deals other folds"


def test_the_only_row_of_a_class_has_no_out_of_fold_score():
    rows = [*labelled(3).rows(), {"id": "x", "text": "bread soup", "label": "food"}]
    made = build("adapters.tfidf_classifier").convert({}, Dataset.from_rows(rows), {})
    assert len(made.out_of_fold.labels) == 6 and made.labels.names.index("food") not in made.out_of_fold.labels


def test_machine_labels_train_and_are_told_apart_from_gold():
    rows = [*labelled(3).rows(), *labelled(4, seed=1, label_source="teacher:x").rows()]
    made = build("adapters.tfidf_classifier").convert({}, Dataset.from_rows(rows), {})
    assert made.facts["labels_by_source"] == {"teacher:x": 8, "gold": 6}
    assert len(made.out_of_fold.labels) == 6, "only gold rows say how good it is"


def test_bad_rows_are_one_clear_error():
    method = build("adapters.tfidf_classifier")
    with pytest.raises(InputError, match="no labelled rows"):
        method.convert({}, None, {})
    with pytest.raises(InputError, match="one class"):
        method.convert({}, labelled(4, ("animals",)), {})
    twice = [{"id": "a", "text": "a cat", "label": "animals"}, {"id": "b", "text": "a  cat", "label": "tools"}]
    with pytest.raises(InputError, match="different gold labels") as caught:
        method.convert({}, Dataset.from_rows([*twice, *labelled(2).rows()]), {})
    assert "rows a and b" in str(caught.value)
