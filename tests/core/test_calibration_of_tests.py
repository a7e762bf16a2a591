"""Do the tests keep what they promise? Simulated comparisons of a method with itself (and with one that differs).

Targets, 10,000 draws or more per design, fixed seeds, the library's own functions on whole arrays:
false "better" 2.1-2.9 % (two-sided 5 % level), coverage of the 95 % interval within 94.2-95.8 %, and 77-83 % power
when the planted effect is the mean smallest detectable effect that the library states in the null draws.

Where the band cannot be met a test of its own asserts the honest side (false "better" at most 2.9 %): mid-p
McNemar on few items, whose p moves in steps.
"""

import numpy as np
import pytest
from scipy import special, stats

from tutelage.core.stats import paired, twoway
from tutelage.core.stats.clusters import cluster_design, variance_of_mean
from tutelage.core.stats.twoway import Components

MUTATIONS = [
    ("src/tutelage/core/stats/twoway.py", "-0.1 * v_s", "0.0 * v_s + v_i"),
    ("src/tutelage/core/stats/twoway.py", "return blend * z_s + (1 - blend) * z_f", "return z_s"),
    ("src/tutelage/core/stats/twoway.py", "variance**0.5 / c4(", "variance**0.5 * 1.2 / c4("),
    ("src/tutelage/core/stats/clusters.py", "design.sums(centred) ** 2 /", "design.sums(centred**2) /"),
]

CHUNK = 500
LOW, HIGH = 0.021, 0.029
POWER = (0.77, 0.83)

UNEQUAL = np.repeat(np.arange(90), np.random.default_rng(5).integers(1, 9, 90))[:400]
CLUSTERS = {
    "400 items": np.arange(400),
    "100 clusters of 4": np.repeat(np.arange(100), 4),
    "84 unequal clusters": UNEQUAL,
    "30 clusters of 13": np.repeat(np.arange(30), 13),
}


def binary_differences(rng, draws, seeds, clusters, spread, interaction):
    """D [draws, R, n] of two systems with 0/1 scores of one and the same method.

    `spread`: standard deviation of a run's ability in logits. `interaction`: of the two methods' difference per
    cluster (mean 0: still no difference on average). Runs also differ per cluster when items share one.
    """
    _, index = np.unique(clusters, return_inverse=True)
    n, c = len(clusters), index.max() + 1
    difficulty = 0.3 + 1.5 * rng.standard_normal((draws, 1, n), dtype=np.float32)
    sides = []
    for _ in range(2):
        logit = difficulty + rng.normal(0, spread, (draws, seeds, 1)).astype(np.float32)
        per_cluster = interaction * rng.standard_normal((draws, 1, c), dtype=np.float32)
        if c < n:
            per_cluster = per_cluster + 0.3 * rng.standard_normal((draws, seeds, c), dtype=np.float32)
        if interaction or c < n:
            logit = logit + per_cluster[..., index]
        sides.append((rng.random((draws, seeds, n), dtype=np.float32) < special.expit(logit)).astype(np.float32))
    return (sides[0] - sides[1]).astype(np.float64)


def measured(mean, seeds_part, items_part, df_seeds, df_items):
    """(false better, false worse, power at the mean stated smallest detectable effect)."""
    total = seeds_part + items_part
    share = seeds_part / total
    grid = np.linspace(0, 1, 101)
    critical = np.interp(share, grid, twoway.critical_value(grid, df_seeds, df_items, 0.05))
    coarse = np.linspace(0, 1, 26)
    stated = [twoway.detectable_effect(Components(w, 1 - w, 0.0, df_seeds, df_items)) for w in coarse]
    effect = (np.interp(share, coarse, stated) * np.sqrt(total)).mean()
    t, planted = mean / np.sqrt(total), (mean + effect) / np.sqrt(total)
    return (t > critical).mean(), (t < -critical).mean(), (planted > critical).mean()


