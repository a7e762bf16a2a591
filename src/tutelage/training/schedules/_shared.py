"""Warm-up and the horizon, which all schedules share.

Lengths are given as a share of the budget (below 1) or in the budget's own unit (1 or more: tokens, rows, FLOPs or
seconds), and resolved against the total when it is known.
"""

from tutelage.core.errors import ConfigError


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
