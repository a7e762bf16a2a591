"""What more data or labels would bring: a curve through the scores at growing sizes, and when to stop paying.

Points (n_j, score_j, se_j) of models trained from scratch on nested subsets. Scores follow c - b n^-a (losses
E + A n^-a), fitted by separable least squares with profile intervals (`core.stats.curves`). Working level: the
first k >= 5 from which the residual of the last point stays below 2 spreads; prediction level: the first later k
from which no asymptote is better than the one before it by more than its interval. Before it there is no forecast.
Stop when the upper bound of the gain that is left (score at infinity - score now) is below epsilon, or when value
x upper bound of the next batch's gain is below its cost. That asymptotes fall monotonically is the paper's theorem
under its assumptions; the thresholds and the stop rule are ours. The interval covers the noise of the points, not
the choice of the form.
"""

import warnings
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from tutelage.core.curve import MIN_POINTS, Curve, curve_of
from tutelage.core.errors import InputError
from tutelage.core.method import Forecaster, Inputs, State
from tutelage.core.stats.curves import Fit, FormName
from tutelage.forecasting._shared import LEVEL, fitted, forecast_curve, prepared, result_of

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "forecasting.learning_curve",
    "paper": {
        "title": "Modeling of learning curves with applications to pos tagging",
        "identifier": "arXiv:2402.02515",
    },
    "summary": "Score at a size not yet paid for, the gain that is left, and whether to stop.",
    "reads": ["{x}", "{y}", "se?", "seed?", "run?", "phase?", "direction?", "ids?"],
    "inputs": {"other?": "points of another system: which of the two is worth finishing"},
    "cost": "statistics only; the points cost about twice the last training when sizes double",
    "baseline": None,
    "headline": "asymptotes fall monotonically towards the truth once the curve has settled, the paper proves",
    "version": 1,
}


def levels(curve: Curve, form: FormName, upper: float | None) -> tuple[float | None, float | None]:
    """(x of the working level, x of the prediction level); None where not reached."""
    places = curve.distinct
    fits = {k: fitted(curve.until(places[k - 1]), form, upper) for k in range(MIN_POINTS, len(places) + 1)}
    working = _first({k: _residual(fit, places[k - 1]) < 2 for k, fit in fits.items()})
    if working is None:
        return None, None
    steady = {}
    for k in range(working + 1, len(places) + 1):
        (lo, hi), before = fits[k].interval(np.inf, LEVEL), float(fits[k - 1].predict(np.inf)[0])
        # An asymptote may get worse, or better by no more than its own interval.
        steady[k] = lo <= before if curve.direction > 0 else hi >= before
    level = _first(steady)
    return float(places[working - 1]), None if level is None else float(places[level - 1])


def _first(holds: dict[int, bool]) -> int | None:
    """The first number from which it holds to the end."""
    return next((k for k in holds if all(later for j, later in holds.items() if j >= k)), None)


def _residual(fit: Fit, x: float) -> float:
    """|residual| of the points at x over their standard error (over the residual spread where none was given)."""
    at = fit.x[:, 0] == x
    scaled = np.abs((fit.y - fit.predict(fit.x)) * fit.weights)
    spread = np.sqrt(fit.rss / max(fit.df, 1))
    return float(scaled[at].mean() / spread) if spread > 1e-9 * np.abs(fit.y * fit.weights).max() else 0.0


def better_bounds(fit: Fit, start: float, end: float, direction: int) -> tuple[float, float, float]:
    """(gain, lower, upper) from `start` to `end`, positive where it is an improvement."""
    value, lo, hi = fit.gain(start, end, LEVEL)
    return (value, lo, hi) if direction > 0 else (-value, -hi, -lo)


