"""Corrections against statsmodels, and every verdict."""

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from tutelage.core.errors import ComparisonError
from tutelage.core.items import ItemLog
from tutelage.core.stats.compare import compare
from tutelage.core.stats.equal_cost import check_equal_cost
from tutelage.core.stats.families import benjamini_hochberg, holm, judge, judge_family

MUTATIONS = [
    ("src/tutelage/core/stats/families.py", "factors = len(p) - np.arange(len(p))", "factors = len(p)"),
    ("src/tutelage/core/stats/families.py", "np.arange(1, len(p) + 1)", "np.arange(2, len(p) + 2)"),
    ("src/tutelage/core/stats/families.py", "power < POWER", "power > POWER"),
    ("src/tutelage/core/stats/families.py", "1 - ALPHA / len(names)", "1 - ALPHA"),
    ("src/tutelage/core/stats/families.py", 'judge(bed).outcome != "better"', 'judge(bed).outcome == "better"'),
]

EXAMPLE = [0.001, 0.012, 0.021, 0.041, 0.3]


def seeded(values):
    return ItemLog.from_rows(
        [
            {"item_key": str(i), "train_seed": r, "score": s}
            for r, row in enumerate(np.atleast_2d(values))
            for i, s in enumerate(row)
        ]
    )


def pair(shift, seeds=5, items=100, spread=0.5, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(0, spread, (2, seeds, items))
    return compare(seeded(a + shift), seeded(b))


def test_the_known_example():
    assert holm(EXAMPLE).round(3).tolist() == [0.005, 0.048, 0.063, 0.082, 0.3]
    assert benjamini_hochberg(EXAMPLE).round(3).tolist() == [0.005, 0.03, 0.035, 0.051, 0.3]


def test_corrections_equal_statsmodels():
    rng = np.random.default_rng(0)
    for m in (1, 2, 7, 40):
        p = rng.random(m) ** 3
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], rtol=1e-12)
        np.testing.assert_allclose(benjamini_hochberg(p), multipletests(p, method="fdr_bh")[1], rtol=1e-12)
    assert holm([0.03]).tolist() == benjamini_hochberg([0.03]).tolist() == [0.03]
    for bad in ([], [0.1, float("nan")], [1.2]):
        with pytest.raises(ComparisonError):
            holm(bad)


def test_holm_holds_the_family_over_250_nulls():
    p = np.random.default_rng(1).random((1000, 250))
    rejected = [bool((holm(row) < 0.05).any()) for row in p]
    assert np.mean(rejected) <= 0.055


def test_better_worse_equivalent_undecided():
    assert judge(pair(0.5)).text == "better"
    assert judge(pair(-0.5)).outcome == "worse"
    assert judge(pair(0.0), margin=0.5).text == "equivalent within 0.5"
    undecided = judge(pair(0.0, spread=3.0, items=40), margin=0.2)
    assert undecided.outcome == "undecided"
    assert undecided.underpowered
    assert undecided.planted_power < 0.8
    assert "underpowered" in undecided.text
    assert undecided.items_needed > 40
    assert f"about {undecided.items_needed - 40} more items" in undecided.text
    assert f"{undecided.seeds_needed - 5} more seeds" in undecided.text


def test_what_only_the_correction_leaves_undecided_asks_for_nothing_more():
    alone = pair(0.5)
    assert judge(alone).outcome == "better"
    among_many = judge(alone, adjusted_p=0.07)
    assert among_many.outcome == "undecided"
    assert "not after correction for several" in among_many.text
    assert "needs" not in among_many.text


def test_no_difference_shows_that_one_would_have_been_found():
    # The interval reaches past the margin on one side, yet a difference of that size had power enough.
    comparison = pair(0.07, items=200, seed=4)
    verdict = judge(comparison, margin=0.09)
    assert verdict.outcome == "undecided"
    assert verdict.planted_power >= 0.8
    assert not verdict.underpowered
    assert "would have been found" in verdict.text


def test_fewer_than_three_seeds_speak_of_these_runs_only():
    one = judge(pair(0.9, seeds=1))
    assert one.outcome == "better"
    assert one.these_runs_only
    assert "these runs only (1 run a side" in one.text
    assert not judge(pair(0.5, seeds=3)).these_runs_only


def test_unequal_cost_is_not_comparable_however_large_the_difference():
    cost = check_equal_cost({"flops": 1.5}, {"flops": 1.0}, "flops")
    verdict = judge(pair(2.0), cost=cost)
    assert verdict.outcome == "not comparable"
    assert "1.5" in verdict.text


def test_a_bed_whose_oracle_is_not_found_tells_nothing():
    dead_bed = pair(0.0, spread=3.0, seed=3)
    assert judge(pair(2.0), bed=dead_bed).outcome == "this bed cannot tell"
    assert judge(pair(2.0), bed=pair(1.0)).outcome == "better"


def test_selected_here_and_no_interval_get_no_verdict():
    assert judge(pair(2.0), selected_here=True).outcome == "undecided"
    constant = compare(seeded([[1.0, 2.0]] * 3), seeded([[0.0, 1.0]] * 3))
    verdict = judge(constant)
    assert verdict.outcome == "no interval"
    assert "same difference" in verdict.text


def test_primary_is_holm_with_wider_intervals_and_the_rest_is_exploratory():
    comparisons = {"a": pair(0.5), "b": pair(0.05, seed=1), "c": pair(0.0, seed=2), "d": pair(0.3, seed=4)}
    verdicts = judge_family(comparisons, primary=["a", "b", "c"])
    assert list(verdicts) == list(comparisons)
    raw = [comparisons[name].p for name in "abc"]
    assert [verdicts[name].adjusted_p for name in "abc"] == pytest.approx(holm(raw).tolist())
    assert verdicts["a"].interval.level == pytest.approx(1 - 0.05 / 3)
    assert verdicts["a"].interval.lo < comparisons["a"].interval.lo
    assert verdicts["d"].family == "exploratory"
    assert verdicts["d"].adjusted_p == comparisons["d"].p
    assert verdicts["d"].text.endswith("(exploratory)")
    with pytest.raises(ComparisonError, match="never made"):
        judge_family(comparisons, primary=["zz"])


def test_a_method_plus_wasted_work_is_never_better():
    # One side is charged a useless scoring pass: refused. Topped up, the baseline is a little better trained.
    wasted = check_equal_cost({"flops": 1.2}, {"flops": 1.0}, "flops")
    assert judge(pair(0.0), cost=wasted).outcome == "not comparable"
    outcomes = {judge(pair(-0.02, seed=s)).outcome for s in range(12)}
    assert "better" not in outcomes
