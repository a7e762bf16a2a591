"""Area under the ROC curve with DeLong's variance, for one score, and for two scores of the same items.

With m positives X_i and n negatives Y_j, psi(x, y) = 1, 1/2 or 0 for x > y, x = y, x < y:

    A = mean psi(X_i, Y_j),  V_i = mean_j psi(X_i, Y_j),  V_j = mean_i psi(X_i, Y_j)
    Var A = sum_i (V_i - A)^2 / (m (m - 1)) + sum_j (V_j - A)^2 / (n (n - 1))

Clusters of items (rows of one document): the centred V_i / m and V_j / n are summed within each of C clusters, and
Var A = C / (C - 1) sum of their squares (Obuchowski 1997). The difference of two scores has the variance of the
differences of these parts. Perfect separation has variance 0, which is no certainty: its interval then ends at
Wilson's bound for min(m, n) successes of min(m, n), a rule of ours.
Source: DeLong, DeLong and Clarke-Pearson (1988).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from tutelage.core.errors import InputError
from tutelage.core.records import Interval
from tutelage.core.stats.intervals import wilson


class Auroc(NamedTuple):
    """`parts` [items] sum to 0; sums of them within clusters give the variance. `m` positives, `n` negatives."""

    area: float
    parts: np.ndarray
    variance: float
    m: int
    n: int
    n_clusters: int

    @property
    def influence(self) -> np.ndarray:
        """[items] pseudo-values whose mean is the area: what an item log holds, so that two systems pair."""
        return self.area + len(self.parts) * self.parts

    @property
    def null_sd(self) -> float:
        """Standard deviation of the area for scores that say nothing: sqrt((m + n + 1) / (12 m n))."""
        return float(np.sqrt((self.m + self.n + 1) / (12 * self.m * self.n)))

    def interval(self, level: float = 0.95) -> Interval:
        """Normal interval, cut at 0 and 1."""
        covers, clustered = "items", self.n_clusters < len(self.parts)
        if clustered:
            covers = "clusters"
        half = float(stats.norm.isf((1 - level) / 2)) * self.variance**0.5
        low, high, method = self.area - half, self.area + half, "DeLong" + (", clusters" if clustered else "")
        if self.variance < 1e-15 and self.area in (0.0, 1.0):
            few = min(self.m, self.n, self.n_clusters)
            bound = wilson(few, few, level).lo
            low, high = (bound, 1.0) if self.area else (0.0, 1 - bound)
            method = "Wilson at perfect separation"
        return Interval(lo=max(0.0, low), hi=min(1.0, high), level=level, method=method, covers=covers)  # type: ignore[arg-type]


def auroc(
    scores: Sequence[float] | np.ndarray,
    positive: Sequence[bool] | np.ndarray,
    clusters: Sequence[str] | np.ndarray | None = None,
) -> Auroc:
    """The area for `scores` [items] (larger speaks for positive) and `positive` bool [items].

    Raises InputError without two positives and two negatives, or for a score that is not finite.
    """
    values, hit = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    m, n = int(hit.sum()), int((~hit).sum())
    if min(m, n) < 2 or not np.isfinite(values).all():
        raise InputError(
            "there is no ROC curve",
            expected="finite scores of at least two positive and two negative items",
            found=f"{m} positive, {n} negative, {int((~np.isfinite(values)).sum())} scores not finite",
        )
    ranks = stats.rankdata(values)
    placement = np.empty(len(values))
    # The rank among all less the rank among one's own kind counts the items of the other kind below.
    placement[hit] = (ranks[hit] - stats.rankdata(values[hit])) / n
    placement[~hit] = 1 - (ranks[~hit] - stats.rankdata(values[~hit])) / m
    area = float(placement[hit].mean())
    parts = (placement - area) / np.where(hit, m, n)
    names = np.arange(len(values)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    return Auroc(area, parts, _variance(parts, hit, names), m, n, len(np.unique(names)))


def auroc_difference(
    first: Sequence[float] | np.ndarray,
    second: Sequence[float] | np.ndarray,
    positive: Sequence[bool] | np.ndarray,
    clusters: Sequence[str] | np.ndarray | None = None,
    level: float = 0.95,
) -> tuple[float, Interval, float]:
    """(area of `first` - area of `second`, interval, two-sided p) for two scores of the same items.

    Two scores that order the items alike have difference 0 and p 1.
    """
    one, other = (auroc(scores, positive, clusters) for scores in (first, second))
    names = np.arange(len(one.parts)) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    error = _variance(one.parts - other.parts, np.asarray(positive, dtype=bool), names) ** 0.5
    gap = one.area - other.area
    half = float(stats.norm.isf((1 - level) / 2)) * error
    p = 1.0 if abs(gap) < 1e-12 else float(2 * stats.norm.sf(abs(gap) / error)) if error > 0 else 0.0
    covers = "clusters" if one.n_clusters < len(one.parts) else "items"
    return gap, Interval(lo=gap - half, hi=gap + half, level=level, method="DeLong, paired", covers=covers), p  # type: ignore[arg-type]


def _variance(parts: np.ndarray, hit: np.ndarray, names: np.ndarray) -> float:
    sums = np.bincount(names, weights=parts)
    sums = sums[np.bincount(names) > 0]
    if len(sums) < len(parts):
        return float((sums**2).sum() * len(sums) / max(1, len(sums) - 1))
    m, n = hit.sum(), (~hit).sum()
    return float((parts[hit] ** 2).sum() * m / (m - 1) + (parts[~hit] ** 2).sum() * n / (n - 1))
