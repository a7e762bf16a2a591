"""Differences over training seeds and items: D[r, i] = mu + seed_r + item_i + rest_ri, R seeds by n items.

    V_s = var(row means) / R                                      R - 1 degrees of freedom
    V_i = variance of the mean of the column means                from cluster sums, see `clusters`
    V_e = the same from the two-way residuals, / (R (R - 1))
    A   = max(V_i - V_e, -V_s / 10)     V = V_s + A     t = mean / sqrt(V)     w = min(V_s / V, 1)

E[V_s] already holds the rest term, so V is unbiased as long as A is not cut off; a cut at 0 would bias V upwards
where methods differ by runs alone and clusters are few, hence the small allowance below it. What is new here is
the reference distribution: V is a sum of a term with 2 degrees of freedom (three seeds) and one with hundreds.
Measured over 384 designs (R = 3, 5, 10; C = 15 to 400; all mixes of the three variances), two-sided, nominal .05:

- max(V_s + V_i - V_e, V_s, V_i) with Satterthwaite degrees of freedom rejects .017-.073: too rarely where seeds do
  not matter, too often where they matter as much as items;
- the fiducial (Behrens-Fisher) p, p_F = E[P(|N| > |t| / sqrt(1 - w + w nu/chi2_nu))], rejects .023-.051: exact
  at both ends, conservative between;
- Satterthwaite on V alone, p_S, rejects .045-.080: liberal between.

Their errors have opposite signs, so we weigh the two on the normal scale,

    z = L z_S + (1 - L) z_F,   L = 1 / (1 + (w / w0)^4),   w0 = 0.4 min(1, level/.05)^(2/(R-1))

which rejects .043-.058 over the same designs; w0 falls with the level because p_S is the more liberal the further
out in the tail. An interval and a p-value are dual: p is the level whose critical value is |t|. This is the
product's own approximation to the Trickett-Welch solution, checked by simulation in the tests, and no published
method.

**Smallest detectable effect.** mde = delta_80 / c4: delta_80 is the effect found with probability .80 at the
estimated variances, from the distribution of t above (a noncentral t when there is one component) rather than
t + 0.84, which at 2 degrees of freedom has a power of about .65; c4 = E[sqrt(V)]/sqrt(V true) undoes the
downward bias of a square root estimated from few seeds.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats

from tutelage.core.stats.clusters import ClusterDesign, variance_of_mean

POWER = 0.80
# Degrees of freedom that stand for a normal reference distribution.
NORMAL_DF = 1e6


@dataclass(frozen=True)
class Components:
    """The variance of a mean difference: seeds (V_s, df_s) plus items (A, df_i). df_s = 0: no seed component.

    `rest` is V_e, the part of both that falls with seeds and items alike; used for planning only.
    """

    seeds: float
    items: float
    rest: float
    df_seeds: float
    df_items: float

    @property
    def variance(self) -> float:
        """V = V_s + A."""
        return self.seeds + self.items

    @property
    def seed_share(self) -> float:
        """w = V_s / V."""
        return self.seeds / self.variance if self.variance > 0 else 0.0

    @property
    def df(self) -> float:
        """Satterthwaite's degrees of freedom, for display and for c4."""
        return float(_satterthwaite_df(np.asarray(self.seed_share), self.df_seeds, self.df_items))


def two_way(differences: np.ndarray, design: ClusterDesign) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(V_s, V_i, V_e) of [..., R, n] differences; leading axes are independent repetitions."""
    seeds = differences.shape[-2]
    rows = differences.mean(axis=-1)
    columns = differences.mean(axis=-2)
    v_s = rows.var(axis=-1, ddof=1) / seeds
    v_i = variance_of_mean(columns, design)
    residuals = differences - columns[..., None, :]
    v_e = variance_of_mean(residuals, design).sum(axis=-1) / (seeds * (seeds - 1))
    return v_s, v_i, v_e


def seed_and_item_parts(v_s: np.ndarray, v_i: np.ndarray, v_e: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V_s, A) from the three variances; a negative A is taken off V_s, so that both are at least 0."""
    # Counts can give every run the same mean by chance; the true V_s is at least the rest term.
    v_s = np.where((v_s == 0) & (v_i <= v_e), v_e, v_s)
    items = np.maximum(v_i - v_e, -0.1 * v_s)
    return v_s + np.minimum(items, 0.0), np.maximum(items, 0.0)


