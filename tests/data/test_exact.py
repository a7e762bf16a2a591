"""data.dedup.exact."""

import itertools
import random
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.text import pieces
from tutelage.core.text.duplicates import canonical, digest128, equal_rows, keys_of, text_keys
from tutelage.data.dedup.exact import Exact

PROOF = {"data.dedup.exact": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/dedup/exact.py", "(rank, -value, group)", "(rank, value, group)"),
    ("src/tutelage/core/text/duplicates.py", '"NFC", piece).lower()', '"NFC", piece)'),
    ("src/tutelage/core/text/duplicates.py", '_WHITE.sub(" ", ', '_WHITE.sub("", '),
    ("src/tutelage/core/text/duplicates.py", "extra[1:] &= space[:-1]", "extra[1:] &= space[1:]"),
    (
        "src/tutelage/core/text/duplicates.py",
        "(ordered[1:] != ordered[:-1]).any(",
        "(ordered[1:] != ordered[:-1]).all(",
    ),
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


@pytest.mark.parametrize("dense", [0, 40])
@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text("aA \n\t\x1c\x85é\u0301ÉΣ\u3000.", max_size=7) | st.text("aA \n\x1f", max_size=9), max_size=9)
)
def test_keys_are_those_of_the_canonical_forms_and_rows_with_equal_ones_meet(dense, texts):
    array = pa.array(texts, pa.large_string())
    for strict in (False, True):
        forms = [canonical(text, strict) for text in texts]
        with patch.object(pieces, "_DENSE", dense):
            keys = text_keys(array, strict)
        assert np.array_equal(keys, keys_of([digest128(form) for form in forms]))
        rows, starts = equal_rows(keys)
        groups = [rows[a:b].tolist() for a, b in itertools.pairwise(starts.tolist())]
        same = [[i for i, other in enumerate(forms) if other == form] for form in dict.fromkeys(forms)]
        assert sorted(groups) == sorted(group for group in same if len(group) > 1)


def test_rows_with_half_a_key_in_common_are_not_equal():
    keys = np.array([[1, 1], [1, 2], [1, 1], [2, 2], [1, 3]], dtype=np.uint64)
    rows, starts = equal_rows(keys)
    assert rows.tolist() == [0, 2] and starts.tolist() == [0, 2]


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
