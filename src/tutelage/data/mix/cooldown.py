"""Rows of one kind until most of the budget is spent, then only the others: a schedule of two phases.

While the spent share of the budget is below `switch` the rows where `column` is true are drawn, from the first
optimiser step that begins at or after it the rows where it is not; each kind is shuffled by itself, epoch after
epoch. Weights, optimiser and learning rate know nothing of the switch. The trainer reports the share
(`train/share`) after every step. With switch 1 there is no cool-down: the ablation.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Draws, Sampler
from tutelage.data._shared import EpochDraws, require_rows

CARD = {
    "name": "data.mix.cooldown",
    "paper": {
        "title": "Metadata Conditioning Accelerates Language Model Pre-training",
        "identifier": "arXiv:2501.01956",
    },
    "summary": "Draws marked rows for most of the budget and the other rows for the rest of it.",
    "reads": ["{column}"],
    "cost": "none",
    "baseline": "data.order.shuffle",
    "headline": "a model trained with metadata needs plain text at the end, the paper finds",
    "version": 1,
}


class CooldownDraws:
    """Two shuffled streams, one after the other."""

    def __init__(self, marked: np.ndarray, seed: int, switch: float) -> None:
        self._rows = {name: np.flatnonzero(marked == (name == "first")) for name in ("first", "last")}
        self._streams = {name: _shuffled(len(rows), seed) for name, rows in self._rows.items() if len(rows)}
        self._switch = switch
        self.phase = "first" if switch > 0 else "last"

    def next(self) -> int:
        """Index of the next row to train on."""
        return int(self._rows[self.phase][self._streams[self.phase].next()])

    def update(self, metrics: Mapping[str, float]) -> None:
        """Go to the second phase when the trainer reports that enough of the budget is spent."""
        # The tolerance keeps nine tenths of ten steps at nine despite rounding.
        if self._switch < 1 and metrics.get("train/share", 0.0) >= self._switch - 1e-9:
            self.phase = "last"

    def state_dict(self) -> dict[str, Any]:
        streams = {name: stream.state_dict() for name, stream in self._streams.items()}
        return {"phase": self.phase, "streams": streams}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.phase = str(state["phase"])
        for name, stream in self._streams.items():
            stream.load_state_dict(state["streams"].get(name, {}))


def _shuffled(rows: int, seed: int) -> EpochDraws:
    return EpochDraws(rows, seed, lambda epoch: np.random.default_rng([seed, epoch]).permutation(rows))


class Cooldown(Sampler):
    """Rows where `column` is true come first; at `switch` of the budget the others follow."""

    column: str = "conditioned"
    switch: float = Field(default=0.9, ge=0, le=1)

    def start(self, dataset: Dataset, seed: int) -> Draws:
        require_rows(dataset, self.name)
        marked = np.array([value is True for value in dataset.column(self.column).to_pylist()])
        counts = {"marked": int(marked.sum()), "other": int((~marked).sum())}
        needed = {"marked": self.switch > 0, "other": self.switch < 1}
        missing = [name for name, count in counts.items() if needed[name] and not count]
        if missing:
            raise InputError(
                f"{self.name}: there are no {missing[0]} rows to draw",
                where=self.column,
                expected="rows where it is true (first) and rows where it is not (the cool-down)",
                found=f"{counts['marked']} marked rows, {counts['other']} other rows",
                remedy="leave a share of the rows plain (data.augment.metadata, share), or change switch",
            )
        return CooldownDraws(marked, seed, self.switch)
