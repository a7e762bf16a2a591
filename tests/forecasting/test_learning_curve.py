"""forecasting.learning_curve: published numbers, the stop rule on planted curves, what may be shown, refusals."""

import numpy as np
import pytest

from tutelage.core.curve import Curve
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.stats.curves import fit_curve
from tutelage.forecasting.learning_curve import LearningCurve, better_bounds, finish, levels

PROOF = {"forecasting.learning_curve": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/forecasting/learning_curve.py", "if most < self.epsilon", "if left < self.epsilon"),
    ("src/tutelage/forecasting/learning_curve.py", "(-value, -hi, -lo)", "(value, lo, hi)"),
    ("src/tutelage/forecasting/learning_curve.py", "self.value * high < self.unit_cost", "high < self.unit_cost"),
    ("src/tutelage/forecasting/learning_curve.py", "places[k - 1]) < 2", "places[k - 1]) < 200"),
    ("src/tutelage/forecasting/learning_curve.py", "lo <= before if", "lo >= before if"),
    (
        "src/tutelage/forecasting/learning_curve.py",
        "* curve.direction < 0).all()",
        "* curve.direction < -9).all()",
    ),
    ("src/tutelage/forecasting/learning_curve.py", "if ours[0] > theirs[1]", "if ours[1] > theirs[0]"),
    ("src/tutelage/forecasting/learning_curve.py", 'set(small["ids"]) - set(large["ids"])', "set()"),
    ("src/tutelage/forecasting/_shared.py", "test.skill > 0", "test.skill > -9"),
    ("src/tutelage/forecasting/_shared.py", "ratio > MAX_RATIO", "ratio > 999"),
    ("src/tutelage/forecasting/_shared.py", "else last,\n", "else value,\n"),
    ("src/tutelage/forecasting/_shared.py", "curve = spaced", "pass"),
]
SIZES = 100 * 2.0 ** np.arange(9)
TRUTH = 0.92 - 1.4 * SIZES**-0.45
# Nothing below a threshold: no saturating curve foresees it.
STEEP = np.array([0.3, 0.3, 0.301, 0.301, 0.302, 0.35, 0.45, 0.6, 0.8])


def points(y, x=SIZES, **columns):
    rows = [{"id": f"p{i}", "x": float(a), "y": float(b)} for i, (a, b) in enumerate(zip(x, y))]
    return Dataset.from_rows({**row, **{n: v[i] for n, v in columns.items()}} for i, row in enumerate(rows))


def forecast(data, at, other=None, **fields):
    method = LearningCurve(**fields)
    return method.predict(method.fit(data, {"other": other} if other is not None else {}), at)


def noisy(seed, size=0.002):
    return TRUTH + size * np.random.default_rng(seed).normal(size=len(TRUTH))


def test_the_published_numbers():
    result = forecast(points(TRUTH[:6], SIZES[:6]), 12800, force=True)
    assert result.estimate == pytest.approx(0.9001, abs=5e-5)
    assert result.extra["asymptote"] == pytest.approx(0.92, abs=1e-6)
    assert result.extra["gain_left"] == pytest.approx(0.92 - TRUTH[5], abs=1e-6)
    assert result.extra["gain_next"] == pytest.approx(TRUTH[6] - TRUTH[5], abs=1e-6)
    assert result.extra["last"] == pytest.approx(TRUTH[5])
    assert result.unit == "x" and result.direction == 1 and result.n_items == 6


def test_a_forecast_with_skill_is_shown_with_its_interval_and_back_test():
    result = forecast(points(noisy(0)), 51200)
    assert result.estimate == result.extra["value"] == pytest.approx(0.92 - 1.4 * 51200**-0.45, abs=0.004)
    assert result.interval.lo < 0.92 - 1.4 * 51200**-0.45 < result.interval.hi
    assert (result.interval.method, result.interval.covers) == ("profile", "points")
    assert result.extra["skill"] > 0.5 and result.extra["held_out"] == 4
    assert result.extra["error"] < min(result.extra["error_last"], result.extra["error_line"])
    assert "against" in result.system["told"][0] and "(straight line)" in result.system["told"][0]
    shown = result.system["forecasts"][0]
    assert shown["status"] == "skill" and [row["ratio"] for row in shown["tested"]] == [2, 4, 8, 16]
    assert len(shown["points"]) == 9 and shown["drawn"][-1][0] == pytest.approx(51200)


