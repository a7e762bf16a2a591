"""Intervals of one system against scipy, hand computation and algebraic identities."""

import numpy as np
import pytest
from scipy import stats

from tutelage.core.errors import ComparisonError, InputError
from tutelage.core.items import ItemLog
from tutelage.core.stats.clusters import cluster_design, variance_of_mean
from tutelage.core.stats.intervals import bootstrap_interval, mean_interval, mean_of_tasks, summarise, wilson

MUTATIONS = [
    ("src/tutelage/core/stats/intervals.py", "z2 / (4 * n * n)", "z2 / (2 * n * n)"),
    (
        "src/tutelage/core/stats/intervals.py",
        "matrix.weights * (matrix.scores - ratio)",
        "(matrix.scores - ratio)",
    ),
    (
        "src/tutelage/core/stats/intervals.py",
        "np.sum(np.square(errors))) / len(errors)",
        "np.sum(np.square(errors)))",
    ),
    ("src/tutelage/core/stats/intervals.py", "elif alike and", "elif False and"),
    ("src/tutelage/core/stats/clusters.py", "/ (1.0 - design.share)", "/ (1.0 + design.share)"),
    ("src/tutelage/core/stats/clusters.py", "every = s * s * t0 * t0 - 4", "every = s * s * t0 * t0 - 2"),
]


def log(scores, **columns):
    return ItemLog.from_rows(
        [{"item_key": str(i), "score": s, **{n: v[i] for n, v in columns.items()}} for i, s in enumerate(scores)]
    )


def test_wilson_gives_the_known_numbers():
    interval = wilson(140, 220)
    assert (round(interval.lo, 4), round(interval.hi, 4)) == (0.5710, 0.6971)
    for successes, n in ((140, 220), (0, 7), (3, 9), (10, 10)):
        scipy = stats.binomtest(successes, n).proportion_ci(method="wilson")
        assert (wilson(successes, n).lo, wilson(successes, n).hi) == pytest.approx(
            (scipy.low, scipy.high), abs=1e-12
        )
    assert wilson(10, 10).hi == 1.0
    assert round(wilson(10, 10).lo, 3) == 0.722
    assert summarise(log([1] * 140 + [0] * 80)).interval == interval
    with pytest.raises(InputError):
        wilson(3, 2)


def test_mean_interval_is_the_t_interval():
    scores = np.random.default_rng(0).normal(size=50)
    scipy = stats.ttest_1samp(scores, 0).confidence_interval(0.9)
    interval = mean_interval(scores, level=0.9)
    assert (interval.lo, interval.hi) == pytest.approx((scipy.low, scipy.high), rel=1e-9)


def test_duplicating_items_and_clustering_by_origin_changes_nothing():
    scores = np.random.default_rng(1).normal(size=30)
    twice, origin = np.tile(scores, 2), np.tile(np.arange(30), 2)
    once = mean_interval(scores)
    doubled = mean_interval(twice, origin)
    assert (doubled.lo, doubled.hi) == pytest.approx((once.lo, once.hi), rel=1e-12)
    assert doubled.covers == "clusters"
    naive = mean_interval(twice)
    assert naive.hi - naive.lo < 0.75 * (once.hi - once.lo)


def test_equal_clusters_give_the_common_formula():
    values, clusters = np.random.default_rng(2).normal(size=60), np.repeat(np.arange(12), 5)
    sums = np.array([(values - values.mean())[clusters == c].sum() for c in range(12)])
    expected = 12 / 11 * (sums**2).sum() / 60**2
    design = cluster_design(clusters, 60)
    assert variance_of_mean(values, design) == pytest.approx(expected, rel=1e-12)
    assert design.df == 11


