"""What is done with labels that were found suspect: drop the row, take the suggested label, or count it less.

A row is treated when `label_suspect` holds and its confidence c is at least `over`. filter drops it. flip gives it
the suggested label under a source's name and keeps the old one in `label_before`. weight multiplies its weight by
1 - c. A person's label gives way to a machine's only where `gold` says change; rows of the split `test` never do:
what is reported on changes only where a person wrote the right label into `confirmed`, which is taken for every
row that has one.
"""

from collections import Counter
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.labels import GOLD
from tutelage.core.method import Inputs, Transform
from tutelage.data.label._shared import Columns, rewritten, values

CARD = {
    "name": "data.label.repair",
    "paper": {
        "title": "Are LLMs Better than Reported? Detecting Label Errors and Mitigating Their Effect on Model "
        "Performance",
        "identifier": "arXiv:2410.18889",
    },
    "summary": "Drops, flips or down-weights labels that were found suspect; test rows need a person's word.",
    "reads": ["label", "label_suspect", "label_error_confidence", "suggested_label", "confirmed?", "split?"],
    "writes": ["label", "label_source", "label_weight", "label_before"],
    "cost": "none",
    "baseline": None,
    "headline": "training on cleaned labels helped by up to 4 %, the paper finds; look at a sample first",
    "version": 1,
}

SOURCE = "pseudo:label_errors"
TEST = "test"


class Repair(Transform):
    """`action` is what happens to suspects at or above the confidence `over`; `gold` whether flip may replace what
    a person said in training rows."""

    action: Literal["filter", "flip", "weight"] = "filter"
    over: float = Field(default=0.5, ge=0, le=1)
    gold: Literal["keep", "change"] = "keep"

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """Rows in order. Raises InputError for a confirmation that is no text, and for a suspect without the
        confidence or suggestion that the action needs."""
        dataset.require("label", "label_suspect", "label_error_confidence", "suggested_label")
        counts: Counter[str] = Counter()
        keep = np.ones(dataset.num_rows, dtype=bool)
        reasons: dict[int, str] = {}
        for number, row in enumerate(dataset.rows()):
            if self.action == "filter" and self._treated(row):
                keep[number] = False
                said = f"{row['label']}, rather {row['suggested_label']}"
                reasons[number] = f"label suspect: {said} ({row['label_error_confidence']:.2f})"
        counts["dropped"] = len(reasons)

        def change(shard: pa.Table) -> Columns:
            rows = shard.to_pylist()
            labels, sources = values(shard, "label"), values(shard, "label_source")
            weights, before = values(shard, "label_weight"), values(shard, "label_before")
            for i, row in enumerate(rows):
                told = row.get("confirmed")
                if told is not None and told != labels[i]:
                    before[i], labels[i], sources[i] = labels[i], told, GOLD
                    counts["confirmed"] += 1
                elif self.action == "flip" and self._treated(row) and self._may_flip(row):
                    before[i], labels[i], sources[i] = labels[i], row["suggested_label"], SOURCE
                    counts["flipped"] += 1
                elif self.action == "weight" and self._treated(row):
                    old = 1.0 if weights[i] is None else weights[i]
                    weights[i] = old * (1.0 - row["label_error_confidence"])
                    counts["weighted"] += 1
            found: dict[str, Any] = {"label": labels, "label_before": before}
            if any(source is not None for source in sources) or "label_source" in shard.column_names:
                # A row without a source is a person's.
                found["label_source"] = [
                    GOLD if a is None and b is not None else a for a, b in zip(sources, labels)
                ]
            if self.action == "weight":
                found["label_weight"] = pa.array(weights, pa.float64())
            return found

        kept = dataset.keep(keep, reasons)
        builder = rewritten(kept, change)
        for identifier, reason in zip(*(kept.dropped.column(name).to_pylist() for name in ("id", "reason"))):
            builder.drop(identifier, reason)
        return builder.finish({"method": self.name, "action": self.action, **counts})

    def _treated(self, row: dict[str, Any]) -> bool:
        """Whether the action is for this row: a suspect that no person has looked at, outside the test rows."""
        if not row["label_suspect"] or row.get("confirmed") is not None or row.get("split") == TEST:
            return False
        confidence = row["label_error_confidence"]
        if confidence is None or (self.action == "flip" and row["suggested_label"] is None):
            raise InputError(
                "a suspect row lacks what repairing it needs",
                where=f"row {row['id']}",
                expected="label_error_confidence and suggested_label",
                found=f"{confidence} and {row['suggested_label']}",
                remedy="take all columns of signals.label_errors",
            )
        return confidence >= self.over

    def _may_flip(self, row: dict[str, Any]) -> bool:
        return self.gold == "change" or row.get("label_source") not in (None, GOLD)
