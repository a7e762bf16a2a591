"""How well the losses of several models on a row tell the order of these models on a benchmark.

With benchmark scores S_j (larger = better) and total nats L_j(d) of row d under model j, over the pairs i < j with
S_i != S_j: strength(d) = share with (S_i - S_j) (L_i(d) - L_j(d)) < 0; equal losses count 0. Without ties this is
(Kendall's tau(S, -L) + 1) / 2. gap(d) = mean over these pairs of the worse model's loss minus the better one's.
Totals, not means per token: tokenizers differ, and what depends on the row alone cancels. `strength_label` is what
a light classifier learns: positive = strength 1, negative = as many rows from the lowest strength upward, ties by
gap, then by hash(seed, id); null between. Ours: at least `least_share` of the rows are positives, the best by
strength and gap, and never more than half, since few models may order no row, or nearly every row, right.
"""

import itertools
import math
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import hash64_many

CARD = {
    "name": "signals.predictive_strength",
    "paper": {
        "title": "Predictive Data Selection: The Data That Predicts Is the Data That Teaches",
        "identifier": "arXiv:2503.00808",
    },
    "summary": "How well the losses of several models on a row tell which of them is better on a benchmark.",
    "reads": [],
    "writes": ["predictive_strength", "strength_gap", "strength_label"],
    "inputs": {
        "losses": "the same rows scored by signals.token_loss, a list with one dataset per model",
        "results?": "a list with the result of each of these models on the benchmark, in the same order",
    },
    "cost": "one forward pass per token and model, spent in signals.token_loss",
    "baseline": "signals.token_loss",
    "headline": "the paper gets more from 30B tokens chosen so than from 300B unchosen; not verified here",
    "version": 1,
}

POSITIVE, NEGATIVE = "positive", "negative"
# Above this share of rows with strength 1 the models say nothing about the rows.
SATURATED = 0.5


