"""Rows whose score lies in [min, max], optionally thinned at random to a budget.

Keep row i if min <= s_i <= max; rows without a score are dropped and counted. The report gives the kept share, and
a threshold that keeps under 1 % or over 99 % warns. With a budget, the rows inside the band are sampled uniformly
by hash(seed, id) until it is reached.
"""

import numpy as np
from pydantic import Field, model_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.core.text.hashing import uniform
from tutelage.data.select._shared import Selection, finish, preference_order, scores, take, warn_share

CARD = {
    "name": "data.select.threshold",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Takes the rows whose score lies between two bounds, thinned at random to a budget if given.",
    "reads": ["{column}"],
    "cost": "one comparison per row",
    "baseline": "data.select.random",
    "headline": "keeps quality constant where top-k keeps quantity constant",
    "version": 1,
}


class Threshold(Transform):
    """Keep `min` <= `column` <= `max`; `budget` (rows or tokens) thins what is inside at random."""

    column: str | None = None
    min: float | None = None
    max: float | None = None
    budget: Budget | None = None
    allow_short: bool = False
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _bounds_in_order(self) -> "Threshold":
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be larger than max")
        return self

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        if dataset.num_rows == 0:
            raise InputError(f"{self.name}: there are no rows to select from")
        values = scores(dataset, self.column, self.name)
        assert self.column is not None
        low = -np.inf if self.min is None else self.min
        high = np.inf if self.max is None else self.max
        inside = (values >= low) & (values <= high)
        kept = int(inside.sum())
        warn_share(kept, dataset.num_rows, self.name)
        if self.budget is None:
            missing = int(np.isnan(values).sum())
            selection = Selection(np.flatnonzero(inside), {"rows_without_score": missing})
        else:
            ids = dataset.ids()
            order = preference_order(np.where(inside, uniform(self.seed, ids), np.nan), ids, self.seed)
            selection = take(dataset, order, self.budget, self.name, self.allow_short)
        facts = {
            "method": self.name,
            "column": self.column,
            "min": self.min,
            "max": self.max,
            "share_inside": kept / dataset.num_rows,
        }
        return finish(dataset, selection, facts, values, self.column)
