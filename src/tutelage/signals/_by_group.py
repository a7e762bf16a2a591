"""The loss of each group of validation rows, out of the item log of a measurement."""

from collections.abc import Sequence

import numpy as np

from tutelage.core.errors import InputError
from tutelage.core.records import Result


def group_losses(result: Result, what: str) -> dict[str, float]:
    """Group -> its estimate: sum of score times weight over sum of weight; the groups are the rows' `group`.

    Raises InputError where the result carries no items, is better when larger, or an item has no group.
    """
    log = result.items
    if log is None or result.direction != -1:
        raise InputError(
            f"{what} is no measured loss",
            expected="the result of a Task where smaller is better, with its items",
            found=f"{result.metric}, direction {result.direction:+d}" + ("" if log is not None else ", no items"),
            remedy="give a step such as evaluation.bits_per_byte",
        )
    groups = log.table.column("group").to_pylist()
    if any(group is None for group in groups):
        raise InputError(
            f"an item of {what} belongs to no group",
            where=f"item {log.table.column('item_key')[groups.index(None)].as_py()}",
            expected="validation rows with a column group that names their domain",
            remedy="mark them first: signals.constant with column: group",
        )
    scores = log.table.column("score").to_numpy()
    weighted = "weight" in log.table.column_names
    weights = log.table.column("weight").to_numpy() if weighted else np.ones(len(scores))
    coded = np.array(groups, dtype=object)
    found = {}
    for name in sorted(set(groups)):
        here = coded == name
        found[name] = float((scores[here] * weights[here]).sum() / weights[here].sum())
    return found


def names_in(values: Sequence[object], column: str) -> list[str]:
    """The values of a domain column as names; a null is an error."""
    if None in values:
        raise InputError(
            "a row belongs to no domain", where=f"column {column}", found=f"null in row {values.index(None) + 1}"
        )
    return [str(value) for value in values]
