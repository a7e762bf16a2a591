"""A simulated annotator: the hidden labels of the rows that were asked for.

The rows of `dataset` whose ids are among the rows of the input `asked` get their `gold` as `label` (all rows
without that input); labels that were given before stay. Every label given is charged.
"""

from collections import Counter

import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.labels import GOLD
from tutelage.core.method import Inputs, Transform
from tutelage.data.label._shared import Columns, rewritten, values

CARD = {
    "name": "data.label.reveal",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Gives the hidden labels of the rows that were asked for, and charges each: a simulated annotator.",
    "reads": ["gold"],
    "writes": ["label", "label_source"],
    "inputs": {"asked?": "the rows whose labels are asked for, by id; without it all rows"},
    "cost": "one label for each row asked for",
    "baseline": None,
    "headline": "learning curves over labels without a person; data.label.ask asks one",
    "version": 1,
}


class Reveal(Transform):
    """Nothing to configure."""

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """Raises InputError for an asked row that is not here or that has no hidden label."""
        dataset.require("gold")
        known = set(dataset.ids())
        asked = set(inputs["asked"].ids()) if inputs.get("asked") is not None else known
        foreign = sorted(asked - known)
        if foreign:
            raise InputError(
                "a row that was asked for is not here",
                where=f"row {foreign[0]}",
                expected="rows of this dataset",
                found=f"{len(foreign)} others",
            )
        given: Counter[str] = Counter()

        def change(shard: pa.Table) -> Columns:
            labels, sources = values(shard, "label"), values(shard, "label_source")
            for number, (identifier, gold) in enumerate(zip(values(shard, "id"), values(shard, "gold"))):
                if identifier not in asked or labels[number] is not None:
                    continue
                if gold is None:
                    raise InputError(
                        "a row that was asked for has no hidden label",
                        where=f"row {identifier}, field gold",
                        expected="the name of a class",
                        remedy="ask a person (data.label.ask), or leave the row out",
                    )
                labels[number], sources[number] = gold, GOLD
                given[gold] += 1
            return {"label": labels, "label_source": sources}

        builder = rewritten(dataset, change)
        if "meter" in inputs:
            inputs["meter"].add(labels=given.total())
        by_class = dict(sorted(given.items()))
        return builder.finish({"method": self.name, "labels_given": given.total(), "by_class": by_class})
