"""Measurements made from other measurements: item logs paired on their items, and the `Result` that follows."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from tutelage.core.errors import ComparisonError, InputError
from tutelage.core.items import ItemLog
from tutelage.core.method import Inputs, Task
from tutelage.core.records import Result
from tutelage.evaluation._shared import Measurement

Rows = dict[str, dict[str, Any]]


def listed(given: Any) -> list[Any]:
    """An input that may be one thing or several, as a list; None is none."""
    if given is None:
        return []
    return list(given) if isinstance(given, list | tuple) else [given]


def log_of(given: Any, where: str) -> ItemLog:
    """The item log of a result; raises InputError naming the input `where` for anything else."""
    log = given.items if isinstance(given, Result) else given
    if not isinstance(log, ItemLog):
        raise InputError(
            "this input is no measurement with its items",
            where=where,
            expected="a result of an evaluation step",
            found=type(given).__name__ if log is not None else "a result without its item log",
            remedy="name an evaluation step",
        )
    return log


def one_run(log: ItemLog, where: str) -> Rows:
    """item_key -> row of a log that holds one run and one answer per item; raises InputError for several."""
    for what, found in (("systems", log.systems), ("training seeds", log.seeds)):
        if len(found) > 1:
            raise InputError(
                f"several {what} are in one measurement",
                where=where,
                expected="one run",
                found=list(found),
                remedy="give each run's own result",
            )
    rows = {row["item_key"]: row for row in log.table.to_pylist()}
    if len(rows) < len(log):
        raise InputError(
            "an item was answered several times",
            where=where,
            expected="one answer per item",
            found=f"{len(log)} answers to {len(rows)} items",
            remedy="evaluate with one sample",
        )
    return rows


def same_items(sides: Mapping[str, Rows]) -> list[str]:
    """The item keys that all sides have, in the first one's order; raises ComparisonError when any side has
    others."""
    (first, keys), *others = sides.items()
    for name, theirs in others:
        only_first, only_other = ([k for k in a if k not in b] for a, b in ((keys, theirs), (theirs, keys)))
        if only_first or only_other:
            raise ComparisonError(
                "the measurements are not of the same items",
                where="first keys: " + ", ".join((only_first + only_other)[:3]),
                expected=f"the same item keys in {first} and {name}",
                found=f"{len(only_first)} of {len(keys)} in {first} only, {len(only_other)} of {len(theirs)} in "
                f"{name} only",
                remedy="measure both on the same rows with the same task",
            )
    return list(keys)


def choice_probs(row: Mapping[str, Any]) -> np.ndarray | None:
    """Probabilities of an item's options, softmax of their summed log-likelihoods; None where there are none."""
    lls = row.get("choice_ll")
    return None if lls is None else special.softmax(np.array(lls, dtype=float))


def clusters(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """[n] the cluster of every log row; one without is its own."""
    return np.array([f"item {row['item_key']}" if row["cluster"] is None else row["cluster"] for row in rows])


def clustered(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether any two items share a cluster."""
    return len(set(clusters(rows).tolist())) < len(rows)


class Derived(Measurement):
    """A measurement whose items come from other logs: their keys, clusters and groups are kept, so that two such
    measurements pair as the ones behind them do. `system` names what is measured (`name`, `weights`)."""

    def __init__(
        self, task: Task, rows: Sequence[dict[str, Any]], inputs: Inputs, system: Mapping[str, Any]
    ) -> None:
        if not rows:
            raise InputError("there is nothing to evaluate", where=task.name, expected="at least one item")
        self.rows = list(rows)
        self.keys = [row["item_key"] for row in rows]
        self._number = {id(row): number for number, row in enumerate(self.rows)}
        self._task, self._task_id, self._model = task, task.name, None
        self._seed = inputs.get("train_seed")
        self._log: list[dict[str, Any]] = []
        self._before = None
        self.system = {"name": str(system.get("name", "")), "weights": str(system.get("weights", ""))}
