"""What every forecast of a curve shares: preconditions, the back-test, what may be shown, and the `Result` of it.

The rules are those of the fitting core: at least five different x that span eight times, log-spaced where they are
checkpoints of one run, never of two learning-rate phases; a warning beyond four times the largest x, a refusal
beyond sixteen times. A forecast is shown as one only where it beat both naive forecasts on points it had not seen,
at its own ratio or a larger one; otherwise the last value is shown, and the reason said.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.core.curve import BackTest, Curve, Forecast
from tutelage.core.errors import InputError
from tutelage.core.method import Forecaster
from tutelage.core.records import Interval, Result
from tutelage.core.stats.backtest import at_ratio, rolling, straight_line, summarised
from tutelage.core.stats.curves import FORMULAS, Fit, FormName, fit_curve

WARN_RATIO, MAX_RATIO = 4.0, 16.0
LEVEL = 0.95


def prepared(curve: Curve) -> tuple[Curve, list[str]]:
    """(the points that may be fitted, notes); raises InputError for too few points or too small a span."""
    notes = []
    if curve.single_run:
        spaced = curve.spaced()
        notes.append(
            f"single run: {len(spaced.x)} log-spaced of {len(curve.x)} checkpoints of one run; the interval does "
            "not know how another run would differ"
        )
        curve = spaced
    return curve.require(), notes


def fitted(curve: Curve, form: FormName, upper: float | None) -> Fit:
    """The form over the points, weighted by their standard errors where they have them."""
    return fit_curve(form, curve.x, curve.y, se=curve.se, upper=upper)


def back_tested(curve: Curve, form: FormName, upper: float | None) -> tuple[BackTest, ...]:
    """How the form would have fared on each later point."""

    def predictor(known: Curve, later: Sequence[float]) -> list[tuple[float, float | None, float | None]]:
        fit = fitted(known, form, upper)
        return [(float(fit.predict(x)[0]), *fit.interval(x, LEVEL, new=True)) for x in later]

    return summarised(rolling(curve, predictor))


def check_reach(at: float, largest: float, unit: str, force: bool) -> tuple[float, list[str]]:
    """(extrapolation ratio, notes); raises InputError beyond sixteen times unless forced."""
    if not (np.isfinite(at) and at > 0):
        raise InputError("no point of a forecast", where="at", expected=f"a positive {unit}", found=at)
    ratio = max(1.0, at / largest)
    if ratio > MAX_RATIO and not force:
        raise InputError(
            "the forecast reaches too far beyond the measured points",
            where=f"at: {at:g} {unit}",
            expected=f"at most {MAX_RATIO:g} times the largest measured, {MAX_RATIO * largest:g}",
            found=f"{ratio:.3g} times {largest:g}",
            remedy="measure larger points first, or set force: true",
        )
    far = [f"{ratio:.3g} times beyond the largest {unit}: trust it less than its interval says"]
    return ratio, far if ratio > WARN_RATIO else []


def forecast_curve(
    curve: Curve, form: FormName, at: float, *, upper: float | None = 1.0, force: bool = False
) -> tuple[Forecast, Fit, Curve]:
    """(the forecast at `at`, the fit, the points that it stands on)."""
    curve, notes = prepared(curve)
    largest = float(curve.distinct[-1])
    ratio, far = check_reach(at, largest, curve.x_unit, force)
    fit = fitted(curve, form, upper)
    tested = back_tested(curve, form, upper)
    if fit.flat:
        notes.append("flat: no change with more was found, so no exponent is identified")
    if fit.edge:
        notes.append("an exponent lies at the end of its range: the form hardly fits these points")
    return (
        shown(
            curve,
            at=at,
            ratio=ratio,
            value=float(fit.predict(at)[0]),
            interval=fit.interval(at, LEVEL) if fit.df > 0 else None,
            form=form,
            parameters=fit.parameters,
            tested=tested,
            drawn=drawn(fit, curve, at),
            last=curve.at(largest),
            line=float(straight_line(curve, [at])[0]),
            notes=[*notes, *far],
            force=force,
        ),
        fit,
        curve,
    )


def shown(
    curve: Curve,
    *,
    at: float,
    ratio: float,
    value: float,
    interval: tuple[float, float] | None,
    form: str,
    parameters: Mapping[str, float],
    tested: tuple[BackTest, ...],
    drawn: Sequence[tuple[float, float]],
    last: float,
    line: float,
    notes: Sequence[str],
    force: bool,
) -> Forecast:
    """The forecast with what may be quoted of it: its own value with skill at this ratio, else the last value."""
    test = at_ratio(tested, ratio)
    status = "not tested" if test is None else "skill" if test.skill > 0 else "no skill"
    if force and status != "skill":
        status = "forced"
    return Forecast(
        metric=curve.metric,
        x_unit=curve.x_unit,
        at=at,
        ratio=ratio,
        form=form,
        formula=FORMULAS.get(form, form),
        parameters=dict(parameters),
        value=value,
        interval=interval,
        last=last,
        line=line,
        shown=value if status in ("skill", "forced") else last,
        status=status,  # type: ignore[arg-type]
        tested=tested,
        points=tuple(zip(curve.x, curve.y)),
        drawn=tuple(drawn),
        notes=tuple(notes),
    )


def drawn(fit: Fit, curve: Curve, at: float) -> list[tuple[float, float]]:
    """The fitted line over the points and up to `at`, for a picture."""
    x = np.geomspace(curve.distinct[0], max(at, curve.distinct[-1]), 40)
    return list(zip(x.tolist(), fit.predict(x).tolist()))


def told(forecast: Forecast) -> str:
    """The forecast as one sentence, its back-test beside it."""
    ends = "" if forecast.interval is None else " [{:.4g}, {:.4g}]".format(*forecast.interval)
    head = f"{forecast.metric} at {forecast.at:g} {forecast.x_unit} ({forecast.ratio:.3g} times)"
    curve = f"{forecast.formula} gives {forecast.value:.4g}{ends}"
    test = at_ratio(forecast.tested, forecast.ratio)
    tests = "no held-out point that far ahead" if test is None else test_text(test)
    if forecast.status == "skill":
        return f"{head}: {forecast.shown:.4g}{ends}; {tests}"
    if forecast.status == "forced":
        return f"{head}: {curve}, forced; {tests}"
    why = {"no skill": "no skill", "not tested": "not tested at this ratio"}[forecast.status]
    return f"{head}: {why}, last value {forecast.last:.4g} shown; {curve}; {tests}"


def test_text(test: BackTest) -> str:
    """One back-test in words."""
    inside = "" if test.coverage is None else f", {test.coverage:.0%} of them inside their interval"
    return (
        f"median error {test.error:.2%} against {test.last:.2%} (last value) and {test.line:.2%} (straight line) "
        f"{test.ratio:g} times ahead on {test.points} held-out point{'s' * (test.points != 1)}{inside}; "
        f"skill {test.skill:+.2f}"
    )


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """A table for the report: plain values only."""
    return {"caption": caption, "heads": list(heads), "rows": [list(row) for row in rows]}


def figures(forecast: Forecast) -> dict[str, float]:
    """The numbers of a forecast for `extra`."""
    found = {"value": forecast.value, "last": forecast.last, "line": forecast.line, "ratio": forecast.ratio}
    if forecast.interval is not None:
        found |= {"value_lo": forecast.interval[0], "value_hi": forecast.interval[1]}
    test = at_ratio(forecast.tested, forecast.ratio)
    if test is not None:
        found |= {"error": test.error, "error_last": test.last, "error_line": test.line, "skill": test.skill}
        found["held_out"] = float(test.points)
    return {name: value for name, value in found.items() if np.isfinite(value)}


def result_of(
    method: Forecaster,
    forecast: Forecast,
    curve: Curve,
    *,
    extra: Mapping[str, float] | None = None,
    sentences: Sequence[str] = (),
    tables: Sequence[Mapping[str, Any]] = (),
    more: Sequence[Forecast] = (),
    without: str = "as many parameters as points",
) -> Result:
    """The `Result` of a forecast of one curve: `estimate` is what may be quoted; `more` stand beside it;
    `without` says why a forecast that may be quoted has no interval."""
    quoted = forecast.status in ("skill", "forced") and forecast.interval is not None
    interval = None
    if quoted and forecast.interval is not None and np.isfinite(forecast.interval).all():
        lo, hi = forecast.interval
        interval = Interval(lo=lo, hi=hi, level=LEVEL, method="profile", covers="points")
    reasons = {
        "skill": without,
        "forced": without,
        "no skill": "no skill at this ratio: the last value is shown",
        "not tested": "no held-out point at this ratio: the last value is shown",
    }
    return Result(
        task=task_name(method),
        metric=f"forecast {forecast.metric}",
        direction=curve.direction,
        unit=forecast.x_unit,
        estimate=forecast.shown,
        interval=interval,
        no_interval=None if interval else reasons[forecast.status],
        n_items=len(curve.x),
        system={
            "name": f"forecast from {len(curve.x)} points",
            "told": [told(forecast), *sentences, *forecast.notes],
            "forecasts": [one.model_dump(mode="json") for one in (forecast, *more)],
            "tables": [dict(one) for one in tables],
        },
        extra={**figures(forecast), **(extra or {})},
    )


def task_name(method: Forecaster) -> str:
    """Name, version and configuration of a forecaster, as tasks have it."""
    version = sys.modules[type(method).__module__].CARD["version"]
    return f"{method.name}@{version}#{method.config_hash()[:8]}"