def critical_value(share: np.ndarray, df_seeds: float, df_items: float, level: float = 0.05) -> np.ndarray:
    """|t| beyond which a two-sided test at `level` rejects, for seed shares w; same shape as `share`."""
    share = np.asarray(share, dtype=float)
    if df_seeds == 0:
        return np.full(share.shape, stats.t.isf(level / 2, df_items))
    low, high = np.zeros(share.shape), np.full(share.shape, stats.t.isf(level / 2, min(df_seeds, df_items)) * 1.5)
    for _ in range(40):
        middle = (low + high) / 2
        inside = blended_z(middle, share, df_seeds, df_items, level) < stats.norm.isf(level / 2)
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return (low + high) / 2


def blended_z(t: np.ndarray, share: np.ndarray, df_seeds: float, df_items: float, level: float) -> np.ndarray:
    """The normal score of |t| for a test at `level`; reject when it exceeds the normal quantile of level/2."""
    t = np.abs(t)
    if df_seeds == 0:
        return _normal_score(2 * special.stdtr(df_items, -t))
    df = _satterthwaite_df(share, df_seeds, df_items)
    z_s = _normal_score(2 * special.stdtr(df, -t))
    z_f = _normal_score(_fiducial(t, share, df_seeds, df_items))
    middle = 0.4 * min(1.0, level / 0.05) ** (2 / df_seeds)
    blend = special.expit(4 * (np.log(middle) - np.log(np.maximum(share, 1e-12))))
    return blend * z_s + (1 - blend) * z_f


def p_value(mean: float, parts: Components) -> float:
    """Two-sided p of a mean difference: the level at which its |t| is the critical value."""
    if mean == 0:
        return 1.0
    if parts.variance <= 0:
        raise ValueError("no variance")
    t, share = np.asarray(abs(mean) / parts.variance**0.5), np.asarray(parts.seed_share)

    def excess(log_level: float) -> float:
        level = float(np.exp(log_level))
        return float(blended_z(t, share, parts.df_seeds, parts.df_items, level) - stats.norm.isf(level / 2))

    lowest = np.log(1e-300)
    if excess(lowest) >= 0:
        return 0.0
    return float(np.exp(optimize.brentq(excess, lowest, 0.0, xtol=1e-10)))


def half_width(parts: Components, level: float = 0.95) -> float:
    """Half the length of the two-sided interval at confidence `level`."""
    critical = critical_value(np.asarray(parts.seed_share), parts.df_seeds, parts.df_items, 1 - level)
    return float(critical) * parts.variance**0.5


def detectable_effect(parts: Components, level: float = 0.95, power: float = POWER) -> float:
    """The smallest effect that the two-sided test finds with probability `power` (see the module)."""
    if parts.variance <= 0:
        return 0.0
    # Rounding below what matters lets a search over sizes share its tables.
    df_items = round(parts.df_items, 2) if parts.df_items < 100 else float(f"{parts.df_items:.2g}")
    standard = _standard_effect(round(parts.seed_share, 3), parts.df_seeds, df_items, round(1 - level, 12), power)
    return standard * parts.variance**0.5 / c4(parts.df)


def power_at(effect: float, parts: Components, level: float = 0.95) -> float:
    """Probability that an effect of this size is found, at the estimated variances (c4-corrected)."""
    if parts.variance <= 0:
        return 1.0 if effect else 0.0
    delta = abs(effect) / parts.variance**0.5 * c4(parts.df)
    return _power(delta, parts.seed_share, parts.df_seeds, parts.df_items, 1 - level)


def normal_quantile(level: float) -> float:
    """z of a two-sided normal interval at confidence `level`."""
    return float(stats.norm.isf((1 - level) / 2))


