"""The forecasts of a run: what may be quoted, how each fared on points it had not seen, and the lines drawn."""

from typing import Any

from markupsafe import Markup

from tutelage.core.curve import Forecast
from tutelage.report.render import Table
from tutelage.report.svg import Series, line_chart

Entry = tuple[str, dict[str, Any]]


def forecast_notes(run: dict[str, Any]) -> list[str]:
    """One paragraph for each forecaster step: its sentences, the back-tested error first."""
    return [f"{name}: " + ". ".join(result["system"]["told"]) + "." for name, result in _entries(run)]


def forecast_tables(run: dict[str, Any]) -> list[Table]:
    """Forecasts with their back-tests at every ratio, and the tables that a forecaster brought."""
    rows = []
    for name, result in _entries(run):
        for forecast in _forecasts(result):
            reach = f"{forecast.at:g} {forecast.x_unit} ({forecast.ratio:.3g} times)"
            ends = "[{:.4g}, {:.4g}]".format(*forecast.interval) if forecast.interval else "none"
            said = f"{forecast.value:.4g} {ends}"
            head = [name, reach, f"{forecast.shown:.4g}", forecast.status, f"{forecast.formula}: {said}"]
            tests = forecast.tested or (None,)
            for number, test in enumerate(tests):
                cells = head if number == 0 else [""] * len(head)
                if test is None:
                    rows.append([*cells, "no held-out point", "", "", "", ""])
                    continue
                inside = "" if test.coverage is None else f"{test.coverage:.0%}"
                errors = [f"{value:.2%}" for value in (test.error, test.last, test.line)]
                rows.append(
                    [*cells, f"{test.ratio:g} times, {test.points}", *errors, f"{test.skill:+.2f} {inside}"]
                )
    heads = ["forecast", "at", "shown", "status", "curve", "tested ahead, points", "error", "last value"]
    note = (
        "Errors are medians over held-out points. Without skill at its ratio (an error below both naive ones) "
        "a forecast is not shown: the last measured value is. The interval covers the noise of the points, not "
        "the choice of the form."
    )
    caption = "Forecasts and their back-tests"
    found = [Table(caption, [*heads, "straight line", "skill, inside"], rows, note)] if rows else []
    for name, result in _entries(run):
        for table in result["system"].get("tables", ()):
            found.append(Table(f"{name}: {table['caption']}", table["heads"], table["rows"]))
    return found


def forecast_plots(run: dict[str, Any]) -> list[tuple[str, Markup, str]]:
    """Points and fitted line of every forecast."""
    found = []
    for name, result in _entries(run):
        for forecast in _forecasts(result):
            points, drawn = zip(*forecast.points), zip(*forecast.drawn)
            lines = [Series(label, *map(list, pair)) for label, pair in (("measured", points), ("curve", drawn))]
            chart = line_chart(lines, title=name, x_label=forecast.x_unit, y_label=forecast.metric)
            found.append((f"{name}: {forecast.metric}", chart, f"{forecast.formula}; {forecast.status}."))
    return found


def _entries(run: dict[str, Any]) -> list[Entry]:
    entries = []
    for entry in run["results"]:
        if "told" in entry["result"]["system"]:
            arm = f" [{entry['arm']}]" if entry["arm"] else ""
            entries.append((f"{entry['step']}{arm}", entry["result"]))
    return entries


def _forecasts(result: dict[str, Any]) -> list[Forecast]:
    return [Forecast(**given) for given in result["system"].get("forecasts", ())]
