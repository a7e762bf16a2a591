"""Rows that together leave no row far away: greedy k-centre on an embedding column.

S starts with the row nearest the mean of all rows (or with the rows of input `seeds`, which are held already and
not taken); then, until the budget is reached, the row with the largest min_{s in S} ||z_i - z_s|| joins,
ties by id. The radius max_i min_{s in S} ||z_i - z_s|| is at most twice the smallest possible for as many centres.
O(n k d). Copies are at distance 0, so the selection ends early, with a warning, when every row is covered exactly.
It hunts outliers: put a floor on quality or density (`signals.neighbour_distance`) before it.
"""

import warnings

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.core.vectors import vector_column
from tutelage.data.select._shared import finish, row_sizes, take

CARD = {
    "name": "data.select.k_centre",
    "paper": {
        "title": "Clustering to minimize the maximum intercluster distance",
        "identifier": "doi:10.1016/0304-3975(85)90224-5",
    },
    "summary": "Takes rows so that every row has a taken one near it in an embedding column (greedy k-centre).",
    "reads": ["{column}"],
    "inputs": {"seeds?": "rows already held, with the same embedding: what they cover needs no new row"},
    "cost": "one pass over the vectors for every row taken",
    "baseline": "data.select.random",
    "headline": "covers the space within twice the best radius, and takes every outlier to do so",
    "version": 1,
}


def distances(vectors: np.ndarray, point: np.ndarray) -> np.ndarray:
    """||z_i - point|| of every row of `vectors` [n, d], [n]; exactly 0 for a copy."""
    moved = vectors - point
    return np.sqrt(np.einsum("ij,ij->i", moved, moved))


def greedy(
    vectors: np.ndarray, sizes: np.ndarray, rows: float, tokens: float, seeds: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(indices in the order they join, distance [n] of every row to the nearest of them or of `seeds` [m, d]).

    Ends with `rows` rows, at the row whose `sizes` [n] bring the sum to `tokens`, or where no distance is left.
    Ties go to the first row.
    """
    chosen: list[int] = []
    spent = 0
    nearest = np.full(len(vectors), np.inf)
    for point in () if seeds is None else seeds:
        np.minimum(nearest, distances(vectors, point), out=nearest)
    if np.isinf(nearest).all():
        following = int(distances(vectors, vectors.mean(axis=0)).argmin())
    else:
        following = int(nearest.argmax())
    while len(chosen) < rows and spent < tokens and nearest[following] > 0:
        chosen.append(following)
        spent += int(sizes[following])
        np.minimum(nearest, distances(vectors, vectors[following]), out=nearest)
        following = int(nearest.argmax())
    return np.array(chosen, dtype=np.int64), nearest


class KCentre(Transform):
    """`column` holds the vectors; `budget` in rows or tokens; `allow_short` permits a budget larger than the
    corpus."""

    column: str = "embedding"
    budget: Budget | None = None
    allow_short: bool = False

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        vectors = vector_column(dataset, self.column)
        # Any row may be taken: this refuses a budget that is missing or too large before distances are computed.
        take(dataset, np.arange(len(vectors)), self.budget, self.name, self.allow_short)
        assert self.budget is not None
        by_id = np.argsort(np.array(dataset.ids(), dtype=object), kind="stable")
        rows = min(self.budget.rows or np.inf, len(vectors))
        tokens = self.budget.tokens or np.inf
        sizes = row_sizes(dataset).tokens
        order, covered = greedy(vectors[by_id], sizes[by_id], rows, tokens, self._seeds(inputs, vectors.shape[1]))
        order = by_id[order]
        nearest = np.empty(len(vectors))
        nearest[by_id] = covered
        if len(order) < rows and sizes[order].sum() < min(tokens, sizes.sum()):
            warnings.warn(
                f"{self.name}: {len(order)} rows are taken and the budget is not used up: the others are copies "
                "of rows held (distance 0)",
                stacklevel=2,
            )
        selection = take(dataset, order, self.budget, self.name, allow_short=True)
        # Every row has a place in the space; what is missing in the order is only what was not reached.
        selection.facts["rows_without_score"] = 0
        facts = {
            "method": self.name,
            "column": self.column,
            "radius": float(nearest.max()),
            "mean_distance": float(nearest.mean()),
        }
        return finish(dataset, selection, facts, nearest, "distance to the nearest row held")

    def _seeds(self, inputs: Inputs, width: int) -> np.ndarray | None:
        held: Dataset | None = inputs.get("seeds")
        if held is None or not held.num_rows:
            return None
        seeds = vector_column(held, self.column)
        if seeds.shape[1] != width:
            raise InputError(
                f"{self.name}: the seeds have vectors of another length than the rows",
                where="inputs.seeds",
                expected=f"{width} numbers in {self.column!r}",
                found=f"{seeds.shape[1]} numbers",
                remedy="embed both datasets with one fitted signal",
            )
        return seeds
