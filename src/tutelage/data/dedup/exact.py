"""Keep one row of every set of identical texts.

Texts are equal when their canonical forms are (NFC, lower case, white space collapsed; `strict`: byte for byte),
decided by 128-bit blake2b. Of equal rows the one with the highest `priority_column` stays, then the lowest id, so
the result does not depend on row order.
"""

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.duplicates import canonical, digest128
from tutelage.core.text.rows import texts

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


def winners(keys: list[bytes], ids: list[str], priority: np.ndarray | None) -> list[int]:
    """For every row the index of the row that represents its set of equals."""
    best: dict[bytes, int] = {}
    value = np.zeros(len(ids)) if priority is None else np.nan_to_num(priority, nan=-np.inf)
    for row, key in enumerate(keys):
        held = best.setdefault(key, row)
        if (-value[row], ids[row]) < (-value[held], ids[held]):
            best[key] = row
    return [best[key] for key in keys]


class Exact(Transform):
    """`strict` compares byte for byte; `priority_column` (higher is better) decides which copy stays."""

    strict: bool = False
    priority_column: str | None = None

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        ids = dataset.ids()
        keys = [digest128(canonical(text, self.strict)) for shard in dataset.shards() for text in texts(shard)]
        priority = None if self.priority_column is None else dataset.numpy(self.priority_column).astype(float)
        kept = winners(keys, ids, priority)
        mask = np.array([row == winner for row, winner in enumerate(kept)], dtype=bool)
        reasons = {row: f"duplicate of {ids[kept[row]]}" for row in np.flatnonzero(~mask).tolist()}
        report = {"method": self.name, "rows_in": len(ids), "rows_kept": int(mask.sum())}
        return dataset.keep(mask, reasons, report)
