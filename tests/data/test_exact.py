"""data.dedup.exact."""

import random

import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.data.dedup.exact import Exact

PROOF = {"data.dedup.exact": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/dedup/exact.py", "(-value[row], ids[row])", "(value[row], ids[row])"),
    ("src/tutelage/core/text/duplicates.py", '"NFC", text).lower().split()', '"NFC", text).split()'),
]
ROWS = [
    {"id": "c", "text": "Hello  World", "quality": 1.0},
    {"id": "a", "text": "hello world\n", "quality": 1.0},
    {"id": "b", "text": "HELLO WORLD", "quality": 3.0},
    {"id": "d", "text": "other", "quality": 0.0},
    {"id": "e", "text": "caf\u00e9", "quality": float("nan")},
    {"id": "f", "text": "cafe\u0301", "quality": 0.5},
]


def dedup(rows, **fields):
    return apply_transform(Exact(**fields), Dataset.from_rows(rows), {})


def test_lowest_id_or_highest_priority_stays():
    assert dedup(ROWS).ids() == ["a", "d", "e"]
    by_quality = dedup(ROWS, priority_column="quality")
    assert by_quality.ids() == ["b", "d", "f"]
    assert dict(zip(*by_quality.dropped.to_pydict().values())) == {
        "a": "duplicate of b",
        "c": "duplicate of b",
        "e": "duplicate of f",
    }
    assert dedup(ROWS, strict=True).num_rows == 6


def test_result_does_not_depend_on_order_and_a_second_pass_finds_nothing():
    rng = random.Random(0)
    rows = [{"id": f"r{i}", "text": rng.choice("abcdefgh") + " text"} for i in range(60)]
    expected = {}
    for row in rows:
        expected[row["text"]] = min(expected.get(row["text"], row["id"]), row["id"])
    first = dedup(rows)
    assert set(first.ids()) == set(expected.values())
    rng.shuffle(rows)
    assert set(dedup(rows).ids()) == set(first.ids())
    assert dedup(list(first.rows())).num_rows == first.num_rows


def test_text_that_is_none_and_columns_that_are_wrong():
    with pytest.raises(InputError, match="does not hold text") as error:
        dedup([{"id": "x9", "text": 5}])
    assert "x9" in str(error.value)
    with pytest.raises(InputError, match="did you mean quality"):
        dedup(ROWS, priority_column="qualty")
    assert dedup([{"id": "a", "text": None}, {"id": "b", "text": "x"}]).ids() == ["a", "b"]
