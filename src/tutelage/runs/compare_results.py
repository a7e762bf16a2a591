"""Compare the per-item results of two systems that any tool produced: a paired verdict per task, and what reading
the two averages side by side would have said.

Several tasks form one primary family (Holm). The metric of a task is the one asked for, else the first of
`PREFERRED` that both sides have.
"""

from pathlib import Path

from tutelage.core.errors import ComparisonError, suggest
from tutelage.core.records import Record
from tutelage.core.results_import import Logs, direction_of, import_results
from tutelage.core.stats.compare import Comparison, compare
from tutelage.core.stats.families import Verdict, judge_family

PREFERRED = ("score", "correct", "acc_norm", "acc", "exact_match", "bits_per_byte")
EXAMPLE = Path(__file__).with_name("example_logs")


class TaskComparison(Record):
    """One task: the comparison, its verdict, and the verdict of an unpaired reading."""

    task: str
    metric: str
    comparison: Comparison
    verdict: Verdict
    unpaired_reading: str
    other_metrics: tuple[str, ...] = ()


class ComparisonReport(Record):
    """A against B on every task they share."""

    a: str
    b: str
    tasks: tuple[TaskComparison, ...]
    notes: tuple[str, ...] = ()


def compare_results(
    a: str | Path,
    b: str | Path,
    *,
    metric: str | None = None,
    intersect: bool = False,
    cluster: str | None = None,
    margin: float | None = None,
) -> ComparisonReport:
    """Compare results A with results B (lm-eval folders, JSONL of per-item scores, or saved item logs).

    `metric` picks the metric of every task; `intersect` compares only shared items and says so; `cluster` names
    the field whose equal values make items one cluster; `margin` is the size of difference that matters, in the
    metric's unit. Raises InputError for unreadable results and ComparisonError for results that cannot be paired.
    """
    logs_a, logs_b = import_results(a, cluster), import_results(b, cluster)
    chosen = _chosen(logs_a, logs_b, metric)
    comparisons: dict[str, Comparison] = {}
    notes: list[str] = []
    for task, name in chosen.items():
        log_a, log_b = logs_a[task, name], logs_b[task, name]
        direction = log_a.metadata.get("direction", direction_of(name))
        comparisons[task] = compare(log_a, log_b, direction=direction, intersect=intersect)
        if log_a.metadata.get("prompts") != log_b.metadata.get("prompts"):
            notes.append(f"{task}: the two systems did not see the same prompts")
    left_out = {task for task, _ in set(logs_a) ^ set(logs_b)} - set(chosen)
    notes += [f"{task}: only one side has it" for task in sorted(left_out)]
    verdicts = judge_family(comparisons, primary=list(comparisons), margin=margin)
    tasks = tuple(
        TaskComparison(
            task=task,
            metric=name,
            comparison=comparisons[task],
            verdict=verdicts[task],
            unpaired_reading=_unpaired_reading(comparisons[task]),
            other_metrics=tuple(sorted(m for t, m in logs_a.keys() & logs_b.keys() if t == task and m != name)),
        )
        for task, name in chosen.items()
    )
    return ComparisonReport(a=str(a), b=str(b), tasks=tasks, notes=tuple(notes))


def _chosen(logs_a: Logs, logs_b: Logs, metric: str | None) -> dict[str, str]:
    shared = sorted(logs_a.keys() & logs_b.keys())
    if metric is not None:
        known = {name for _, name in shared}
        if metric not in known:
            raise ComparisonError(
                "no task has this metric on both sides",
                where="metric",
                expected="one of " + (", ".join(sorted(known)) or "(the two sides share none)"),
                found=metric,
                remedy=suggest(metric, known),
            )
        return {task: name for task, name in shared if name == metric}
    if not shared:
        raise ComparisonError(
            "the two sides share no task and metric",
            expected="the same task and metric names on both sides",
            found=f"A has {_listed(logs_a)}; B has {_listed(logs_b)}",
            where="the two sides",
            remedy="score both on the same task, or rename one",
        )
    by_task: dict[str, list[str]] = {}
    for task, name in shared:
        by_task.setdefault(task, []).append(name)
    return {
        task: next((name for wanted in PREFERRED for name in names if name.split(",")[0] == wanted), names[0])
        for task, names in by_task.items()
    }


def _listed(logs: Logs) -> str:
    names = [f"{task} ({metric})" for task, metric in sorted(logs)]
    return ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")


def _unpaired_reading(comparison: Comparison) -> str:
    if comparison.unpaired_p is None:
        return "none"
    if comparison.unpaired_p >= 0.05:
        return "no difference"
    return "better" if comparison.estimate > 0 else "worse"
