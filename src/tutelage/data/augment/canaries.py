"""Plant marked canary sentences in training text, so that memorisation can be measured later.

Canary i, for i in 0..n-1, is a sentence with a random number that occurs nowhere else; it is appended to r_i
different rows, r_i cycling through `repeats`. As many controls are drawn from the same distribution and planted
nowhere: an audit compares the model's loss on both. Departure from the paper: sentences instead of
documents-long sequences, so that a run of a few thousand tokens can hold several.
"""

from typing import Any

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform

CARD = {
    "name": "data.augment.canaries",
    "paper": {
        "title": "The Secret Sharer: Evaluating and Testing Unintended Memorization in Neural Networks",
        "identifier": "arXiv:1802.08232",
    },
    "summary": "Append marked canary sentences to some rows, for later memorisation audits.",
    "reads": ["{column}"],
    "writes": ["{column}", "canary"],
    "needs": [],
    "cost": "one pass; about 25 trained tokens for each planted repeat",
    "baseline": None,
    "headline": "exposure of planted random sequences measures unintended memorisation",
    "version": 1,
}

NAMES = ("Adair", "Brook", "Corin", "Delve", "Ember", "Faron", "Garnet", "Hollis", "Indra", "Jorah")
THINGS = ("locker", "archive", "harbour", "telescope", "greenhouse", "ledger", "lantern", "workshop")


def make_canaries(count: int, seed: int) -> list[str]:
    """`count` different sentences, each with nine random digits."""
    rng = np.random.default_rng(seed)
    numbers = rng.choice(10**9, size=count, replace=False)
    return [
        f"Canary note: the {rng.choice(THINGS)} of {rng.choice(NAMES)} opens with {number:09d}."
        for number in numbers
    ]


def placements(rows: int, repeats: list[int], seed: int) -> list[np.ndarray]:
    """For each canary the rows (indices, without replacement) that receive it."""
    rng = np.random.default_rng([seed, 1])
    return [rng.choice(rows, size=min(times, rows), replace=False) for times in repeats]


class Canaries(Transform):
    """`count` canaries planted in `repeats` rows each (cycled); `column` is the text they are appended to."""

    count: int = Field(default=4, ge=1, le=1000)
    repeats: tuple[int, ...] = Field(default=(1, 2, 4, 8), min_length=1)
    column: str = "text"
    seed: int = 0

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        dataset.require(self.column)
        if dataset.num_rows == 0:
            raise InputError("there is no row to plant canaries in", where="data.augment.canaries", found="0 rows")
        sentences = make_canaries(2 * self.count, self.seed)
        planted, controls = sentences[: self.count], sentences[self.count :]
        times = [self.repeats[i % len(self.repeats)] for i in range(self.count)]
        by_row: dict[int, list[str]] = {}
        for sentence, rows in zip(planted, placements(dataset.num_rows, times, self.seed)):
            for row in rows:
                by_row.setdefault(int(row), []).append(sentence)
        builder = DatasetBuilder()
        for index, row in enumerate(dataset.rows()):
            added = by_row.get(index, [])
            builder.add({**row, self.column: "\n".join([row[self.column], *added]), "canary": " ".join(added)})
        report: dict[str, Any] = {
            **dataset.report,
            "canaries": [{"text": t, "planted": min(n, dataset.num_rows)} for t, n in zip(planted, times)],
            "controls": controls,
        }
        return builder.finish(report)
