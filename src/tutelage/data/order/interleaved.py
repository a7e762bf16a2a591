"""An instruction set ordered like a school curriculum: level by level, and inside a level the subjects take turns.

Order key of a row: (level, round, turn of its subject), ascending. Inside a level a subject's rows are ordered by
stage, then hash(seed, id), and the k-th of them belongs to round k; a subject that has run out is passed over, so
that no subject comes twice among as many successive rows as there are subjects left. Subjects take their turns in
the order of hash(seed, subject). Further epochs repeat the order. The exact keys are ours. The paper's controls
come from the same code: subjects one after the other (`blocked`), levels ignored or descending.

Warm the learning rate up no longer than the first level lasts, and compare at a constant rate as well: where the
rate decays, what comes first also weighs more.
"""

from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import field_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError, suggest
from tutelage.core.method import Draws, Sampler
from tutelage.core.text.hashing import hash64, hash64_many
from tutelage.data._shared import EpochDraws, average_ranks, require_rows

CARD = {
    "name": "data.order.interleaved",
    "paper": {"title": "Instruction Tuning with Human Curriculum", "identifier": "arXiv:2310.09518"},
    "summary": "Draws rows level by level, from easy to hard, and lets the subjects of a level take turns.",
    "reads": ["{level_column}", "{subject_column}", "{stage_column}?"],
    "cost": "one sort; the labels are the user's, or a labeller's",
    "baseline": "data.order.shuffle",
    "headline": "the paper reports +2.98 on MMLU over shuffling; subjects in turn beat one after the other",
    "version": 1,
}


def curriculum(
    levels: np.ndarray, subjects: np.ndarray, within: np.ndarray, turns: np.ndarray, blocked: bool
) -> np.ndarray:
    """Row indices in order. `levels`, `subjects` [n] int; `within` [n] orders a subject's rows inside a level;
    `turns` [number of subjects] orders the subjects; `blocked` puts subjects one after the other."""
    turn = turns[subjects]
    if blocked:
        return np.lexsort((within, levels, turn))
    by_subject = np.lexsort((within, turn, levels))
    # The round of a row: how many rows of its subject and level come before it.
    starts = np.ones(len(levels), dtype=bool)
    ahead, behind = by_subject[:-1], by_subject[1:]
    starts[1:] = (levels[ahead] != levels[behind]) | (turn[ahead] != turn[behind])
    places = np.arange(len(levels))
    rounds = np.empty(len(levels), dtype=np.int64)
    rounds[by_subject] = places - np.maximum.accumulate(np.where(starts, places, 0))
    return np.lexsort((turn, rounds, levels))


class Interleaved(Sampler):
    """`levels` names the levels of `level_column`, easiest first; a column of numbers is cut into as many levels
    of equal size instead, low numbers first (where there are no more numbers than levels, each is a level).
    `stage_column` orders the rows of a subject inside a level. `by_level` and `subjects` make the controls."""

    level_column: str = "level"
    levels: tuple[str, ...] = ("remember", "understand", "apply")
    subject_column: str = "subject"
    stage_column: str | None = None
    by_level: Literal["ascending", "descending", "ignored"] = "ascending"
    subjects: Literal["interleaved", "blocked"] = "interleaved"

    @field_validator("levels")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("levels are named once each, and there is at least one")
        return value

    def start(self, dataset: Dataset, seed: int) -> Draws:
        rows = require_rows(dataset, self.name)
        names, subjects = _coded(dataset, self.subject_column)
        turns = np.argsort(np.argsort(np.array([hash64(seed, name) for name in names], dtype=np.uint64)))
        stages = np.zeros(rows, dtype=np.int64)
        if self.stage_column is not None:
            _, stages = _coded(dataset, self.stage_column)
        within = np.empty(rows, dtype=np.int64)
        within[np.lexsort((hash64_many(seed, dataset.ids()), stages))] = np.arange(rows)
        levels = np.zeros(rows, dtype=np.int64) if self.by_level == "ignored" else self._levels(dataset)
        if self.by_level == "descending":
            levels = -levels
        order = curriculum(levels, subjects, within, turns, self.subjects == "blocked")
        return EpochDraws(rows, seed, lambda epoch: order)

    def _levels(self, dataset: Dataset) -> np.ndarray:
        """The level of every row, 0 the easiest; a row without one is an error."""
        column = dataset.column(self.level_column)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            place = {name: number for number, name in enumerate(self.levels)}
            found = [place.get(name, -1) for name in column.to_pylist()]
            if -1 in found:
                self._refuse(dataset, found.index(-1), f"one of {', '.join(self.levels)}")
            return np.array(found, dtype=np.int64)
        if not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
            raise InputError(
                f"column {self.level_column!r} holds no levels",
                where=self.level_column,
                expected="names of levels, or numbers",
                found=str(column.type),
                remedy="name the column with level_column, or set by_level: ignored",
            )
        values = dataset.numpy(self.level_column).astype(np.float64)
        if not np.isfinite(values).all():
            self._refuse(dataset, int(np.flatnonzero(~np.isfinite(values))[0]), "a number")
        distinct, place_of = np.unique(values, return_inverse=True)
        if len(distinct) <= len(self.levels):
            return place_of.reshape(-1)
        middle = average_ranks(values) - 0.5 / len(values)
        return (middle * len(self.levels)).astype(np.int64)

    def _refuse(self, dataset: Dataset, row: int, expected: str) -> None:
        bad = dataset.take([row])
        name = bad.column(self.level_column)[0].as_py()
        raise InputError(
            f"a row has no known {self.level_column}",
            where=f"row {bad.column('id')[0].as_py()}",
            expected=expected,
            found=name,
            remedy=suggest(name, self.levels) if isinstance(name, str) else "label the row, or filter it out",
        )


def _coded(dataset: Dataset, column: str) -> tuple[list[str], np.ndarray]:
    """The values of a column in their order as strings (a missing one last), and which one each row has [n]."""
    values = dataset.column(column).to_pylist()
    known = sorted({value for value in values if value is not None})
    place = {value: number for number, value in enumerate(known)}
    return [*map(str, known), ""], np.array([place.get(v, len(known)) for v in values], dtype=np.int64)
