"""Keep one row of every cluster of nearly equal texts.

Clusters are those of MinHash-LSH with exact Jaccard (`core.text.near`): rows that share a band of `rows` MinHash
entries and have |S & T| / |S | T| >= `min_jaccard` over their `n`-word shingles are joined, and so are chains of
such rows. Of a cluster the row with the highest `priority_column`, then the longest, then of the lowest id stays;
the others are dropped with its id as the reason. Rows with fewer than `n` words all stay: drop exact copies first.
"""

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.minhash import MinHash
from tutelage.core.text.near import near_duplicates

CARD = {
    "name": "data.dedup.near",
    "paper": {
        "title": "On the Resemblance and Containment of Documents",
        "identifier": "doi:10.1109/SEQUEN.1997.666900",
    },
    "summary": "Drops rows that nearly repeat another row, keeping the best of each cluster.",
    "reads": ["text"],
    "cost": "one pass over the words, bands * rows operations each; the candidates twice",
    "baseline": "data.dedup.exact",
    "headline": "removes edited copies that exact deduplication keeps",
    "version": 1,
}


class Near(Transform):
    """Fields as in `signals.near_duplicates`, which shows the clusters before anything is dropped."""

    n: int = Field(default=5, ge=1, le=100)
    bands: int = Field(default=14, ge=1, le=256)
    rows: int = Field(default=8, ge=1, le=256)
    min_jaccard: float | None = Field(default=0.7, gt=0, le=1)
    priority_column: str | None = None
    seed: int = 0

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        minhash = MinHash(self.n, self.bands, self.rows, self.seed)
        found = near_duplicates(dataset, minhash, self.min_jaccard, self.priority_column)
        mask = found.kept == np.arange(len(found.ids))
        gone = np.flatnonzero(~mask).tolist()
        reasons = {row: f"near-duplicate of {found.ids[found.kept[row]]}" for row in gone}
        counts = {"rows_in": len(mask), "rows_kept": int(mask.sum())}
        return dataset.keep(mask, reasons, {"method": self.name, **counts, **found.report})
