"""The frozen records of the loop: how it runs and what it did."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from tutelage.core.records import Cost, Record
from tutelage.core.stats.gap import Gap, stability_gap


class Settings(Record):
    """How the loop runs. Lengths are in tokens; `rates` multiply the learning rate of weights by parts of their
    names; `clip` None never clips; `evaluate_at` and `keep_at` are shares of
    the budget at which evaluators run and loadable copies of the model are kept."""

    learning_rate: float = Field(default=1e-3, gt=0)
    rates: dict[str, float] = Field(default_factory=dict)
    weight_decay: float = Field(default=0.1, ge=0)
    clip: float | None = Field(default=1.0, gt=0)
    step_tokens: int = Field(default=2048, ge=1)
    micro_tokens: int = Field(default=1024, ge=1)
    max_length: int = Field(default=1024, ge=2)
    gradient_checkpointing: bool = False
    evaluate_at: tuple[float, ...] = (1.0,)
    keep_at: tuple[float, ...] = ()
    checkpoint_seconds: float = Field(default=120.0, ge=0)
    keep_last: int = Field(default=2, ge=1)


class Fit(Record):
    """What a run did. Per step: mean loss, learning rate, gradient norm before clipping, tokens. `history`: what
    the evaluators reported and when; `evaluation_cost`, of measurements that the run does not act on, is not part
    of `cost`. `consumed`: the file with the row ids of every step. `truncated_rows`: how many of the `rows` drawn
    were longer than the context and lost tokens. `kept`: share of the budget -> model folder."""

    losses: tuple[float, ...]
    learning_rates: tuple[float, ...]
    gradient_norms: tuple[float, ...]
    step_tokens: tuple[int, ...]
    tokens: int
    rows: int
    steps: int
    skipped_steps: int
    dropped_rows: int
    truncated_rows: int
    seconds: float
    cost: Cost
    consumed: str
    peak_bytes: int
    mfu: float
    micro_tokens: int
    resumed_at: int | None = None
    evaluation_cost: Cost = Field(default_factory=Cost)
    history: tuple[dict[str, Any], ...] = ()
    kept: dict[str, str] = Field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        """Training tokens per second, evaluations left out."""
        return self.tokens / self.seconds if self.seconds else 0.0

    def gaps(self) -> dict[str, Gap]:
        """Metric -> the stability gap of its curve over the spent share, for every metric that was reported
        at every evaluation, one of them before the first step; empty without that one."""
        if len(self.history) < 2 or self.history[0]["share"] > 0:
            return {}
        names = [name for name in self.history[0] if "/" in name]
        curves = {name: [entry for entry in self.history if name in entry] for name in names}
        return {
            name: stability_gap([entry["share"] for entry in found], [entry[name] for entry in found])
            for name, found in curves.items()
            if len(found) == len(self.history) and all(math.isfinite(entry[name]) for entry in found)
        }


REQUESTS = ("rate_factor", "stop", "raise_replay", "warn")


@dataclass
class Counters:
    """What the loop counts; JSON in the checkpoint."""

    step: int = 0
    tokens: int = 0
    rows: int = 0
    skipped: int = 0
    evaluated: int = 0
    kept: int = 0
    micro_tokens: int = 0
    halved: bool = False
    ended: bool = False
    rate_factor: float = 1.0

    def obey(self, found: Mapping[str, float]) -> list[str]:
        """Do what evaluators ask for, and say so: `<name>/rate_factor` multiplies the learning rate from here on,
        `<name>/stop` ends the run; `<name>/raise_replay` (for the sampler) and `<name>/warn` are only said."""
        asked = {name: value for name, value in found.items() if name.rpartition("/")[2] in REQUESTS}
        for name, value in asked.items():
            if name.endswith("/rate_factor"):
                self.rate_factor *= value
            self.ended |= name.endswith("/stop") and value > 0
        return [f"{name} {value:g}" for name, value in asked.items()]
