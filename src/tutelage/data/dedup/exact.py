"""Keep one row of every set of identical texts.

Texts are equal when their canonical forms are (NFC, lower case, white space collapsed; `strict`: byte for byte),
decided by 128-bit blake2b. Of equal rows the one with the highest `priority_column` stays, then the lowest id, so
the result does not depend on row order.
"""

from collections.abc import Sequence

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.duplicates import equal_rows, text_keys
from tutelage.core.text.rows import text_array

CARD = {
    "name": "data.dedup.exact",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Drops every row whose text occurs in another row, keeping the best or the first by id.",
    "reads": ["text"],
    "cost": "one hash per row",
    "baseline": None,
    "headline": "the cheapest gain in data quality there is",
    "version": 1,
}


def winners(keys: np.ndarray, ids: Sequence[str], priority: np.ndarray | None) -> np.ndarray:
    """For every row the row that represents its set of equals, int64 [n]; `keys` uint64 [n, 2]."""
    best = np.arange(len(keys))
    rows, starts = equal_rows(keys)
    if not len(rows):
        return best
    value = np.zeros(len(rows)) if priority is None else np.nan_to_num(priority[rows], nan=-np.inf)
    rank = np.argsort(np.argsort(np.array([ids[row] for row in rows.tolist()], dtype=object), kind="stable"))
    group = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.lexsort((rank, -value, group))
    best[rows] = rows[order][starts[:-1]][group]
    return best


class Exact(Transform):
    """`strict` compares byte for byte; `priority_column` (higher is better) decides which copy stays."""

    strict: bool = False
    priority_column: str | None = None

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        ids = dataset.ids()
        keys = [text_keys(text_array(shard), self.strict) for shard in dataset.shards()]
        priority = None if self.priority_column is None else dataset.numpy(self.priority_column).astype(float)
        kept = winners(np.concatenate(keys or [np.zeros((0, 2), np.uint64)]), ids, priority)
        mask = kept == np.arange(len(ids))
        reasons = {row: f"duplicate of {ids[kept[row]]}" for row in np.flatnonzero(~mask).tolist()}
        report = {"method": self.name, "rows_in": len(ids), "rows_kept": int(mask.sum())}
        return dataset.keep(mask, reasons, report)
