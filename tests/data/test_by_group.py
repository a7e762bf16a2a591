"""data.split.by_group: nothing leaks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.data.split.by_group import ByGroup, join_groups

PROOF = {"data.split.by_group": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/split/by_group.py", "parent[b] = a", "pass"),
    ("src/tutelage/data/split/by_group.py", "np.argmax(goal - filled)", "np.argmin(goal - filled)"),
    ("src/tutelage/data/split/by_group.py", "canonical(text)", "text"),
    ("src/tutelage/data/split/by_group.py", "np.cumsum(shares)", "shares"),
]


def corpus(groups=300, per_group=4):
    return [
        {"id": f"g{g}-{i}", "text": f"text {g} {i}", "topic": f"t{g}"}
        for g in range(groups)
        for i in range(per_group)
    ]


def split(rows, **fields):
    return apply_transform(ByGroup(group_column="topic", **fields), Dataset.from_rows(rows), {})


def parts_of(data, key):
    found = {}
    for row in data.rows():
        found.setdefault(row[key], set()).add(row["split"])
    return found


def test_no_group_in_two_parts_and_shares_hold():
    data = split(corpus())
    assert all(len(parts) == 1 for parts in parts_of(data, "topic").values())
    share = data.report["parts"]["train"]["share_of_rows"]
    assert abs(share - 0.8) < 4 * np.sqrt(0.16 / 300)


def test_adding_and_reordering_rows_moves_nothing():
    rows = corpus()
    before = {r["id"]: r["split"] for r in split(rows[::-1]).rows()}
    after = {r["id"]: r["split"] for r in split(corpus(400)).rows()}
    assert all(after[i] == part for i, part in before.items())
    other = {r["id"]: r["split"] for r in split(rows, seed=1).rows()}
    assert other != before


def test_balanced_shares_are_exact():
    data = split(corpus(10, 3), balanced=True, parts={"guide": 0.5, "target": 0.5})
    assert {p["rows"] for p in data.report["parts"].values()} == {15}
    data = split(corpus(100, 1), balanced=True)
    assert [p["rows"] for p in data.report["parts"].values()] == [80, 10, 10]


def test_equal_texts_never_straddle():
    rows = corpus()
    for i in range(0, 40, 2):
        rows[4 * i]["text"] = f"Copy {i}  of a TEXT"
        rows[4 * (i + 1)]["text"] = f"copy {i} of a text"
    data = split(rows)
    texts = {}
    for row in data.rows():
        texts.setdefault(" ".join(row["text"].lower().split()), set()).add(row["split"])
    assert all(len(parts) == 1 for parts in texts.values())
    assert data.report["groups"] == 300 and data.report["groups_after_joining"] == 280
    assert ["t0", "t1"] in data.report["joined_by_identical_text"]


def reference_components(groups, keys):
    """Connected components by repeated passes: slow and plain."""
    label = {g: g for g in groups}
    changed = True
    while changed:
        changed = False
        for g, k in zip(groups, keys):
            smallest = min(label[x] for x, y in zip(groups, keys) if y == k or x == g)
            changed |= smallest != label[g]
            label[g] = smallest
    return [label[g] for g in groups]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.binary(min_size=1, max_size=1)), max_size=14))
def test_union_find_equals_brute_force(pairs):
    groups, keys = [g for g, _ in pairs], [k[:1] for _, k in pairs]
    assert join_groups(groups, keys) == reference_components(groups, keys)


def test_without_a_group_column_rows_split_alone():
    data = apply_transform(ByGroup(), Dataset.from_rows(corpus()), {})
    assert max(len(parts) for parts in parts_of(data, "topic").values()) > 1
    assert data.report["groups"] == 1200


def test_bad_input():
    with pytest.raises(ConfigError, match="sum to 1"):
        ByGroup(parts={"a": 0.5, "b": 0.4})
    with pytest.raises(InputError, match="stays empty"):
        split(corpus(1))
    with pytest.raises(InputError, match="no topic") as error:
        split([*corpus(9), {"id": "odd", "text": "x", "topic": None}])
    assert "odd" in str(error.value)
    with pytest.raises(InputError, match="did you mean topic"):
        apply_transform(ByGroup(group_column="topics"), Dataset.from_rows(corpus(9)), {})
    with pytest.raises(InputError, match="no rows"):
        split(corpus(1)[:0])
