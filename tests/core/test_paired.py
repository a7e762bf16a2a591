"""Paired comparisons against scipy, the published reference example, hand tables and identities."""

import numpy as np
import pytest
from scipy import stats

from tutelage.core.errors import ComparisonError
from tutelage.core.items import ItemLog
from tutelage.core.stats import paired, twoway
from tutelage.core.stats.clusters import cluster_design
from tutelage.core.stats.compare import BOOTSTRAP, MCNEMAR, ONE_RUN_T, SIGN_FLIP, TWO_WAY, compare
from tutelage.core.stats.intervals import MIN_SEEDS

MUTATIONS = [
    ("src/tutelage/core/stats/paired.py", "- stats.binom.pmf(k, n, 0.5)", "- 0 * stats.binom.pmf(k, n, 0.5)"),
    ("src/tutelage/core/stats/paired.py", "(u + v - (u - v) ** 2)", "(u + v)"),
    ("src/tutelage/core/stats/paired.py", "return (1 + extreme) / (1 + flips)", "return extreme / flips"),
    ("src/tutelage/core/stats/paired.py", "values_b.var(ddof=1)", "values_b.var(ddof=0)"),
    ("src/tutelage/core/stats/twoway.py", "(seeds * (seeds - 1))", "(seeds * seeds)"),
    ("src/tutelage/core/stats/twoway.py", "1 / (share**2 / df_seeds + ", "1 / (share / df_seeds + "),
    ("src/tutelage/core/stats/twoway.py", "spread = (1 - share) + share / scale", "spread = (1 - share) + share"),
    ("src/tutelage/core/stats/compare.py", 'if identical and kind == "binary":', "if False:"),
    ("src/tutelage/core/stats/compare.py", "interval.lo > -_positive(margin)", "interval.lo > _positive(margin)"),
    ("src/tutelage/core/stats/compare.py", "direction * (values_a - values_b)", "(values_a - values_b)"),
    ("src/tutelage/core/stats/compare.py", "max(len(a.scores), len(b.scores))", "len(b.scores)"),
]


def log(scores, seed=None, **columns):
    return ItemLog.from_rows(
        [
            {"item_key": str(i), "score": s, "train_seed": seed, **{n: v[i] for n, v in columns.items()}}
            for i, s in enumerate(scores)
        ]
    )


def seeded(matrix, **columns):
    rows = [
        {"item_key": str(i), "train_seed": r, "score": s, **{n: v[i] for n, v in columns.items()}}
        for r, row in enumerate(matrix)
        for i, s in enumerate(row)
    ]
    return ItemLog.from_rows(rows)


CELLS = [(1, 1)] * 110 + [(1, 0)] * 30 + [(0, 1)] * 12 + [(0, 0)] * 68
A, B = (log([cell[side] for cell in CELLS]) for side in (0, 1))


def test_the_reference_example_to_four_decimals():
    found = compare(A, B)
    assert found.method == MCNEMAR
    assert (round(found.estimate_a, 4), round(found.estimate_b, 4)) == (0.6364, 0.5545)
    assert round(np.corrcoef(*np.array(CELLS).T)[0, 1], 3) == 0.615
    assert round(found.unpaired_p, 4) == 0.0800
    assert round(found.p, 4) == 0.0054
    assert round(found.exact_p, 4) == 0.0079
    assert round(found.estimate, 4) == 0.0818
    assert (round(found.interval.lo, 4), round(found.interval.hi, 4)) == (0.0235, 0.1387)
    assert round(100 * found.mde, 1) == 8.1
    # Sign flips of 0/1 scores are the exact test, up to the 10,000 drawn patterns.
    flips = float(paired.sign_flip_p(np.array([a - b for a, b in CELLS], float)))
    assert flips == pytest.approx(0.0079, abs=0.002)
    assert (found.n_items, found.n_clusters, found.n_seeds, found.scope) == (220, 220, 0, "these runs")
    assert found.covers == found.interval.covers == "items"


def test_mcnemar_equals_scipy():
    for b, c in ((30, 12), (0, 5), (7, 7), (1, 0), (0, 0)):
        exact = stats.binomtest(min(b, c), b + c).pvalue if b + c else 1.0
        assert paired.mcnemar_exact(b, c) == pytest.approx(exact, abs=1e-12)
        if b != c:
            mid = exact - stats.binom.pmf(min(b, c), b + c, 0.5)
            assert float(paired.mcnemar_mid_p(b, c)) == pytest.approx(mid, abs=1e-12)
    assert float(paired.mcnemar_mid_p(0, 0)) == 1.0


