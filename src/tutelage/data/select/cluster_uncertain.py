"""Rows that a classifier is unsure of and that differ from each other, in one batch: k-means++ on gradients.

g_i = (q_i - e_argmax) (x) z_i is the gradient that the likeliest label would give a linear head on the vector z_i
of `column`: long where q_i is unsure. The longest g joins first; then row i joins with a probability in
proportion to D_i^2 = min over the rows taken of ||g_i - g_s||^2, until the budget is full. The products are never
formed: <g_i, g_s> = <a_i, a_s> <z_i, z_s> with a = q - e, so a step costs n (C + d). Rows whose gradient is that
of a row taken (D = 0) are not taken; a smaller selection warns.
"""

import warnings

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.core.vectors import vector_column
from tutelage.data._predictions import probabilities
from tutelage.data.select._shared import finish, row_sizes, take

CARD = {
    "name": "data.select.cluster_uncertain",
    "paper": {
        "title": "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds",
        "identifier": "arXiv:1906.03671",
    },
    "summary": "Takes rows a classifier is unsure of that also differ from each other (k-means++ on gradients).",
    "reads": ["{column}", "{probs}", "classes"],
    "cost": "one pass over the vectors for every row taken",
    "baseline": "data.select.random",
    "headline": "no batch of near copies, which the plain uncertainty of large batches falls for",
    "version": 1,
}

ROUNDING = 1e-5


def seeding(
    errors: np.ndarray, vectors: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(rows in the order they join, D^2 [n] to the rows taken) for g = `errors` [n, C] (x) `vectors` [n, d].

    Ends after `count` rows, or where no distance is left.
    """
    squares = (errors**2).sum(axis=1) * (vectors**2).sum(axis=1)
    nearest = np.full(len(squares), np.inf)
    chosen: list[int] = []
    following = int(squares.argmax())
    while True:
        chosen.append(following)
        product = (errors @ errors[following]) * (vectors @ vectors[following])
        sums = squares + squares[following]
        here = sums - 2.0 * product
        # What rounding in single precision leaves of the distance between equal gradients is none.
        here[here <= ROUNDING * sums] = 0.0
        nearest = np.minimum(nearest, here)
        nearest[chosen] = 0.0
        if len(chosen) == count or not nearest.any():
            return np.array(chosen, dtype=np.int64), nearest
        total = np.cumsum(nearest)
        following = int(np.searchsorted(total, rng.random() * total[-1], side="right"))


class ClusterUncertain(Transform):
    """`column` holds the vectors, `probs` the probabilities in the order of `classes`; `budget` in rows or
    tokens."""

    column: str = "embedding"
    probs: str = "predicted_probs"
    budget: Budget | None = None
    seed: int = Field(default=0, ge=0)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        if dataset.num_rows == 0:
            raise InputError(f"{self.name}: there are no rows to ask about", remedy="the pool is used up")
        take(dataset, np.arange(dataset.num_rows), self.budget, self.name, allow_short=True)
        assert self.budget is not None
        _, probs = probabilities(dataset, self.probs)
        vectors = vector_column(dataset, self.column)
        errors = probs.copy()
        errors[np.arange(len(probs)), probs.argmax(axis=1)] -= 1.0
        by_id = np.argsort(np.array(dataset.ids(), dtype=object), kind="stable")
        count = min(self.budget.rows or dataset.num_rows, dataset.num_rows)
        rows, left = seeding(
            errors[by_id].astype(np.float32), vectors[by_id], count, np.random.default_rng(self.seed)
        )
        distance = np.empty(len(left))
        distance[by_id] = np.sqrt(left)
        selection = take(dataset, by_id[rows], self.budget, self.name, allow_short=True)
        selection.facts["rows_without_score"] = 0
        if len(rows) < count and row_sizes(dataset).tokens[by_id[rows]].sum() < (self.budget.tokens or np.inf):
            warnings.warn(
                f"{self.name}: {len(rows)} rows are taken and the budget is not used up: the others have the "
                "gradient of a row taken",
                stacklevel=2,
            )
        facts = {
            "method": self.name,
            "column": self.column,
            "status": "pool_exhausted" if len(selection.rows) == dataset.num_rows else "selected",
            "seed": self.seed,
        }
        return finish(dataset, selection, facts, distance, "distance to the nearest gradient taken")