def c4(df: float) -> float:
    """E[s]/sigma for a variance estimated with df degrees of freedom."""
    return float(np.exp(special.gammaln((df + 1) / 2) - special.gammaln(df / 2)) * (2 / df) ** 0.5)


def rescaled(parts: Components, items: float = 1.0, seeds: float = 1.0) -> Components:
    """The components expected with `items` times as many items and `seeds` times as many seeds."""
    if parts.df_seeds == 0:
        return Components(0.0, parts.items / items, 0.0, 0.0, (parts.df_items + 1) * items - 1)
    between = max(parts.seeds - parts.rest, 0.0)
    rest = min(parts.rest, parts.seeds)
    return Components(
        seeds=between / seeds + rest / (seeds * items),
        items=parts.items / items,
        rest=rest / (seeds * items),
        df_seeds=(parts.df_seeds + 1) * seeds - 1,
        df_items=(parts.df_items + 1) * items - 1,
    )


@lru_cache(maxsize=4096)
def _standard_effect(share: float, df_seeds: float, df_items: float, level: float, power: float) -> float:
    def excess(delta: float) -> float:
        return _power(delta, share, df_seeds, df_items, level) - power

    high = 8.0
    while excess(high) < 0:
        high *= 2
    return float(optimize.brentq(excess, 0.0, high, xtol=1e-6))


def _power(delta: float, share: float, df_seeds: float, df_items: float, level: float) -> float:
    """P(t > critical value) for a mean `delta` standard errors above 0, by quadrature over both variances."""
    item_scale, item_p = _chi2_nodes(df_items, 64)
    if df_seeds == 0:
        variance, critical, p = item_scale, critical_value(np.zeros(1), 0, df_items, level), item_p
    else:
        seed_scale, seed_p = _chi2_nodes(df_seeds, 64)
        seeds = share * seed_scale[:, None]
        variance = seeds + (1 - share) * item_scale
        critical = np.interp(seeds / variance, *_critical_table(df_seeds, df_items, level))
        p = seed_p[:, None] * item_p
    return float((p * special.ndtr(delta - critical * np.sqrt(variance))).sum())


@lru_cache(maxsize=512)
def _critical_table(df_seeds: float, df_items: float, level: float) -> tuple[np.ndarray, np.ndarray]:
    grid = np.linspace(0, 1, 33)
    return grid, critical_value(grid, df_seeds, df_items, level)


def _satterthwaite_df(share: np.ndarray, df_seeds: float, df_items: float) -> np.ndarray:
    if df_seeds == 0:
        return np.full(np.shape(share), df_items)
    return 1 / (share**2 / df_seeds + (1 - share) ** 2 / df_items)


def _fiducial(t: np.ndarray, share: np.ndarray, df_seeds: float, df_items: float) -> np.ndarray:
    scale, weight = _chi2_nodes(df_seeds, 64)
    share = np.asarray(share)[..., None]
    spread = (1 - share) + share / scale
    # Given the seed variance, only the item part is estimated: Satterthwaite with that part alone.
    df = df_items / np.maximum((1 - share) / spread, 1e-4) ** 2
    return (weight * 2 * special.stdtr(df, -np.asarray(t)[..., None] / np.sqrt(spread))).sum(axis=-1)


@lru_cache(maxsize=512)
def _chi2_nodes(df: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Quadrature for x = chi2_df / df: nodes and probabilities (Gauss-Legendre in log x)."""
    if df >= NORMAL_DF:
        return np.ones(1), np.ones(1)
    low, high = np.log(stats.chi2.ppf(1e-12, df)), np.log(stats.chi2.isf(1e-12, df))
    node, weight = np.polynomial.legendre.leggauss(count)
    log_x = (high - low) / 2 * node + (high + low) / 2
    density = stats.chi2.logpdf(np.exp(log_x), df) + log_x
    p = weight * np.exp(density - density.max())
    return np.exp(log_x) / df, p / p.sum()


def _normal_score(p: np.ndarray) -> np.ndarray:
    return -special.ndtri(np.clip(p / 2, 1e-300, 1.0))
