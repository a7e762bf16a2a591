"""How alone each row stands: the distance to its k-th nearest neighbour in the space of an embedding column.

d_i = k-th smallest ||z_i - z_j||_2 over j != i, z [n, d] the vectors of `column` (`signals.embedding_tfidf` or
`signals.embedding_hidden`, length 1 and centred). Small: one of many alike; large: rare, or noise. Copies of a row
are neighbours at distance 0. Exact, in blocks: n^2 d multiply-adds.
"""

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.vectors import vector_column

CARD = {
    "name": "signals.neighbour_distance",
    "paper": {
        "title": "Instruction Mining: Instruction Data Selection for Tuning Large Language Models",
        "identifier": "arXiv:2307.06290",
    },
    "summary": "Distance of every row to its k-th nearest neighbour among the rows, in an embedding column.",
    "reads": ["{column}"],
    "writes": ["neighbour_distance"],
    "cost": "one product of all vectors with all vectors",
    "baseline": "signals.length",
    "headline": "redundant rows low, outliers high; quality it does not see",
    "version": 1,
}

BLOCK = 1 << 24  # distances held at once


def kth_distance(vectors: np.ndarray, corpus: np.ndarray, own: np.ndarray, k: int) -> np.ndarray:
    """[m] float64: for every row of `vectors` [m, d] the distance to its k-th nearest row of `corpus` [n, d], the
    row `own[i]` left out."""
    found = np.empty(len(vectors))
    squares = (corpus.astype(np.float64) ** 2).sum(axis=1)
    step = max(1, BLOCK // len(corpus))
    for at in range(0, len(vectors), step):
        here = vectors[at : at + step]
        near = squares[None, :] - 2.0 * (here @ corpus.T)
        near[np.arange(len(here)), own[at : at + step]] = np.inf
        nearest = np.argpartition(near, k - 1, axis=1)[:, :k]
        # The expanded square cancels for close rows: the few that matter are measured directly.
        exact = np.linalg.norm(corpus[nearest].astype(np.float64) - here[:, None].astype(np.float64), axis=2)
        found[at : at + step] = exact.max(axis=1)
    return found


class NeighbourDistance(Scorer):
    """`column` holds the vectors; `k` counts neighbours, the row itself left out."""

    column: str = "embedding"
    k: int = Field(default=6, ge=1)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        vectors = vector_column(dataset, self.column)
        if self.k >= dataset.num_rows:
            raise InputError(
                f"{self.name}: there are too few rows for {self.k} neighbours",
                where="k",
                expected=f"more than {self.k} rows",
                found=f"{dataset.num_rows} rows",
                remedy="lower k",
            )
        return {"vectors": vectors, "ids": dataset.ids()}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, np.ndarray]:
        place = {identifier: row for row, identifier in enumerate(state["ids"])}
        own = np.array([place[identifier] for identifier in shard.column("id").to_pylist()], dtype=np.int64)
        corpus = np.asarray(state["vectors"])
        return {"neighbour_distance": kth_distance(corpus[own], corpus, own, self.k)}