def strengths(losses: np.ndarray, benchmark: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(strength [n], gap [n]) from total losses [n, m] and scores [m]; NaN where a loss is NaN."""
    pairs = [(i, j) for i, j in itertools.combinations(range(len(benchmark)), 2) if benchmark[i] != benchmark[j]]
    found = np.zeros(len(losses))
    gap = np.zeros(len(losses))
    for i, j in pairs:
        sign = np.sign(benchmark[i] - benchmark[j])
        found += sign * (losses[:, i] - losses[:, j]) < 0
        gap -= sign * (losses[:, i] - losses[:, j])
    found[np.isnan(losses).any(axis=1)] = np.nan
    return found / len(pairs), gap / len(pairs)


def labels(strength: np.ndarray, gap: np.ndarray, ties: np.ndarray, least_share: float) -> np.ndarray:
    """int8 [n]: 1 positive, -1 negative, 0 neither; `ties` [n] are the hashes that break ties."""
    rated = np.flatnonzero(~np.isnan(strength))
    order = rated[np.lexsort((ties[rated], gap[rated], strength[rated]))]
    wanted = max(int((strength[rated] == 1).sum()), math.ceil(least_share * len(rated) - 1e-9))
    count = min(wanted, len(rated) // 2)
    found = np.zeros(len(strength), dtype=np.int8)
    if count:
        found[order[-count:]] = 1
        found[order[:count]] = -1
    return found


class PredictiveStrength(Scorer):
    """`benchmark_scores`, one per model, larger = better, where the scores come from outside (else `results`);
    `loss_column` of the datasets in `losses`; `least_share` of the rows are labelled positive at least."""

    benchmark_scores: tuple[float, ...] = ()
    loss_column: str = "nll_sum"
    least_share: float = Field(default=0.0, ge=0, le=0.5)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        scored = inputs["losses"] if isinstance(inputs["losses"], list) else [inputs["losses"]]
        benchmark = self._benchmark(inputs.get("results"), len(scored))
        ids = dataset.ids()
        losses = np.stack([_aligned(one, self.loss_column, ids, n) for n, one in enumerate(scored)], axis=1)
        _same_start(scored)
        strength, gap = strengths(losses, benchmark)
        if np.isnan(strength).all():
            raise InputError(f"{self.name}: no row has a loss under every model", where="inputs.losses")
        saturated = float(np.nanmean(strength == 1.0))
        if saturated > SATURATED:
            counts = np.bincount(np.round(strength[~np.isnan(strength)] * 10).astype(int), minlength=11)
            warnings.warn(
                f"{self.name}: the models order {saturated:.0%} of the rows right, so strength says little about "
                f"them (rows per tenth from 0 to 1: {', '.join(map(str, counts))}); take models that differ in "
                "their data, not only in size",
                stacklevel=2,
            )
        ties = hash64_many(self.seed, ids)
        marks = labels(strength, gap, ties, self.least_share)
        if not marks.any():
            raise InputError(
                f"{self.name}: no row can be an example for the classifier",
                where="strength_label",
                expected="rows on which the losses order all models as the benchmark does",
                found=f"{len(ids)} rows, the best with strength {np.nanmax(strength):.2f}",
                remedy="give more rows, or set least_share",
            )
        order = np.argsort(hash64_many(0, ids))
        return {
            "keys": hash64_many(0, ids)[order],
            "strength": strength[order],
            "gap": gap[order],
            "marks": marks[order],
        }

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        at = np.searchsorted(state["keys"], hash64_many(0, shard.column("id").to_pylist()))
        names = {1: POSITIVE, -1: NEGATIVE}
        return {
            "predictive_strength": state["strength"][at],
            "strength_gap": state["gap"][at],
            "strength_label": pa.array([names.get(mark) for mark in state["marks"][at].tolist()], pa.string()),
        }

    def _benchmark(self, results: Any, models: int) -> np.ndarray:
        """Scores [m] with larger = better, from the field or from `results`."""
        if bool(self.benchmark_scores) == (results is not None):
            raise ConfigError(
                f"{self.name} takes the models' scores from one place",
                where="benchmark_scores",
                expected="the field benchmark_scores, or the input results",
                found="both" if self.benchmark_scores else "neither",
            )
        given = results if isinstance(results, list) else [] if results is None else [results]
        found = np.array(
            [r.direction * r.estimate for r in given] if given else self.benchmark_scores, dtype=float
        )
        if len(found) != models or models < 3:
            raise ConfigError(
                f"{self.name} needs at least three models, each with a score",
                where="inputs.losses",
                expected="as many datasets in `losses` as scores, three or more",
                found=f"{models} datasets, {len(found)} scores",
                remedy="score the rows with another model, or give its benchmark score",
            )
        if np.isnan(found).any() or len(set(found.tolist())) == 1:
            raise ConfigError(
                f"{self.name}: the models cannot be ranked",
                where="benchmark_scores",
                expected="scores that differ",
                found=", ".join(f"{value:g}" for value in found),
                remedy="take models that differ on the benchmark, or a benchmark that tells them apart",
            )
        return found


def _aligned(scored: Dataset, column: str, ids: list[str], number: int) -> np.ndarray:
    """The losses of the rows `ids` [n], whatever the order of `scored`."""
    scored.require(column)
    place = {identifier: row for row, identifier in enumerate(scored.ids())}
    missing = next((identifier for identifier in ids if identifier not in place), None)
    if missing is not None:
        raise InputError(
            "a row was not scored by every model",
            where=f"inputs.losses, dataset {number + 1}",
            expected=f"row {missing}",
            found=f"{scored.num_rows} other rows",
            remedy="score the same rows with every model",
        )
    values = scored.numpy(column).astype(np.float64)
    return values[[place[identifier] for identifier in ids]]


def _same_start(scored: list[Dataset]) -> None:
    """A model without a start token does not score the first token: its totals are of another text."""
    flag = "first_token_scored"
    found = {bool(value) for one in scored if flag in one.column_names for value in one.numpy(flag)}
    if len(found) > 1:
        raise InputError(
            "some losses leave out the first token and some do not",
            where=f"inputs.losses, column {flag}",
            expected="the same for all models and rows",
            remedy="use models that have a start or end token, or none that has",
        )
