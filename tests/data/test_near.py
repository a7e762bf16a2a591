"""data.dedup.near: one row of each cluster stays, every other row says which."""

import random

from toy.planted_pool import make_pool, near_copy
from tutelage.core.apply import apply_transform, score_dataset
from tutelage.core.dataset import Dataset
from tutelage.data.dedup.exact import Exact
from tutelage.data.dedup.near import Near
from tutelage.signals.near_duplicates import NearDuplicates

PROOF = {"data.dedup.near": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/dedup/near.py", "found.kept == np.arange", "found.kept >= np.arange"),
    ("src/tutelage/data/dedup/near.py", "found.ids[found.kept[row]]}", "found.ids[row]}"),
    ("src/tutelage/data/dedup/near.py", "self.rows, self.seed", "self.bands, self.seed"),
]


def dedup(table, **fields):
    return apply_transform(Near(**fields), Dataset.from_rows(table), {})


def test_every_dropped_row_names_the_kept_one():
    rng = random.Random(0)
    originals = make_pool(200, seed=1, shares={"prose": 1.0})
    rows = [{"id": row["id"], "text": row["text"] + " " + row["text"][::-1], "quality": 1.0} for row in originals]
    copies = [
        {"id": f"copy-{i}", "text": near_copy(row["text"], rng, 0.005), "quality": 2.0}
        for i, row in enumerate(rng.sample(rows, 40))
    ]
    got = dedup(rows + copies)
    dropped = dict(zip(*got.dropped.to_pydict().values()))
    assert got.num_rows + len(dropped) == 240 and len(dropped) >= 36
    kept = set(got.ids())
    assert all(reason.startswith("near-duplicate of ") for reason in dropped.values())
    assert {reason.removeprefix("near-duplicate of ") for reason in dropped.values()} <= kept
    assert got.report["rows_in"] == 240 and got.report["rows_kept"] == got.num_rows
    assert got.report["clusters"] == len(set(dropped.values()))
    best = dedup(rows + copies, priority_column="quality")
    assert sum(identifier.startswith("copy-") for identifier in best.ids()) == len(dropped)


def test_the_same_rows_as_the_signal_shows():
    rows = make_pool(300, seed=2)
    for fields in ({}, {"n": 3, "bands": 20, "rows": 4, "min_jaccard": None, "seed": 5}):
        scored = list(score_dataset(NearDuplicates(**fields), Dataset.from_rows(rows), {}).rows())
        assert dedup(rows, **fields).ids() == [row["id"] for row in scored if row["dup_keep"]]


def test_a_second_pass_drops_nothing_and_exact_copies_go_too():
    rows = make_pool(300, seed=3)
    first = dedup(rows)
    assert first.num_rows < Exact().apply(Dataset.from_rows(rows), {}).num_rows
    assert dedup(list(first.rows())).num_rows == first.num_rows
    assert dedup(rows, min_jaccard=1.0).num_rows > first.num_rows
