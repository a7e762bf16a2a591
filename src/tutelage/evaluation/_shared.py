"""What every task shares: item keys that do not depend on order, the item log, and the `Result` made from it."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from tutelage.core.errors import InputError
from tutelage.core.items import ItemLog, item_keys
from tutelage.core.method import Inputs, Task
from tutelage.core.records import Cost, Result
from tutelage.core.stats.intervals import summarise

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset

# Above this share of unparsed, truncated, refused or failed items the measure is one of format, and says so.
MANY_FAILURES = 0.05


class Measurement:
    """The rows of one evaluation in order, their stable keys, and the log rows collected so far.

    `identity` names the columns that make an item what it is; other columns (scores added later, retrieved
    passages, ids) may differ between two systems whose items are still the same. `train_seed`, the seed a
    trained system was made with, is read from `inputs["train_seed"]`; a system without one has none.
    """

    def __init__(
        self,
        task: Task,
        model: Any,
        dataset: "Dataset | Sequence[Mapping[str, Any]]",
        inputs: Inputs,
        *,
        identity: Iterable[str] | None = None,
        task_id: str | None = None,
    ) -> None:
        rows = dataset if isinstance(dataset, Sequence) else dataset.rows()
        self.rows: list[dict[str, Any]] = [dict(row) for row in rows]
        if not self.rows:
            raise InputError("there is nothing to evaluate", where=task.name, expected="at least one row")
        names = None if identity is None else set(identity)
        self.keys = item_keys(
            task_id or task.name,
            [
                _identity({k: v for k, v in row.items() if k != "id" and (not names or k in names)})
                for row in self.rows
            ],
        )
        self._number = {id(row): number for number, row in enumerate(self.rows)}
        self._task = task
        self._task_id = task_id or task.name
        self._model = model
        self._seed = inputs.get("train_seed")
        self._log: list[dict[str, Any]] = []
        self._before: Cost | None = model.meter.cost if hasattr(model, "meter") else None
        self.system = _system(model, dataset)

    def key(self, row: Mapping[str, Any]) -> str:
        """The item key of one of `rows`."""
        return self.keys[self._number[id(row)]]

    def where(self, row: Mapping[str, Any]) -> str:
        """How an error names one of `rows`: by its id, else by its place."""
        return f"row {row.get('id', self._number[id(row)] + 1)}"

    def text(self, row: Mapping[str, Any], name: str) -> str:
        """A string field that is not empty; otherwise an error with the row."""
        value = row.get(name)
        if not isinstance(value, str) or not value:
            raise InputError(
                f"a row has no {name!r}", where=self.where(row), expected="a string", found=repr(value)
            )
        return value

    def add(self, row: Mapping[str, Any], *, score: float, **columns: Any) -> None:
        """Log one item; `columns` are those of `ItemLog` (status, prediction, target, weight, tokens_in ...)."""
        cluster, group = row.get("cluster"), row.get("group")
        self._log.append(
            {
                "item_key": self.key(row),
                "system_id": self.system["weights"],
                "train_seed": self._seed,
                "score": score,
                "cluster": group if cluster is None else cluster,
                "group": group,
                **columns,
            }
        )

    def result(
        self,
        metric: str,
        *,
        direction: Literal[1, -1],
        unit: str = "",
        extra: Mapping[str, float] | None = None,
        system: Mapping[str, Any] | None = None,
    ) -> Result:
        """The `Result` of all logged items, with the interval that their kind and clusters ask for.

        `extra` gains `failure_rate` when any item failed and `many_failures` = 1 when more than 5 % did, and
        `few_clusters` = 1 below 20 clusters.
        """
        task, version = self._task, sys.modules[type(self._task).__module__].CARD["version"]
        name = f"{self._task_id}@{version}#{task.config_hash()[:8]}"
        if not self._log:
            raise InputError(
                "no item could be scored", where=task.name, expected="at least one item that is not empty"
            )
        log = ItemLog.from_rows(self._log, {"task": name, "metric": metric, "direction": direction, "unit": unit})
        found = summarise(log)
        notes = dict(extra or {})
        if log.failure_rate:
            notes["failure_rate"] = log.failure_rate
        if log.failure_rate > MANY_FAILURES:
            notes["many_failures"] = 1.0
        if found.warnings:
            notes["few_clusters"] = 1.0
        spent = Cost() if self._before is None else self._model.meter.since(self._before)
        return Result(
            task=name,
            metric=metric,
            direction=direction,
            unit=unit,
            estimate=found.estimate,
            interval=found.interval,
            no_interval=found.no_interval,
            n_items=found.n_items,
            n_clusters=found.n_clusters,
            seeds=found.seeds,
            status_counts=found.status_counts,
            system={**self.system, **(system or {})},
            cost=spent,
            extra=notes,
        ).with_items(log)


def _system(model: Any, rows: "Dataset | Sequence[Mapping[str, Any]]") -> dict[str, str]:
    """What was measured: a model, or without one the labels that the rows hold."""
    if model is not None:
        return {"name": getattr(model, "name", type(model).__name__), "weights": model.fingerprint}
    if isinstance(rows, Sequence):
        raise TypeError("a task without a model measures a Dataset")
    return {"name": "labels of the rows", "weights": rows.hash}


def _identity(value: Any) -> Any:
    """Without nulls: a list of structs is padded with nulls by whatever other rows hold."""
    if isinstance(value, Mapping):
        return {key: _identity(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_identity(item) for item in value]
    return value


def prompt_of(row: Mapping[str, Any], model: Any, chat: bool) -> str:
    """The prompt as the model sees it: `messages` through its template, `prompt` as it is or as a user turn."""
    if row.get("messages") is not None:
        return model.chat_prompt(row["messages"])
    prompt = row.get("prompt")
    if not isinstance(prompt, str):
        raise InputError(
            "a row has no prompt",
            where=f"row {row.get('id', '?')}",
            expected="a string in column prompt, or a conversation in column messages",
            found=repr(prompt),
        )
    return model.chat_prompt([{"role": "user", "content": prompt}]) if chat else prompt
