"""A learning-rate search: one short run for each rate of a small log grid, the lowest loss wins.

Every arm of a comparison gets the same grid and the same budget for each trial; "tuned baseline" means this. A
best rate at an edge of the grid is reported, because the best one may lie outside.
"""

import math
import time
from collections.abc import Callable, Sequence

from tutelage.core.errors import ConfigError, TrainingError
from tutelage.core.records import Record

GRID = (1e-4, 3e-4, 1e-3, 3e-3)


class Trial(Record):
    """One rate: the loss it reached (infinity where training broke down, with the reason) and its seconds."""

    learning_rate: float
    loss: float
    seconds: float
    failed: str = ""


class Search(Record):
    """All trials in the order of the grid; `at_edge`: the best rate is the lowest or highest of the grid."""

    trials: tuple[Trial, ...]
    best: float
    at_edge: bool


def search_learning_rate(train_once: Callable[[float], float], grid: Sequence[float] = GRID) -> Search:
    """Call `train_once(rate)`, which trains from the start and returns a validation loss (lower is better).

    A loss that is not finite, or a TrainingError, counts as infinite. Of equal losses the lower rate wins. Raises
    ConfigError for a grid that is not positive and increasing, TrainingError when every rate fails.
    """
    if not grid or any(not 0 < rate < math.inf for rate in grid) or list(grid) != sorted(set(grid)):
        raise ConfigError(
            "a grid of learning rates is not valid",
            where="grid",
            expected="positive numbers, each larger than the one before",
            found=list(grid),
        )
    trials = []
    for rate in grid:
        started, failed = time.perf_counter(), ""
        try:
            loss = float(train_once(rate))
        except TrainingError as error:
            loss, failed = math.inf, error.what
        if not math.isfinite(loss):
            loss, failed = math.inf, failed or "the loss is not finite"
        seconds = time.perf_counter() - started
        trials.append(Trial(learning_rate=rate, loss=loss, seconds=seconds, failed=failed))
    best = min(trials, key=lambda trial: trial.loss)
    if best.failed:
        raise TrainingError(
            "training breaks down at every learning rate of the grid",
            where="learning-rate search",
            found="; ".join(f"{t.learning_rate:g}: {t.failed}" for t in trials),
            remedy="lower the grid, or look at the data",
        )
    return Search(
        trials=tuple(trials),
        best=best.learning_rate,
        at_edge=len(grid) > 1 and best.learning_rate in (grid[0], grid[-1]),
    )
