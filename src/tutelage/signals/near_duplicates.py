"""Which rows are nearly the same text as another row: MinHash-LSH over word n-grams, checked by exact Jaccard.

Rows that share a MinHash band (`core.text.minhash`: `bands` bands of `rows` entries each,
P(candidate | J) = 1 - (1 - J^rows)^bands, midpoint near (1 / bands)^(1 / rows) = 0.72) are one cluster if the
Jaccard similarity of their sets of `n`-word shingles is at least `min_jaccard`; clusters are connected components,
so a chain joins rows that differ, and the report tells the diameter (1 - J of the farthest pair found) of clusters
of more than 10 rows. Of a cluster the row with the highest `priority_column`, then the longest, then of the lowest
id is kept. Rows with fewer than `n` words have no signature and are never duplicates: exact deduplication is for
those. Departures, ours: candidates are checked by default (the reference does not), 32-bit arithmetic.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.minhash import MinHash
from tutelage.core.text.near import near_duplicates
from tutelage.core.text.rows import text_array

CARD = {
    "name": "signals.near_duplicates",
    "paper": {
        "title": "On the Resemblance and Containment of Documents",
        "identifier": "doi:10.1109/SEQUEN.1997.666900",
    },
    "summary": "Clusters of nearly equal texts by MinHash-LSH, and which row of each cluster to keep.",
    "reads": ["text"],
    "writes": ["dup_cluster", "dup_cluster_size", "dup_keep"],
    "cost": "one pass over the words, bands * rows operations each; the candidates twice",
    "baseline": "signals.exact_duplicates",
    "headline": "finds edited copies; chains may join texts that differ, see the diameters in the report",
    "version": 1,
}


class NearDuplicates(Scorer):
    """`n` words per shingle, `bands` of `rows` entries, `min_jaccard` (null: every candidate pair counts),
    `priority_column` (higher is kept first), `seed` of the hash functions."""

    n: int = Field(default=5, ge=1, le=100)
    bands: int = Field(default=14, ge=1, le=256)
    rows: int = Field(default=8, ge=1, le=256)
    min_jaccard: float | None = Field(default=0.7, gt=0, le=1)
    priority_column: str | None = None
    seed: int = 0

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        minhash = MinHash(self.n, self.bands, self.rows, self.seed)
        found = near_duplicates(dataset, minhash, self.min_jaccard, self.priority_column)
        rows = np.flatnonzero(found.sizes > 1).tolist()
        return {
            "kept": {found.ids[row]: found.ids[found.kept[row]] for row in rows},
            "sizes": {found.ids[found.kept[row]]: int(found.sizes[row]) for row in rows},
            "fields": self.model_dump(),
            "report": found.report,
        }

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        if state["fields"] != self.model_dump():
            raise ConfigError(
                "the clusters were made with other parameters",
                where=self.name,
                expected=str(self.model_dump()),
                found=str(state["fields"]),
                remedy="fit again: signatures of other parameters cannot be compared",
            )
        text_array(shard)  # rows without text are refused here as in fit
        ids = shard.column("id").to_pylist()
        kept = [state["kept"].get(identifier, identifier) for identifier in ids]
        return {
            "dup_cluster": pa.array(kept, pa.string()),
            "dup_cluster_size": np.array([state["sizes"].get(identifier, 1) for identifier in kept], np.int64),
            "dup_keep": np.array([a == b for a, b in zip(kept, ids)], dtype=bool),
        }