def test_without_skill_the_last_value_is_shown_and_the_page_says_so():
    y = STEEP
    result = forecast(points(y), 51200)
    assert result.system["forecasts"][0]["status"] == "no skill"
    assert result.estimate == pytest.approx(y[-1]) and result.interval is None
    assert "no skill" in result.no_interval and "no skill, last value" in result.system["told"][0]
    forced = forecast(points(y), 51200, force=True)
    assert forced.estimate == forced.extra["value"] != result.estimate and forced.interval is not None


def test_five_points_cannot_be_tested():
    result = forecast(points(TRUTH[:5], SIZES[:5]), 3200)
    assert result.system["forecasts"][0]["status"] == "not tested" and result.estimate == pytest.approx(TRUTH[4])
    assert "prediction_level" not in result.extra
    assert any("not settled" in note for note in result.system["told"])
    # Tested two times ahead only: nothing is known eight times ahead.
    far = forecast(points(TRUTH[:6], SIZES[:6]), 8 * 3200)
    assert far.system["forecasts"][0]["status"] == "not tested"
    assert any("trust it less" in note for note in far.system["told"])


def test_losses_fall_and_their_gains_are_positive():
    loss = 1.8 + 30 * SIZES**-0.5
    result = forecast(points(loss), 51200, direction="lower")
    assert result.direction == -1 and result.system["forecasts"][0]["form"] == "power3"
    assert result.estimate == pytest.approx(1.8 + 30 * 51200**-0.5, rel=1e-5)
    assert result.extra["gain_next"] == pytest.approx(30 * (25600**-0.5 - 51200**-0.5), rel=1e-4)
    assert result.extra["asymptote"] == pytest.approx(1.8, rel=1e-4)
    assert better_bounds(fit_curve("power3", SIZES, loss + 0.01 * noisy(0)), 100, 200, -1)[1] > 0
    same = forecast(points(loss, direction=[-1] * 9), 51200)
    assert same.estimate == result.estimate


def test_the_stop_rule_stops_at_the_right_batch():
    """Noise of half a point, three draws a size: right is the first size with less than a point left to gain;
    the bound may wait one doubling more, and hardly ever stops before."""
    x = np.repeat(100 * 2.0 ** np.arange(12), 3)
    rule, right = LearningCurve(epsilon=0.01), 11
    stopped = []
    for seed in range(60):
        y = np.minimum(0.92 - 1.4 * x**-0.45 + 0.005 * np.random.default_rng(seed).normal(size=36), 1.0)
        for k in (9, 10, 11, 12):
            curve = Curve(x=tuple(x[: 3 * k]), y=tuple(y[: 3 * k]))
            if rule._stop(fit_curve("sat3", curve.x, curve.y), curve, "sat3")[0]["stop"]:
                break
        else:
            k = 99
        stopped.append(k)
    assert np.mean([right <= k <= right + 1 for k in stopped]) >= 0.9
    assert np.mean([k < right - 1 for k in stopped]) == 0


def test_a_batch_that_costs_more_than_it_can_bring_is_not_bought():
    data = points(noisy(0))
    gain = forecast(data, 51200).extra["gain_next_hi"]
    assert 0.002 < gain < 0.01
    dear = forecast(data, 51200, epsilon=1e-4, unit_cost=1.01 * 1e6 * gain / 25600, value=1e6)
    cheap = forecast(data, 51200, epsilon=1e-4, unit_cost=0.99 * 1e6 * gain / 25600, value=1e6)
    assert (dear.extra["stop"], cheap.extra["stop"]) == (1, 0)
    assert any(line.startswith("stop: 25600 more x cost") for line in dear.system["told"])
    smaller = forecast(data, 51200, batch=100)
    assert smaller.extra["gain_next"] < forecast(data, 51200).extra["gain_next"] / 50