def test_sign_flip_equals_scipy_permutation_test():
    values = np.random.default_rng(0).normal(0.4, 1, 11)
    scipy = stats.permutation_test(
        (values,), np.sum, permutation_type="samples", alternative="two-sided", n_resamples=np.inf
    )
    assert float(paired.sign_flip_p(values)) == pytest.approx(scipy.pvalue, abs=1e-12)
    many = np.random.default_rng(1).normal(0.3, 1, 40)
    approximate = stats.permutation_test((many,), np.sum, permutation_type="samples", n_resamples=20_000, rng=0)
    assert float(paired.sign_flip_p(many)) == pytest.approx(approximate.pvalue, abs=0.01)
    # The observed pattern counts as one of the patterns: p is never 0.
    assert float(paired.sign_flip_p(np.ones(100))) == 1 / 10_001


def test_one_run_with_clusters_uses_cluster_sums():
    rng = np.random.default_rng(2)
    clusters = [f"d{i // 5}" for i in range(100)]
    a = log((rng.random(100) < 0.6).astype(float), cluster=clusters)
    b = log((rng.random(100) < 0.5).astype(float), cluster=clusters)
    found = compare(a, b)
    sums = np.array([a.table["score"].to_numpy() - b.table["score"].to_numpy()]).reshape(20, 5).sum(1)
    assert found.method == SIGN_FLIP
    assert found.covers == "clusters"
    assert found.n_clusters == 20
    # Equal clusters: the t interval of the 20 cluster means.
    scipy = stats.ttest_1samp(sums / 5, 0).confidence_interval(0.95)
    assert (found.interval.lo, found.interval.hi) == pytest.approx((scipy.low, scipy.high), rel=1e-9)
    assert found.p == pytest.approx(float(paired.sign_flip_p(sums)))


def test_swapping_negates_and_itself_is_zero():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(4, 60)), rng.normal(size=(4, 60))
    for a, b in ((A, B), (seeded(x), seeded(y)), (log(x[0]), log(y[0])), (seeded(x), log(y[0]))):
        forth, back = compare(a, b), compare(b, a)
        assert forth.estimate == pytest.approx(-back.estimate)
        assert (forth.interval.lo, forth.interval.hi) == pytest.approx((-back.interval.hi, -back.interval.lo))
        assert forth.p == pytest.approx(back.p)
        lower = compare(a, b, direction=-1)
        assert lower.estimate == pytest.approx(back.estimate)
        assert (lower.interval.lo, lower.interval.hi) == pytest.approx((back.interval.lo, back.interval.hi))
        assert (lower.estimate_a, lower.direction) == (forth.estimate_a, -1)
        same = compare(a, a)
        assert (same.estimate, same.p) == (0.0, 1.0)
        assert same.interval.lo <= 0 <= same.interval.hi


def test_no_item_that_differs_is_no_certainty():
    clusters = [f"d{i // 4}" for i in range(40)]
    same = compare(log([0.0] * 40, cluster=clusters), log([0.0] * 40, cluster=clusters))
    low, high = paired.bonett_price(0, 0, 10)
    assert (same.interval.lo, same.interval.hi) == pytest.approx((float(low), float(high)), rel=1e-5)
    assert same.p == 1.0
    assert not same.not_worse_by(0.1)
    assert same.not_worse_by(0.3)


def test_two_way_components_are_unbiased_and_exact_at_the_ends():
    rng = np.random.default_rng(4)
    seeds, items, draws = 4, 30, 20_000
    d = rng.normal(size=(draws, seeds, 1)) * 0.5 + rng.normal(size=(draws, 1, items)) * 2
    d += rng.normal(size=(draws, seeds, items)) * 3
    v_s, v_i, v_e = twoway.two_way(d, cluster_design(None, items))
    assert v_s.mean() == pytest.approx(0.25 / 4 + 9 / 120, rel=0.03)
    assert v_i.mean() == pytest.approx(4 / 30 + 9 / 120, rel=0.02)
    assert v_e.mean() == pytest.approx(9 / 120, rel=0.02)
    assert (v_s + v_i - v_e).mean() == pytest.approx(d.mean(axis=(1, 2)).var(), rel=0.03)
    assert twoway.Components(1.0, 3.0, 0.0, 2.0, 9.0).df == pytest.approx(1 / (1 / 16 / 2 + 9 / 16 / 9))
    only_seeds = twoway.Components(1.0, 0.0, 0.0, 2.0, 399.0)
    assert twoway.p_value(3.0, only_seeds) == pytest.approx(2 * stats.t.sf(3.0, 2), rel=1e-6)
    assert twoway.half_width(only_seeds, 0.99) == pytest.approx(stats.t.isf(0.005, 2), rel=1e-5)
    only_items = twoway.Components(0.0, 1.0, 0.0, 0.0, 19.0)
    assert twoway.p_value(2.0, only_items) == pytest.approx(2 * stats.t.sf(2.0, 19), rel=1e-6)
    # Between the ends the fiducial part against brute force: N / sqrt of a mixture.
    chi2 = rng.chisquare(2, 400_000)
    brute = 2 * stats.norm.sf(2.5 / np.sqrt(0.4 + 0.6 * 2 / chi2)).mean()
    assert float(twoway._fiducial(np.array(2.5), np.array(0.6), 2.0, 1e7)) == pytest.approx(brute, abs=0.001)


