"""Warm-up and the horizon, which all schedules share.

Lengths are given as a share of the budget (below 1) or in the budget's own unit (1 or more: tokens, rows, FLOPs or
seconds), and resolved against the total when it is known.
"""

from pydantic import Field

from tutelage.core.errors import ConfigError
from tutelage.core.method import Schedule


def resolve(length: float, total: float) -> float:
    """A length below 1 is a share of `total`, any other an absolute amount."""
    return length * total if length < 1 else length


def within(seen: float, total: float, warmup: float, decay: float = 0.0) -> None:
    """Raise ConfigError where `seen` is past the horizon, or warm-up and decay do not fit into it."""
    if warmup + decay > total:
        raise ConfigError(
            "warm-up and decay are longer than the run",
            where="schedule",
            expected=f"warm-up + decay of at most {total:g}",
            found=f"warm-up {warmup:g} + decay {decay:g}, horizon {total:g}",
            remedy="shorten one of them, or give them as shares below 1",
        )
    if seen > total * (1 + 1e-9):
        raise ConfigError(
            "a schedule is asked for a rate beyond its horizon",
            where="schedule",
            expected=f"at most {total:g}",
            found=f"{seen:g}",
            remedy="declare the longer budget from the start; only constant and wsd runs can be extended",
        )


def ramp(seen: float, warmup: float) -> float | None:
    """seen / warmup inside the warm-up, else None."""
    return seen / warmup if seen < warmup else None


class WarmedUp(Schedule):
    """`warmup`: share of the budget (below 1) or an amount in its unit. `final`: share of the peak at the end."""

    warmup: float = Field(default=0.03, ge=0)
    final: float = Field(default=0.0, ge=0, le=1)

    def multiplier(self, seen: float, total: float) -> float:
        warmup = resolve(self.warmup, total)
        within(seen, total, warmup)
        rising = ramp(seen, warmup)
        if rising is not None:
            return rising
        return self.decayed(min(1.0, (seen - warmup) / max(total - warmup, 1e-12)))

    def decayed(self, progress: float) -> float:
        """The factor at `progress` in [0, 1] from the end of the warm-up to the horizon."""
        raise NotImplementedError