def test_unequal_clusters_are_unbiased_and_lose_degrees_of_freedom():
    sizes = np.array([1, 2, 3, 4, 20, 30])
    clusters = np.repeat(np.arange(6), sizes)
    design = cluster_design(clusters, 60)
    values = np.random.default_rng(3).normal(size=(40_000, 60))
    # Independent items with variance 1: the mean has variance 1/60.
    estimates = variance_of_mean(values, design)
    assert estimates.mean() == pytest.approx(1 / 60, rel=0.02)
    # Satterthwaite: df = 2 mean^2 / var, here from simulation at both ends of dependence.
    same = variance_of_mean(np.random.default_rng(4).normal(size=(40_000, 6))[:, clusters], design)
    ends = [2 * v.mean() ** 2 / v.var() for v in (estimates, same)]
    assert design.df == pytest.approx((ends[0] * ends[1]) ** 0.5, rel=0.05)
    assert design.df < 3


def test_ratio_is_the_corpus_value_with_the_delta_method_error():
    rng = np.random.default_rng(5)
    weights = rng.integers(50, 2000, 80).astype(float)
    scores = 1 + rng.normal(size=80) * 0.3
    found = summarise(log(scores, weight=weights))
    assert found.estimate == pytest.approx((scores * weights).sum() / weights.sum(), rel=1e-12)
    # Independent check: bootstrap the two sums.
    draws = rng.integers(0, 80, (20_000, 80))
    ratios = (scores * weights)[draws].sum(1) / weights[draws].sum(1)
    half = (found.interval.hi - found.interval.lo) / 2
    assert half / stats.t.isf(0.025, 79) == pytest.approx(ratios.std(), rel=0.06)


def test_seeds_widen_the_interval_and_are_covered():
    rng = np.random.default_rng(6)
    rows = [
        {"item_key": str(i), "train_seed": s, "score": shift + rng.normal()}
        for s, shift in enumerate((0.0, 1.0, 2.0, 3.0))
        for i in range(50)
    ]
    found = summarise(ItemLog.from_rows(rows))
    assert found.interval.covers == "items+seeds"
    assert found.seeds == (0, 1, 2, 3)
    assert (
        found.interval.hi - found.interval.lo > 2 * stats.t.isf(0.025, 3) * np.std([0, 1, 2, 3], ddof=1) / 2 * 0.8
    )


def test_all_right_or_all_wrong_is_no_certainty():
    clusters = [f"d{i // 3}" for i in range(30)]
    for score in (0.0, 1.0):
        found = summarise(log([score] * 30, cluster=clusters)).interval
        expected = wilson(int(score) * 10, 10)
        assert (found.lo, found.hi, found.covers) == (expected.lo, expected.hi, "clusters")
    seeded = [{"item_key": str(i), "train_seed": s, "score": 0.0} for s in range(3) for i in range(12)]
    assert summarise(ItemLog.from_rows(seeded)).interval.hi == wilson(0, 12).hi


def test_corpus_metric_is_bootstrapped_over_clusters():
    labels = ["x", "y"] * 40
    predictions = ["x"] * 60 + ["y"] * 20
    data = log([0.0] * 80, prediction=predictions, target=labels, cluster=[f"d{i // 4}" for i in range(80)])
    accuracy = summarise(
        data,
        metric_kind="corpus",
        statistic=lambda c: float((c["prediction"] == c["target"]).mean()),
        n_resamples=2000,
    )
    assert accuracy.estimate == 0.5
    assert accuracy.interval.covers == "clusters"
    with pytest.raises(InputError, match="statistic"):
        summarise(data, metric_kind="corpus")
    with pytest.raises(ComparisonError, match="undefined"):
        bootstrap_interval(np.array([1.0, np.nan]), 0.95, False)


def test_no_interval_says_why_and_few_clusters_warn():
    single = summarise(log([0.5, 0.7], cluster=["d", "d"]))
    assert single.interval is None
    assert "two" in single.no_interval
    with pytest.raises(InputError, match="two clusters"):
        mean_interval([1.0, 2.0], ["d", "d"])
    few = summarise(log([0.1, 0.2, 0.3, 0.4], cluster=["d", "d", "e", "f"]))
    assert "only 3 clusters" in few.warnings[0]


def test_mean_of_tasks():
    mean, interval = mean_of_tasks([0.2, 0.6], [0.03, 0.04])
    assert mean == 0.4
    assert interval.hi - mean == pytest.approx(1.959964 * 0.05 / 2, rel=1e-6)
    with pytest.raises(InputError):
        mean_of_tasks([], [])