def test_p_and_interval_agree_at_every_level():
    for parts in (
        twoway.Components(0.5, 0.5, 0.1, 2.0, 399.0),
        twoway.Components(0.1, 0.9, 0.1, 4.0, 29.0),
        twoway.Components(0.9, 0.1, 0.2, 9.0, 99.0),
    ):
        for level in (0.9, 0.95, 0.99):
            assert twoway.p_value(twoway.half_width(parts, level), parts) == pytest.approx(1 - level, rel=1e-6)
        found = [twoway.p_value(mean, parts) for mean in (0, 0.5, 1, 2, 4, 8, 30)]
        assert found == sorted(found, reverse=True)


def test_smallest_detectable_effect_is_the_noncentral_t_one():
    for df in (2.0, 9.0, 40.0):
        parts = twoway.Components(0.0, 1.0, 0.0, 0.0, df)
        effect = twoway.detectable_effect(parts) * twoway.c4(df)
        assert stats.nct.sf(stats.t.isf(0.025, df), df, effect) == pytest.approx(0.8, abs=1e-4)
        assert twoway.power_at(twoway.detectable_effect(parts), parts) == pytest.approx(0.8, abs=1e-4)
    assert twoway.c4(2.0) == pytest.approx(np.sqrt(np.pi) / 2, rel=1e-9)


def test_planning_scales_items_and_seeds():
    found = compare(A, B)
    # Binary planning formula: n = 7.85 q / MDE^2 with q - d^2 as the variance.
    expected = 7.85 * (42 / 220 - found.estimate**2) / 0.05**2
    assert found.items_needed(0.05) == pytest.approx(expected, rel=0.02)
    assert found.seeds_needed(0.05) is None
    assert found.items_needed(0.2) == 220
    assert found.items_needed(0.0) is None
    rng = np.random.default_rng(5)
    x = rng.normal(size=(3, 50)) + np.array([[0.0], [0.4], [0.9]])
    noisy = compare(seeded(x), seeded(rng.normal(size=(3, 50))))
    assert noisy.items_needed(0.05) is None
    assert 3 < noisy.seeds_needed(0.5) < 100


def test_a_claim_about_the_method_needs_three_seeds():
    rng = np.random.default_rng(6)
    for seeds in (1, 2, 3):
        found = compare(seeded(rng.normal(size=(seeds, 30))), seeded(rng.normal(size=(seeds, 30))))
        assert found.scope == ("method" if seeds >= MIN_SEEDS else "these runs")
        assert (found.method == TWO_WAY) == (seeds >= MIN_SEEDS)
        assert found.covers == ("items+seeds" if seeds >= MIN_SEEDS else "items")
        assert found.n_seeds == seeds


def test_an_unseeded_system_is_one_run_repeated():
    rng = np.random.default_rng(7)
    x, base = rng.normal(1, 1, size=(3, 40)), rng.normal(size=40)
    found = compare(seeded(x), log(base))
    by_hand = compare(seeded(x), seeded(np.tile(base, (3, 1))))
    assert (found.interval.lo, found.interval.hi) == pytest.approx((by_hand.interval.lo, by_hand.interval.hi))
    assert (found.method, found.scope, found.p) == (TWO_WAY, "method", pytest.approx(by_hand.p))
    assert found.n_seeds == 3
    assert "one run repeated" in found.notes[0]


def test_ratio_difference_is_of_corpus_values_and_linearised():
    rng = np.random.default_rng(8)
    size = rng.integers(20, 3000, 120).astype(float)
    a, b = rng.normal(1.0, 0.2, 120), rng.normal(1.1, 0.2, 120)
    found = compare(log(a, weight=size), log(b, weight=size), direction=-1)
    assert found.method == ONE_RUN_T
    assert found.estimate == pytest.approx(((b - a) * size).sum() / size.sum(), rel=1e-12)
    draws = rng.integers(0, 120, (20_000, 120))
    boot = (((b - a) * size)[draws].sum(1) / size[draws].sum(1)).std()
    half = (found.interval.hi - found.interval.lo) / 2
    assert half / stats.t.isf(0.025, found.df) == pytest.approx(boot, rel=0.06)
    assert found.df < 119
    runs_a = np.stack([a, a + 0.01, a - 0.02])
    many = compare(seeded(runs_a, weight=size), log(b, weight=size), direction=-1)
    assert many.method == TWO_WAY
    expected = np.mean([((b - run) * size).sum() / size.sum() for run in runs_a])
    assert many.estimate == pytest.approx(expected, rel=1e-12)


