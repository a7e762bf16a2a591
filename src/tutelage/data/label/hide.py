"""Put the known labels of rows out of sight, for a simulated annotator to give them one by one.

`label` becomes `gold`, which only `data.label.reveal` reads, and every row's label is null. Rows that have a
column `gold` already stay as they are, so that a loop can begin with this step in every round.
"""

import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.data.label._shared import Columns, rewritten, values

CARD = {
    "name": "data.label.hide",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Hides known labels in a column of their own, to simulate an annotator who gives them when asked.",
    "reads": ["label"],
    "writes": ["gold", "label", "label_source"],
    "cost": "none",
    "baseline": None,
    "headline": "an honest count of the labels that a method used",
    "version": 1,
}


class Hide(Transform):
    """Nothing to configure."""

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """Raises InputError for a row whose label is not a person's."""
        if "gold" in dataset.column_names:
            return dataset
        dataset.require("label")
        for row in dataset.rows([n for n in ("id", "label_source") if n in dataset.column_names]):
            if row.get("label_source") not in (None, "gold"):
                raise InputError(
                    "a machine's label cannot stand in for an annotator's",
                    where=f"row {row['id']}, field label_source",
                    expected="gold",
                    found=row["label_source"],
                )

        def change(shard: pa.Table) -> Columns:
            nothing = [None] * len(shard)
            return {"gold": values(shard, "label"), "label": nothing, "label_source": nothing}

        return rewritten(dataset, change).finish({"method": self.name, "rows": dataset.num_rows})
