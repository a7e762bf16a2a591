"""signals.exact_duplicates."""

from collections import Counter

from toy.planted_pool import make_pool
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.signals.exact_duplicates import ExactDuplicates

PROOF = {"signals.exact_duplicates": ["consistent", "verified"]}
MUTATIONS = [
    (
        "src/tutelage/signals/exact_duplicates.py",
        "sorted(ids[row] for row in group.tolist())",
        "[ids[row] for row in group.tolist()]",
    ),
    ("src/tutelage/signals/exact_duplicates.py", "if o != i else None", "if o == i else None"),
]


def score(rows, **fields):
    return list(score_dataset(ExactDuplicates(**fields), Dataset.from_rows(rows), {}).rows())


def test_original_is_the_lowest_id_and_copies_are_counted():
    found = score([{"id": "c", "text": "A b"}, {"id": "a", "text": "a  B\n"}, {"id": "b", "text": "other"}])
    assert [row["duplicate_of"] for row in found] == ["a", None, None]
    assert [row["duplicate_count"] for row in found] == [2, 2, 1]
    assert [r["duplicate_count"] for r in score([{"text": "A b"}, {"text": "a B"}], strict=True)] == [1, 1]


def test_planted_copies():
    pool = make_pool(300, seed=5)
    counts = Counter(" ".join(row["text"].lower().split()) for row in pool)
    found = {row["id"]: row for row in score(pool)}
    for row in pool:
        assert found[row["id"]]["duplicate_count"] == counts[" ".join(row["text"].lower().split())]
        if row["kind"] == "exact":
            assert found[row["id"]]["duplicate_count"] > 1
    assert sum(r["duplicate_of"] is None for r in found.values()) == len(counts)