def test_corpus_metric_resamples_both_sides_together():
    rng = np.random.default_rng(9)
    target = np.where(rng.random(150) < 0.5, "x", "y")
    flip = {"x": "y", "y": "x"}

    def system(accuracy):
        right = rng.random(150) < accuracy
        return [t if ok else flip[t] for t, ok in zip(target, right, strict=True)]

    def accuracy(columns):
        return float((columns["prediction"] == columns["target"]).mean())

    a, b = (log([0.0] * 150, prediction=system(p), target=target) for p in (0.9, 0.7))
    found = compare(a, b, metric_kind="corpus", statistic=accuracy, n_resamples=2000)
    right = [(np.array(s.table["prediction"].to_pylist()) == target).astype(float) for s in (a, b)]
    reference = stats.ttest_rel(*right).confidence_interval(0.95)
    assert found.method == BOOTSTRAP
    assert (found.interval.lo, found.interval.hi) == pytest.approx((reference.low, reference.high), abs=0.01)
    wider = found.at_level(0.99)
    assert wider.lo < found.interval.lo < found.interval.hi < wider.hi
    with pytest.raises(ComparisonError, match="statistic"):
        compare(a, b, metric_kind="corpus")


def test_corpus_metric_over_seeds_agrees_with_the_two_way_t():
    rng = np.random.default_rng(10)
    x = (rng.random((3, 120)) < 0.7).astype(float)
    y = (rng.random((3, 120)) < 0.5).astype(float)
    direct = compare(seeded(x), seeded(y))
    boot = compare(
        seeded(x), seeded(y), metric_kind="corpus", statistic=lambda c: float(c["score"].mean()), n_resamples=1500
    )
    assert boot.method == TWO_WAY
    assert boot.components["v_seeds"] == pytest.approx(direct.components["v_seeds"])
    assert boot.components["v_rest"] == pytest.approx(direct.components["v_rest"], rel=0.15)


def test_no_harm_and_equivalence():
    close = compare(log(np.zeros(400)), log(np.random.default_rng(11).normal(0, 0.1, 400)))
    assert close.not_worse_by(0.05)
    assert close.equivalent_within(0.05)
    assert not close.equivalent_within(0.001)
    clearly = compare(A, B)
    assert clearly.not_worse_by(0.01)
    assert not compare(B, A).not_worse_by(0.05)
    assert compare(B, A).not_worse_by(0.2)
    with pytest.raises(ComparisonError, match="positive"):
        clearly.not_worse_by(0)


def test_unpaired_items_are_counted_and_named():
    short = ItemLog.from_rows(B.table.slice(3).to_pylist())
    with pytest.raises(ComparisonError, match=r"3 of 220 in A only, 0 of 217 in B only") as caught:
        compare(A, short)
    assert "first keys: 0, 1, 2" in str(caught.value)
    shared = compare(A, short, intersect=True)
    assert (shared.n_items, shared.intersected, shared.only_in_a) == (217, True, 3)
    assert not compare(A, B, intersect=True).intersected
    other = ItemLog.from_rows([{"item_key": "z", "score": 1}])
    with pytest.raises(ComparisonError, match="not scored on the same items"):
        compare(A, other, intersect=True)


def test_what_cannot_be_compared():
    rng = np.random.default_rng(12)
    with pytest.raises(ComparisonError, match="different numbers of training seeds"):
        compare(seeded(rng.normal(size=(3, 5))), seeded(rng.normal(size=(4, 5))))
    with pytest.raises(ComparisonError, match="different clusters"):
        compare(log([0.0, 1.0], cluster=["x", "y"]), log([0.0, 1.0], cluster=["x", "x"]))
    with pytest.raises(ComparisonError, match="weights"):
        compare(log([0.1, 1.0], weight=[1.0, 2.0]), log([0.2, 1.0]))
    one = compare(log([0.1, 1.0], cluster=["d", "d"]), log([0.2, 1.0], cluster=["d", "d"]))
    assert one.interval is None
    assert "two" in one.no_interval
    constant = compare(log([0.5, 0.75]), log([0.25, 0.5]))
    assert constant.interval is None
    assert "same difference" in constant.no_interval


def test_seeds_with_other_names_are_paired_in_order():
    rng = np.random.default_rng(13)
    x, y = rng.normal(size=(3, 20)), rng.normal(size=(3, 20))
    renamed = ItemLog.from_rows([{**r, "train_seed": r["train_seed"] + 10} for r in seeded(y).table.to_pylist()])
    found = compare(seeded(x), renamed)
    assert "paired in order" in found.notes[0]
    assert found.p == compare(seeded(x), seeded(y)).p
