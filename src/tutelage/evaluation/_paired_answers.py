"""Answers of one model to many items, from a result's item log or from rows: what two models are compared by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tutelage.core.errors import InputError
from tutelage.evaluation._logs import choice_probs, log_of, one_run, same_items

if TYPE_CHECKING:
    from tutelage.evaluation.loyalty import Loyalty


@dataclass(frozen=True)
class Answer:
    """What was said of one item (None: nothing readable), its probabilities over `classes`, how right it is (None:
    unknown), and the item's cluster and group."""

    said: str | None
    probs: tuple[float, ...] | None
    right: float | None
    cluster: Any
    group: Any
    classes: tuple[str, ...] = ()

    @property
    def number(self) -> float | None:
        """The answer as a number, None when it is none."""
        try:
            return None if self.said is None else float(self.said)
        except ValueError:
            return None


def answers_of(given: Any, task: "Loyalty", where: str) -> dict[str, Answer]:
    """item key (of a result) or id (of rows) -> answer."""
    if not hasattr(given, "column_names"):
        rows = one_run(log_of(given, where), where)
        return {key: _from_log(row) for key, row in rows.items()}
    given.require(task.predicted)
    return {row["id"]: _from_row(row, task) for row in given.rows()}


def _from_log(row: Mapping[str, Any]) -> Answer:
    probs = choice_probs(row)
    said = row["prediction"] if row["status"] == "ok" else None
    right = row["score"] if row["target"] is not None else None
    return Answer(said, None if probs is None else tuple(probs.tolist()), right, row["cluster"], row["group"])


def _from_row(row: Mapping[str, Any], task: "Loyalty") -> Answer:
    said, label, probs = row.get(task.predicted), row.get(task.label), row.get(task.probs)
    text = None if said is None else str(said)
    right = None if label is None else float(text == str(label))
    cluster = row.get("group") if row.get("cluster") is None else row.get("cluster")
    classes = tuple(row.get("classes") or ())
    return Answer(text, None if probs is None else tuple(probs), right, cluster, row.get("group"), classes)


def shared_answers(sides: Mapping[str, Mapping[str, Answer]]) -> list[str]:
    """The keys that all sides answer; raises ComparisonError for others, and InputError where an item's options
    differ."""
    keys = same_items({name: {key: {} for key in side} for name, side in sides.items()})
    (first, ours), *others = sides.items()
    for name, theirs in others:
        for key in keys:
            a, b = ours[key], theirs[key]
            widths = [len(one.probs) for one in (a, b) if one.probs is not None]
            if a.classes != b.classes or len(set(widths)) > 1:
                raise InputError(
                    "two models chose among different options",
                    where=f"item {key}, {first} and {name}",
                    expected="the same options in one order",
                    found=f"{list(a.classes) or widths[:1]} and {list(b.classes) or widths[1:]}",
                )
    return keys
