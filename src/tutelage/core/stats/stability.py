"""How well a way of measuring ranks models: over the checkpoints of a run, and before against after tuning.

stability   = Kendall's tau-b of (step, score) over the checkpoints of one run that only ever learns
consistency = Kendall's tau-b of (score of the base, score of the tuned model) over several models
rise        = last less first value of the isotonic fit of the scores, over the standard deviation around it

A constant score has no rank: its tau is None, "no signal", and not 0. Intervals are percentiles over resampled
items (whole clusters), which both sides share; they do not cover other runs. A noisy measure of a slow rise has
a low tau however well it works: a rise of .10 over ten checkpoints with noise of .02 gives .73 on average, with
.05 .41, and no rise at all gives 0 with a standard deviation of .25. Choose between protocols on other runs, or
on half of the items. Source of the idea: "Toward Stable and Consistent Evaluation Results: A New Methodology
for Base Model Evaluation" (arXiv:2503.00812), which measures both by Kendall's rank correlation; tau-b, rise
and intervals are ours.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from scipy import optimize, stats

from tutelage.core.errors import InputError
from tutelage.core.records import Interval, Record
from tutelage.core.stats.clusters import cluster_design
from tutelage.core.stats.intervals import resamples

LEAST = 5


class Ranking(Record):
    """`tau` is None where a score is constant; the interval is over items, None without items or signal."""

    tau: float | None
    n: int
    interval: Interval | None = None
    signal_to_noise: float | None = None


def tau_b(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float | None:
    """Kendall's tau-b of two score lists; None where either is constant."""
    found = float(stats.kendalltau(first, second).statistic)
    return None if np.isnan(found) else found


def stability(
    steps: Sequence[float] | np.ndarray,
    items: np.ndarray,
    clusters: np.ndarray | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Ranking:
    """Of the item scores [checkpoints, n] of one run at rising `steps`.

    Raises InputError for fewer than five checkpoints, steps that do not rise, or scores that are not finite.
    """
    at, scores = np.asarray(steps, dtype=float), _checked(items, len(steps))
    if len(at) < LEAST or (np.diff(at) <= 0).any():
        raise InputError(
            "stability needs the checkpoints of one run in order",
            expected=f"at least {LEAST} rising steps",
            found=f"{len(at)} steps: {at[:8].tolist()}",
        )
    means = scores.mean(axis=1)
    fitted = optimize.isotonic_regression(means).x
    noise = float(np.std(means - fitted, ddof=1))
    rise = float(fitted[-1] - fitted[0])
    return Ranking(
        tau=tau_b(at, means),
        n=len(at),
        interval=_interval(lambda rows: tau_b(at, scores[:, rows].mean(axis=1)), scores, clusters, draws, seed),
        signal_to_noise=rise / noise if noise > 0 else None,
    )


def consistency(
    base: np.ndarray, tuned: np.ndarray, clusters: np.ndarray | None = None, draws: int = 1000, seed: int = 0
) -> Ranking:
    """Of the item scores [models, n] of base models and of the models tuned from them, in one order of models.

    Raises InputError for fewer than five models, or other shapes.
    """
    first, second = _checked(base, len(tuned)), _checked(tuned, len(base))
    if len(first) < LEAST or first.shape != second.shape:
        raise InputError(
            "consistency needs base and tuned scores of the same models on the same items",
            expected=f"two tables of at least {LEAST} models",
            found=f"{first.shape} and {second.shape}",
        )
    return Ranking(
        tau=tau_b(first.mean(axis=1), second.mean(axis=1)),
        n=len(first),
        interval=_interval(
            lambda rows: tau_b(first[:, rows].mean(axis=1), second[:, rows].mean(axis=1)),
            first,
            clusters,
            draws,
            seed,
        ),
    )


def _checked(items: np.ndarray, rows: int) -> np.ndarray:
    scores = np.asarray(items, dtype=float)
    if scores.ndim != 2 or scores.shape[0] != rows or not np.isfinite(scores).all():
        raise InputError(
            "item scores of several models are a table",
            expected=f"finite numbers, [{rows} models, items]",
            found=f"shape {scores.shape}",
        )
    return scores


def _interval(
    statistic: Callable[[np.ndarray], float | None],
    scores: np.ndarray,
    clusters: np.ndarray | None,
    draws: int,
    seed: int,
) -> Interval | None:
    design = cluster_design(clusters, scores.shape[1])
    if design.n_clusters < 2:
        return None
    found = [statistic(rows) for rows in resamples(design, draws, seed)]
    known = [value for value in found if value is not None]
    if len(known) < 0.9 * draws:
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    covers: Literal["clusters", "items"] = "clusters" if design.clustered else "items"
    method = f"percentile bootstrap over {covers}"
    return Interval(lo=float(low), hi=float(high), method=method, covers=covers)
