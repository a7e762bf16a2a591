"""Two label columns of the same rows as class indices, and what tasks about labels share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.core.errors import InputError
from tutelage.core.labels import GOLD, LabelSpace


def human_label(row: Mapping[str, Any], column: str) -> Any:
    """What `column` holds, unless it is the row's label and a machine gave it: then None."""
    if column == "label" and row.get("label_source") not in (None, GOLD):
        return None
    return row.get(column)


def classes_of(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], schema: Any) -> LabelSpace:
    """The schema's classes, else every name that occurs in `columns`, sorted."""
    if schema is not None:
        return LabelSpace.from_schema(schema)
    names: set[Any] = {row.get(column) for row in rows for column in columns} - {None}
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None or not names:
        raise InputError(
            "labels are the names of classes",
            where="columns " + ", ".join(columns),
            expected="a string in some rows",
            found="none" if wrong is None else repr(wrong),
        )
    return LabelSpace(sorted(names))


def indices(
    values: Sequence[Any], space: LabelSpace, column: str, where: Sequence[str], none: int | None = None
) -> np.ndarray:
    """[n] places in `space`; None becomes `none`. Raises InputError naming a row with another label."""
    found = np.empty(len(values), dtype=np.int64)
    for number, value in enumerate(values):
        if value is None and none is not None:
            found[number] = none
        else:
            found[number] = space.index(value, f"{where[number]}, field {column}")
    return found


def clusters_of(rows: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """[n] the cluster (or group) of every row; one without is its own."""
    named = [row.get("group") if row.get("cluster") is None else row.get("cluster") for row in rows]
    return np.array([f"{number} alone" if name is None else f"in {name}" for number, name in enumerate(named)])
