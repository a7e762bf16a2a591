"""The rows that a classifier is least sure of: what to have labelled next.

With probabilities q of a row: least confidence 1 - max q; margin -(q_(1) - q_(2)); entropy -sum q log q; BALD
H(mean_s q_s) - mean_s H(q_s) over the columns s of several classifiers, high where each is sure of another class.
The rows with the largest value are taken, ties by id, until the budget is full; a pool smaller than the budget is
taken whole, and the report says `pool_exhausted`.
"""

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.data._predictions import probabilities
from tutelage.data.select._shared import finish, take

CARD = {
    "name": "data.select.uncertain",
    "paper": {
        "title": "A Sequential Algorithm for Training Text Classifiers",
        "identifier": "arXiv:cmp-lg/9407020",
    },
    "summary": "Takes the rows a classifier is least sure of: least confidence, margin, entropy or disagreement.",
    "reads": ["predicted_probs?", "classes"],
    "cost": "one sort",
    "baseline": "data.select.random",
    "headline": "saves labels once a model is roughly right; early on, and in small pools, random is as good",
    "version": 1,
}

Strategy = Literal["confidence", "margin", "entropy", "bald"]


def entropies(probs: np.ndarray) -> np.ndarray:
    """-sum q ln q over the last axis."""
    return -(probs * np.log(np.where(probs > 0, probs, 1.0))).sum(axis=-1)


def uncertainty(probs: np.ndarray, by: Strategy) -> np.ndarray:
    """Larger = less sure, [n]; `probs` [S, n, C] of S classifiers, whose mean counts except for `bald`."""
    mean = probs.mean(axis=0)
    if by == "bald":
        return entropies(mean) - entropies(probs).mean(axis=0)
    if by == "entropy":
        return entropies(mean)
    ordered = np.sort(mean, axis=1)
    if by == "confidence" or mean.shape[1] < 2:
        return 1.0 - ordered[:, -1]
    return ordered[:, -2] - ordered[:, -1]


class Uncertain(Transform):
    """`by` is the measure; `columns` hold probabilities in the order of `classes`, one column for each classifier
    (`bald` needs two at least); `budget` in rows or tokens."""

    by: Strategy = "margin"
    columns: tuple[str, ...] = Field(default=("predicted_probs",), min_length=1)
    budget: Budget | None = None

    @model_validator(mode="after")
    def _several_for_bald(self) -> "Uncertain":
        if self.by == "bald" and len(self.columns) < 2:
            raise ValueError("bald needs two columns of probabilities at least")
        return self

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        if dataset.num_rows == 0:
            raise InputError(f"{self.name}: there are no rows to ask about", remedy="the pool is used up")
        values = uncertainty(np.array([probabilities(dataset, name)[1] for name in self.columns]), self.by)
        # Rounded, so that rows that are equally uncertain are ordered by id and not by the last bit.
        order = np.lexsort((np.array(dataset.ids(), dtype=object), -np.round(values, 12)))
        selection = take(dataset, order, self.budget, self.name, allow_short=True)
        facts = {
            "method": self.name,
            "by": self.by,
            "columns": list(self.columns),
            "status": "pool_exhausted" if len(selection.rows) == dataset.num_rows else "selected",
            "mean_taken": float(values[selection.rows].mean()),
            "mean_all": float(values.mean()),
        }
        return finish(dataset, selection, facts, values, self.by)
