"""The rows in the order in which they stand, again and again.

Epoch e is 0, 1, ..., N - 1 for every e; the order of the dataset is the curriculum.
"""

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.method import Draws, Sampler
from tutelage.data._shared import EpochDraws, require_rows

CARD = {
    "name": "data.order.sequential",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Draws the rows in the order in which they stand.",
    "cost": "nothing",
    "baseline": "data.order.shuffle",
    "headline": "for data whose order was made on purpose; usually worse than shuffling otherwise",
    "version": 1,
}


class Sequential(Sampler):
    """No fields: the order is the dataset's."""

    def start(self, dataset: Dataset, seed: int) -> Draws:
        rows = require_rows(dataset, self.name)
        return EpochDraws(rows, seed, lambda epoch: np.arange(rows))
