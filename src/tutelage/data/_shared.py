"""Running orders shared by the samplers: an endless stream of epochs with an exact, small cursor."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError, StoreError


class EpochDraws:
    """Draws row indices epoch by epoch; `make_epoch(e)` gives the indices of epoch e, the same every time.

    The cursor is (epoch, position): a resumed stream goes on with exactly the next index.
    """

    def __init__(self, rows: int, seed: int, make_epoch: Callable[[int], np.ndarray]) -> None:
        self.rows = rows
        self.seed = seed
        self.epoch = 0
        self._position = 0
        self._make_epoch = make_epoch
        self._current = make_epoch(0)

    def next(self) -> int:
        """Index of the next row to train on."""
        if self._position == len(self._current):
            self.epoch += 1
            self._position = 0
            self._current = self._make_epoch(self.epoch)
        index = int(self._current[self._position])
        self._position += 1
        return index

    def update(self, metrics: Mapping[str, float]) -> None:
        """A fixed order does not listen to losses."""

    def state_dict(self) -> dict[str, Any]:
        """The cursor, and what it belongs to."""
        return {"epoch": self.epoch, "position": self._position, "rows": self.rows, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; a cursor of another dataset or seed is refused."""
        mine = {"rows": self.rows, "seed": self.seed}
        theirs = {name: state.get(name) for name in mine}
        if theirs != mine:
            raise StoreError(
                "a data order cannot be resumed on other data or another seed",
                expected=mine,
                found=theirs,
                remedy="resume with the dataset and the seed of the first run, or start anew",
            )
        self.epoch = int(state["epoch"])
        self._current = self._make_epoch(self.epoch)
        self._position = int(state["position"])


def require_rows(dataset: Dataset, who: str) -> int:
    """Number of rows; none at all is an error."""
    if dataset.num_rows == 0:
        raise InputError(f"{who}: there are no rows to draw from", remedy="look at the steps before this one")
    return dataset.num_rows


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks in (0, 1] of values [n], the largest 1; equal values share the mean of their ranks, NaN has none."""
    ranks = np.full(len(values), np.nan)
    known = ~np.isnan(values)
    _, place, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks[known] = (last - (counts - 1) / 2)[place] / max(1, int(known.sum()))
    return ranks
