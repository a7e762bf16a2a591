"""A linear rule, fitted on short fine-tunes, that says from cheap indicators how low a loss a row will give.

K subsets whose indicator means x_k [p] differ are each trained on from the same base; y_k = ln(held-out loss).
Ordinary least squares y = b0 + x b; the indicator with the largest p value (t test, K - p - 1 degrees of freedom)
is left out and the rest fitted again until all p are at most `significance`. A row's score is b0 + x b at its own
indicators, each clipped to the mean of the subset means +- 3 of their standard deviations: the rule is fitted on
means and applied to rows, which is extrapolation. Low is good.

Look at what the fit says about itself before trusting it: R^2, R^2 with each subset left out (1 - sum of squared
left-out errors / total), the rank correlation of left-out predictions, and the variance inflation 1 / (1 - R_j^2)
of every indicator. The papers' own coefficients belong to one model and one reward model and are not shipped.
"""

import warnings
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Inputs, Scorer, State

CARD = {
    "name": "signals.instruction_quality",
    "paper": {
        "title": "Instruction Mining: Instruction Data Selection for Tuning Large Language Models",
        "identifier": "arXiv:2307.06290",
    },
    "summary": "Predicts the loss that a row leads to by a linear rule on indicators, fitted on short fine-tunes.",
    "reads": [],
    "writes": ["predicted_log_loss", "indicators_clipped"],
    "inputs": {
        "subsets": "a list of the K training subsets with indicator columns, or one dataset of their means",
        "results?": "a list with the held-out loss of the model trained on each subset, in the same order",
    },
    "cost": "K (30 to 100) short fine-tunes, then nothing per row",
    "baseline": "signals.length",
    "headline": "the paper's first version finds its choice better in 42.5% of cases; a small K is a loose rule",
    "version": 1,
}

SPARE = 5  # subsets needed beyond the number of indicators
INFLATED = 10.0
REACH = 3.0


