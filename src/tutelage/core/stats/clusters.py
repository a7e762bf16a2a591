"""Items that share a source are one observation: variance of a mean from cluster sums, and its degrees of freedom.

With items i in clusters c, weights w_i (1 for a mean, the denominator for a ratio), W = sum w_i, h_c = w_c / W and
u_c = sum over i in c of w_i (y_i - ybar) / W:

    SE^2 = sum_c u_c^2 / (1 - h_c)

With clusters of equal size this is C/(C-1) * sum_c (sum_{i in c} (y_i - ybar))^2 / n^2 exactly, the common
formula. With unequal sizes the common formula with t at C-1 degrees of freedom rejects a true null up to 10 % of
the time at nominal 5 % (C = 20, log-normal sizes); dividing each term by 1 - h_c (the bias-reduced "CR2" estimator
for a mean) and Satterthwaite degrees of freedom bring this to 3-6 %. The degrees of freedom depend on what cannot
be known, how alike the items of a cluster are; we take the geometric mean of the two ends: independent items
(variance of a cluster sum proportional to w_c) and identical items (proportional to w_c^2). Equal clusters give
C-1 either way.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClusterDesign:
    """Which cluster each of n items is in: `order` sorts items by cluster, `starts` marks the first of each.

    `share` is h_c, [C]; `df` the degrees of freedom of the variance of a mean; `n_items` = n.
    """

    order: np.ndarray
    starts: np.ndarray
    share: np.ndarray
    df: float
    n_items: int

    @property
    def n_clusters(self) -> int:
        """Number of clusters; equal to `n_items` when no two items share one."""
        return len(self.starts)

    @property
    def clustered(self) -> bool:
        """Whether any two items share a cluster."""
        return self.n_clusters < self.n_items

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums over clusters: [..., n] -> [..., C]."""
        if not self.clustered:
            return values
        return np.add.reduceat(values[..., self.order], self.starts, axis=-1)

    def members(self) -> list[np.ndarray]:
        """Item indices of each cluster."""
        return np.split(self.order, self.starts[1:])


def cluster_design(clusters: np.ndarray | None, n: int, weights: np.ndarray | None = None) -> ClusterDesign:
    """The design for n items; `clusters` is [n] labels (None: each item its own), `weights` [n] (None: equal)."""
    if clusters is None:
        clusters = np.arange(n)
    _, index = np.unique(clusters, return_inverse=True)
    if index.max() + 1 == n:
        order, starts, index = np.arange(n), np.arange(n), np.arange(n)
    else:
        order = np.argsort(index, kind="stable")
        starts = np.flatnonzero(np.diff(index[order], prepend=-1))
    weight = np.ones(n) if weights is None else np.asarray(weights, dtype=float)
    total = np.bincount(index, weights=weight)
    return ClusterDesign(order, starts, total / total.sum(), _degrees_of_freedom(total), n)


def variance_of_mean(values: np.ndarray, design: ClusterDesign) -> np.ndarray:
    """Squared standard error of the mean over the last axis: [..., n] -> [...]; needs at least two clusters."""
    centred = values - values.mean(axis=-1, keepdims=True)
    return (design.sums(centred) ** 2 / (1.0 - design.share)).sum(axis=-1) / design.n_items**2


def _degrees_of_freedom(total: np.ndarray) -> float:
    if len(total) < 2:
        return 0.0
    if np.ptp(total) == 0:
        return float(len(total) - 1)
    ends = [_satterthwaite(total, variance) for variance in (total, total**2)]
    return float(np.sqrt(ends[0] * ends[1]))


def _satterthwaite(total: np.ndarray, variance: np.ndarray) -> float:
    """trace(QV)^2 / trace(QVQV) for SE^2 = S'QS with independent cluster sums S of the given variance.

    Q = (I - 1h') diag(1/(1-h)) (I - h1') has off-diagonal s - p_i - p_j with p = h/(1-h), s = sum h^2/(1-h), which
    gives both traces in O(C).
    """
    h = total / total.sum()
    v = variance / variance.sum()
    p = h / (1 - h)
    s = float((h * p).sum())
    diagonal = 1 / (1 - h) - 2 * p + s
    t0, t1, t2 = v.sum(), (p * v).sum(), (p**2 * v).sum()
    every = s * s * t0 * t0 - 4 * s * t0 * t1 + 2 * t0 * t2 + 2 * t1 * t1
    trace2 = every + ((diagonal**2 - (s - 2 * p) ** 2) * v * v).sum()
    return float((diagonal * v).sum() ** 2 / trace2)
