"""The stability gap: how far a loss rises in training before it falls, and what that costs on the way.

For a loss curve L at points t_0 < ... < t_n, straight between them:
  depth    = max over t of L(t) - L(t_0)
  recovery = the first measured point after the peak with L <= L(t_0), None when there is none
  area     = integral of max(0, L(t) - L(t_0)) dt
  change   = L(t_n) - L(t_0)
A curve that never rises has depth 0, area 0 and recovers at t_0. Source: the curve that "Efficient Continual
Pre-training by Mitigating the Stability Gap" (arXiv:2406.14833) plots; the definitions are ours.
"""

from collections.abc import Sequence

import numpy as np

from tutelage.core.errors import InputError
from tutelage.core.records import Record


class Gap(Record):
    """The gap of one curve, in the units of its loss; `recovery` and `area` in those of t as well."""

    depth: float
    recovery: float | None
    area: float
    change: float


def stability_gap(at: Sequence[float], losses: Sequence[float]) -> Gap:
    """The gap of a curve of at least two points, `at` rising; raises InputError otherwise."""
    t, rise = np.asarray(at, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    if len(t) < 2 or len(t) != len(rise) or (np.diff(t) <= 0).any() or not np.isfinite(rise).all():
        raise InputError(
            "a curve has no gap",
            expected="two or more finite losses at rising points",
            found=f"{len(rise)} losses at {list(t[:8])}",
            remedy="evaluate before the first step and at several shares of the budget",
        )
    rise = rise - rise[0]
    peak = int(rise.argmax())
    back = np.flatnonzero(rise[peak:] <= 0)
    a, b = rise[:-1], rise[1:]
    high, low = np.maximum(a, b), np.minimum(a, b)
    # Where a segment crosses zero only the triangle above counts.
    above = np.where(
        low >= 0, (a + b) / 2, np.where(high > 0, high**2 / (2 * np.maximum(high - low, 1e-300)), 0.0)
    )
    return Gap(
        depth=float(rise[peak]),
        recovery=float(t[peak + back[0]]) if len(back) else None,
        area=float((above * np.diff(t)).sum()),
        change=float(rise[-1]),
    )
