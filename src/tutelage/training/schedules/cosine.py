"""Half a cosine from the peak to a final share, after a linear warm-up.

With n = budget spent, N = horizon, W = warm-up, r = final share and u = (n - W)/(N - W), the factor is n/W for
n < W and r + (1 - r)(1 + cos(pi u))/2 from there on. Asking beyond N is an error, not a plateau: a cosine run
cannot be extended.
"""

import math

from tutelage.core.method import Schedule
from tutelage.training.schedules._shared import WarmedUp

CARD = {
    "name": "training.schedules.cosine",
    "paper": {
        "title": "SGDR: Stochastic Gradient Descent with Warm Restarts",
        "identifier": "arXiv:1608.03983",
    },
    "summary": "Half a cosine from the peak to a final share, after a linear warm-up.",
    "cost": "none",
    "baseline": "training.schedules.constant",
    "headline": "the usual schedule of a run whose length is known beforehand",
    "version": 1,
}


class Cosine(WarmedUp, Schedule):
    """`warmup`: share of the budget (below 1) or an amount in its unit. `final`: share of the peak at the end."""

    def decayed(self, progress: float) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))
