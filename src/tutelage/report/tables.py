"""The tables of the page: arms with what they reached and cost, rows in training, steps."""

from collections import Counter
from collections.abc import Sequence
from statistics import mean
from typing import Any

from tutelage.report.render import Table


def tables(run: dict[str, Any]) -> list[Table]:
    """Arms with figures and costs, then every step."""
    found = []
    table = run["comparison"]
    if table:
        rows = []
        for arm in table["arms"]:
            if arm["failed"]:
                rows.append([arm["name"], "no result: " + arm["failed"], "", "", "", "", ""])
                continue
            measured = arm["results"][table["metric_step"]]
            costs = arm["cost"]
            spent = lambda key, costs=costs: sum(c[key] for c in costs) / max(len(costs), 1)  # noqa: E731
            rows.append(
                [
                    arm["name"] + (f" ({', '.join(arm['roles'])})" if arm["roles"] else ""),
                    f"{measured['estimate']:.4f} {interval_text(_pair(measured['interval']))}",
                    ", ".join(f"{value:.4f}" for value in measured["per_seed"]),
                    "; ".join(
                        f"{step} {m['estimate']:.3f}"
                        for step, m in arm["results"].items()
                        if step != table["metric_step"]
                    ),
                    f"{spent('trained_tokens'):.0f}" if arm["trained"] else "",
                    f"{spent('forward_flops') + spent('backward_flops'):.3g}" if arm["trained"] else "",
                    f"{spent('seconds'):.0f}",
                ]
            )
        heads = ["arm", table["metric_step"], "per seed", "also", "trained tokens", "FLOPs", "seconds"]
        found.append(
            Table(
                "Arms: what each reached and what making its model cost, per seed, as if nothing had been cached",
                heads,
                rows,
                "The search for a learning rate is charged equally to all trained arms: "
                + "; ".join(_search(arm) for arm in table["arms"] if arm["trials"]),
            )
        )
    found += training_rows(run)
    steps: Counter[tuple[str, str]] = Counter()
    seconds: dict[tuple[str, str], float] = {}
    shares: dict[tuple[str, str], list[float]] = {}
    for step in run["steps"]:
        key = (step["step"], step["method"])
        steps[key] += 1
        seconds[key] = seconds.get(key, 0.0) + (step["paid"]["seconds"] if step["paid"] else 0.0)
        if step["facts"].get("mfu"):
            shares.setdefault(key, []).append(step["facts"]["mfu"])
    rows = [
        [*key, count, f"{seconds[key]:.1f}", f"{mean(shares[key]):.0%}" if key in shares else ""]
        for key, count in steps.items()
    ]
    note = "MFU: the share of the device's own matrix speed that a step with a model reached, on average."
    heads = ["step", "method", "times", "seconds paid", "MFU"]
    found.append(Table("Steps of this run", heads, rows, note if shares else ""))
    return found


def training_rows(run: dict[str, Any]) -> list[Table]:
    """What each arm's training did with its rows: cut ones lost tokens, dropped ones taught nothing."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for step in run["steps"]:
        if step["kind"] == "Trainer" and not (step["arm"] or "").endswith("(search)") and "rows" in step["facts"]:
            kept = {key: step["facts"].get(key) or 0 for key in ("rows", "truncated_rows", "dropped_rows")}
            counts.setdefault((step["arm"] or "", step["step"]), Counter()).update({**kept, "runs": 1})
    if not counts:
        return []

    def part(count: int, of: int) -> str:
        return f"{count} ({count / of:.1%})" if count else "0"

    rows = []
    for (arm, step), count in counts.items():
        trained, dropped = count["rows"], count["dropped_rows"]
        truncated = part(count["truncated_rows"], trained)
        rows.append([arm or step, count["runs"], trained, truncated, part(dropped, trained + dropped)])
    note = (
        "Summed over the runs of an arm. A truncated row is longer than the context and lost tokens; "
        "a dropped one left nothing to train on."
    )
    return [Table("Rows in training", ["arm", "runs", "trained on", "truncated", "dropped"], rows, note)]


def interval_text(interval: dict[str, Any] | None) -> str:
    """`[lo, hi]` with signs, or `none`."""
    return f"[{interval['lo']:+.4f}, {interval['hi']:+.4f}]" if interval else "none"


def _search(arm: dict[str, Any]) -> str:
    trials = ", ".join(
        f"{t['value']}: {t['estimate']:.4f}" if t["estimate"] is not None else f"{t['value']}: {t['reason']}"
        for t in arm["trials"]
    )
    return f"{arm['name']} ({trials}; chosen {arm['tuned']})"


def _pair(pair: Sequence[float] | None) -> dict[str, Any] | None:
    return None if pair is None else {"lo": pair[0], "hi": pair[1]}
