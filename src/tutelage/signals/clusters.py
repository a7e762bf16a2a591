"""Which of C groups of similar rows each row belongs to, by k-means on an embedding column.

Centres c_j minimise sum_i min_j ||z_i - c_j||^2, z [n, d] the vectors of `column`; mini-batch k-means, the best of
`restarts` starts, C = round(sqrt(n / 2)) unless given, and at most 256 then, so that the cost of many rows
grows with their number and no faster. cluster_i = argmin_j ||z_i - c_j||, dist_to_centre_i = the distance itself.
A centre that no row is nearest to moves to the row farthest from its own centre, until none is empty; with fewer
different vectors than C some stay empty, with a warning. Every such move lowers the sum, so it ends. Rows that are
scored but were not fitted get the nearest centre.
"""

import warnings

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.vectors import vector_column

CARD = {
    "name": "signals.clusters",
    "paper": {"title": "Web-Scale K-Means Clustering", "identifier": "doi:10.1145/1772690.1772862"},
    "summary": "The cluster of every row and its distance to the centre, by mini-batch k-means on an embedding.",
    "reads": ["{column}"],
    "writes": ["cluster", "dist_to_centre"],
    "needs": ["train"],
    "cost": "a few passes over the vectors for every restart",
    "baseline": "signals.constant",
    "headline": "groups for balanced selection; clusters are only as good as the embedding",
    "version": 1,
}

BLOCK = 1 << 23  # distances held at once
MOST = 256  # clusters, unless a number is given


def nearest(vectors: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(index [n] int64 of the nearest of `centres` [C, d], distance [n] float64); ties go to the first centre."""
    index = np.empty(len(vectors), dtype=np.int64)
    distance = np.empty(len(vectors))
    squares = (centres**2).sum(axis=1)
    step = max(1, BLOCK // len(centres))
    for at in range(0, len(vectors), step):
        here = slice(at, at + step)
        block = vectors[here].astype(np.float64)
        index[here] = (squares - 2.0 * (block @ centres.T)).argmin(axis=1)
        # The expanded square cancels for close rows: the distance itself is measured directly.
        distance[here] = np.linalg.norm(block - centres[index[here]], axis=1)
    return index, distance


def reseed(vectors: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, int]:
    """(centres with every empty one moved to the row farthest from its centre, how many stay empty)."""
    centres = centres.copy()
    index, distance = nearest(vectors, centres)
    # Below this, two rows are the same but for rounding, and a centre on the second would stay empty.
    least = 1e-6 * max(1.0, float(np.abs(vectors).max()))
    while True:
        empty = np.flatnonzero(np.bincount(index, minlength=len(centres)) == 0)
        farthest = int(distance.argmax())
        if not len(empty) or distance[farthest] <= least:
            return centres, len(empty)
        centres[empty[0]] = vectors[farthest]
        moved = np.linalg.norm(vectors - centres[empty[0]], axis=1)
        closer = moved < distance
        index[closer], distance[closer] = empty[0], moved[closer]


class Clusters(Scorer):
    """`clusters` is C (null: round(sqrt(n / 2)), at most 256); `column` holds the vectors; `batch` rows per
    step of the mini-batch; the best of `restarts` starts is kept."""

    column: str = "embedding"
    clusters: int | None = Field(default=None, ge=1)
    restarts: int = Field(default=10, ge=1)
    batch: int = Field(default=1024, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        from sklearn.cluster import MiniBatchKMeans

        vectors = vector_column(dataset, self.column)
        count = self.clusters or min(MOST, max(1, round((len(vectors) / 2) ** 0.5)))
        if count > len(vectors):
            raise InputError(
                f"{self.name}: there are fewer rows than clusters",
                where="clusters",
                expected=f"at least {count} rows",
                found=f"{len(vectors)} rows",
                remedy="lower clusters, or leave it out",
            )
        with warnings.catch_warnings():
            # Too few different rows are reported below, in our words.
            warnings.simplefilter("ignore")
            found = MiniBatchKMeans(
                count, batch_size=self.batch, n_init=self.restarts, random_state=self.seed
            ).fit(vectors)
        centres, empty = reseed(vectors, found.cluster_centers_.astype(np.float64))
        if empty:
            warnings.warn(
                f"{self.name}: {empty} of {count} clusters are empty, the rows have only "
                f"{count - empty} different vectors",
                stacklevel=2,
            )
        return {"centres": centres}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, np.ndarray]:
        vectors = vector_column(Dataset.from_table(shard), self.column)
        centres = np.asarray(state["centres"])
        if vectors.shape[1] != centres.shape[1]:
            raise InputError(
                f"column {self.column!r} has vectors of another length than the centres",
                where=self.column,
                expected=f"{centres.shape[1]} numbers",
                found=f"{vectors.shape[1]} numbers",
                remedy="embed both datasets with one fitted signal",
            )
        index, distance = nearest(vectors, centres)
        return {"cluster": index, "dist_to_centre": distance}
