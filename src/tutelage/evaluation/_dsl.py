"""Rows for design-based supervised learning as arrays, and the predictions that correct them: out-of-fold g."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import InputError
from tutelage.core.labels import GOLD

if TYPE_CHECKING:
    from tutelage.evaluation.dsl import Dsl

# More different machine labels than this is a column of texts or ids.
MOST_CLASSES = 200
# Share of these many standard deviations between drawn and expected gold rows cannot be chance.
FAR = 5.0
TREES = 100


@dataclass(frozen=True)
class Design:
    """N rows: `outcome` [N] (NaN without a gold label), `labelled` bool [N], `inclusion` [N], `x` [N, p] with the
    constant first, `z` [N, d] what g reads, `face` [N] the machine's label as an outcome (NaN where it is none),
    `clusters` [N] or None."""

    outcome: np.ndarray
    labelled: np.ndarray
    inclusion: np.ndarray
    x: np.ndarray
    z: np.ndarray
    face: np.ndarray
    clusters: np.ndarray | None

    def corrected(self, predicted: np.ndarray) -> np.ndarray:
        """Y~ = g + R / pi (Y - g), [N]."""
        return predicted + self.labelled / self.inclusion * (np.nan_to_num(self.outcome) - predicted)


def read_design(task: "Dsl", rows: Sequence[Mapping[str, Any]]) -> Design:
    """The rows as arrays; raises InputError naming the first row that does not fit."""
    where = [f"row {row.get('id', number + 1)}" for number, row in enumerate(rows)]
    gold = [
        value if row.get(task.label_source) in (None, GOLD) else None
        for row, value in ((row, row.get(task.gold)) for row in rows)
    ]
    labelled = np.array([value is not None for value in gold])
    inclusion = _inclusion(task, rows, labelled, where)
    if labelled.sum() < 2 * task.folds:
        raise InputError(
            "there are too few gold labels",
            where=f"column {task.gold!r}",
            expected=f"at least {2 * task.folds}, two for each of {task.folds} folds",
            found=int(labelled.sum()),
            remedy="label more rows, or lower folds",
        )
    outcome = _outcomes(task, gold, where)
    constant = np.ones((len(rows), 1))
    x = np.hstack([constant, *(_numbers(rows, name, where)[:, None] for name in task.covariates)])
    said, face = _surrogate(task, rows)
    z = np.hstack([said, x[:, 1:], *(_numbers(rows, name, where)[:, None] for name in task.features)])
    clusters = [row.get("cluster") if row.get("cluster") is not None else row.get("group") for row in rows]
    known = any(value is not None for value in clusters)
    # A row without a cluster is its own.
    names = [f"{number} alone" if value is None else str(value) for number, value in enumerate(clusters)]
    return Design(outcome, labelled, inclusion, x, z, face, np.array(names) if known else None)


def _inclusion(
    task: "Dsl", rows: Sequence[Mapping[str, Any]], labelled: np.ndarray, where: Sequence[str]
) -> np.ndarray:
    given = [row.get(task.inclusion) for row in rows]
    for place, value in zip(where, given):
        fine = isinstance(value, int | float) and 0 < value <= 1
        if not fine:
            lacking = value is None or value != value
            raise InputError(
                "gold rows were not drawn with known probability" if lacking else "a probability is out of range",
                where=f"{place}, column {task.inclusion!r}",
                expected="the probability, above 0 and at most 1, with which the row was drawn for gold labelling",
                found=value,
                remedy="draw the gold rows at random and keep their probabilities; rows that were picked by hand "
                "or by an active strategy without them allow no valid interval",
            )
    inclusion = np.array(given, dtype=float)
    drawn, expected = float(labelled.sum()), float(inclusion.sum())
    if task.rescale:
        inclusion = inclusion * drawn / expected
        return np.minimum(inclusion, 1.0)
    spread = float(np.sqrt((inclusion * (1 - inclusion)).sum()))
    if abs(drawn - expected) > FAR * spread + 0.5:
        raise InputError(
            "the gold rows do not fit the probabilities of drawing them",
            where=f"column {task.inclusion!r}",
            expected=f"about {expected:.0f} gold rows, the sum of the probabilities",
            found=f"{drawn:.0f}",
            remedy="correct the probabilities; if they are known up to a factor only, set rescale: true",
        )
    return inclusion


def _outcomes(task: "Dsl", gold: Sequence[Any], where: Sequence[str]) -> np.ndarray:
    kinds = {isinstance(value, str) for value in gold if value is not None}
    if kinds == {True}:
        classes = sorted({value for value in gold if value is not None})
        if task.positive not in classes:
            raise InputError(
                "which class is counted?",
                where="positive",
                expected="one of " + ", ".join(classes[:12]) + (", ..." if len(classes) > 12 else ""),
                found=task.positive,
                remedy="set positive to the class whose share or cause is asked for",
            )
        return np.array([np.nan if value is None else float(value == task.positive) for value in gold])
    found = np.full(len(gold), np.nan)
    for number, value in enumerate(gold):
        if value is None:
            continue
        if not isinstance(value, int | float) or not np.isfinite(value):
            raise InputError(
                "a gold label is no number",
                where=where[number],
                expected="numbers, or class names with `positive`",
                found=repr(value),
            )
        found[number] = value
    return found


def _numbers(rows: Sequence[Mapping[str, Any]], name: str, where: Sequence[str]) -> np.ndarray:
    for place, row in zip(where, rows):
        value = row.get(name)
        if not isinstance(value, int | float) or not np.isfinite(value):
            raise InputError(
                "a covariate or feature is no number",
                where=f"{place}, column {name!r}",
                expected="a finite number in every row",
                found=repr(value),
                remedy="fill it in, or write a class as columns of 0 and 1",
            )
    return np.array([float(row[name]) for row in rows])


def _surrogate(task: "Dsl", rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(what g reads of the machine's label [N, d], the label as an outcome [N])."""
    said = [row.get(task.surrogate) for row in rows]
    known = [value for value in said if value is not None]
    if known and all(isinstance(value, str) for value in known):
        classes = sorted(set(known))
        if len(classes) > MOST_CLASSES:
            raise InputError(
                "the machine's labels are too many to be classes",
                where=f"column {task.surrogate!r}",
                expected=f"at most {MOST_CLASSES} different ones",
                found=len(classes),
                remedy="name the column that holds the machine's label",
            )
        place = {name: number for number, name in enumerate([*classes, None])}
        wide = np.eye(len(place))[[place[value] for value in said]]
        face = np.array([np.nan if value is None else float(value == task.positive) for value in said])
        return wide, face
    width = max((len(value) if isinstance(value, list) else 1 for value in known), default=1)
    wide = np.full((len(said), width), np.nan)
    for number, value in enumerate(said):
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        if len(values) != width or not all(isinstance(one, int | float) for one in values):
            raise InputError(
                "a machine label is of another kind than the others",
                where=f"row {rows[number].get('id', number + 1)}, column {task.surrogate!r}",
                expected=f"{width} numbers" if width > 1 else "class names, or numbers",
                found=repr(value),
            )
        wide[number] = values
    lost = np.asarray(np.isnan(wide).any(axis=1))
    face = wide[:, 0] if width == 1 else np.full(len(said), np.nan)
    return np.hstack([np.where(lost[:, None], 0.0, wide), lost[:, None].astype(float)]), face


