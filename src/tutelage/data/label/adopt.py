"""Take a machine's labels from a column: the label model's, a teacher's or a repaired one, under a source's name.

A row without a label gets the column's value as `label` and `source` as `label_source`, and with `probs` the soft
label beside it; rows that have a label keep it. Rows for which the column has nothing (a teacher that was not
understood, sources that all abstained) are dropped with a reason, never guessed.
"""

from collections import Counter

import numpy as np
import pyarrow as pa
from pydantic import field_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError
from tutelage.core.labels import GOLD
from tutelage.core.method import Inputs, Transform
from tutelage.data.label._shared import Columns, rewritten, values

CARD = {
    "name": "data.label.adopt",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Takes labels for unlabelled rows from a column, such as a teacher's or a label model's.",
    "reads": ["{column}", "{probs}", "label?"],
    "writes": ["label", "label_source", "label_probs"],
    "cost": "none",
    "baseline": None,
    "headline": "machine labels keep the name of who gave them",
    "version": 1,
}


class Adopt(Transform):
    """`column` holds names of classes, `probs` (optional) their probabilities in the order of `classes`; `source`
    says who gave them: `teacher:<model>`, `rule:<id>`, `pseudo:<id>` or `synthetic`."""

    column: str = "teacher_label"
    probs: str | None = None
    source: str = "teacher:unnamed"

    @field_validator("source")
    @classmethod
    def _no_person(cls, value: str) -> str:
        kind, _, name = value.partition(":")
        if kind not in ("teacher", "rule", "pseudo", "synthetic") or (kind != "synthetic" and not name):
            raise ValueError(
                "teacher:<model>, rule:<id>, pseudo:<id> or synthetic; a machine's label is never gold"
            )
        return value

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """Raises ConfigError when the column does not hold text."""
        kind = dataset.column(self.column).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise ConfigError(
                "a column of labels holds names of classes", where=f"{self.name}: column", found=f"{kind}"
            )
        labelled = "label" in dataset.column_names
        given = dataset.column(self.column).to_pylist()
        before = dataset.column("label").to_pylist() if labelled else [None] * len(given)
        keep = np.array([a is not None or b is not None for a, b in zip(given, before)], dtype=bool)
        counts: Counter[str] = Counter()

        def change(shard: pa.Table) -> Columns:
            labels, sources = values(shard, "label"), values(shard, "label_source")
            soft = values(shard, "label_probs")
            probs = values(shard, self.probs) if self.probs else soft
            for number, value in enumerate(values(shard, self.column)):
                if labels[number] is not None:
                    sources[number] = sources[number] or GOLD
                    continue
                labels[number], sources[number], soft[number] = value, self.source, probs[number]
                counts[value] += 1
            found = {"label": labels, "label_source": sources}
            return found | {"label_probs": pa.array(soft, pa.list_(pa.float64()))} if self.probs else found

        builder = rewritten(dataset.keep(keep, ""), change)
        for identifier, wanted in zip(dataset.ids(), keep):
            if not wanted:
                builder.drop(identifier, f"adopt: {self.column} is empty")
        by_class = dict(sorted(counts.items()))
        report = {"method": self.name, "source": self.source, "labels": counts.total(), "by_class": by_class}
        return builder.finish(report)
