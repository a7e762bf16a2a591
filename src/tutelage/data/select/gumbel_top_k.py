"""Sampling without replacement in proportion to exp(score / temperature): add Gumbel noise, take the top.

z_i = standardised score (larger = better), over all rows, or with `standardise_within` over the rows that share a
value of that column, so that groups with other levels compete by their places inside the group; key_i = z_i / tau
+ g_i with g_i = -ln(-ln u_i) and u_i = hash64(seed, id) / 2^64; the largest keys are taken until the budget is
reached. This is sequential sampling with probability proportional to exp(z_i / tau) among the rows that remain
(Plackett-Luce). tau -> 0 is top-k, tau -> infinity is uniform. The sign is turned before the noise is added:
adding noise to a loss and taking the smallest is another distribution. Hash noise makes choices nested across
budgets and independent of sharding.
"""

import warnings

import numpy as np
from pydantic import Field, model_validator

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.core.text.hashing import uniform
from tutelage.data.select._shared import Direction, finish, preference_order, scores, signed, take

CARD = {
    "name": "data.select.gumbel_top_k",
    "paper": {
        "title": "QuRating: Selecting High-Quality Data for Training Language Models",
        "identifier": "arXiv:2402.09739",
    },
    "summary": "Samples rows without replacement, the likelier the better their score, up to a budget.",
    "reads": ["{column}"],
    "cost": "one hash per row and one sort",
    "baseline": "data.select.random",
    "headline": "the paper finds sampling better than top-k because diversity is kept; not verified here",
    "version": 1,
}


def gumbel_keys(good: np.ndarray, noise: np.ndarray, temperature: float) -> np.ndarray:
    """Keys [n] for scores `good` [n] (larger = better) and uniform `noise` [n] in (0, 1)."""
    return good / temperature - np.log(-np.log(noise))


def standardise(values: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """(x - mean) / standard deviation, NaN left alone, within each value of `groups` [n] where given; zeros (with
    a warning) where all are equal."""
    if groups is not None:
        found = np.full(len(values), np.nan)
        for group in np.unique(groups):
            here = groups == group
            if not np.isnan(values[here]).all():
                found[here] = standardise(values[here])
        return found
    spread = np.nanstd(values)
    # Equal values can leave a rounding residue that must not be blown up.
    if not spread > 1e-12 * max(1.0, float(np.nanmax(np.abs(values)))):
        warnings.warn("all scores are equal: the selection is uniform among them", stacklevel=3)
        return np.where(np.isnan(values), np.nan, 0.0)
    return (values - np.nanmean(values)) / spread


class GumbelTopK(Transform):
    """`temperature` is tau; `standardise: false` uses the raw score (then exp(score / tau) is the weight);
    `standardise_within` names a column of groups, each standardised by itself;
    `column`, `direction`, `budget`, `group_column`, `allow_short` as in `data.select.top_k`."""

    column: str | None = None
    direction: Direction | None = None
    temperature: float = Field(default=1.0, gt=0)
    standardise: bool = True
    standardise_within: str | None = None
    budget: Budget | None = None
    group_column: str | None = None
    allow_short: bool = False
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _groups_are_standardised(self) -> "GumbelTopK":
        if self.standardise_within is not None and not self.standardise:
            raise ValueError("standardise_within needs standardise: true")
        return self

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        values = scores(dataset, self.column, self.name)
        assert self.column is not None
        good = signed(values, self.direction, self.column)
        if self.standardise:
            within = self.standardise_within
            groups = None if within is None else np.array([str(v) for v in dataset.column(within).to_pylist()])
            good = standardise(good, groups)
        ids = dataset.ids()
        keys = gumbel_keys(good, uniform(self.seed, ids), self.temperature)
        order = preference_order(keys, ids, self.seed)
        selection = take(dataset, order, self.budget, self.name, self.allow_short, self.group_column)
        facts = {
            "method": self.name,
            "column": self.column,
            "direction": self.direction or "higher",
            "temperature": self.temperature,
            "standardised": (self.standardise_within or "all rows") if self.standardise else "no",
            "seed": self.seed,
            "mean_score_taken": float(values[selection.rows].mean()),
            "mean_score_all": float(np.nanmean(values)),
        }
        return finish(dataset, selection, facts, values, self.column)
