"""Weighted means by cluster, and differences of means of items that have nothing to do with each other (Welch)."""

import numpy as np
from scipy import stats


def weighted_mean(values: np.ndarray, weights: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """[C] one value for each cluster, whose mean is sum w_i y_i / sum w_i and whose spread is its error:
    m + C sum over i in c of w_i (y_i - m) / sum w."""
    share = weights / weights.sum()
    mean = float(share @ values)
    _, place = np.unique(clusters, return_inverse=True)
    parts = np.bincount(place, share * (values - mean))
    return mean + len(parts) * parts


def welch(name: str, one: np.ndarray, other: np.ndarray, level: float = 0.95) -> dict[str, float]:
    """`name`: mean(one) - mean(other) of independent values, with `_lo`, `_hi` and `_p` by Welch's t where both
    sides have two values and any spread."""
    found = {name: float(one.mean() - other.mean())}
    if min(len(one), len(other)) < 2 or np.ptp(one) == np.ptp(other) == 0:
        return found
    tested = stats.ttest_ind(one, other, equal_var=False)
    bounds = tested.confidence_interval(level)
    return found | {
        f"{name}_lo": float(bounds.low),
        f"{name}_hi": float(bounds.high),
        f"{name}_p": float(tested.pvalue),
    }
