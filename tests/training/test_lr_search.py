"""The learning-rate search finds the best of its grid, survives broken runs, and says when it is at an edge."""

import math

import pytest

from toy.training_bed import model, train
from tutelage.core.errors import ConfigError, TrainingError
from tutelage.training._lr_search import Search, search_learning_rate

MUTATIONS = [
    ("src/tutelage/training/_lr_search.py", "best = min(trials", "best = max(trials"),
    ("src/tutelage/training/_lr_search.py", "in (grid[0], grid[-1])", "in (grid[0],)"),
]


def test_finds_the_minimum_and_counts_every_trial():
    calls = []

    def train_once(rate):
        calls.append(rate)
        return abs(math.log10(rate) + 3)

    found = search_learning_rate(train_once, (1e-4, 1e-3, 1e-2))
    assert calls == [1e-4, 1e-3, 1e-2]
    assert (found.best, found.at_edge) == (1e-3, False)
    assert [t.loss for t in found.trials] == pytest.approx([1, 0, 1])
    assert Search.model_validate_json(found.model_dump_json()) == found


def test_edges_ties_and_broken_runs():
    assert search_learning_rate(lambda rate: rate, (1.0, 2.0)).at_edge
    assert search_learning_rate(lambda rate: -rate, (1.0, 2.0)).at_edge
    assert search_learning_rate(lambda rate: 1.0, (1.0, 2.0, 3.0)).best == 1.0

    def breaks(rate):
        if rate > 1:
            raise TrainingError("the loss is not finite")
        return float("nan") if rate < 0.5 else 2.0

    found = search_learning_rate(breaks, (0.1, 1.0, 10.0))
    assert found.best == 1.0
    assert [bool(t.failed) for t in found.trials] == [True, False, True]
    with pytest.raises(TrainingError, match="every learning rate"):
        search_learning_rate(lambda rate: float("inf"), (1.0, 2.0))


@pytest.mark.parametrize("grid", [(), (1.0, 1.0), (2.0, 1.0), (0.0, 1.0), (-1.0,)])
def test_bad_grids(grid):
    with pytest.raises(ConfigError, match="grid"):
        search_learning_rate(lambda rate: rate, grid)


def test_on_real_runs():
    def train_once(rate):
        return train(model("llama"), settings={"learning_rate": rate}).losses[-1]

    assert search_learning_rate(train_once, (1e-5, 1e-2)).best == 1e-2
