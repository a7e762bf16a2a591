"""A benchmark of which people re-annotated a sample, and scores under the labels they would have given it all."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.labels import GOLD
from tutelage.evaluation._labels import clusters_of
from tutelage.evaluation._logs import log_of, one_run, same_items
from tutelage.evaluation.dsl import Dsl

if TYPE_CHECKING:
    from tutelage.evaluation.label_rescore import LabelRescore


@dataclass(frozen=True)
class Corrections:
    """N items: `old` and `new` labels (None: not drawn, or split), `drawn` for re-annotation and `split` bool [N],
    `inclusion` [N], `clusters` [N]; `patch` holds the confirmed corrections."""

    keys: list[str]
    old: list[str]
    new: list[str | None]
    drawn: np.ndarray
    split: np.ndarray
    inclusion: np.ndarray
    clusters: np.ndarray
    patch: list[dict[str, str]]

    @cached_property
    def clear(self) -> np.ndarray:
        """[N] design-based parts of the share of items on which annotators do not split."""
        return _corrected(self, 1.0 - self.split, np.ones(len(self.split)))


def read_corrections(task: "LabelRescore", dataset: Dataset) -> Corrections:
    """The rows as arrays; raises InputError naming the row that does not fit."""
    dataset.require(task.label, task.corrected, task.inclusion, task.key)
    keys, old, new, split = [], [], [], []
    rows = list(dataset.rows())
    if not rows:
        raise InputError("there is nothing to evaluate", where=task.name, expected="at least one row")
    for row in rows:
        where, label, corrected = f"row {row['id']}", row[task.label], row[task.corrected]
        if label is None or row[task.key] is None:
            raise InputError("a row lacks its label or key", where=where, expected="both", found=repr(label))
        by = row.get(task.corrected_by) or GOLD
        if corrected is not None and by != GOLD and ":" in by:
            raise InputError(
                "a correction was not confirmed by a person",
                where=f"{where}, column {task.corrected_by!r}",
                expected=f"{GOLD}, or the name of a person",
                found=by,
                remedy="let people confirm what a machine suggests (data.label.ask)",
            )
        keys.append(str(row[task.key]))
        old.append(str(label))
        split.append(bool(row.get(task.ambiguous)))
        new.append(None if corrected is None or split[-1] else str(corrected))
    splits = np.array(split)
    drawn = splits | np.array([label is not None for label in new])
    patch = [{"key": key, "old": a, "new": b} for key, a, b in zip(keys, old, new) if b is not None and a != b]
    # Probabilities that are missing or impossible are refused by the estimator, which names the row.
    inclusion = np.array([np.nan if row[task.inclusion] is None else row[task.inclusion] for row in rows], float)
    return Corrections(keys, old, new, drawn, splits, inclusion, clusters_of(rows), patch)


def said_by(task: "LabelRescore", given: Any, name: str, found: Corrections) -> list[str | None]:
    """A system's answer to every item, None where it gave none."""
    if isinstance(given, Dataset):
        given.require(task.predicted)
        said = {str(row["id"]): row[task.predicted] for row in given.rows(["id", task.predicted])}
    else:
        run = one_run(log_of(given, f"inputs.systems, {name}"), f"inputs.systems, {name}")
        said = {key: row["prediction"] if row["status"] == "ok" else None for key, row in run.items()}
    sides: dict[str, Any] = {"the benchmark": dict.fromkeys(found.keys), name: said}
    same_items({side: {key: {} for key in keys} for side, keys in sides.items()})
    return [None if said[key] is None else str(said[key]) for key in found.keys]


def estimated_share(found: Corrections, gold: np.ndarray, cheap: np.ndarray) -> np.ndarray:
    """[N] values whose mean is the share of `gold` among the items without split annotators, and whose spread is
    its error; `cheap` [N] stands in for gold where nobody re-annotated."""
    top = _corrected(found, np.where(found.split, 0.0, gold), cheap)
    if not found.split.any():
        return top
    below = found.clear.mean()
    share = top.mean() / below
    return share + (top - share * found.clear) / below


def _corrected(found: Corrections, gold: np.ndarray, cheap: np.ndarray) -> np.ndarray:
    """The design-based outcomes of evaluation.dsl, one for each item."""
    rows = (
        {
            "id": f"{number}",
            "gold": float(gold[number]) if drawn else None,
            "cheap": float(cheap[number]),
            "inclusion": None if np.isnan(pi) else float(pi),
            "cluster": str(cluster),
        }
        for number, (drawn, pi, cluster) in enumerate(zip(found.drawn, found.inclusion, found.clusters))
    )
    task = Dsl(gold="gold", surrogate="cheap", learner="surrogate", splits=1)
    result = task.evaluate(None, Dataset.from_rows(rows), {})
    assert result.items is not None
    return result.items.table["score"].to_numpy()
