"""Warm-up, stable, decay: a constant peak between a linear warm-up and a decay over the last part of the run.

With x = progress through the decay and r = final share, the decay shapes are
  linear       1 - (1 - r) x
  cosine       r + (1 - r)(1 + cos(pi x))/2
  sqrt         (1 - r)(1 - sqrt(x)) + r
  exponential  a exp(-x) + b, a = (1 - r) e/(e - 1), b = (r e - 1)/(e - 1): 1 at x = 0 and r at x = 1.
A run can be extended from a checkpoint of its stable phase (`training.fit`: `Fit.branch_decay`).
"""

import math
from typing import Literal

from pydantic import Field

from tutelage.core.method import Schedule
from tutelage.training.schedules._shared import ramp, resolve, within

CARD = {
    "name": "training.schedules.wsd",
    "paper": {
        "title": "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training Strategies",
        "identifier": "arXiv:2404.06395",
    },
    "summary": "Warm-up, a constant peak, then a decay over the last part of the run.",
    "cost": "none",
    "baseline": "training.schedules.cosine",
    "headline": "as good as cosine at the end, and extendable from its stable phase",
    "version": 1,
}

Shape = Literal["linear", "cosine", "sqrt", "exponential"]


def decayed(x: float, final: float, shape: str) -> float:
    """The factor at progress `x` in [0, 1] through the decay."""
    if shape == "linear":
        return 1 - (1 - final) * x
    if shape == "cosine":
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * x))
    if shape == "sqrt":
        return (1 - final) * (1 - math.sqrt(x)) + final
    scale = (1 - final) * math.e / (math.e - 1)
    return scale * math.exp(-x) + (final * math.e - 1) / (math.e - 1)


class Wsd(Schedule):
    """`warmup` and `decay`: shares of the budget (below 1) or amounts in its unit. `final`: share of the peak at
    the end. `shape`: of the decay."""

    warmup: float = Field(default=0.03, ge=0)
    decay: float = Field(default=0.1, ge=0)
    final: float = Field(default=0.0, ge=0, le=1)
    shape: Shape = "sqrt"

    def multiplier(self, seen: float, total: float) -> float:
        warmup, decay = resolve(self.warmup, total), resolve(self.decay, total)
        within(seen, total, warmup, decay)
        rising = ramp(seen, warmup)
        if rising is not None:
            return rising
        start = total - decay
        if seen < start or decay == 0:
            return 1.0
        return max(0.0, decayed(min(1.0, (seen - start) / decay), self.final, self.shape))
