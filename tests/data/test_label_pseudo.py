"""data.label.pseudo: the official class weights, selection by hand, the identity of the weight cap, refusals."""

import json

import numpy as np
import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.data.label.pseudo import Pseudo, class_weight, sharpened

PROOF = {"data.label.pseudo": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/label/pseudo.py", "-(even - selected) / counts", "-(selected - even) / counts"),
    ("src/tutelage/data/label/pseudo.py", "min(1.0, self.weight_cap * held / total)", "self.weight_cap"),
    ("src/tutelage/data/label/pseudo.py", "** (1.0 / temperature)", "** temperature"),
    ("src/tutelage/data/label/pseudo.py", "counts[counts > 0].min()", "counts.min()"),
    ("src/tutelage/data/label/pseudo.py", "np.argsort(-confidence[order]", "np.argsort(confidence[order]"),
    ("src/tutelage/data/label/pseudo.py", "(row.get(\"label_source\") or GOLD) == GOLD:\n", "False:\n"),
    (
        "src/tutelage/data/label/pseudo.py",
        "labels[open_rows], minlength=len(classes))\n        weights",
        "labels, minlength=len(classes))\n        weights",
    ),
    ("src/tutelage/data/_predictions.py", "row[\"classes\"] != classes or", ""),
]  # fmt: skip
CLASSES = ["a", "b", "c"]


def pool(probs, **columns):
    rows = []
    for i, row in enumerate(probs):
        more = {name: values[i] for name, values in columns.items()}
        rows.append({"id": f"p{i}", "text": f"text {i}", "predicted_probs": list(row), "classes": CLASSES} | more)
    return Dataset.from_rows(rows)


def top(label, confidence):
    return [confidence if name == label else (1 - confidence) / 2 for name in CLASSES]


def gold(count=2, **fields):
    rows = [{"id": f"g{i}", "text": f"gold {i}", "label": CLASSES[i % 3]} for i in range(count)]
    return Dataset.from_rows([{**row, **{k: v[i] for k, v in fields.items()}} for i, row in enumerate(rows)])


def run(data, held=None, **fields):
    return apply_transform(Pseudo(**fields), data, {} if held is None else {"gold": held})


def reasons(found):
    return dict(zip(*(found.dropped.column(c).to_pylist() for c in ("id", "reason"))))


SIX = [top("a", 0.9), top("a", 0.8), top("a", 0.5), top("b", 0.7), top("b", 0.6), top("c", 0.55)]


def test_class_weights_of_the_paper():
    # Three classes of four rows each: the even share counts 5; half of it and twice as much as published.
    assert class_weight(np.array([4, 4, 4])).tolist() == [5.0] * 3
    assert class_weight(np.array([8, 2, 2]))[0] == pytest.approx(3.775, abs=1e-3)
    assert class_weight(np.array([2, 5, 5]))[0] == pytest.approx(7.311, abs=1e-3)
    assert class_weight(np.array([10**9, 0, 10**9]))[1] == 0.0
    assert 2.69 < class_weight(np.array([10**6, 1, 1, 1, 1, 1, 1, 1]))[0] < 10


def test_everything_by_default_with_the_source_named():
    found = run(pool(SIX), class_cap=None)
    assert found.column("label").to_pylist() == ["a", "a", "a", "b", "b", "c"]
    assert set(found.column("label_source").to_pylist()) == {"pseudo:model"}
    assert found.column("label_probs").null_count == 6
    assert found.numpy("label_weight").tolist() == [1.0] * 6
    assert found.report["status"] == "selected" and found.report["by_class"] == {"a": 3, "b": 2, "c": 1}
    assert found.report["mean_confidence"] == pytest.approx(4.05 / 6)


def test_selection_by_confidence_share_and_cap():
    kept = run(pool(SIX), confidence_over=0.55, class_cap=None)
    assert kept.ids() == ["p0", "p1", "p3", "p4"]
    assert kept.report["by_class"] == {"a": 2, "b": 2, "c": 0}
    assert reasons(kept) == {"p2": "pseudo: confidence", "p5": "pseudo: confidence"}
    assert run(pool(SIX), top_share=0.5, class_cap=None).ids() == ["p0", "p1", "p3", "p5"]
    # One row of the smallest class: no class keeps more than twice that.
    capped = run(pool(SIX), class_cap=2.0)
    assert capped.ids() == ["p0", "p1", "p3", "p4", "p5"] and reasons(capped) == {"p2": "pseudo: class cap"}
    # Classes without any row do not count as the smallest.
    assert run(pool(SIX), confidence_over=0.55, class_cap=1.0).num_rows == 4
    backwards = Dataset.from_rows(list(pool(SIX).rows())[::-1])
    assert sorted(run(backwards, class_cap=1.0).ids()) == sorted(run(pool(SIX), class_cap=1.0).ids())


