"""Domain rows with a fixed share of replayed general rows among them, so that the general ability is not lost.

With share r the draws carry a remainder: c <- c + r at every draw, and when c >= 1 the row is a replay row and
c <- c - 1. So among any n draws in a row the replay rows are r n, to within one. Each of the two kinds is shuffled
by itself, epoch after epoch. The share counts rows, not tokens. A monitor that reports `raise_replay` f multiplies
the share by f, up to `most`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Draws, Sampler
from tutelage.data._shared import EpochDraws, require_rows

CARD = {
    "name": "data.mix.replay",
    "paper": {
        "title": "Simple and Scalable Strategies to Continually Pre-train Large Language Models",
        "identifier": "arXiv:2403.08763",
    },
    "summary": "Draws domain rows with a steady share of replayed general rows among them.",
    "reads": ["{column}"],
    "cost": "none; the replayed rows are part of the training budget",
    "baseline": "data.order.shuffle",
    "headline": "a few per cent of old data prevent most forgetting, the paper finds",
    "version": 1,
}


class ReplayDraws:
    """Two shuffled streams, interleaved by a carried remainder."""

    def __init__(self, replayed: np.ndarray, seed: int, share: float, most: float) -> None:
        self._rows = {name: np.flatnonzero(replayed == (name == "replay")) for name in ("domain", "replay")}
        self._streams = {name: _shuffled(len(rows), seed) for name, rows in self._rows.items() if len(rows)}
        self._most = max(most, share)
        self.share, self._carry = share, 0.0

    def next(self) -> int:
        """Index of the next row to train on."""
        self._carry += self.share
        # The tolerance keeps ten times 0.1 at one replay row despite rounding.
        due = self._carry >= 1 - 1e-9
        self._carry -= due
        name = "replay" if due else "domain"
        return int(self._rows[name][self._streams[name].next()])

    def update(self, metrics: Mapping[str, float]) -> None:
        """Raise the share where an evaluator asks for it (`<name>/raise_replay`)."""
        for name, factor in metrics.items():
            if name.endswith("/raise_replay"):
                self.share = min(self._most, self.share * factor)

    def state_dict(self) -> dict[str, Any]:
        streams = {name: stream.state_dict() for name, stream in self._streams.items()}
        return {"share": self.share, "carry": self._carry, "streams": streams}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.share, self._carry = float(state["share"]), float(state["carry"])
        for name, stream in self._streams.items():
            stream.load_state_dict(state["streams"].get(name, {}))


def _shuffled(rows: int, seed: int) -> EpochDraws:
    return EpochDraws(rows, seed, lambda epoch: np.random.default_rng([seed, epoch]).permutation(rows))


class Replay(Sampler):
    """Rows where `column` is true are replayed at `share` of the draws; `most` bounds what a monitor may raise
    it to."""

    column: str = "replay"
    share: float = Field(default=0.05, ge=0, lt=1)
    most: float = Field(default=0.5, ge=0, lt=1)

    @model_validator(mode="after")
    def _ordered(self) -> "Replay":
        if self.most < self.share:
            raise ValueError("most must not be smaller than share")
        return self

    def start(self, dataset: Dataset, seed: int) -> Draws:
        require_rows(dataset, self.name)
        if self.share == 0 and self.column not in dataset.column_names:
            replayed = np.zeros(dataset.num_rows, dtype=bool)
        else:
            replayed = np.array([value is True for value in dataset.column(self.column).to_pylist()])
        counts = {"domain": int((~replayed).sum()), "replay": int(replayed.sum())}
        missing = [name for name, count in counts.items() if not count and (name == "domain" or self.share > 0)]
        if missing:
            raise InputError(
                f"{self.name}: there are no {missing[0]} rows to draw",
                where=self.column,
                expected="rows where it is true (replay) and rows where it is not (domain)",
                found=f"{counts['replay']} replay rows, {counts['domain']} domain rows",
                remedy="mark the general rows (signals.constant) and give both datasets to the training step",
            )
        return ReplayDraws(replayed, seed, self.share, self.most)
