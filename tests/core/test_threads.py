"""Shards scored in threads come back in order, as if one after another; an error reaches the caller."""

import threading
import time

import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.discovery import build
from tutelage.core.threads import in_threads

MUTATIONS = [
    (
        "src/tutelage/core/threads.py",
        "yield running.popleft().result()\n        while",
        "yield running.pop().result()\n        while",
    ),
    ("src/tutelage/core/threads.py", "if len(running) == threads", "if len(running) == 99"),
]


def test_order_is_kept_and_no_more_than_the_threads_wait():
    taken, most = [], []

    def items():
        for i in range(12):
            taken.append(i)
            yield i

    def slow(i):
        time.sleep(0.02 if i % 2 else 0.001)
        return i

    for done in in_threads(slow, items(), 3):
        most.append(len(taken) - done)
    assert taken == list(range(12)) and max(most) <= 3
    assert list(in_threads(slow, range(12), 3)) == list(range(12))


def test_two_run_at_once_and_an_error_comes_out():
    meeting = threading.Barrier(2, timeout=10)

    def meet(i):
        meeting.wait()
        if i == 3:
            raise ValueError("the third")
        return i

    found = in_threads(meet, range(4), 2)
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(found)


@pytest.mark.parametrize("name", ["signals.similarity_tfidf", "signals.ngram_overlap", "signals.heuristic_rules"])
def test_scores_of_many_shards_equal_those_of_one(name, tmp_path):
    rows = [
        {"id": str(i), "text": f"row {i} of some words, {i * 7 % 11} and {i % 5}. " * (1 + i % 4)}
        for i in range(60)
    ]
    whole, builder = Dataset.from_rows(rows), DatasetBuilder(rows_per_shard=15)
    for row in rows:
        builder.add(row)
    parts = builder.finish()
    assert parts.num_shards == 4 and whole.num_shards == 1
    scorer = build(name)
    assert scorer.threads == 2
    inputs = {"reference": Dataset.from_rows(rows[:5]), "evaluation": Dataset.from_rows(rows[:5])}
    one, many = (score_dataset(scorer, data, inputs) for data in (whole, parts))
    assert list(one.rows()) == list(many.rows())
