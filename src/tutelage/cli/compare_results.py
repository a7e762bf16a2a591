"""`tutelage compare-results A B`: did it really get better? Needs no model and no torch."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli._output import note, print_json

if TYPE_CHECKING:
    from tutelage.runs.compare_results import ComparisonReport, TaskComparison


def compare_results_command(
    a: Annotated[Path | None, typer.Argument(help="Results of A: lm-eval folder, .jsonl or .parquet.")] = None,
    b: Annotated[Path | None, typer.Argument(help="Results of B, what A is compared with.")] = None,
    metric: Annotated[str | None, typer.Option(help="Metric to compare; default: the task's usual one.")] = None,
    intersect: Annotated[bool, typer.Option("--intersect", help="Compare only the items both have.")] = False,
    cluster: Annotated[str | None, typer.Option(help="Field that names the source items share.")] = None,
    margin: Annotated[
        float | None, typer.Option(help="Size of difference that matters, in the metric's unit.")
    ] = None,
    example: Annotated[bool, typer.Option("--example", help="Use the two bundled logs.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two systems item by item: paired verdict, interval, and the smallest detectable difference."""
    from tutelage.core.errors import ConfigError
    from tutelage.runs.compare_results import EXAMPLE, compare_results

    if example and a is None and b is None:
        a, b = EXAMPLE / "a.jsonl", EXAMPLE / "b.jsonl"
    if a is None or b is None or (example and a.parent != EXAMPLE):
        raise ConfigError(
            "two sets of results are needed",
            expected="tutelage compare-results A B",
            remedy="give two folders or files, or --example alone to see it work",
        )
    if margin is not None and not margin > 0:
        raise ConfigError("--margin must be positive", where="--margin", found=margin)
    report = compare_results(a, b, metric=metric, intersect=intersect, cluster=cluster, margin=margin)
    if as_json:
        print_json(report.model_dump(mode="json"))
        return
    _show(report)


def _show(report: "ComparisonReport") -> None:
    from rich.console import Console
    from rich.text import Text

    # Names come from data: plain Text, so that no markup or control character in them is obeyed.
    console = Console(highlight=False, soft_wrap=True)
    colours = {"better": "bold green", "worse": "bold red", "equivalent": "bold cyan"}
    for entry in report.tasks:
        style = colours.get(entry.verdict.outcome, "bold yellow")
        head = f"A is {entry.verdict.text}" if entry.verdict.outcome in colours else entry.verdict.text
        console.print(
            Text(f"{_plain(entry.task)} ({_plain(entry.metric)}): ", style="bold"), Text(head, style=style), sep=""
        )
        for line in _evidence(entry):
            console.print(Text("  " + line))
    for text in report.notes:
        note("note: " + _plain(text))


def _evidence(entry: "TaskComparison") -> list[str]:
    c, verdict = entry.comparison, entry.verdict
    points = c.metric_kind == "binary"

    def size(value: float, sign: bool = False) -> str:
        return format(100 * value if points else value, ("+" if sign else "") + (".1f" if points else ".4g"))

    unit = " points" if points else ""
    if c.direction < 0:
        unit += " (positive: A is lower, which is better)"
    interval = verdict.interval
    within = (
        f", {100 * interval.level:.4g} % interval [{size(interval.lo, True)}, {size(interval.hi, True)}]"
        if interval
        else ""
    )
    lines = [
        f"A {size(c.estimate_a)}, B {size(c.estimate_b)}, difference {size(c.estimate, True)}{unit}{within}",
        f"paired p = {_p(c.p)}{_exact(c.exact_p)}{_adjusted(entry)}; {c.method}",
        f"read without pairing: p = {_p(c.unpaired_p)}, {entry.unpaired_reading}",
    ]
    if c.mde is not None:
        lines.append(
            f"smallest difference this comparison can find (power .80): {size(c.mde)}{' points' if points else ''}"
        )
    counts = f"n = {c.n_items} items"
    if c.n_clusters < c.n_items:
        counts += f" in {c.n_clusters} clusters"
    if c.n_seeds:
        counts += f", {c.n_seeds} training seeds"
    if c.intersected:
        counts += f"; shared items only, {c.only_in_a} of A and {c.only_in_b} of B left out"
    lines.append(counts)
    if entry.other_metrics:
        lines.append("other metrics, with --metric: " + ", ".join(_plain(name) for name in entry.other_metrics))
    return lines + list(c.notes)


def _adjusted(entry: "TaskComparison") -> str:
    if entry.verdict.adjusted_p is None or entry.verdict.adjusted_p == entry.comparison.p:
        return ""
    return f", {_p(entry.verdict.adjusted_p)} after Holm over the tasks"


def _exact(p: float | None) -> str:
    return "" if p is None else f" (exact {_p(p)})"


def _p(p: float | None) -> str:
    if p is None:
        return "none"
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