def deal_folds(design: Design, folds: int, seed: int) -> np.ndarray:
    """int [N] fold of each row: clusters whole, those that hold gold labels dealt evenly."""
    clusters = np.arange(len(design.x)) if design.clusters is None else design.clusters
    _, place = np.unique(clusters, return_inverse=True)
    with_gold = np.bincount(place, weights=design.labelled) > 0
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(with_gold))
    order = order[np.argsort(~with_gold[order], kind="stable")]
    fold = np.empty(len(order), dtype=np.int64)
    fold[order] = np.arange(len(order)) % folds
    return fold[place]


def cross_fit(task: "Dsl", design: Design, seed: int) -> np.ndarray:
    """g [N]: every row predicted from labelled rows of other folds."""
    if task.learner == "surrogate":
        if np.isnan(design.face).all():
            raise InputError(
                "the machine's label is no outcome by itself",
                where=f"column {task.surrogate!r}",
                expected="a number, or class names with `positive`",
                remedy="use learner: forest or linear",
            )
        return np.nan_to_num(design.face)
    fold = deal_folds(design, task.folds, seed)
    predicted = np.empty(len(design.x))
    for number in range(task.folds):
        here, teach = fold == number, (fold != number) & design.labelled
        if not here.any():
            continue  # fewer clusters than folds
        if not teach.any():
            raise InputError(
                "a fold leaves no gold label to learn from",
                where="folds",
                expected="gold labels in at least two clusters",
                found=f"{design.labelled.sum()} gold labels, all in one cluster",
                remedy="draw gold labels from more clusters",
            )
        predicted[here] = _learn(task.learner, design.z[teach], design.outcome[teach], design.z[here], seed)
    return predicted


def _learn(learner: str, z: np.ndarray, y: np.ndarray, at: np.ndarray, seed: int) -> np.ndarray:
    if learner == "linear":
        one, other = np.ones((len(z), 1)), np.ones((len(at), 1))
        return np.hstack([other, at]) @ np.linalg.lstsq(np.hstack([one, z]), y, rcond=None)[0]
    from sklearn.ensemble import RandomForestRegressor

    # Equal rows get equal predictions: a machine label with few values needs few of them made.
    kinds, place = np.unique(at, axis=0, return_inverse=True)
    forest = RandomForestRegressor(TREES, min_samples_leaf=5, random_state=seed % 2**32)
    return forest.fit(z, y).predict(kinds)[place.ravel()]
