"""Which rows have the same text as another row.

Texts are equal when their canonical forms are (NFC, lower case, white space collapsed; `strict`: byte for byte),
decided by 128-bit blake2b. Of a set of equals the row with the lowest id is the original: it gets no
`duplicate_of`, the others get its id; `duplicate_count` is the size of the set.
"""

import numpy as np
import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.duplicates import equal_rows, text_keys
from tutelage.core.text.rows import text_array

CARD = {
    "name": "signals.exact_duplicates",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "For every row the id of the row it is an exact copy of, and how many copies there are.",
    "reads": ["text"],
    "writes": ["duplicate_of", "duplicate_count"],
    "cost": "one hash per row",
    "baseline": None,
    "headline": "shows duplicates before anything is dropped; data.dedup.exact drops them",
    "version": 1,
}


class ExactDuplicates(Scorer):
    """`strict` compares byte for byte."""

    strict: bool = False

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        ids = dataset.ids()
        keys = [text_keys(text_array(shard), self.strict) for shard in dataset.shards()]
        rows, starts = equal_rows(np.concatenate(keys or [np.zeros((0, 2), np.uint64)]))
        groups = np.split(rows, starts[1:-1]) if len(rows) else []
        repeated = [sorted(ids[row] for row in group.tolist()) for group in groups]
        return {
            "original": {identifier: ids[0] for ids in repeated for identifier in ids},
            "count": {identifier: len(ids) for ids in repeated for identifier in ids},
            "report": {"sets": len(repeated), "copies": sum(len(ids) - 1 for ids in repeated)},
        }

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, object]:
        text_array(shard)  # rows without text are refused here as in fit
        ids = shard.column("id").to_pylist()
        originals = [state["original"].get(i) for i in ids]
        return {
            "duplicate_of": pa.array([o if o != i else None for o, i in zip(originals, ids)], pa.string()),
            "duplicate_count": np.array([state["count"].get(i, 1) for i in ids], dtype=np.int64),
        }
