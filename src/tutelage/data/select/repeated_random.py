"""A new random subset in every epoch (RS2): what a clever selection has to beat at equal time.

Without replacement: one permutation is consumed over epochs, m = ceil(r N) rows at a time; when fewer than m are
left, the epoch takes the tail, then continues with a new permutation in which the rows of that tail are moved
behind the epoch's end, so no row occurs twice in an epoch and with r N dividing N every row is seen once per 1/r
epochs. With replacement: every epoch is a fresh uniform subset, expected coverage 1 - (1 - r)^E. The learning-rate
schedule should span the steps really made, E ceil(r N / batch); the trainer's budget does that.
"""

import math

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Draws, Sampler
from tutelage.data._shared import EpochDraws, require_rows

CARD = {
    "name": "data.select.repeated_random",
    "paper": {
        "title": "Repeated Random Sampling for Minimizing the Time-to-Accuracy of Learning",
        "identifier": "arXiv:2305.18424",
    },
    "summary": "Draws a new random subset of the rows in every epoch.",
    "cost": "no scoring at all",
    "baseline": "data.order.shuffle",
    "headline": "the paper gains up to 29 points over data pruning; the row to beat in any selection report",
    "version": 1,
}


class WithoutReplacement:
    """Epochs of `size` rows cut from consecutive permutations; `epoch(e)` is a pure function of (seed, e)."""

    def __init__(self, rows: int, size: int, seed: int) -> None:
        self.rows, self.size, self.seed = rows, size, seed
        self._restart()

    def _restart(self) -> None:
        self._passes = 0
        self._next_epoch = 0
        self._left = self._permutation()

    def _permutation(self) -> np.ndarray:
        found = np.random.default_rng([self.seed, self._passes]).permutation(self.rows)
        self._passes += 1
        return found

    def epoch(self, number: int) -> np.ndarray:
        """Row indices of epoch `number`, int64 [size]."""
        if number < self._next_epoch:
            self._restart()
        while True:
            drawn = self._draw()
            self._next_epoch += 1
            if self._next_epoch == number + 1:
                return drawn

    def _draw(self) -> np.ndarray:
        if len(self._left) >= self.size:
            drawn, self._left = self._left[: self.size], self._left[self.size :]
            return drawn
        tail, fresh = self._left, self._permutation()
        used = np.isin(fresh, tail)
        first = fresh[~used][: self.size - len(tail)]
        self._left = fresh[~np.isin(fresh, first)]
        return np.concatenate([tail, first])


class RepeatedRandom(Sampler):
    """`ratio` r of the rows per epoch, in (0, 1]; `with_replacement` draws epochs independently."""

    ratio: float = Field(default=0.1, gt=0, le=1)
    with_replacement: bool = False

    def start(self, dataset: Dataset, seed: int) -> Draws:
        rows = require_rows(dataset, self.name)
        # The tolerance keeps 0.1 * 30 rows at 3, not 4, despite rounding.
        size = math.ceil(self.ratio * rows - 1e-9)
        if self.with_replacement:
            return EpochDraws(
                rows, seed, lambda e: np.random.default_rng([seed, e]).choice(rows, size, replace=False)
            )
        return EpochDraws(rows, seed, WithoutReplacement(rows, size, seed).epoch)
