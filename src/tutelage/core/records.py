"""The plain frozen records every room exchanges: Budget, Cost, Interval, Result, Rollout.

`ItemLog` (one row per item, seed and system) is in `core.items`; `Card` is in `core.card`; `Recipe` in
`runs.recipe`. A record is validated when built and round-trips through JSON unchanged.
"""

import re
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

if TYPE_CHECKING:
    from tutelage.core.items import ItemLog

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}


class Record(BaseModel):
    """Base of the frozen records: unknown fields are refused, values are checked when built."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


def parse_quantity(value: Any) -> Any:
    """`"200k"` -> 200000.0, `"1.5M"` -> 1500000.0; numbers pass through; anything else is left to pydantic."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?(?:e[0-9]+)?)\s*([kmgtp]?)\s*", value.lower())
        if match:
            return float(match[1]) * _UNITS[match[2]]
    return value


class Budget(Record):
    """What a step may spend; the first limit reached ends it. Units: rows, tokens, FLOPs, seconds."""

    rows: int | None = Field(default=None, gt=0)
    tokens: int | None = Field(default=None, gt=0)
    flops: float | None = Field(default=None, gt=0)
    seconds: float | None = Field(default=None, gt=0)

    @field_validator("rows", "tokens", "flops", "seconds", mode="before")
    @classmethod
    def _quantity(cls, value: Any) -> Any:
        value = parse_quantity(value)
        return int(value) if isinstance(value, float) and value.is_integer() and value < 2**53 else value

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.rows is None and self.tokens is None and self.flops is None and self.seconds is None:
            raise ValueError("a budget needs at least one of rows, tokens, flops, seconds")
        return self


class Cost(Record):
    """What was spent. FLOPs follow forward 2*P*tokens, backward 4*P*tokens (P = active parameters)."""

    forward_flops: float = 0.0
    backward_flops: float = 0.0
    scored_tokens: int = 0
    trained_tokens: int = 0
    generated_tokens: int = 0
    calls: int = 0
    labels: int = 0
    trials: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0

    @property
    def flops(self) -> float:
        """Total FLOPs, forward and backward."""
        return self.forward_flops + self.backward_flops

    def __add__(self, other: "Cost") -> "Cost":
        summed = {
            name: getattr(self, name) + getattr(other, name) for name in Cost.model_fields if name != "peak_bytes"
        }
        return Cost(**summed, peak_bytes=max(self.peak_bytes, other.peak_bytes))


class Interval(Record):
    """An interval, how it was made and what it covers."""

    lo: float
    hi: float
    level: float = 0.95
    method: str
    covers: Literal["items", "clusters", "items+seeds", "clusters+seeds", "items+labels", "points"]


class Result(Record):
    """One measurement of one system, with its uncertainty, cost and origin.

    `direction` is +1 when larger is better, -1 when smaller is. A result without an interval says why in
    `no_interval` and can never enter a verdict. `items` (the item log) travels in memory and is saved beside.
    """

    task: str
    metric: str
    direction: Literal[1, -1]
    unit: str = ""
    estimate: float
    interval: Interval | None = None
    no_interval: str | None = None
    n_items: int
    n_clusters: int | None = None
    seeds: tuple[int, ...] = ()
    status_counts: dict[str, int] = Field(default_factory=dict)
    system: dict[str, Any] = Field(default_factory=dict)
    environment: str = ""
    cost: Cost = Field(default_factory=Cost)
    item_log: str | None = None
    artifacts: tuple[str, ...] = ()
    extra: dict[str, float] = Field(default_factory=dict)

    _items: "ItemLog | None" = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _interval_or_reason(self) -> Self:
        if self.interval is None and not self.no_interval:
            raise ValueError("a Result needs an interval, or a reason in no_interval")
        return self

    @property
    def items(self) -> "ItemLog | None":
        """The item log, when this result was just measured or loaded with it."""
        return self._items

    def with_items(self, items: "ItemLog") -> "Result":
        """The same result carrying its item log (and the log's hash)."""
        copy = self.model_copy(update={"item_log": items.hash})
        copy._items = items
        return copy


class Rollout(Record):
    """One prompt and its sampled completions, as token ids.

    Shapes: `completions`, `masks` and `old_logps` are ragged [k][t]; `rewards` is [k] and None marks a
    completion that could not be scored.
    """

    prompt_id: str
    prompt: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    masks: tuple[tuple[int, ...], ...]
    old_logps: tuple[tuple[float, ...], ...]
    rewards: tuple[float | None, ...] = ()
