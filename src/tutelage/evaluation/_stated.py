"""Stated probabilities and what came true: of a classifier, of rows, or of multiple-choice items."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import InputError
from tutelage.core.labels import LabelSpace
from tutelage.evaluation._classes import require_gold
from tutelage.evaluation._logs import Rows, choice_probs

if TYPE_CHECKING:
    from tutelage.evaluation.calibration import Calibration

# Rounding of stored probabilities; beyond it they do not add up.
SLACK = 1e-4
# Two options whose probabilities differ by less are tied.
TIE = 1e-12


@dataclass(frozen=True)
class Stated:
    """n items: `probs` [n, C] (0 where an item has fewer options), `truth` int [n] the right option. With
    confidences alone, `probs` is [confidence, rest] and `truth` 0 where the answer was right."""

    probs: np.ndarray
    truth: np.ndarray

    @property
    def confidence(self) -> np.ndarray:
        """[n] probability of the answer given: the most probable option."""
        return self.probs[:, 0] if self.alone else self.probs.max(axis=1)

    @property
    def right(self) -> np.ndarray:
        """[n] in [0, 1]: whether that answer is right, 1/k where k options tie at the top."""
        if self.alone:
            return (self.truth == 0).astype(float)
        top = self.probs >= self.probs.max(axis=1, keepdims=True) - TIE
        return top[np.arange(len(self.truth)), self.truth] / top.sum(axis=1)

    @property
    def given(self) -> np.ndarray:
        """[n] probability of what came true."""
        return self.probs[np.arange(len(self.truth)), self.truth]

    alone: bool = False


def from_log(rows: Rows, where: str) -> tuple[list[dict[str, Any]], Stated]:
    """The items of a multiple-choice log that have log-likelihoods, and what they state."""
    kept, probs, truth = [], [], []
    for row in rows.values():
        stated = choice_probs(row)
        if stated is None or row.get("p_correct") is None:
            continue
        kept.append(row)
        probs.append(stated)
        # The log keeps the right option's probability, not its number.
        truth.append(int(np.abs(stated - row["p_correct"]).argmin()))
        if abs(stated[truth[-1]] - row["p_correct"]) > SLACK:
            raise InputError(
                "the right option's probability is none of the options'",
                where=f"{where}, item {row['item_key']}",
                expected="softmax of choice_ll at the right option",
                found=row["p_correct"],
            )
    if not kept:
        raise InputError(
            "this measurement states no probabilities",
            where=where,
            expected="items with choice_ll and p_correct (evaluation.multiple_choice)",
            found=f"{len(rows)} items without",
            remedy="measure multiple choice, or give rows and a classifier",
        )
    wide = np.zeros((len(probs), max(map(len, probs))))
    for number, one in enumerate(probs):
        wide[number, : len(one)] = one
    return kept, Stated(wide, np.array(truth))


def from_rows(
    task: "Calibration", rows: Sequence[Mapping[str, Any]], where: Callable[[Mapping[str, Any]], str]
) -> Stated:
    """What rows state: `probs` over `classes` with a gold `label`, or `confidence` and `correct`."""
    if all(row.get(task.probs) is not None and row.get("label") is not None for row in rows):
        space = LabelSpace(rows[0].get("classes") or [])
        for row in rows:
            found, label = row[task.probs], row["label"]
            require_gold(row, where(row))
            fine = isinstance(found, list) and len(found) == len(space) and row.get("classes") == list(space.names)
            if not fine or not all(p >= 0 for p in found) or abs(sum(found) - 1) > SLACK:
                raise InputError(
                    "a row states no probabilities of the classes",
                    where=f"{where(row)}, columns {task.probs!r} and 'classes'",
                    expected=f"{len(space)} numbers that add up to 1, for the classes of the first row",
                    found=repr(found),
                )
            space.index(label, f"{where(row)}, field label")
        truth = [space.index(row["label"], "") for row in rows]
        return Stated(np.array([row[task.probs] for row in rows], dtype=float), np.array(truth))
    stated, came = [], []
    for row in rows:
        value, right = row.get(task.confidence), row.get(task.correct)
        if not isinstance(value, int | float) or not 0 <= value <= 1 or right not in (0, 1):
            raise InputError(
                "a row does not say how sure it was and whether it was right",
                where=f"{where(row)}, columns {task.confidence!r} and {task.correct!r}",
                expected="a probability, and true or false",
                found=f"{value!r} and {right!r}",
                remedy=f"give both, or {task.probs!r} with 'classes' and 'label', or a classifier as model",
            )
        stated.append(float(value))
        came.append(not right)
    confidence = np.array(stated)
    return Stated(np.column_stack([confidence, 1 - confidence]), np.array(came, dtype=int), alone=True)


def from_classifier(
    model: Any, rows: Sequence[Mapping[str, Any]], where: Callable[[Mapping[str, Any]], str]
) -> Stated:
    """What a classifier says of labelled texts."""
    for row in rows:
        require_gold(row, where(row))
        if not isinstance(row.get("text"), str) or row.get("label") is None:
            raise InputError("a row lacks text or label", where=where(row), expected="a text and its class")
    truth = [model.labels.index(row["label"], f"{where(row)}, field label") for row in rows]
    return Stated(model.predict_proba([row["text"] for row in rows]), np.array(truth))
