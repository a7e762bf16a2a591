"""Sift generated rows through the gates that every synthesis method uses: one funnel with reasons.

In the order of the rows: parsed (there is a text), length, contamination with `protected` rows (13 words in a
row, shorter rows as a whole; always on), ROUGE-L F = 2 LCS / (words new + words old) above `rouge_l` to a row
of `known` or to a row kept before, agreement with `classifier` on the label; at last every class keeps at most
floor(balance x rows of the smallest class) rows, the first ones. Departure: near-duplicates are found exactly
at any size, since texts that share too few words to reach the threshold are never compared.
"""

from typing import Any

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.rows import text_rows
from tutelage.data.synthesise._gates import Funnel, GateSettings, over_cap

CARD = {
    "name": "data.filter.generated",
    "paper": {
        "title": "Self-Instruct: Aligning Language Models with Self-Generated Instructions",
        "identifier": "arXiv:2212.10560",
    },
    "summary": "Drops generated rows that are empty, too long, contaminated, near-duplicate or mislabelled.",
    "reads": ["text", "label?"],
    "inputs": {
        "protected?": "evaluation rows that no generated text may repeat",
        "known?": "rows that exist already, the sources for example",
        "classifier?": "a classifier that must agree with the label",
    },
    "cost": "one pass; comparisons with rows that share enough words",
    "baseline": "data.dedup.near",
    "headline": "every rejected row has a reason; facts in other words pass, which is what they are for",
    "version": 1,
}


class Generated(Transform):
    """Words of a kept text lie between `min_words` and `max_words`; `rouge_l` is the highest F to any other;
    `balance` caps classes (null: no cap)."""

    min_words: int = Field(default=5, ge=1)
    max_words: int = Field(default=2000, ge=1)
    rouge_l: float = Field(default=0.7, gt=0, le=1)
    balance: float | None = Field(default=None, ge=1)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        settings = GateSettings(min_words=self.min_words, max_words=self.max_words, rouge_l=self.rouge_l)
        funnel = Funnel(settings, inputs.get("protected"), inputs.get("classifier"))
        if inputs.get("known") is not None:
            funnel.know(text_rows(inputs["known"]))
        labels: list[Any] = [None] * dataset.num_rows
        if "label" in dataset.column_names:
            labels = dataset.column("label").to_pylist()
        reasons: dict[int, str] = {}
        kept: list[int] = []
        for row, (identifier, text) in enumerate(text_rows(dataset)):
            reason = funnel.offer(identifier, text, label=labels[row])
            if reason:
                reasons[row] = reason
            else:
                kept.append(row)
        if self.balance is not None and kept:
            ids = dataset.ids()
            for place in over_cap([str(labels[row]) for row in kept], self.balance):
                funnel.reject(ids[kept[place]], "over_cap")
                reasons[kept[place]] = f"over_cap:{labels[kept[place]]}"
        mask = np.ones(dataset.num_rows, dtype=bool)
        mask[list(reasons)] = False
        return dataset.keep(mask, reasons, {"method": self.name, **funnel.report()})
