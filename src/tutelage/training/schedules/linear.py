"""Linear decay to a final share after a linear warm-up.

With n = budget spent, N = horizon, W = warm-up, r = final share and u = (n - W)/(N - W), the factor is n/W for
n < W and 1 - (1 - r) u from there on.
"""

from pydantic import Field

from tutelage.core.method import Schedule
from tutelage.training.schedules._shared import ramp, resolve, within

CARD = {
    "name": "training.schedules.linear",
    "paper": {"title": "Common practice"},
    "summary": "Linear decay to a final share after a linear warm-up.",
    "cost": "none",
    "baseline": "training.schedules.constant",
    "headline": "a strong default for short fine-tuning runs",
    "version": 1,
}


class Linear(Schedule):
    """`warmup`: share of the budget (below 1) or an amount in its unit. `final`: share of the peak at the end."""

    warmup: float = Field(default=0.03, ge=0)
    final: float = Field(default=0.0, ge=0, le=1)

    def multiplier(self, seen: float, total: float) -> float:
        warmup = resolve(self.warmup, total)
        within(seen, total, warmup)
        rising = ramp(seen, warmup)
        if rising is not None:
            return rising
        progress = min(1.0, (seen - warmup) / max(total - warmup, 1e-12))
        return 1 - (1 - self.final) * progress
