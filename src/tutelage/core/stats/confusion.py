"""Two sets of labels of the same items as a table of counts, and the measures of agreement read off it.

With counts n_kl of items that one side calls k and the other l (n in all), p_o = sum_k n_kk / n,
p_e = sum_k n_k. n_.k / n^2: accuracy is p_o, Cohen's kappa (p_o - p_e) / (1 - p_e), undefined (NaN) where p_e = 1,
and F1 of class k is 2 n_kk / (n_k. + n_.k), macro F1 its mean over the classes that either side uses. The kappa of
one class is that of the labels "k" and "not k".
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

from tutelage.core.stats.clusters import cluster_design
from tutelage.core.stats.intervals import resamples


def counts_table(first: np.ndarray, second: np.ndarray, classes: int) -> np.ndarray:
    """[C, C] float64 counts of class indices `first` [n] (rows) and `second` [n] (columns)."""
    flat = np.bincount(first * classes + second, minlength=classes * classes)
    return flat.reshape(classes, classes).astype(float)


def accuracy(table: np.ndarray) -> float:
    """Share on the diagonal of a table of counts [C, C]."""
    return float(np.trace(table) / table.sum())


def kappa(table: np.ndarray) -> float:
    """Cohen's kappa of a table of counts [C, C]; NaN where both sides use one and the same class only."""
    total = table.sum()
    expected = float(table.sum(0) @ table.sum(1) / total**2)
    # Of whole counts: exactly 1 when there is one class, and never nearly 1 otherwise.
    return float("nan") if expected == 1.0 else (accuracy(table) - expected) / (1.0 - expected)


def class_kappa(table: np.ndarray) -> np.ndarray:
    """[..., C] kappa of each class against all others for tables [..., C, C]; NaN where both sides call every item
    k, or none."""
    total = table.sum((-2, -1))[..., None]
    hit, rows, columns = np.diagonal(table, axis1=-2, axis2=-1), table.sum(-1), table.sum(-2)
    observed = (total - rows - columns + 2 * hit) / total
    expected = (rows * columns + (total - rows) * (total - columns)) / total**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected == 1.0, np.nan, (observed - expected) / (1.0 - expected))


def class_f1(table: np.ndarray) -> np.ndarray:
    """[C] F1 of each class; NaN for a class that neither side uses."""
    used = table.sum(0) + table.sum(1)
    return np.where(used > 0, 2 * np.diagonal(table) / np.maximum(used, 1), np.nan)


def macro_f1(table: np.ndarray, classes: int | None = None) -> float:
    """Mean F1 over the classes that either side uses, of the first `classes` (all by default); NaN without any."""
    scores = class_f1(table)[:classes]
    known = scores[np.isfinite(scores)]
    return float(known.mean()) if len(known) else float("nan")


def bootstrap_tables(
    first: np.ndarray, second: np.ndarray, classes: int, clusters: np.ndarray, draws: int, seed: int
) -> list[np.ndarray]:
    """Tables of `draws` resamples of whole clusters ([n] labels; distinct ones: single items)."""
    design = cluster_design(clusters, len(first))
    return [counts_table(first[rows], second[rows], classes) for rows in resamples(design, draws, seed)]


def percentiles(
    tables: list[np.ndarray], measure: Callable[[np.ndarray], float], level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of a measure over resampled tables; (NaN, NaN) unless it exists on nine in ten."""
    values = np.array([measure(table) for table in tables])
    usable = values[np.isfinite(values)]
    if len(usable) < 0.9 * len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(usable, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def lower_bound(successes: int, n: int, level: float = 0.95) -> float:
    """One-sided Clopper-Pearson lower bound of a proportion; 0 without a success."""
    return float(stats.beta.ppf(1 - level, successes, n - successes + 1)) if successes else 0.0