def test_levels_wait_for_the_curve_to_settle():
    assert levels(Curve(x=tuple(SIZES), y=tuple(noisy(0))), "sat3", 1.0) == (1600, 3200)
    # A jump at the end: the last residual is out of line, nothing is said.
    assert levels(Curve(x=tuple(SIZES) * 2, y=(*noisy(1)[:-1], 0.6, *noisy(2)[:-1], 0.6)), "sat3", 1.0)[0] is None


def test_two_systems():
    ours, theirs = points(noisy(0)), points(noisy(1) - 0.1)
    result = forecast(ours, 51200, other=theirs)
    assert any(line.startswith("finish this system") for line in result.system["told"])
    assert len(result.system["forecasts"]) == 2
    back = forecast(theirs, 51200, other=ours)
    assert any(line == "finish the other system" for line in back.system["told"])
    assert finish((0.8, 0.9), (0.85, 0.95), 1).startswith("go on with both")
    assert finish((1.0, 1.1), (1.2, 1.3), -1).startswith("finish this")


def test_the_order_of_the_points_does_not_matter():
    order = np.random.default_rng(0).permutation(9)
    a, b = forecast(points(noisy(0)), 51200), forecast(points(noisy(0)[order], SIZES[order]), 51200)
    assert a.estimate == b.estimate and a.interval == b.interval


def test_checkpoints_of_one_run_are_thinned_and_marked():
    x = np.concatenate([SIZES, SIZES[3:] * 1.05])
    y = np.minimum(0.92 - 1.4 * x**-0.45, 1)
    result = forecast(points(y, x, run=["a"] * len(x)), 51200)
    assert result.n_items == 9
    assert any(note.startswith("single run: 9 log-spaced of 15") for note in result.system["told"])
    assert forecast(points(y, x, run=[f"r{i}" for i in range(15)]), 51200).n_items == 15


def test_subsets_that_are_not_nested_are_warned_of():
    nested = [[str(j) for j in range(i + 1)] for i in range(9)]
    forecast(points(TRUTH, ids=nested), 51200)
    with pytest.warns(UserWarning, match="not all among those at 200"):
        forecast(points(TRUTH, ids=[*nested[:1], ["strange"], *nested[2:]]), 51200)


@pytest.mark.parametrize(
    ("data", "at", "says"),
    [
        (points(TRUTH[::-1]), 51200, r"(?s)not a learning curve.*direction"),
        (points(TRUTH[:4], SIZES[:4]), 1600, r"(?s)too few points.*5 different x.*found:\s+4"),
        (points(TRUTH[:6], SIZES[:6] ** 0.5), 100, "span too little"),
        (points(TRUTH, phase=["stable"] * 8 + ["decay"]), 51200, "learning-rate phases"),
        (points(TRUTH), 25600 * 17, r"(?s)too far.*16 times.*force"),
        (points(TRUTH), -1.0, "no point of a forecast"),
        (points([*TRUTH[:-1], np.nan]), 51200, "not usable"),
        (points(TRUTH * 100), 51200, r"(?s)up to 1.*upper"),
    ],
)
def test_refusals(data, at, says):
    with pytest.raises(InputError, match=says):
        forecast(data, at)
    assert forecast(points(TRUTH), 25600 * 17, force=True).estimate > 0.9


def test_columns_may_have_other_names():
    named = Dataset.from_rows({"n": row["x"], "acc": row["y"]} for row in points(noisy(0)).rows())
    found = forecast(named, 51200, x="n", y="acc")
    assert found.estimate == forecast(points(noisy(0)), 51200).estimate
    assert (found.unit, found.metric) == ("n", "forecast acc")


def test_a_form_and_an_upper_bound_may_be_given():
    percent = points(100 * TRUTH)
    assert forecast(percent, 51200, upper=100).estimate == pytest.approx(
        100 * (0.92 - 1.4 * 51200**-0.45), rel=1e-4
    )
    unbounded = forecast(points(3 * TRUTH), 51200, upper=None)
    assert unbounded.extra["asymptote"] == pytest.approx(3 * 0.92, rel=1e-4)
    line = forecast(points(0.1 + 0.05 * np.log(SIZES)), 51200, form="loglin", force=True)
    assert line.estimate == pytest.approx(0.1 + 0.05 * np.log(51200)) and "asymptote" not in line.extra