def least_squares(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """y [K] on x [K, p] with an intercept: coefficients and p values [p + 1], R^2, left-out predictions [K]."""
    from scipy import stats

    design = np.column_stack([np.ones(len(y)), x])
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ design.T @ y
    errors = y - design @ coefficients
    free = len(y) - design.shape[1]
    spread = np.sqrt(np.diag(inverse) * (errors @ errors) / free)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = coefficients / spread
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    total = ((y - y.mean()) ** 2).sum()
    left_out = y - errors / (1 - leverage)
    return {
        "coefficients": coefficients,
        "p": 2 * stats.t.sf(np.abs(t), free),
        "r2": 1 - (errors @ errors) / total,
        "left_out": left_out,
        "left_out_r2": 1 - ((y - left_out) ** 2).sum() / total,
        "left_out_rank": float(stats.spearmanr(y, left_out).statistic),
    }


def inflation(x: np.ndarray) -> np.ndarray:
    """Variance inflation 1 / (1 - R_j^2) of every column of x [K, p]; infinite for a copy of the others."""
    centred = x - x.mean(axis=0)
    found = np.ones(x.shape[1])
    for j in range(x.shape[1] if x.shape[1] > 1 else 0):
        others = np.delete(centred, j, axis=1)
        rest = centred[:, j] - others @ np.linalg.lstsq(others, centred[:, j], rcond=None)[0]
        left = (rest @ rest) / max(centred[:, j] @ centred[:, j], np.finfo(float).tiny)
        found[j] = np.inf if left < 1e-12 else 1 / left
    return found


def eliminate(x: np.ndarray, y: np.ndarray, significance: float) -> tuple[list[int], dict[str, Any]]:
    """Which columns of x [K, p] stay, and the fit on these; none may stay."""
    kept = list(range(x.shape[1]))
    while True:
        fit = least_squares(x[:, kept], y)
        if not kept or fit["p"][1:].max() <= significance:
            return kept, fit
        del kept[int(np.argmax(fit["p"][1:]))]


class InstructionQuality(Scorer):
    """`indicators` are numeric columns (from signals.length, token_loss, lexical, neighbour_distance, a reward);
    `loss_column` holds the held-out loss where `subsets` is one dataset of means; `significance` is the largest p
    value that keeps an indicator."""

    indicators: tuple[str, ...] = ("n_tokens", "nll_mean", "mtld", "neighbour_distance")
    loss_column: str = "held_out_loss"
    significance: float = Field(default=0.05, gt=0, le=1)

    @field_validator("indicators")
    @classmethod
    def _some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("indicators are named once each, and there is at least one")
        return value

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        dataset.require(*self.indicators)
        x, losses = self._experiments(inputs["subsets"], inputs.get("results"))
        if len(x) < len(self.indicators) + SPARE:
            raise InputError(
                f"{self.name}: too few subsets for this many indicators",
                where="inputs.subsets",
                expected=f"at least {len(self.indicators) + SPARE} subsets for {len(self.indicators)} indicators",
                found=f"{len(x)} subsets",
                remedy="train on more subsets, or name fewer indicators",
            )
        if not np.isfinite(x).all() or not (np.isfinite(losses) & (losses > 0)).all():
            bad = int(np.flatnonzero(~np.isfinite(x).all(axis=1) | ~(losses > 0))[0])
            raise InputError(
                f"{self.name}: a subset has no indicators or no loss",
                where=f"subset {bad}",
                expected="a mean for every indicator and a loss above 0",
                found=f"{dict(zip(self.indicators, x[bad].tolist()))}, loss {losses[bad]}",
                remedy="score the rows of the subset; rows without a value do not count",
            )
        spread = x.std(axis=0, ddof=1)
        still = [name for name, one in zip(self.indicators, spread) if one == 0]
        if still:
            raise InputError(
                f"{self.name}: an indicator has the same mean in every subset",
                where=still[0],
                expected="subsets of different mixes",
                remedy="draw the subsets by different columns and directions, or leave the indicator out",
            )
        inflated = {n: v for n, v in zip(self.indicators, inflation(x).tolist()) if v > INFLATED}
        if inflated:
            listed = ", ".join(f"{name} {value:.3g}" for name, value in inflated.items())
            warnings.warn(f"{self.name}: indicators say the same (variance inflation {listed})", stacklevel=2)
        # Columns of one size: lengths in thousands beside rates would cost half of the digits.
        kept, found = eliminate((x - x.mean(axis=0)) / spread, np.log(losses), self.significance)
        if not kept:
            raise InputError(
                f"{self.name}: no indicator tells the losses of the subsets apart",
                where="inputs.subsets",
                expected=f"at least one with p <= {self.significance:g}",
                found=f"{len(x)} subsets, none",
                remedy="train on more subsets of more different mixes; a random choice is as good as this rule",
            )
        return {
            "names": [self.indicators[j] for j in kept],
            "means": x.mean(axis=0)[kept],
            "spreads": spread[kept],
            "coefficients": found["coefficients"],
            "p": found["p"],
            "inflation": inflation(x[:, kept]),
            **{key: float(found[key]) for key in ("r2", "left_out_r2", "left_out_rank")},
        }

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, np.ndarray]:
        columns = [shard.column(name).cast(pa.float64()).to_numpy() for name in state["names"]]
        z = (np.column_stack(columns) - state["means"]) / state["spreads"]
        near = np.clip(z, -REACH, REACH)
        coefficients = np.asarray(state["coefficients"])
        return {
            "predicted_log_loss": coefficients[0] + near @ coefficients[1:],
            "indicators_clipped": (np.abs(z) > REACH).sum(axis=1).astype(np.int64),
        }

    def _experiments(self, subsets: Any, results: Any) -> tuple[np.ndarray, np.ndarray]:
        """Indicator means [K, p] and held-out losses [K]."""
        if not isinstance(subsets, list):
            subsets.require(*self.indicators, self.loss_column)
            columns = [subsets.numpy(name).astype(np.float64) for name in self.indicators]
            return np.column_stack(columns), subsets.numpy(self.loss_column).astype(np.float64)
        given = results if isinstance(results, list) else []
        if len(given) != len(subsets) or any(result.direction > 0 for result in given):
            raise ConfigError(
                f"{self.name} needs the loss of every subset",
                where="inputs.results",
                expected=f"{len(subsets)} results of which smaller is better, in the order of the subsets",
                found=f"{len(given)} results" + (", larger is better" if len(given) == len(subsets) else ""),
                remedy="measure each model with evaluation.bits_per_byte",
            )
        means = [[np.nanmean(one.numpy(name).astype(np.float64)) for name in self.indicators] for one in subsets]
        return np.array(means), np.array([result.estimate for result in given])
