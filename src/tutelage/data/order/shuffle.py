"""A new random permutation of all rows in every epoch, with exact resume.

Epoch e is the permutation drawn by PCG64 seeded with (seed, e): it needs no memory of earlier epochs, so the
cursor (epoch, position) restores the stream exactly.
"""

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.method import Draws, Sampler
from tutelage.data._shared import EpochDraws, require_rows

CARD = {
    "name": "data.order.shuffle",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Draws all rows in a fresh random order every epoch.",
    "cost": "one permutation per epoch",
    "baseline": None,
    "headline": "the order every other order is compared with",
    "version": 1,
}


def permutation(rows: int, seed: int, epoch: int) -> np.ndarray:
    """Row indices of one epoch, int64 [rows]."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


class Shuffle(Sampler):
    """No fields: the seed comes from the trainer."""

    def start(self, dataset: Dataset, seed: int) -> Draws:
        rows = require_rows(dataset, self.name)
        return EpochDraws(rows, seed, lambda epoch: permutation(rows, seed, epoch))
