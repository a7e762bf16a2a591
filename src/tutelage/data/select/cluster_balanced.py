"""A selection spread over the values of a column (a cluster, a topic, a source), so that no large one fills it.

With C clusters of stock n_c and a budget of B rows (or tokens) the quotas are B n_c / n (proportional), B / C
(equal) or B sqrt(n_c) / sum sqrt(n) (square root), in whole numbers that sum to B. A quota above its stock takes
the whole cluster; what it leaves over goes to the others in proportion to their remaining stock. Inside a cluster
rows are taken by the best value of `column`, or at random (by hash(seed, id)) without one.
"""

from functools import partial
from typing import Literal

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.core.text.hashing import uniform
from tutelage.data.select._shared import (
    Direction,
    finish,
    largest_remainder,
    preference_order,
    scores,
    signed,
    take,
)

CARD = {
    "name": "data.select.cluster_balanced",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Spreads a budget over clusters, topics or sources: equal, square-root or proportional quotas.",
    "reads": ["{cluster_column}", "{column}?"],
    "cost": "one sort",
    "baseline": "data.select.random",
    "headline": "covers what a ranking leaves out; equal quotas over-sample small clusters on purpose",
    "version": 1,
}

Spread = Literal["equal", "square_root", "proportional"]


def quotas(stock: np.ndarray, total: int, kind: Spread) -> np.ndarray:
    """Whole numbers per cluster, at most `stock` (int [C]), that sum to min(total, sum of stock)."""
    total = min(total, int(stock.sum()))
    wanted = {"equal": stock > 0, "square_root": np.sqrt(stock), "proportional": stock}[kind].astype(np.float64)
    given = np.minimum(largest_remainder(wanted / wanted.sum(), total), stock)
    rest = stock - given
    if rest.sum():
        given = given + largest_remainder(rest / rest.sum(), total - int(given.sum()))
    return given


class ClusterBalanced(Transform):
    """`cluster_column` names the cluster; `quotas` how the budget (rows or tokens) is spread; `column` and
    `direction` rank inside a cluster; `allow_short` permits a budget larger than the corpus."""

    cluster_column: str = "cluster"
    quotas: Spread = "equal"
    column: str | None = None
    direction: Direction | None = None
    budget: Budget | None = None
    allow_short: bool = False
    seed: int = Field(default=0, ge=0)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        ids = dataset.ids()
        values = None if self.column is None else scores(dataset, self.column, self.name)
        keys = uniform(self.seed, ids)
        if values is not None:
            assert self.column is not None
            keys = signed(values, self.direction, self.column)
        order = preference_order(keys, ids, self.seed)
        spread = partial(quotas, kind=self.quotas)
        selection = take(
            dataset, order, self.budget, self.name, self.allow_short, self.cluster_column, quotas=spread
        )
        clusters = dataset.column(self.cluster_column).to_pylist()
        facts = {
            "method": self.name,
            "quotas": self.quotas,
            "clusters": len(set(clusters)),
            "clusters_taken": len({clusters[row] for row in selection.rows.tolist()}),
        }
        return finish(dataset, selection, facts, values, self.column or "")
