"""Gold rows put beside machine-labelled ones, so that a training step sees both: what meta weights need.

Each row keeps its id and columns and gets `gold_texts` and `gold_labels`, k rows of the input `gold` with their
text and label. Gold rows are dealt in shuffled rounds, each once before any comes again, so that they are used
evenly. A row whose own text is among its gold rows would be weighted by itself: such a gold row is passed over.
"""

from collections import deque
from typing import Any

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import InputError
from tutelage.core.labels import GOLD
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.rows import text_rows

CARD = {
    "name": "data.recipes.gold_beside",
    "paper": {
        "title": "LiST: Lite Prompted Self-training Makes Parameter-Efficient Few-shot Learners",
        "identifier": "arXiv:2110.06274",
    },
    "summary": "Puts a few gold rows beside every machine-labelled row, for training with meta weights.",
    "reads": ["text"],
    "writes": ["gold_texts", "gold_labels"],
    "inputs": {"gold": "the rows that a person labelled, by which the others are weighted"},
    "needs": [],
    "cost": "one pass over the rows; training reads k more texts for each",
    "baseline": None,
    "headline": "gold labels judge machine labels while a model learns from these",
    "version": 1,
}


class GoldBeside(Transform):
    """`count`: gold rows beside each row."""

    count: int = Field(default=1, ge=1)
    seed: int = 0

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """The same rows with two more columns; raises InputError where there is no gold row to put beside them, or
        a row of `gold` that no person labelled."""
        gold = self._gold(inputs.get("gold"))
        rng = np.random.default_rng(int(inputs.get("seed", self.seed)))
        dealt: deque[tuple[str, str]] = deque()
        builder = DatasetBuilder()
        for row, (_, text) in zip(dataset.rows(), text_rows(dataset)):
            others = [pair for pair in gold if pair[0] != text]
            if not others:
                builder.drop(row["id"], "the only gold text")
                continue
            chosen: list[tuple[str, str]] = []
            while len(chosen) < self.count:
                if not dealt:
                    dealt.extend(gold[i] for i in rng.permutation(len(gold)))
                pair = dealt.popleft()
                if pair[0] != text:
                    chosen.append(pair)
            added = {"gold_texts": [pair[0] for pair in chosen], "gold_labels": [pair[1] for pair in chosen]}
            builder.add({**row, **added})
        return builder.finish()

    def _gold(self, gold: Dataset | None) -> list[tuple[str, str]]:
        if gold is None or not gold.num_rows:
            raise InputError("there are no gold rows", where=f"{self.name}: gold", expected="labelled rows")
        gold.require("label")
        found: list[tuple[str, str]] = []
        for row, (identifier, text) in zip(gold.rows(), text_rows(gold)):
            source: Any = row.get("label_source") or GOLD
            if row["label"] is None or source != GOLD:
                raise InputError(
                    "a row that judges others has no gold label",
                    where=f"{self.name}: gold, row {identifier}",
                    expected="a label that a person gave",
                    found=f"label {row['label']!r} from {source}",
                    remedy="keep the gold rows only (data.filter.where on label_source)",
                )
            found.append((text, row["label"]))
        return found
