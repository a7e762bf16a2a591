"""signals.label_errors: the confident joint of cleanlab, planted errors found, in-sample probabilities refused."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.signals.label_errors import LabelErrors, confident_class, confident_joint, thresholds

PROOF = {"signals.label_errors": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/label_errors.py", "probs >= least - SLACK", "probs >= 0.5"),
    (
        "src/tutelage/signals/label_errors.py",
        "labels[known] * classes + found[known]",
        "found[known] * classes + labels[known]",
    ),
    ("src/tutelage/signals/label_errors.py", "np.where(passed, probs, -1.0).argmax", "probs.argmax"),
    ("src/tutelage/signals/label_errors.py", "(found != labels) &", "(found == labels) &"),
    (
        "src/tutelage/signals/label_errors.py",
        "kept = np.flatnonzero(fold != number)",
        "kept = np.arange(len(fold))",
    ),
    ("src/tutelage/signals/label_errors.py", "if len(set(values)) < 2 or None in values:", "if False:"),
    ("src/tutelage/signals/label_errors.py", "space.index(one, f", "classes.index(one, 0) + 0 * len(f"),
    ("src/tutelage/signals/label_errors.py", "np.maximum(spoken.sum(axis=0), 1)", "len(stacked)"),
    ("src/tutelage/signals/label_errors.py", "(confidence >= self.least_confidence)", "True"),
]
# compute_confident_joint(labels, probs, calibrate=False) of cleanlab 2.9.0 on `planted(seed)`.
CLEANLAB = {
    0: [[120, 6, 3, 10], [6, 97, 8, 4], [3, 2, 77, 8], [3, 5, 4, 41]],
    1: [[136, 3, 6, 11], [9, 94, 7, 0], [5, 5, 62, 3], [3, 6, 4, 37]],
    2: [[134, 4, 4, 7], [5, 93, 7, 7], [4, 4, 68, 4], [8, 2, 6, 40]],
}
NAMES = ("crime", "film", "money", "sport")
WORDS = {
    "crime": "court judge police theft trial",
    "film": "actor scene cinema director screen",
    "money": "bank share profit market price",
    "sport": "goal match team player season",
}


def planted(seed=0, rows=600, noise=0.1, sharp=2.0):
    """(true classes, given labels, probabilities of a judge that knows nothing of the labels)."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(4, rows, p=[0.4, 0.3, 0.2, 0.1])
    logits = rng.normal(size=(rows, 4))
    logits[np.arange(rows), truth] += sharp
    probs = np.exp(logits)
    probs /= probs.sum(1, keepdims=True)
    labels = np.where(rng.random(rows) < noise, (truth + rng.integers(1, 4, rows)) % 4, truth)
    return truth, labels, probs


def dataset(labels, probs=None, texts=None, **columns):
    return Dataset.from_rows(
        {
            "id": f"r{i}",
            "text": texts[i] if texts else f"row {i}",
            "label": None if label is None else NAMES[label],
            "teacher_probs": None if probs is None or probs[i] is None else [float(p) for p in probs[i]],
            "classes": list(NAMES),
            **{name: values[i] for name, values in columns.items()},
        }
        for i, label in enumerate(labels)
    )


def written(seed=0, rows=240, noise=0.1):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, rows)
    texts = [
        " ".join(rng.choice(WORDS[NAMES[k]].split() + "the of and".split(), 12)) + f" {i}"
        for i, k in enumerate(truth)
    ]
    wrong = rng.random(rows) < noise
    labels = np.where(wrong, (truth + rng.integers(1, 4, rows)) % 4, truth)
    return truth, labels, texts


def judge(data, inputs=None, **fields):
    return score_dataset(LabelErrors(**fields), data, inputs or {})


def column(found, name):
    return found.column(name).to_pylist()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_confident_joint_is_that_of_cleanlab(seed):
    _, labels, probs = planted(seed)
    found = confident_class(probs, thresholds(labels, probs))
    assert confident_joint(labels, found, 4).tolist() == CLEANLAB[seed]
    state = LabelErrors(judges=("teacher_probs",), out_of_fold=False).fit(dataset(labels, probs), {})
    assert np.asarray(state["joint"]).tolist() == CLEANLAB[seed]
    off = sum(map(sum, CLEANLAB[seed])) - sum(CLEANLAB[seed][k][k] for k in range(4))
    assert state["suspect"].sum() == off == 62


def test_by_hand():
    probs = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.55, 0.45]])
    labels = np.array([0, 0, 1, 1])
    assert thresholds(labels, probs) == pytest.approx([0.75, 0.575])
    assert confident_class(probs, thresholds(labels, probs)).tolist() == [0, -1, 1, -1]
    assert thresholds(np.array([0, 0]), probs[:2]).tolist() == [0.75, 2.0]
    # The likeliest of the classes that pass, where a likelier one does not.
    three = np.array([[0.5, 0.3, 0.2]])
    assert confident_class(three, np.array([0.6, 0.25, 0.1])).tolist() == [1]


