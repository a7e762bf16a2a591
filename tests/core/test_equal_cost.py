"""The equal-cost rule: axes, tolerance, top-up and interpolation."""

import numpy as np
import pytest

from tutelage.core.errors import ComparisonError
from tutelage.core.records import Cost
from tutelage.core.stats.equal_cost import check_equal_cost, cost_on_axis, interpolate_baseline, top_up

MUTATIONS = [
    ("src/tutelage/core/stats/equal_cost.py", "TOLERANCE = 0.05", "TOLERANCE = 0.5"),
    ("src/tutelage/core/stats/equal_cost.py", "np.log(at / x[left]) / np.log(", "(at / x[left]) / ("),
    ("src/tutelage/core/stats/equal_cost.py", "cost.scored_tokens + cost.trained_tokens", "cost.trained_tokens"),
]


def test_within_five_percent_on_the_declared_axis():
    a = Cost(forward_flops=1.0, backward_flops=2.0, seconds=10)
    b = Cost(forward_flops=3.1, seconds=20)
    check = check_equal_cost(a, b, "flops")
    assert check.comparable
    assert check.ratio == pytest.approx(3 / 3.1)
    seconds = check_equal_cost(a, b, "seconds")
    assert not seconds.comparable
    assert seconds.ratio == 0.5
    assert "top A up by 10" in seconds.reason
    assert check_equal_cost({"currency": 1.05}, {"currency": 1.0}, "currency").comparable
    assert not check_equal_cost({"currency": 1.051}, {"currency": 1.0}, "currency").comparable


def test_scoring_counts():
    assert cost_on_axis(Cost(scored_tokens=5, trained_tokens=7, generated_tokens=1), "tokens") == 13
    assert cost_on_axis(Cost(labels=4), "labels") == 4


def test_missing_costs_are_errors_and_free_baselines_are_not_comparable():
    for missing in (None, {"flops": float("nan")}, {"seconds": 1.0}):
        with pytest.raises(ComparisonError, match=r"a cost is missing[\s\S]*B, axis flops"):
            check_equal_cost({"flops": 1.0}, missing, "flops")
    with pytest.raises(ComparisonError, match="missing"):
        check_equal_cost(Cost(), Cost(), "currency")
    with pytest.raises(ComparisonError, match="did you mean flops"):
        cost_on_axis(Cost(), "flop")
    free = check_equal_cost(Cost(forward_flops=1.0), Cost(), "flops")
    assert (free.comparable, free.ratio) == (False, None)
    assert check_equal_cost(Cost(), Cost(), "flops").comparable


def test_top_up_names_the_cheaper_side():
    assert top_up({"tokens": 100}, {"tokens": 120}, "tokens") == ("A", 20)
    assert top_up({"tokens": 130}, {"tokens": 120}, "tokens") == ("B", 10)
    assert top_up({"tokens": 130}, {"tokens": 130}, "tokens") == (None, 0.0)


def test_interpolation_is_linear_in_log_cost_and_hits_what_was_run():
    costs, values, errors = [400.0, 100.0, 200.0], [5.0, 1.0, 4.0], [0.1, 0.3, 0.2]
    for cost, value, error in zip(costs, values, errors, strict=True):
        assert interpolate_baseline(costs, values, errors, cost) == pytest.approx((value, error))
    middle, error = interpolate_baseline(costs, values, errors, 100 * 2**0.5)
    assert middle == pytest.approx(2.5)
    assert error == pytest.approx(np.hypot(0.15, 0.1))


def test_interpolation_refuses_to_extrapolate():
    with pytest.raises(ComparisonError, match="outside the baseline's curve"):
        interpolate_baseline([1, 2, 4], [1, 2, 3], [0, 0, 0], 5)
    for costs in ([1, 2], [1, 1, 2], [0, 1, 2]):
        with pytest.raises(ComparisonError, match="too few budgets"):
            interpolate_baseline(costs, [1] * len(costs), [0] * len(costs), 1)
