"""Seed variance pooled with reruns of the baseline, and the bootstrap that allows for few clusters."""

import numpy as np
import pytest
from scipy import special, stats

from tutelage.core.errors import ComparisonError
from tutelage.core.items import ItemLog
from tutelage.core.stats import paired, twoway
from tutelage.core.stats.clusters import cluster_design
from tutelage.core.stats.compare import compare
from tutelage.core.stats.intervals import bootstrap_interval, prior_of
from tutelage.core.stats.pooled import moderated, seed_prior

MUTATIONS = [
    ("src/tutelage/core/stats/pooled.py", "+ tau**2", "+ 0 * tau"),
    ("src/tutelage/core/stats/pooled.py", "2 * prior.variance / seeds", "prior.variance / seeds"),
    ("src/tutelage/core/stats/pooled.py", "/ (prior.df + own), prior.df + own", "/ (prior.df + own), own"),
    ("src/tutelage/core/stats/intervals.py", "* ((df + 1) / df) ** 0.5))\n    low", "))\n    low"),
    ("src/tutelage/core/stats/paired.py", "tail / ((df + 1) / df) ** 0.5", "tail"),
    (
        "src/tutelage/core/stats/compare.py",
        "components(differences, design, prior)",
        "components(differences, design)",
    ),
]


def seeded(matrix, first=0, **columns):
    return ItemLog.from_rows(
        {"item_key": str(i), "train_seed": first + r, "score": s, **{n: v[i] for n, v in columns.items()}}
        for r, row in enumerate(matrix)
        for i, s in enumerate(row)
    )


def test_moderated_variance_is_the_weighted_mean_of_both():
    prior = seed_prior(np.array([0.0, 2.0, 4.0, 6.0, 8.0, 10.0]), tau=0.0)
    # Without doubt about the method the prior is worth what its own runs are: K - 1 degrees of freedom.
    assert prior.df == pytest.approx(5.0, rel=1e-6)
    assert prior.variance == pytest.approx(14.0)
    variance, df = moderated(np.array(1.0), 3, prior)
    assert variance == pytest.approx((5 * 2 * 14 / 3 + 2 * 1.0) / 7)
    assert df == pytest.approx(7.0)


def test_doubt_about_the_method_limits_what_reruns_are_worth():
    rng = np.random.default_rng(0)
    few, many = (seed_prior(rng.normal(size=runs)) for runs in (10, 10_000))
    assert few.df < many.df
    # trigamma(d0 / 2) = (ln 2)^2 in the limit.
    assert float(special.polygamma(1, many.df / 2)) == pytest.approx(np.log(2) ** 2, rel=0.01)
    assert 5.0 < many.df < 5.1


def test_pooling_holds_its_level_and_sees_smaller_effects():
    rng = np.random.default_rng(1)
    design, draws = cluster_design(None, 60), 4000
    found = {}
    for pooled in (False, True):
        d = 0.3 * rng.normal(size=(draws, 3, 1)) * 2**0.5 + rng.normal(size=(draws, 3, 60))
        v_s, v_i, v_e = twoway.two_way(d, design)
        df = 2.0
        if pooled:
            reruns = 0.3 * rng.normal(size=(draws, 20)) + rng.normal(size=(draws, 20)) / (2 * 60) ** 0.5
            both = [moderated(v, 3, seed_prior(r)) for v, r in zip(v_s, reruns, strict=True)]
            v_s, df = np.array([v for v, _ in both]), both[0][1]
        between, items = twoway.seed_and_item_parts(v_s, v_i, v_e)
        half = twoway.critical_value(between / (between + items), df, 59.0) * np.sqrt(between + items)
        found[pooled] = (np.abs(d.mean(axis=(1, 2))) > half).mean(), half.mean()
    assert found[True][0] <= 0.058
    assert found[True][1] < 0.75 * found[False][1]


def test_a_comparison_with_a_prior_says_so():
    rng = np.random.default_rng(2)
    items = rng.normal(size=50)

    def runs(count, shift=0.0):
        return items + shift + 0.2 * rng.normal(size=(count, 1)) + 0.1 * rng.normal(size=(count, 50))

    a, b, reruns = runs(3, 0.3), runs(3), runs(12)
    prior = prior_of(seeded(reruns, first=100))
    assert prior.variance == pytest.approx(reruns.mean(axis=1).var(ddof=1))
    plain, moderate = (compare(seeded(a), seeded(b), prior=p) for p in (None, prior))
    expected, df = moderated(plain.components["v_seeds"], 3, prior)
    assert moderate.components["v_seeds"] == pytest.approx(float(expected), rel=0.2)
    assert moderate.components["df_seeds"] == pytest.approx(df)
    assert moderate.mde < plain.mde
    assert "12 reruns" in moderate.notes[-1]
    assert not plain.notes
    # One run a side has no variance between runs to pool.
    assert not compare(seeded(a[:1]), seeded(b[:1]), prior=prior).notes


def test_weights_make_the_reruns_ratios():
    rng = np.random.default_rng(3)
    scores, weight = rng.random((6, 20)), rng.integers(1, 50, 20).astype(float)
    prior = prior_of(seeded(scores, weight=weight))
    assert prior.variance == pytest.approx(((scores * weight).sum(axis=1) / weight.sum()).var(ddof=1))


def test_what_cannot_be_pooled():
    with pytest.raises(ComparisonError, match="at least 5"):
        seed_prior(np.array([1.0, 2.0, 3.0]))
    with pytest.raises(ComparisonError, match="do not differ"):
        seed_prior(np.ones(8))


def test_the_bootstrap_of_a_mean_is_the_t_interval():
    # Of a mean of normal scores the widened percentile interval is that of the t, even of ten items.
    rng = np.random.default_rng(4)
    values = rng.normal(size=10)
    values = (values - values.mean()) / values.std(ddof=1)
    z = stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000)
    replicates = z * 0.9**0.5 / 10**0.5
    found = bootstrap_interval(replicates, 0.95, False, 9.0)
    assert found.hi == pytest.approx(stats.t.isf(0.025, 9) / 10**0.5, rel=1e-3)
    assert bootstrap_interval(replicates, 0.95, False).hi == pytest.approx(1.96 * 0.9**0.5 / 10**0.5, rel=1e-3)
    # The p-value and the interval agree: at the interval's end p is 5 %.
    assert paired.bootstrap_p(replicates + found.hi, 9.0) == pytest.approx(0.05, abs=2e-4)
    assert paired.bootstrap_p(replicates, 9.0) == pytest.approx(1.0, abs=1e-3)
    assert paired.bootstrap_p(np.ones(999), 1e6) == pytest.approx(2 / 1000, rel=1e-3)
