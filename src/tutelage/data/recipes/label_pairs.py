"""Pairs of labelled texts for contrastive training: same class or not, from a handful of labels.

Every labelled row is the first text of R pairs, by turns with a row of its class (same = true) and with one of
another class (same = false), so both kinds are equally many, and the rarer one is repeated. Partners are drawn
without replacement until all were used, then again. R = `per_row`, or cap / rows where that is less. The weight
of a pair is sqrt(w_i w_j), scaled to mean 1. A row alone in its class has no positive pair and gives negatives.

Departure: the paper draws R pairs of each kind; here R counts both, and weights and the cap are ours.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.data.recipes._derive import checked_text

CARD = {
    "name": "data.recipes.label_pairs",
    "paper": {"title": "Efficient Few-Shot Learning Without Prompts", "identifier": "arXiv:2209.11055"},
    "summary": "Makes pairs of labelled texts that have one class or two, for contrastive training.",
    "reads": ["{column}", "label", "label_weight?"],
    "writes": ["text", "text_b", "same", "weight", "source_id", "source_id_b"],
    "needs": [],
    "cost": "one pass over the labels",
    "baseline": None,
    "headline": "eight labels a class become thousands of training pairs",
    "version": 1,
}
FEW = 64


def pairs(classes: np.ndarray, per_row: int, rng: np.random.Generator) -> Iterator[tuple[int, int, bool]]:
    """(first, second, same class) of rows with `classes` [n] integer, `per_row` pairs for each row in order;
    the kinds take turns, and every other row begins with the other kind."""
    for i, mine in enumerate(classes):
        own = np.flatnonzero(classes == mine)
        own, others = own[own != i], np.flatnonzero(classes != mine)
        kinds = [(i + turn) % 2 == 0 and len(own) > 0 for turn in range(per_row)]
        same = _cycle(own, sum(kinds), rng)
        other = _cycle(others, per_row - sum(kinds), rng)
        for kind in kinds:
            yield i, int(next(same if kind else other)), kind


def _cycle(rows: np.ndarray, count: int, rng: np.random.Generator) -> Iterator[int]:
    """`count` of `rows`, each once before any comes again."""
    rounds = [rng.permutation(rows) for _ in range(-(-count // max(len(rows), 1)))]
    return iter(np.concatenate([*rounds, rows[:0]])[:count])


class LabelPairs(Transform):
    """`per_row`: pairs for each row (by default 20 up to 64 rows, 5 beyond); `cap`: most pairs; `column`: the
    text. Rows without a label are dropped."""

    per_row: int | None = Field(default=None, ge=1)
    cap: int = Field(default=4000, ge=1)
    column: str = "text"
    seed: int = 0

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """One row per pair; raises InputError when fewer than two classes have a row."""
        dataset.require(self.column)
        dataset.require("label")
        rng = np.random.default_rng(int(inputs.get("seed", self.seed)))
        builder = DatasetBuilder()
        wanted = [n for n in ("id", self.column, "label", "label_weight") if n in dataset.column_names]
        rows: list[dict[str, Any]] = []
        for row in dataset.rows(wanted):
            if row["label"] is None or row[self.column] is None:
                builder.drop(row["id"], "no label" if row["label"] is None else "no text")
            else:
                checked_text(row[self.column], self.column, row["id"])
                rows.append(row)
        # Where even one pair for each row is too many, some rows stay out.
        kept = np.sort(rng.permutation(len(rows))[: self.cap])
        for i in sorted(set(range(len(rows))) - set(kept.tolist())):
            builder.drop(rows[i]["id"], f"more rows than the {self.cap} pairs of the cap")
        rows = [rows[i] for i in kept]
        names, classes = np.unique([str(row["label"]) for row in rows], return_inverse=True)
        if len(names) < 2:
            raise InputError(
                "rows of one class make no pairs that differ",
                where=f"{self.name}: label",
                expected="labelled rows of at least two classes",
                found=", ".join(map(repr, names)) or "no labelled row",
                remedy="label rows of another class",
            )
        alone = [str(name) for name, count in zip(names, np.bincount(classes)) if count == 1]
        if alone:
            warnings.warn(
                f"{self.name}: one row only of {', '.join(alone[:10])}: no pair says what makes this class",
                stacklevel=2,
            )
        per_row = min(self.per_row or (20 if len(rows) <= FEW else 5), self.cap // len(rows))
        made = list(pairs(classes, per_row, rng))
        weights = np.sqrt([_weight(rows[i]) * _weight(rows[j]) for i, j, _ in made])
        if not weights.sum() > 0:
            raise InputError("all pairs weigh nothing", where="label_weight", expected="some rows above 0")
        weights = weights / weights.mean()
        seen: dict[tuple[int, int], int] = {}
        for (i, j, same), weight in zip(made, weights.tolist()):
            number = seen[i, j] = seen.get((i, j), 0) + 1
            first, second = rows[i], rows[j]
            builder.add(
                {
                    "id": f"{first['id']}+{second['id']}" + (f"#{number}" if number > 1 else ""),
                    "text": first[self.column],
                    "text_b": second[self.column],
                    "same": same,
                    "weight": weight,
                    "source_id": first["id"],
                    "source_id_b": second["id"],
                }
            )
        return builder.finish({"pairs": len(made), "same": sum(s for *_, s in made), "alone": alone})


def _weight(row: dict[str, Any]) -> float:
    given = row.get("label_weight")
    weight = 1.0 if given is None else float(given)
    if not (np.isfinite(weight) and weight >= 0):
        raise InputError(
            "a weight is not a number from 0 upwards",
            where=f"row {row['id']}, field label_weight",
            expected="0 or more",
            found=given,
        )
    return weight