def test_selection_by_neighbours():
    agreement = [0.9, 0.9, 0.5, float("nan"), 0.6, 1.0]
    said = ["a", "b", "a", "b", "b", "c"]
    data = pool(SIX, neighbour_agreement=agreement, neighbour_label=said)
    assert run(data, agreement_over=0.5, confidence_over=0.5).ids() == ["p0", "p4", "p5"]
    with pytest.raises(InputError, match="neighbour_agreement"):
        run(pool(SIX), agreement_over=0.5)


def test_targets():
    soft = run(pool(SIX[:4]), target="soft", class_cap=None)
    assert np.allclose(soft.column("label_probs").to_pylist(), SIX[:4])
    assert soft.column("classes").to_pylist()[0] == CLASSES
    sharp = run(pool(SIX[:4]), target="sharpened", temperature=0.5, class_cap=None)
    squares = np.array(SIX[:4]) ** 2
    assert np.allclose(sharp.column("label_probs").to_pylist(), squares / squares.sum(axis=1, keepdims=True))
    assert np.allclose(sharpened(np.array([[0.5, 0.5, 0.0]]), 0.01), [[0.5, 0.5, 0]])
    assert np.allclose(sharpened(np.array(SIX), 1.0), SIX)


def test_the_weight_cap_is_exact():
    held = gold(3, label_weight=[1.0, 2.0, None], label_source=[None, "gold", "gold"])
    found = run(pool(SIX), held, weight_cap=0.5, class_weights=True, weight=3.0, class_cap=None)
    assert found.numpy("label_weight").sum() == pytest.approx(0.5 * 4.0, abs=1e-12)
    assert found.report["weight_sum"] == pytest.approx(2.0) and found.report["gold_weight_sum"] == 4.0
    # Classes keep the proportions of the class weights: 3, 2 and 1 of six rows, even share 2.
    weights = found.numpy("label_weight")
    assert weights[0] / weights[3] == pytest.approx(class_weight(np.array([3, 2, 1]))[0] / 5.0)
    light = run(pool(SIX), held, weight=0.1, class_cap=None)
    assert light.numpy("label_weight").tolist() == pytest.approx([0.1] * 6)
    machine = gold(3, label_source=["gold", "pseudo:x", "teacher:y"])
    assert run(pool(SIX), machine).report["gold_weight_sum"] == 1.0
    assert run(pool(SIX), held, weight_cap=None, class_cap=None).numpy("label_weight").sum() == 6.0


def test_gold_rows_are_never_relabelled():
    with pytest.raises(InputError, match="id p1 already has a gold label"):
        run(pool(SIX), Dataset.from_rows([{"id": "p1", "text": "other", "label": "a"}]))
    with pytest.raises(InputError, match="id p0 already has a gold label"):
        run(pool(SIX, label=["a", None, None, None, None, None]))
    with pytest.raises(InputError, match="id p2 already has a gold label"):
        run(pool(SIX, label=["a"] * 6, label_source=["pseudo:x"] * 2 + ["gold"] + ["synthetic"] * 3))
    again = run(pool(SIX, label=["b"] * 6, label_source=["pseudo:old"] * 6), source="new", class_cap=None)
    assert again.column("label").to_pylist()[0] == "a"
    assert set(again.column("label_source").to_pylist()) == {"pseudo:new"}
    copied = run(pool(SIX), Dataset.from_rows([{"id": "g", "text": " TEXT  3", "label": "a"}]))
    assert reasons(copied)["p3"] == "pseudo: the text of a gold row"


def test_nothing_selected_is_a_status():
    found = run(pool(SIX), gold(), confidence_over=0.95)
    assert found.num_rows == 0 and found.report["status"] == "no_candidates"
    assert {"label", "label_source", "label_weight"} <= set(found.column_names) or found.column_names
    constant = run(pool([top("a", 0.9)] * 4), gold())
    assert constant.num_rows == 0 and constant.report["status"] == "constant"
    empty = run(pool(SIX).keep(np.zeros(6, bool), "gone"))
    assert empty.num_rows == 0 and empty.report["status"] == "no_candidates"
    json.dumps(found.report)


def test_the_distance_from_gold_is_reported():
    skewed = run(pool([*SIX[:3], top("a", 0.6), SIX[3]]), gold(30), class_cap=None)
    share = np.array([0.8, 0.2])
    assert skewed.report["kl_from_gold"] == pytest.approx(float((share * np.log(share * 3)).sum()))
    assert run(pool(SIX)).report["kl_from_gold"] is None


def test_refusals():
    rows = list(pool(SIX).rows())
    with pytest.raises(InputError, match="same classes") as error:
        run(Dataset.from_rows([*rows[:2], {**rows[2], "classes": ["a", "c", "b"]}]))
    assert "p2" in str(error.value)
    with pytest.raises(InputError, match="something else than probabilities") as error:
        run(pool([*SIX[:2], [0.5, 0.6, 0.2]]))
    assert "p2" in str(error.value)
    with pytest.raises(ConfigError, match="target"):
        Pseudo(target="firm")
