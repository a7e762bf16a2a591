"""Paired tests of one run against another: d_i = direction * (a_i - b_i) over shared items.

- Binary, no clusters, b = only A right, c = only B right: mid-p McNemar
  p = 2 P(X <= min(b,c)) - P(X = min(b,c)), X ~ Bin(b+c, 1/2), at most 1, and 1 when b + c = 0.
  Interval (Bonett-Price): u = (b+1)/(n+2), v = (c+1)/(n+2), (u - v) +- z sqrt((u + v - (u-v)^2) / (n+2)).
- Other scores: sign-flip test on cluster sums, p = (1 + #{|T*| >= |T|}) / (1 + M), M = 10,000, or the exact share
  of all 2^C sign patterns when C <= 13.
- Bootstrap of a corpus metric: the share q of replicates on the other side of 0 (at least 1 / (1 + B)), read as
  the tail of a t with the clusters' df: p = 2 T_df(Phi^-1(q) / sqrt((df + 1) / df)), dual to the interval.
- What an unpaired reading says: z = difference / sqrt(se_a^2 + se_b^2), clusters and pairing ignored.
"""

from collections.abc import Callable

import numpy as np
from scipy import special, stats

EXACT_CLUSTERS = 13
FLIPS = 10_000


def mcnemar_mid_p(only_a: np.ndarray | int, only_b: np.ndarray | int) -> np.ndarray:
    """Mid-p McNemar of discordant counts (arrays or integers)."""
    only_a, only_b = np.asarray(only_a), np.asarray(only_b)
    n, k = only_a + only_b, np.minimum(only_a, only_b)
    p = 2 * stats.binom.cdf(k, n, 0.5) - stats.binom.pmf(k, n, 0.5)
    return np.where(n == 0, 1.0, np.minimum(p, 1.0))


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Exact (conditional binomial) McNemar p, capped at 1."""
    n, k = only_a + only_b, min(only_a, only_b)
    return 1.0 if n == 0 else float(min(1.0, 2 * stats.binom.cdf(k, n, 0.5)))


def bonett_price(
    only_a: np.ndarray | int, only_b: np.ndarray | int, n: int, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """(lo, hi) of the difference of two paired proportions."""
    u, v = (np.asarray(only_a) + 1) / (n + 2), (np.asarray(only_b) + 1) / (n + 2)
    half = stats.norm.isf((1 - level) / 2) * np.sqrt((u + v - (u - v) ** 2) / (n + 2))
    return u - v - half, u - v + half


def sign_flip_p(sums: np.ndarray, seed: int = 0, flips: int = FLIPS, *, greater: bool = False) -> np.ndarray:
    """p of the sign-flip test on cluster sums: [..., C] -> [...]; ties count as extreme. `greater` asks only
    whether the sum is larger than zero."""
    clusters = sums.shape[-1]
    statistic: Callable[[np.ndarray], np.ndarray] = (lambda total: total) if greater else np.abs
    observed = statistic(sums.sum(axis=-1))
    # Sums of the same numbers in another order differ in the last bits.
    threshold = observed - 1e-12 * np.abs(observed) - 1e-12 * np.abs(sums).sum(axis=-1)
    # Flipped signs are symmetric: sorted sizes make p independent of item order and of which side is A.
    sums = np.sort(np.abs(sums), axis=-1)
    if clusters <= EXACT_CLUSTERS:
        signs = 1.0 - 2.0 * ((np.arange(2**clusters)[:, None] >> np.arange(clusters)) & 1)
        return (statistic(sums @ signs.T) >= threshold[..., None]).mean(axis=-1)
    generator = np.random.default_rng(seed)
    extreme = np.zeros(sums.shape[:-1], dtype=np.int64)
    for start in range(0, flips, 1000):
        size = min(1000, flips - start)
        signs = generator.integers(0, 2, (clusters, size)).astype(float) * 2 - 1
        extreme += (statistic(sums @ signs) >= threshold[..., None]).sum(axis=-1)
    return (1 + extreme) / (1 + flips)


def bootstrap_p(replicates: np.ndarray, df: float) -> float:
    """Two-sided p of bootstrap replicates [B] of a difference, dual to their widened percentile interval."""
    beyond = min((replicates <= 0).sum(), (replicates >= 0).sum())
    tail = special.ndtri(min((1 + float(beyond)) / (1 + len(replicates)), 0.5))
    return float(min(1.0, 2 * special.stdtr(df, tail / ((df + 1) / df) ** 0.5)))


def unpaired_p(values_a: np.ndarray, values_b: np.ndarray) -> float | None:
    """p of the difference of two means as if the items were not the same ones; None when it does not exist."""
    if min(len(values_a), len(values_b)) < 2:
        return None
    error2 = values_a.var(ddof=1) / len(values_a) + values_b.var(ddof=1) / len(values_b)
    difference = abs(values_a.mean() - values_b.mean())
    if error2 == 0:
        return 1.0 if difference == 0 else None
    return float(2 * special.ndtr(-difference / error2**0.5))
