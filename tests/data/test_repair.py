"""data.label.repair: what happens to suspects, and what may never happen to what people said."""

import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.labels import label_sources
from tutelage.data.label.repair import Repair

PROOF = {"data.label.repair": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/label/repair.py", "return confidence >= self.over", "return confidence > 0"),
    ("src/tutelage/data/label/repair.py", 'row.get("split") == TEST', "False"),
    ("src/tutelage/data/label/repair.py", 'return self.gold == "change" or', "return True or"),
    (
        "src/tutelage/data/label/repair.py",
        'old * (1.0 - row["label_error_confidence"])',
        'row["label_error_confidence"]',
    ),
    ("src/tutelage/data/label/repair.py", "labels[i], told, GOLD", "labels[i], told, SOURCE"),
    ("src/tutelage/data/label/repair.py", 'row["suggested_label"], SOURCE', 'row["suggested_label"], GOLD'),
]


def row(name, label="a", suspect=True, sure=0.9, suggested="b", **more):
    found = {"id": name, "label": label, "label_suspect": suspect, "label_error_confidence": sure}
    found |= {"suggested_label": suggested, "label_source": "teacher:x", "confirmed": None, "split": "train"}
    return {**found, **more}


ROWS = [
    row("plain", suspect=False, suggested="a"),
    row("machine"),
    row("person", label_source="gold"),
    row("unsure", sure=0.4),
    row("test", split="test", label_source="gold"),
    row("confirmed", split="test", label_source="gold", confirmed="c"),
    row("upheld", confirmed="a", label_source="gold"),
    row("silent", suspect=None, sure=None, suggested=None, label=None, label_source=None),
]


def repair(rows=ROWS, **fields):
    return apply_transform(Repair(**fields), Dataset.from_rows(rows), {})


def by_id(found, name):
    return dict(zip(found.ids(), found.column(name).to_pylist()))


def test_filter_drops_suspects_with_the_reason():
    found = repair()
    assert found.ids() == ["plain", "unsure", "test", "confirmed", "upheld", "silent"]
    gone = dict(zip(*(found.dropped.column(name).to_pylist() for name in ("id", "reason"))))
    assert gone == dict.fromkeys(("machine", "person"), "label suspect: a, rather b (0.90)")
    assert by_id(found, "label")["confirmed"] == "c"
    assert found.report["dropped"] == 2 and found.report["confirmed"] == 1
    assert "unsure" not in repair(over=0.3).ids()


def test_flip_takes_suggestions_but_not_from_people():
    found = repair(action="flip")
    assert by_id(found, "label") == {"plain": "a", "machine": "b", "person": "a", "unsure": "a", "test": "a",
                                     "confirmed": "c", "upheld": "a", "silent": None}  # fmt: skip
    sources = by_id(found, "label_source")
    assert (sources["machine"], sources["person"], sources["confirmed"]) == ("pseudo:label_errors", "gold", "gold")
    assert sources["plain"] == "teacher:x" and sources["silent"] is None
    assert by_id(found, "label_before")["machine"] == "a" and by_id(found, "label_before")["plain"] is None
    changed = repair(action="flip", gold="change")
    assert by_id(changed, "label")["person"] == "b" and by_id(changed, "label")["test"] == "a"
    assert by_id(changed, "label_source")["person"] == "pseudo:label_errors"
    assert label_sources(changed)["pseudo:label_errors"] == 2
    assert found.report["flipped"] == 1 and changed.report["flipped"] == 2


def test_weight_counts_suspects_less():
    rows = [{**one, "label_weight": 2.0} for one in ROWS]
    weights = by_id(repair(rows, action="weight"), "label_weight")
    assert weights["machine"] == pytest.approx(0.2) and weights["person"] == pytest.approx(0.2)
    assert weights["test"] == weights["plain"] == weights["unsure"] == 2.0
    fresh = by_id(repair(action="weight"), "label_weight")
    assert fresh["machine"] == pytest.approx(0.1) and fresh["plain"] is None


def test_rows_without_a_source_are_a_persons():
    rows = [{k: v for k, v in one.items() if k != "label_source"} for one in ROWS]
    found = repair(rows, action="flip")
    assert by_id(found, "label")["machine"] == "a"
    assert by_id(repair(rows, action="flip", gold="change"), "label_source")["plain"] == "gold"


def test_bad_input():
    with pytest.raises(InputError, match=r"lacks what repairing[\s\S]*row machine"):
        repair([row("machine", suggested=None), row("other")], action="flip")
    with pytest.raises(InputError, match="no column 'label_suspect'"):
        repair([{"id": "a", "label": "x"}])