def over_seeds(seeds, clusters, spread, interaction, draws=10_000, seed=1):
    design = cluster_design(clusters, len(clusters))
    rng = np.random.default_rng([seed, seeds, len(clusters), design.n_clusters])
    columns = []
    for _ in range(draws // CHUNK):
        d = binary_differences(rng, CHUNK, seeds, clusters, spread, interaction)
        columns.append([d.mean(axis=(1, 2)), *twoway.two_way(d, design)])
    mean, v_s, v_i, v_e = (np.concatenate(column) for column in zip(*columns, strict=True))
    return measured(mean, *twoway.seed_and_item_parts(v_s, v_i, v_e), seeds - 1.0, design.df)


def in_band(better, worse, power):
    # Swapping the two systems is the same experiment, so both tails estimate one rate.
    rate = (better + worse) / 2
    assert LOW <= rate <= HIGH
    assert 0.942 <= 1 - better - worse <= 0.958
    assert POWER[0] <= power <= POWER[1]


SEED_DESIGNS = [
    (seeds, name, spread, interaction)
    for seeds in (3, 5, 10)
    for name, spread, interaction in (
        ("400 items", 0.0, 0.0),
        ("400 items", 0.1, 0.0),
        ("400 items", 0.2, 0.4),
        ("100 clusters of 4", 0.0, 0.0),
        ("100 clusters of 4", 0.1, 0.4),
        ("84 unequal clusters", 0.2, 0.0),
        ("30 clusters of 13", 0.0, 0.0),
        ("30 clusters of 13", 0.1, 0.4),
    )
]


@pytest.mark.parametrize(("seeds", "name", "spread", "interaction"), SEED_DESIGNS)
def test_seeds_by_items_and_clusters(seeds, name, spread, interaction):
    in_band(*over_seeds(seeds, CLUSTERS[name], spread, interaction))


@pytest.mark.parametrize("name", ["200 items", "500 items", "84 unequal clusters", "20 clusters of 10"])
def test_one_run_each_with_continuous_scores(name):
    clusters = {
        "200 items": np.arange(200),
        "500 items": np.arange(500),
        "84 unequal clusters": UNEQUAL,
        "20 clusters of 10": np.repeat(np.arange(20), 10),
    }[name]
    _, index = np.unique(clusters, return_inverse=True)
    design = cluster_design(clusters, len(clusters))
    rng = np.random.default_rng(1)
    parts = []
    for _ in range(20):
        d = rng.standard_normal((CHUNK, len(clusters)))
        if design.clustered:
            d += 0.6 * rng.standard_normal((CHUNK, design.n_clusters))[:, index]
        parts.append((d.mean(axis=1), variance_of_mean(d, design), design.sums(d)))
    mean, variance = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    better, worse, power = one_run(mean, variance, design.df)
    in_band(better, worse, power)
    flips = paired.sign_flip_p(np.concatenate([part[2] for part in parts]), flips=2000) < 0.05
    assert LOW <= flips.mean() / 2 <= HIGH


def one_run(mean, variance, df):
    critical = float(twoway.critical_value(np.zeros(1), 0.0, df)[0])
    error = np.sqrt(variance)
    stated = twoway.detectable_effect(Components(0.0, 1.0, 0.0, 0.0, df)) * error.mean()
    t = mean / error
    return (t > critical).mean(), (t < -critical).mean(), ((mean + stated) / error > critical).mean()


def test_one_run_each_with_skewed_ratios_such_as_bits_per_byte():
    # Document lengths log-normal, losses skewed: 300 documents, differences weighted by bytes.
    rng = np.random.default_rng(2)
    size = np.exp(rng.normal(6, 0.8, 300))
    design = cluster_design(None, 300, size)
    weight = size / size.mean()
    means, variances = [], []
    for _ in range(20):
        d = rng.gamma(2.0, 0.05, (CHUNK, 300)) - rng.gamma(2.0, 0.05, (CHUNK, 300))
        ratio = (d * weight).mean(axis=1, keepdims=True)
        means.append(ratio[:, 0])
        variances.append(variance_of_mean(ratio + weight * (d - ratio), design))
    in_band(*one_run(np.concatenate(means), np.concatenate(variances), design.df))


def mcnemar(n, draws=20_000):
    """(false better, coverage, power at the stated effect) for 0/1 scores of two runs on n items."""
    rng = np.random.default_rng(n)
    sure = special.expit(rng.normal(0.3, 1.5, (draws, n)))
    right = [rng.random((draws, n)) < sure for _ in range(2)]
    only_a, only_b = (right[0] & ~right[1]).sum(axis=1), (right[1] & ~right[0]).sum(axis=1)
    low, high = paired.bonett_price(only_a, only_b, n)
    reject = paired.mcnemar_mid_p(only_a, only_b) < 0.05
    difference = (only_a - only_b) / n
    variance = ((only_a + only_b) / n - difference**2) / (n - 1)
    stated = twoway.detectable_effect(Components(0.0, 1.0, 0.0, 0.0, twoway.NORMAL_DF)) * np.sqrt(variance).mean()
    # Planted: a share of the items that both had wrong, or only B right, is now right for A.
    wrong = ~right[0]
    gained = wrong & (rng.random((draws, n)) < stated / wrong.mean())
    better = right[0] | gained
    b, c = (better & ~right[1]).sum(axis=1), (right[1] & ~better).sum(axis=1)
    found = (paired.mcnemar_mid_p(b, c) < 0.05) & (b > c)
    return (reject & (only_a > only_b)).mean(), ((low <= 0) & (high >= 0)).mean(), found.mean()


@pytest.mark.parametrize("n", [220, 300, 500])
def test_one_run_each_with_binary_scores(n):
    better, coverage, power = mcnemar(n)
    assert LOW <= better <= HIGH
    assert 0.942 <= coverage <= 0.96
    assert POWER[0] <= power <= POWER[1]


@pytest.mark.parametrize("n", [30, 60])
def test_binary_scores_on_few_items_are_at_most_conservative(n):
    better, coverage, _ = mcnemar(n)
    assert better <= HIGH
    assert coverage >= 0.942


def test_the_variance_rule_it_replaces_misses_the_band():
    # max(V_s + V_i - V_e, V_s, V_i) with Satterthwaite degrees of freedom, three seeds that do not matter.
    rng = np.random.default_rng(3)
    design = cluster_design(None, 400)
    rejected = []
    for _ in range(10):
        d = binary_differences(rng, CHUNK, 3, CLUSTERS["400 items"], 0.0, 0.0)
        v_s, v_i, v_e = twoway.two_way(d, design)
        v = np.maximum.reduce([v_s + v_i - v_e, v_s, v_i])
        df = v**2 / (v_s**2 / 2 + v_i**2 / 399)
        rejected.append(2 * stats.t.sf(np.abs(d.mean(axis=(1, 2))) / np.sqrt(v), df) < 0.05)
    assert np.mean(rejected) / 2 < LOW
