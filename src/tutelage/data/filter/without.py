"""Leave out the rows that another dataset holds, by id: the pool without what was taken from it.

Input `taken` is that dataset. With `texts` rows are also left out when their text is that of a taken row (case and
white space evened out), which ids do not tell.
"""

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.duplicates import shared_ids
from tutelage.core.text.rows import text_rows

CARD = {
    "name": "data.filter.without",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Drops the rows that another dataset holds, by id and optionally by text.",
    "inputs": {"taken": "the rows to leave out"},
    "cost": "one look-up per row",
    "baseline": None,
    "headline": "what is measured was not trained on, and nobody is asked twice",
    "version": 1,
}


class Without(Transform):
    """`texts`: rows with the text of a taken row are left out as well."""

    texts: bool = False

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        ids = dataset.ids()
        taken = set(inputs["taken"].ids())
        reasons = {n: "without: taken" for n, identifier in enumerate(ids) if identifier in taken}
        if self.texts:
            same = set(shared_ids(text_rows(dataset), text_rows(inputs["taken"])))
            copies = (n for n, one in enumerate(ids) if one in same and n not in reasons)
            reasons |= dict.fromkeys(copies, "without: text of a taken row")
        keep = np.ones(len(ids), dtype=bool)
        keep[list(reasons)] = False
        return dataset.keep(
            keep, reasons, {"method": self.name, "rows_in": len(ids), "rows_kept": int(keep.sum())}
        )