class LearningCurve(Forecaster):
    """`x`, `y`: columns of the points. `direction`: of y where no column says it. `upper`: the best score there
    can be (null: none). `form` auto: `sat3` for scores, `power3` for losses. `epsilon`: a gain not worth having,
    in units of y. `unit_cost` of one x and `value` of one unit of y, in one currency, price the next `batch`
    (null: as much again). `force` shows a forecast without skill, and beyond sixteen times."""

    x: str = "x"
    y: str = "y"
    direction: Literal["higher", "lower"] | None = None
    form: Literal["auto", "sat3", "power3", "power2", "loglin"] = "auto"
    upper: float | None = 1.0
    epsilon: float = Field(default=0.01, gt=0)
    unit_cost: float | None = Field(default=None, gt=0)
    value: float | None = Field(default=None, gt=0)
    batch: float | None = Field(default=None, gt=0)
    force: bool = False

    def fit(self, points: "Dataset", inputs: Inputs) -> State:
        """The points, checked: raises InputError for scores that only get worse, and as `core.curve` does; warns
        of subsets that are not nested."""
        side = {"higher": 1, "lower": -1, None: None}[self.direction]
        curve = curve_of(points, x=self.x, y=self.y, direction=side)  # type: ignore[arg-type]
        means = np.array([curve.at(x) for x in curve.distinct])
        if len(means) >= 3 and (np.diff(means) * curve.direction < 0).all():
            raise InputError(
                "not a learning curve: every larger size is worse",
                where=f"{curve.metric} over {curve.x_unit}",
                expected="scores that get better with more",
                found=", ".join(f"{mean:.4g}" for mean in means[:8]),
                remedy="check the direction; if it is right, more data hurt and no curve will say how far",
            )
        if "ids" in points.column_names:
            _warn_of_strangers(points, self.x)
        other = inputs.get("other")
        given = {"other": None if other is None else self.fit(other, {})["curve"]}
        return {"curve": curve, **given}

    def predict(self, state: State, at: float | None) -> "Result":
        """The score at `at`; `extra` has the asymptote, the gains with bounds, the levels and `stop` (1 or 0)."""
        assert at is not None
        curve: Curve = state["curve"]
        form: Any = self.form if self.form != "auto" else "sat3" if curve.direction > 0 else "power3"
        usable = prepared(curve)[0]
        bounded = form in ("sat3", "power3")
        working, settled = levels(usable, form, self.upper) if bounded else (None, usable.x[-1])
        forecast, fit, curve = forecast_curve(curve, form, at, upper=self.upper, force=self.force)
        if settled is None and forecast.status == "skill" and not self.force:
            forecast = forecast.model_copy(update={"status": "not tested", "shown": forecast.last})
        if settled is None:
            forecast = forecast.model_copy(
                update={
                    "notes": (*forecast.notes, "the curve has not settled: its prediction level is not reached")
                }
            )
        extra, sentences = self._stop(fit, curve, form)
        extra |= {"working_level": working} if working else {}
        extra |= {"prediction_level": settled} if settled else {}
        more = []
        if state["other"] is not None:
            other, theirs, _ = forecast_curve(state["other"], form, at, upper=self.upper, force=self.force)
            more.append(other)
            extra["other"] = other.value
            sentences.append(finish(fit.interval(at), theirs.interval(at), curve.direction))
        return result_of(self, forecast, curve, extra=extra, sentences=sentences, more=more)

    def _stop(self, fit: Fit, curve: Curve, form: str) -> tuple[dict[str, float], list[str]]:
        now = float(curve.distinct[-1])
        extra: dict[str, float] = {}
        reasons = []
        if form != "loglin":
            left, _, most = better_bounds(fit, now, np.inf, curve.direction)
            extra |= {"asymptote": float(fit.predict(np.inf)[0]), "gain_left": left, "gain_left_hi": most}
            if most < self.epsilon:
                reasons.append(f"at most {most:.3g} is left to gain, less than {self.epsilon:g}")
        batch = self.batch or now
        gain, low, high = better_bounds(fit, now, now + batch, curve.direction)
        extra |= {"gain_next": gain, "gain_next_lo": low, "gain_next_hi": high}
        if self.unit_cost is not None and self.value is not None and self.value * high < self.unit_cost * batch:
            reasons.append(
                f"{batch:g} more {curve.x_unit} cost {self.unit_cost * batch:.4g} and bring at most "
                f"{self.value * high:.4g}"
            )
        extra = {name: value for name, value in extra.items() if np.isfinite(value)}
        stop = f"stop: {'; '.join(reasons)}" if reasons else "go on: a worthwhile gain cannot be excluded"
        following = f"{batch:g} more {curve.x_unit} bring {gain:+.3g} [{low:+.3g}, {high:+.3g}]"
        return {**extra, "stop": float(bool(reasons))}, [following, stop]


def finish(ours: tuple[float, float], theirs: tuple[float, float], direction: int) -> str:
    """Which of two systems to finish, by their intervals at the full size."""
    if direction < 0:
        ours, theirs = (-ours[1], -ours[0]), (-theirs[1], -theirs[0])
    if ours[0] > theirs[1]:
        return "finish this system: its lower bound is above the other's upper bound"
    return "finish the other system" if theirs[0] > ours[1] else "go on with both systems: their intervals overlap"


def _warn_of_strangers(points: "Dataset", x: str) -> None:
    rows = sorted(
        points.rows([x, "ids", *(["seed"] if "seed" in points.column_names else [])]), key=lambda r: r[x]
    )
    for small, large in pairwise(rows):
        if (
            small.get("seed") == large.get("seed")
            and small[x] < large[x]
            and set(small["ids"]) - set(large["ids"])
        ):
            warnings.warn(
                f"forecasting.learning_curve: the rows at {small[x]:g} are not all among those at {large[x]:g}; "
                "subsets that are not nested add noise between the sizes",
                stacklevel=3,
            )
            return
