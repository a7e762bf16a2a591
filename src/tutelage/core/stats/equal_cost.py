"""Equal cost: A and B may be compared only on a declared axis with |cost_A / cost_B - 1| <= 5 %.

Axes: flops, labels, currency, tokens, seconds; `as_if` totals (nothing saved by a cache), with scoring, teacher
calls and failed trials included. Three ways to get there: top the cheaper side up, run the baseline at three or
more budgets around the method's cost and interpolate linearly in log cost, or let an inference-time baseline spend
the same forward passes.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from tutelage.core.errors import ComparisonError, suggest
from tutelage.core.records import Cost, Record

Axis = Literal["flops", "labels", "currency", "tokens", "seconds"]
AXES = ("flops", "labels", "currency", "tokens", "seconds")
TOLERANCE = 0.05


class CostCheck(Record):
    """Whether two sides may be compared, on which axis, and the cost ratio A / B that every verdict prints."""

    axis: Axis
    cost_a: float
    cost_b: float
    ratio: float | None
    tolerance: float
    comparable: bool
    reason: str


def cost_on_axis(cost: Cost | Mapping[str, float] | None, axis: str, side: str = "") -> float:
    """The cost on one axis. `Cost` has no currency: give a mapping with that key. Missing costs are errors."""
    if axis not in AXES:
        raise ComparisonError("unknown cost axis", found=axis, remedy=suggest(axis, AXES))
    value: float | None = None
    if isinstance(cost, Cost):
        totals = {
            "flops": cost.flops,
            "labels": float(cost.labels),
            "tokens": float(cost.scored_tokens + cost.trained_tokens + cost.generated_tokens),
            "seconds": cost.seconds,
        }
        value = totals.get(axis)
    elif cost is not None:
        value = cost.get(axis)
    if value is None or not np.isfinite(value) or value < 0:
        raise ComparisonError(
            "a cost is missing",
            where=f"{side + ', ' if side else ''}axis {axis}",
            expected="what each side spent, scoring, search and failed trials included",
            found=value,
            remedy="measure the cost, or declare an axis on which both sides have one",
        )
    return float(value)


def check_equal_cost(
    cost_a: Cost | Mapping[str, float] | None,
    cost_b: Cost | Mapping[str, float] | None,
    axis: Axis,
    tolerance: float = TOLERANCE,
) -> CostCheck:
    """Compare the costs of method A and baseline B on `axis`; raises ComparisonError when one is missing."""
    a, b = cost_on_axis(cost_a, axis, "A"), cost_on_axis(cost_b, axis, "B")
    if a == 0 and b == 0:
        ratio: float | None = 1.0
    else:
        ratio = a / b if b > 0 else None
    # A ratio that is exactly at the tolerance must not fail on its last bit.
    comparable = ratio is not None and abs(ratio - 1) <= tolerance * (1 + 1e-9)
    if comparable:
        reason = f"equal {axis} within {tolerance:.0%}"
    elif ratio is None:
        reason = f"B spent no {axis} and A spent {a:g}"
    else:
        cheaper = "A" if a < b else "B"
        reason = f"cost ratio {ratio:.3g} on {axis}; top {cheaper} up by {abs(a - b):.3g}, or interpolate a curve"
    return CostCheck(
        axis=axis, cost_a=a, cost_b=b, ratio=ratio, tolerance=tolerance, comparable=comparable, reason=reason
    )


def top_up(
    cost_a: Cost | Mapping[str, float] | None, cost_b: Cost | Mapping[str, float] | None, axis: Axis
) -> tuple[Literal["A", "B"] | None, float]:
    """Which side is cheaper on `axis` and by how much: what it receives as extra training, labels or samples."""
    a, b = cost_on_axis(cost_a, axis, "A"), cost_on_axis(cost_b, axis, "B")
    if a == b:
        return None, 0.0
    return ("A", b - a) if a < b else ("B", a - b)


def interpolate_baseline(
    costs: Sequence[float], estimates: Sequence[float], errors: Sequence[float], at: float
) -> tuple[float, float]:
    """(estimate, standard error) of a baseline at cost `at`, linear in log cost between its measured budgets.

    Needs at least three budgets that bracket `at`; outside, the two are not comparable.
    """
    order = np.argsort(costs)
    x, y, se = (np.asarray(values, dtype=float)[order] for values in (costs, estimates, errors))
    if len(x) < 3 or x[0] <= 0 or (np.diff(x) == 0).any():
        raise ComparisonError(
            "too few budgets to interpolate a baseline",
            expected="three or more different positive costs",
            found=[float(v) for v in x],
        )
    if not x[0] <= at <= x[-1]:
        raise ComparisonError(
            "not comparable: the method's cost is outside the baseline's curve",
            expected=f"a cost in [{x[0]:g}, {x[-1]:g}]",
            found=at,
            remedy="run the baseline at a budget on the other side",
        )
    right = int(np.clip(np.searchsorted(x, at), 1, len(x) - 1))
    left = right - 1
    share = float(np.log(at / x[left]) / np.log(x[right] / x[left]))
    estimate = (1 - share) * y[left] + share * y[right]
    error = np.hypot((1 - share) * se[left], share * se[right])
    return float(estimate), float(error)
