"""Columns of predictions, checked: what selecting and labelling by a classifier's probabilities read."""

from collections.abc import Sequence

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError


def probabilities(dataset: Dataset, column: str = "predicted_probs") -> tuple[list[str], np.ndarray]:
    """(classes [C], probabilities float64 [n, C]) of a column that follows `classes`, the same in every row.

    Raises InputError naming a row whose classes differ, or whose values are no distribution over them.
    """
    dataset.require(column, "classes")
    classes: list[str] = []
    found: list[Sequence[float]] = []
    for row in dataset.rows(["id", column, "classes"]):
        classes = classes or list(row["classes"] or ())
        given = row[column]
        if not classes or row["classes"] != classes or given is None or len(given) != len(classes):
            raise InputError(
                "a row has no probabilities of the same classes as the others",
                where=f"row {row['id']}, field {column}",
                expected=", ".join(classes[:12]) or "names in the column classes",
                found=f"{given} of {row['classes']}",
                remedy="predict all rows with one classifier (signals.class_probabilities)",
            )
        found.append(given)
    probs = np.array(found, dtype=np.float64).reshape(len(found), len(classes))
    wrong = ~(np.isfinite(probs).all(axis=1) & (probs >= 0).all(axis=1) & (np.abs(probs.sum(axis=1) - 1) < 1e-3))
    if wrong.any():
        at = int(wrong.argmax())
        raise InputError(
            f"column {column!r} holds something else than probabilities",
            where=f"row {dataset.ids()[at]}",
            expected="numbers from 0 that sum to 1",
            found=found[at],
        )
    return classes, probs
