"""Uniform sampling without replacement under a budget; the baseline every other selector is held against.

Each row gets u = hash64(seed, id) / 2^64 and rows are taken by decreasing u until the budget is reached, the
crossing row included. So the choice does not depend on row order or sharding, and a smaller budget gives a
subset of a larger one. Seeds give independent draws.
"""

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.core.text.hashing import uniform
from tutelage.data.select._shared import finish, preference_order, take

CARD = {
    "name": "data.select.random",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Takes random rows up to a budget in rows or tokens.",
    "cost": "one hash per row",
    "baseline": None,
    "headline": "costs nothing and is hard to beat: most selectors lose to it at equal total cost",
    "version": 1,
}


class Random(Transform):
    """`budget` in rows or tokens; `group_column` keeps the shares of its values; `allow_short` permits a
    budget larger than the corpus."""

    budget: Budget | None = None
    group_column: str | None = None
    allow_short: bool = False
    seed: int = Field(default=0, ge=0)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        ids = dataset.ids()
        order = preference_order(uniform(self.seed, ids), ids, self.seed)
        selection = take(dataset, order, self.budget, self.name, self.allow_short, self.group_column)
        return finish(dataset, selection, {"method": self.name, "seed": self.seed})