def test_planted_errors_are_found_without_any_judge():
    truth, labels, texts = written()
    found = judge(dataset(labels, texts=texts))
    suspect, wrong = np.array(column(found, "label_suspect")), labels != truth
    assert suspect[wrong].mean() > 0.8 and suspect[~wrong].mean() < 0.05
    suggested = column(found, "suggested_label")
    assert np.mean([suggested[i] == NAMES[truth[i]] for i in np.flatnonzero(suspect & wrong)]) > 0.95
    score = np.where(suspect, [c or 0.0 for c in column(found, "label_error_confidence")], 0.0)
    assert average_precision_score(wrong, score) > 0.8
    assert judge(dataset(labels, texts=texts), seed=1).hash != found.hash
    assert judge(dataset(labels, texts=texts), folds=3, C=5.0).hash != found.hash


def test_copies_of_a_row_teach_nothing_about_it():
    _, labels, texts = written(1, rows=120, noise=0.0)
    # One text with a wrong label, five times: seen together they would vouch for each other.
    labels, texts = [*labels, *[0] * 5], [*texts, *["goal match team player season"] * 5]
    found = judge(dataset(labels, texts=texts), rule="disagree")
    assert column(found, "label_suspect")[-5:] == [True] * 5
    assert set(column(found, "suggested_label")[-5:]) == {"sport"}


def test_judges_are_averaged_and_may_be_silent():
    _, labels, first = planted(3, noise=0.1, sharp=1.2)
    _, _, second = planted(3)
    half = [None if i % 2 else p for i, p in enumerate(second)]
    data = dataset(labels, first, other=[None if p is None else p.tolist() for p in half])
    both = judge(data, judges=("teacher_probs", "other"), out_of_fold=False, rule="disagree")
    mean = np.where((np.arange(600) % 2)[:, None], first, (first + second) / 2)
    assert column(both, "suggested_label") == [NAMES[k] for k in mean.argmax(1)]
    assert column(both, "label_error_confidence") == pytest.approx(list(mean.max(1)))
    assert np.array_equal(column(both, "label_suspect"), mean.argmax(1) != labels)
    sure = judge(data, judges=("teacher_probs", "other"), out_of_fold=False, rule="disagree", least_confidence=0.6)
    assert np.array_equal(column(sure, "label_suspect"), (mean.argmax(1) != labels) & (mean.max(1) >= 0.6))
    silent = judge(dataset(labels, [None, *first[1:]]), judges=("teacher_probs",), out_of_fold=False)
    assert column(silent, "label_suspect")[0] is False and column(silent, "suggested_label")[0] is None
    # Judges in another order of classes.
    turned = dataset(labels, first[:, ::-1]).with_columns("turn", [{"classes": [list(NAMES[::-1])] * 600}])
    ours = judge(turned, judges=("teacher_probs",), out_of_fold=False)
    straight = judge(dataset(labels, first), judges=("teacher_probs",), out_of_fold=False)
    assert column(ours, "suggested_label") == column(straight, "suggested_label")


def test_in_sample_probabilities_are_refused():
    _, labels, probs = planted()
    seen = dataset(labels, probs, where=[i % 3 for i in range(600)], one=[0] * 600)
    for fields in ({}, {"fold": "absent"}, {"fold": "one"}):
        with pytest.raises(InputError, match="needs out-of-fold probabilities"):
            judge(seen, probs="teacher_probs", **fields)
    fine = judge(seen, probs="teacher_probs", fold="where", out_of_fold=False)
    assert fine.hash == judge(seen, judges=("teacher_probs",), out_of_fold=False).hash
    with pytest.raises(InputError, match="needs out-of-fold"):
        judge(dataset(labels, probs, where=[None, *range(599)]), probs="teacher_probs", fold="where")


def test_rows_without_a_label_or_alone_in_their_class_are_not_judged():
    _, labels, texts = written(2, rows=90, noise=0.0)
    labels = [None, *(k % 3 for k in labels[1:-1]), 3]
    with pytest.warns(UserWarning, match="1 rows are alone"):
        found = judge(dataset(labels, texts=texts))
    assert column(found, "label_suspect")[0] is None
    assert column(found, "label_suspect")[-1] is False and column(found, "label_error_confidence")[-1] is None


def test_an_encoder_may_stand_in_for_n_grams():
    from tutelage.models.toy import tiny_encoder

    _, labels, texts = written(3, rows=60)
    encoder = tiny_encoder(texts=texts)
    data = dataset(labels, texts=texts)
    assert judge(data, {"encoder": encoder}).hash != judge(data).hash


def test_bad_input():
    _, labels, probs = planted()
    with pytest.raises(ConfigError, match="nobody to judge"):
        judge(dataset(labels, probs), out_of_fold=False)
    with pytest.raises(InputError, match="all labelled rows have one class"):
        judge(dataset([1] * 20))
    with pytest.raises(
        InputError, match=r"no distribution[\s\S]*row r0, field teacher_probs|row r0, field teacher_probs"
    ):
        judge(dataset(labels, probs * 2), judges=("teacher_probs",))
    with pytest.raises(InputError, match="no column 'nobody'"):
        judge(dataset(labels, probs), judges=("nobody",))
    schema = Dataset.from_rows([{"label": name} for name in NAMES[:3]])
    with pytest.raises(InputError, match="not a class of the schema"):
        judge(dataset(labels, probs), {"labels": schema})
