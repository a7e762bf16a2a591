"""Results of earlier steps as the table of points that a forecaster reads: one row for each.

x is what the measured model was trained on, read from the run itself: the tokens of every training behind it, or
the rows that it was fitted to where nothing counted tokens (heads, word classifiers).
"""

from collections.abc import Sequence
from typing import Any

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.records import Result
from tutelage.runs.graph import Node
from tutelage.runs.values import Value, joined

NORMAL = 1.959964


def points_of(node: Node, values: Sequence[Value]) -> Dataset:
    """The points of a forecaster's `from`: datasets as they are, results as rows with columns x, y, se, run,
    metric, direction, x_unit, trained_tokens and trained_rows.

    Raises InputError for a result whose model was trained on nothing, and for results of different metrics.
    """
    if values[0].kind == "dataset":
        return joined(node, [value.load() for value in values])
    rows = [_point(node, value) for value in values]
    metrics = sorted({(row["metric"], row["task"]) for row in rows})
    if len(metrics) > 1:
        raise InputError(
            "results of different metrics are no curve",
            where=f"step {node.name!r}, from {', '.join(node.rows)}",
            expected="one metric and one task",
            found="; ".join(f"{metric} of {task}" for metric, task in metrics[:4]),
            remedy="name only steps that measure the same",
        )
    counted = all(row["trained_tokens"] > 0 for row in rows)
    for row in rows:
        row["x"] = row["trained_tokens"] if counted else row["trained_rows"]
        row["x_unit"] = "trained tokens" if counted else "training rows"
        if not row["x"]:
            raise InputError(
                "a measured model was trained on nothing: it has no place on a curve",
                where=f"step {node.name!r}, from {row['id']}",
                expected="results of models that were trained in this recipe",
                found=f"{row['id']}, measured without training",
                remedy="leave it out, or give a table of points with columns x and y",
            )
    return Dataset.from_rows(rows)


def _point(node: Node, value: Value) -> dict[str, Any]:
    result: Result = value.load()
    interval = result.interval
    models = [one for one in value.behind if one.kind == "model"]
    costs = {key: cost for one in models for key, cost in one.charges.items()}
    return {
        "id": value.name,
        "y": result.estimate,
        "se": None if interval is None else (interval.hi - interval.lo) / 2 / NORMAL or None,
        "run": models[0].name if models else value.name,
        "task": result.task.partition("#")[0],
        "metric": result.metric,
        "direction": result.direction,
        "trained_tokens": float(sum(cost.trained_tokens for cost in costs.values())),
        "trained_rows": float(sum(_rows(one, set()) for one in models)),
    }


def _rows(model: Value, seen: set[int]) -> int:
    """Rows of the datasets that a model and the models behind it were made from."""
    if id(model) in seen or model.artifact is None:
        return 0
    seen.add(id(model))
    return sum(
        (one.rows or 0) if one.kind == "dataset" else _rows(one, seen)
        for one in model.behind
        if one.kind in ("dataset", "model")
    )
