"""Back-tests: what a forecast would have said earlier, held against what was measured later.

Rolling origin: the forecast is made from the first k different x (k >= 5), and every later x is predicted; so are
two naive forecasts, the last value and a straight line in logarithms (a line over ln x where y is not positive).
Errors are relative, |predicted - measured| / |measured|, with medians by extrapolation ratio, rounded to a
power of two; skill = 1 - error / error of the better naive forecast at that ratio. Coverage counts the measured
points inside the forecast's interval for one new point.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tutelage.core.curve import MIN_POINTS, BackTest, Curve
from tutelage.core.errors import InputError
from tutelage.core.stats.curves import FormName, fit_curve

# A curve and the x to predict -> for each (value, lower, upper bound or None) of a new point.
Predictor = Callable[[Curve, Sequence[float]], list[tuple[float, float | None, float | None]]]


@dataclass(frozen=True)
class Held:
    """One held-out point: how far ahead it was, what was measured, what was said."""

    ratio: float
    measured: float
    predicted: float
    last: float
    line: float
    lo: float | None = None
    hi: float | None = None


def rolling(curve: Curve, predictor: Predictor, least: int = MIN_POINTS) -> list[Held]:
    """All held-out points of rolling origins. An origin whose forecast is refused is left out."""
    held = []
    places = curve.distinct
    for k in range(least, len(places)):
        known, later = curve.until(places[k - 1]), places[k:]
        try:
            said = predictor(known, later.tolist())
        except InputError:
            continue
        lines = straight_line(known, later)
        for x, (value, lo, hi), line in zip(later, said, lines):
            measured, last = curve.at(x), known.at(places[k - 1])
            held.append(Held(float(x / places[k - 1]), measured, value, last, float(line), lo, hi))
    return held


def straight_line(curve: Curve, x: Sequence[float] | np.ndarray) -> np.ndarray:
    """[r] values of the naive straight line: ln y over ln x, or y over ln x where a y is not positive."""
    form: FormName = "loglog" if min(curve.y) > 0 else "loglin"
    if len(curve.distinct) < 2:
        return np.full(len(x), curve.at(curve.distinct[-1]))
    return fit_curve(form, curve.x, curve.y).predict(x)


def summarised(held: Iterable[Held]) -> tuple[BackTest, ...]:
    """One row for every tested ratio, rising."""
    groups: dict[int, list[Held]] = {}
    for one in held:
        groups.setdefault(max(0, round(np.log2(one.ratio))), []).append(one)
    rows = []
    for power in sorted(groups):
        found = groups[power]
        error, last, line = (
            float(np.median([_error(getattr(one, name), one.measured) for one in found]))
            for name in ("predicted", "last", "line")
        )
        inside = [one.lo <= one.measured <= one.hi for one in found if one.lo is not None and one.hi is not None]
        rows.append(
            BackTest(
                ratio=2.0**power,
                points=len(found),
                error=error,
                last=last,
                line=line,
                skill=skill(error, last, line),
                coverage=float(np.mean(inside)) if inside else None,
            )
        )
    return tuple(rows)


def skill(error: float, last: float, line: float) -> float:
    """1 - error / the better naive error; where that is 0 there is nothing to win."""
    naive = min(last, line)
    if naive <= 0.0:
        return 0.0 if error <= 0.0 else -1.0
    return max(1 - error / naive, -1e6)


def at_ratio(tested: Sequence[BackTest], ratio: float) -> BackTest | None:
    """The test that speaks for a forecast `ratio` ahead: the nearest at that ratio or beyond it, else None."""
    return next((row for row in tested if row.ratio >= 2.0 ** max(0, round(np.log2(ratio)))), None)


def _error(said: float, measured: float) -> float:
    return abs(said - measured) / max(abs(measured), 1e-12)
