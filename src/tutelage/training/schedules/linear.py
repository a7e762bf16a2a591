"""Linear decay to a final share after a linear warm-up.

With n = budget spent, N = horizon, W = warm-up, r = final share and u = (n - W)/(N - W), the factor is n/W for
n < W and 1 - (1 - r) u from there on.
"""

from tutelage.core.method import Schedule
from tutelage.training.schedules._shared import WarmedUp

CARD = {
    "name": "training.schedules.linear",
    "paper": {"title": "Common practice"},
    "summary": "Linear decay to a final share after a linear warm-up.",
    "cost": "none",
    "baseline": "training.schedules.constant",
    "headline": "a strong default for short fine-tuning runs",
    "version": 1,
}


class Linear(WarmedUp, Schedule):
    """`warmup`: share of the budget (below 1) or an amount in its unit. `final`: share of the peak at the end."""

    def decayed(self, progress: float) -> float:
        return 1 - (1 - self.final) * progress
