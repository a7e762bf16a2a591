"""The plots of the page: differences with intervals, item by item, training losses, measurements on the way."""

from typing import Any

import numpy as np
from markupsafe import Markup

from tutelage.core.store import Store
from tutelage.report.render import TONE
from tutelage.report.svg import Series, Whisker, difference_chart, interval_chart, line_chart
from tutelage.runs import payload


def plots(run: dict[str, Any], store: Store) -> list[tuple[str, Markup, str]]:
    """Differences with intervals, per-item differences of the first declared pair, loss curves, cost."""
    found = []
    table = run["comparison"]
    if table:
        rows = []
        for pair in (p for p in table["pairs"] if p["step"] == table["metric_step"]):
            interval = pair["verdict"]["interval"] or pair["comparison"]["interval"]
            lo, hi = (interval["lo"], interval["hi"]) if interval else (None, None)
            tone = TONE.get(pair["verdict"]["outcome"], "refused")
            rows.append(Whisker(f"{pair['a']} - {pair['b']}", pair["comparison"]["estimate"], lo, hi, tone))
        unit = _unit(table)
        chart = interval_chart(rows, title="Differences", x_label=f"improvement in {unit}")
        found.append(("Differences", chart, "Right of zero is better. Bars are the intervals of the verdicts."))
        first = next((p for p in table["pairs"] if p["primary"] and p["step"] == table["metric_step"]), None)
        if first is not None:
            chart = difference_chart(
                item_differences(table, first, store), title="Per item", y_label=f"improvement in {unit}"
            )
            caption = (
                f"{first['a']} against {first['b']}, each item's mean over seeds: does it rest on a few items?"
            )
            found.append(("Item by item", chart, caption))
    curves = loss_curves(run, store)
    chart = line_chart(curves, title="Training loss", x_label="trained tokens", y_label="loss (nats per token)")
    found.append(
        ("Training loss", chart, "Mean loss of each step; one line for each run (the first seed of each arm).")
    )
    for metric, curves in learning_curves(run, store).items():
        chart = line_chart(curves, title=metric, x_label="trained tokens", y_label=metric.partition("/")[2])
        found.append((f"While training: {metric}", chart, "What the evaluators of a training step reported."))
    for metric, curves in round_curves(run).items():
        chart = line_chart(curves, title=metric, x_label="round", y_label=metric.partition(" ")[2])
        found.append((f"Round by round: {metric}", chart, "Mean over seeds of what each round's model reached."))
    return [plot for plot in found if plot[1]]


def item_differences(table: dict[str, Any], pair: dict[str, Any], store: Store) -> list[float]:
    """Improvement of A over B on every item, averaged over seeds."""
    scores = {}
    for name in (pair["a"], pair["b"]):
        arm = next(arm for arm in table["arms"] if arm["name"] == name)
        measured = arm["results"].get(pair["step"])
        sums: dict[str, list[float]] = {}
        for key in measured["keys"] if measured else []:
            artifact = store.whole(key)
            items = payload.load_result(artifact.path).items if artifact else None
            for row in items.table.select(["item_key", "score"]).to_pylist() if items else []:
                sums.setdefault(row["item_key"], []).append(row["score"])
        scores[name] = {key: float(np.mean(values)) for key, values in sums.items()}
    a, b = scores[pair["a"]], scores[pair["b"]]
    return [pair["comparison"]["direction"] * (a[key] - b[key]) for key in a if key in b]


def loss_curves(run: dict[str, Any], store: Store) -> list[Series]:
    """One line per arm: its first seed's loss over trained tokens (searches left out)."""
    return [
        Series(label, np.cumsum(fit["step_tokens"]).tolist(), fit["losses"])
        for label, fit in _first_fits(run, store).items()
    ]


def learning_curves(run: dict[str, Any], store: Store) -> dict[str, list[Series]]:
    """Metric -> one line per arm that was measured at least twice while it trained (its first seed)."""
    found: dict[str, list[Series]] = {}
    for label, fit in _first_fits(run, store).items():
        for metric in sorted({name for entry in fit["history"] for name in entry if "/" in name}):
            points = [(entry["tokens"], entry[metric]) for entry in fit["history"] if metric in entry]
            if len(points) > 1:
                tokens, values = zip(*points)
                found.setdefault(metric, []).append(Series(label, list(tokens), list(values)))
    return found


def round_curves(run: dict[str, Any]) -> dict[str, list[Series]]:
    """ "step metric" -> one line per arm of a recipe that repeats: the mean over seeds in every round."""
    values: dict[str, dict[str, dict[int, list[float]]]] = {}
    for entry in run["results"]:
        if not (entry["arm"] or "").endswith("(search)"):
            metric = f"{entry['step']} {entry['result']['metric']}"
            rounds = values.setdefault(metric, {}).setdefault(entry["arm"] or entry["step"], {})
            rounds.setdefault(entry["round"] or 0, []).append(entry["result"]["estimate"])
    found: dict[str, list[Series]] = {}
    for metric, arms in values.items():
        for arm, rounds in arms.items():
            if len(rounds) > 1:
                numbers = sorted(rounds)
                means = [float(np.mean(rounds[number])) for number in numbers]
                found.setdefault(metric, []).append(Series(arm, [float(n + 1) for n in numbers], means))
    return found


def _first_fits(run: dict[str, Any], store: Store) -> dict[str, dict[str, Any]]:
    """Arm (or step) -> the record of its first seed's training, searches left out."""
    chosen: dict[str, dict[str, Any]] = {}
    for step in run["steps"]:
        if step["kind"] == "Trainer" and not (step["arm"] or "").endswith("(search)"):
            label = step["arm"] or step["step"]
            known = chosen.get(label)
            if known is None or (step["seed"] or 0) < (known["seed"] or 0):
                chosen[label] = step
    fits = {}
    for label, step in chosen.items():
        artifact = store.whole(step["key"])
        fit = payload.load_fit(artifact.path) if artifact else None
        if fit:
            fits[label] = fit
    return fits


def _unit(table: dict[str, Any]) -> str:
    for arm in table["arms"]:
        measured = arm["results"].get(table["metric_step"])
        if measured:
            return measured["unit"] or measured["metric"]
    return "the metric"
