"""A constant learning rate after a linear warm-up.

With n = budget spent and W = warm-up, the factor is n/W for n < W and 1 from there on; it has no horizon.
"""

from pydantic import Field

from tutelage.core.method import Schedule
from tutelage.training.schedules._shared import ramp, resolve

CARD = {
    "name": "training.schedules.constant",
    "paper": {"title": "Common practice"},
    "summary": "Constant learning rate after a linear warm-up.",
    "cost": "none",
    "baseline": None,
    "headline": "can be extended for ever; ends without the gain that a decay brings",
    "version": 1,
}


class Constant(Schedule):
    """`warmup`: share of the budget (below 1) or an amount in its unit."""

    warmup: float = Field(default=0.0, ge=0)

    def multiplier(self, seen: float, total: float) -> float:
        rising = ramp(seen, resolve(self.warmup, total))
        return 1.0 if rising is None else rising
