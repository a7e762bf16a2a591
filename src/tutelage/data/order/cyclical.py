"""Epochs whose size rises and falls in cycles and that favour easy rows while they are small.

Sizes as shares of all N rows: n_0 = s; rising (from n = s, or while rising below e) n <- min(n / alpha, e), else
n <- max(n alpha, s). Epoch t draws floor(n_t N) rows without replacement with probability proportional to their
weight w (Plackett-Luce, by the largest ln w + Gumbel noise) and shows them in random order; an epoch of all rows
is a plain permutation. w = exp(-loss), the probability that a vanilla model gives the row (per token, from
signals.token_loss), never below 1e-6.

Group phases (MCCL) with R real and N - R augmented rows: an epoch of m <= R rows draws real rows only; a larger
one has all real rows and m - R augmented ones, drawn by weight. No paper was read for them: they are ours, as is
the seed per epoch. Left out: scoring again in every epoch (self-paced).
"""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Draws, Sampler
from tutelage.data._shared import EpochDraws, average_ranks, require_rows
from tutelage.data.select._shared import Direction, scores

CARD = {
    "name": "data.order.cyclical",
    "paper": {"title": "Cyclical Curriculum Learning", "identifier": "arXiv:2202.05531"},
    "summary": "Draws epochs that grow and shrink in cycles and favour easy rows; augmented rows can enter late.",
    "reads": ["{column}", "{augmented_column}?"],
    "cost": "one draw per epoch; the score is a forward pass per row, or a vanilla training first",
    "baseline": "data.order.shuffle",
    "headline": "the paper finds it better than plain training on 18 data sets; compare with equal scores as well",
    "version": 1,
}

# Rows that a model finds all but impossible stay possible to draw.
FLOOR = 1e-6
Scale = Literal["loss", "probability", "rank"]


def cycle_sizes(start: float, end: float, alpha: float) -> Iterator[float]:
    """Shares of the rows, epoch by epoch, without end."""
    size, rising = start, True
    while True:
        yield size
        # Products of alpha meet the ends only to rounding.
        rising = size <= start * (1 + 1e-9) or (rising and size < end * (1 - 1e-9))
        size = min(size / alpha, end) if rising else max(size * alpha, start)


def log_weights(values: np.ndarray, scale: Scale, direction: Direction | None) -> np.ndarray:
    """ln w per row [n] from a column [n]; rows without a value (NaN) get the smallest weight there is."""
    if scale == "rank":
        found = np.log(average_ranks(-values if direction == "lower" else values))
    else:
        easy = np.exp(-values) if scale == "loss" else values
        found = np.log(np.maximum(easy, FLOOR))
        natural = "lower" if scale == "loss" else "higher"
        found = found if direction in (None, natural) else -found
    known = found[~np.isnan(found)]
    return np.where(np.isnan(found), known.min(), found)


def draw(weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` indices without replacement, probability proportional to exp(weights [n]); best key first."""
    return np.argsort(-(weights + rng.gumbel(size=len(weights))), kind="stable")[:count]


def epoch_rows(size: float, weights: np.ndarray, late: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Row indices of an epoch of share `size`; rows where `late` [n] is true enter when the others are used up."""
    rows = len(weights)
    # 0.29 times 100 is below 29 in floating point.
    count = max(1, int(size * rows + 1e-9))
    if count == rows:
        return rng.permutation(rows)
    early = np.flatnonzero(~late)
    if count <= len(early):
        return rng.permutation(early[draw(weights[early], count, rng)])
    others = np.flatnonzero(late)
    return rng.permutation(np.concatenate([early, others[draw(weights[others], count - len(early), rng)]]))


class Cyclical(Sampler):
    """`start_share`, `end_share`, `alpha`: smallest and largest epoch and the factor between epochs. `scale` says
    what `column` holds: a loss in nats per token, a probability, or any number, whose rank is the weight.
    `direction`: which values are easy (of a loss the lower ones, else the higher); turn it for the reversed order.
    `augmented_column` is true on augmented rows; `first` says which group small epochs draw from."""

    column: str | None = None
    scale: Scale = "loss"
    direction: Direction | None = None
    start_share: float = Field(default=0.25, gt=0, le=1)
    end_share: float = Field(default=1.0, gt=0, le=1)
    alpha: float = Field(default=0.5, gt=0, lt=1)
    augmented_column: str | None = None
    first: Literal["real", "augmented"] = "real"

    @model_validator(mode="after")
    def _ordered(self) -> "Cyclical":
        if self.start_share > self.end_share:
            raise ValueError("start_share must not be larger than end_share")
        return self

    def start(self, dataset: Dataset, seed: int) -> Draws:
        rows = require_rows(dataset, self.name)
        values = scores(dataset, self.column, self.name)
        self._check(values, dataset)
        weights = log_weights(values, self.scale, self.direction)
        return EpochDraws(rows, seed, self._epochs(weights, self._late(dataset), seed))

    def _epochs(self, weights: np.ndarray, late: np.ndarray, seed: int) -> Callable[[int], np.ndarray]:
        sizes = cycle_sizes(self.start_share, self.end_share, self.alpha)
        known: list[float] = []

        def epoch(number: int) -> np.ndarray:
            while len(known) <= number:
                known.append(next(sizes))
            return epoch_rows(known[number], weights, late, np.random.default_rng([seed, number]))

        return epoch

    def _check(self, values: np.ndarray, dataset: Dataset) -> None:
        """A column that is not on the scale it is said to be on would order nothing, silently."""
        if self.scale == "probability":
            bad = np.flatnonzero((values < 0) | (values > 1))
            if len(bad):
                raise InputError(
                    f"column {self.column!r} holds no probability",
                    where=f"row {dataset.take([int(bad[0])]).column('id')[0].as_py()}",
                    expected="values from 0 to 1",
                    found=float(values[bad[0]]),
                    remedy="set scale: loss for a loss per token, or scale: rank for any other number",
                )
        if self.scale == "loss" and np.nanmin(values) >= -np.log(FLOOR):
            raise InputError(
                f"the losses in column {self.column!r} are too large to tell rows apart",
                where=self.column,
                expected=f"losses in nats per token, at least one below {-np.log(FLOOR):.1f}",
                found=f"{np.nanmin(values):.6g} at the least",
                remedy="use a mean per token (nll_mean) instead of a sum, or set scale: rank",
            )

    def _late(self, dataset: Dataset) -> np.ndarray:
        if self.augmented_column is None:
            return np.zeros(dataset.num_rows, dtype=bool)
        augmented = np.array([value is True for value in dataset.column(self.augmented_column).to_pylist()])
        if augmented.all() or not augmented.any():
            raise InputError(
                f"{self.name}: there is one group of rows only",
                where=self.augmented_column,
                expected="rows where it is true (augmented) and rows where it is not (real)",
                found=f"{int(augmented.sum())} augmented rows of {len(augmented)}",
                remedy="mark the rows (signals.constant) before they are joined, or leave augmented_column out",
            )
        return augmented if self.first == "real" else ~augmented
