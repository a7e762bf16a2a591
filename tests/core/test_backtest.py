"""Points of a curve and back-tests: refusals by name, medians by hand, naive forecasts that are beaten or not."""

import numpy as np
import pytest

from tutelage.core.curve import Curve, curve_of
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.stats.backtest import Held, at_ratio, rolling, skill, straight_line, summarised
from tutelage.core.stats.curves import fit_curve

MUTATIONS = [
    ("src/tutelage/core/stats/backtest.py", "known, later = curve.until(places[k - 1])", "known, later = curve"),
    ("src/tutelage/core/stats/backtest.py", "np.log2(one.ratio)", "np.log(one.ratio)"),
    ("src/tutelage/core/stats/backtest.py", "np.median([_error", "np.mean([_error"),
    ("src/tutelage/core/stats/backtest.py", "naive = min(last, line)", "naive = max(last, line)"),
    ("src/tutelage/core/stats/backtest.py", "row.ratio >= 2.0", "row.ratio <= 2.0"),
    ("src/tutelage/core/stats/backtest.py", "/ max(abs(measured), 1e-12)", "/ 1.0"),
    ("src/tutelage/core/curve.py", "if not kept or x * ratio <= kept[-1]", "if not kept or x <= kept[-1]"),
    ("src/tutelage/core/curve.py", "len(set(self.phase)) > 1", "len(set(self.phase)) > 2"),
    ("src/tutelage/core/curve.py", "span * self.distinct[0]", "self.distinct[0]"),
    ("src/tutelage/core/curve.py", "if one == x]", "if one >= x]"),
]
X = tuple(100 * 2.0 ** np.arange(8))


def exact(x):
    return 1.8 + 30 * np.asarray(x, dtype=float) ** -0.4


def power3(curve, later):
    fit = fit_curve("power3", curve.x, curve.y)
    return [(float(fit.predict(x)[0]), *fit.interval(x, new=True)) for x in later]


def test_rolling_origins_predict_every_later_point():
    held = rolling(Curve(x=X, y=tuple(exact(X)), direction=-1), power3)
    assert [round(one.ratio) for one in held] == [2, 4, 8, 2, 4, 2]
    assert [one.measured for one in held] == pytest.approx([*exact(X[5:]), *exact(X[6:]), *exact(X[7:])])
    for one in held:
        assert one.predicted == pytest.approx(one.measured, rel=1e-6)
    assert [one.last for one in held] == pytest.approx([*[exact(X[4])] * 3, *[exact(X[5])] * 2, exact(X[6])])
    slope, level = np.polyfit(np.log(X[:5]), np.log(exact(X[:5])), 1)
    assert held[0].line == pytest.approx(np.exp(level + slope * np.log(X[5])))
    rows = summarised(held)
    assert [(row.ratio, row.points) for row in rows] == [(2, 3), (4, 2), (8, 1)]
    assert all(row.skill > 0.99 for row in rows)


def test_what_was_measured_later_never_reaches_the_forecast():
    seen = []
    held = rolling(Curve(x=X, y=tuple(exact(X))), lambda known, later: seen.append(known) or power3(known, later))
    assert [max(known.x) for known in seen] == list(X[4:7]) and len(held) == 6
    # Another future, the same forecasts.
    other = rolling(Curve(x=X, y=(*exact(X[:5]), 9.0, 9.0, 9.0)), power3)
    assert [one.predicted for one in other[:3]] == [one.predicted for one in held[:3]]


def test_medians_and_skill_by_hand():
    held = [
        Held(2.0, 10.0, 11.0, 12.0, 9.5, 9.0, 12.0),
        Held(2.2, 10.0, 10.2, 13.0, 9.0, 10.1, 12.0),
        Held(1.9, 20.0, 20.0, 28.0, 21.0, 19.0, 21.0),
        Held(7.0, 10.0, 15.0, 11.0, 10.0),
    ]
    near, far = summarised(held)
    assert (near.ratio, near.points, near.error, near.last, near.line) == pytest.approx((2, 3, 0.02, 0.3, 0.05))
    assert near.skill == pytest.approx(1 - 0.02 / 0.05) and near.coverage == pytest.approx(2 / 3)
    assert (far.ratio, far.coverage) == (8, None)
    assert (far.error, far.last, far.line) == pytest.approx((0.5, 0.1, 0.0)) and far.skill < 0
    assert skill(0.0, 0.0, 0.0) == 0.0 and skill(0.1, 0.2, 0.4) == pytest.approx(0.5)


def test_a_test_speaks_for_its_ratio_and_nearer_ones():
    rows = summarised([Held(2.0, 1.0, 1.0, 2.0, 2.0), Held(8.0, 1.0, 1.0, 2.0, 2.0)])
    assert [at_ratio(rows, ratio) and at_ratio(rows, ratio).ratio for ratio in (1.0, 2.6, 3.0, 8.0, 12.0)] == [
        2.0,
        2.0,
        8.0,
        8.0,
        None,
    ]


def test_the_straight_line_takes_zeros():
    curve = Curve(x=X[:3], y=(0.0, 0.1, 0.2))
    assert straight_line(curve, [800.0]) == pytest.approx([0.3], abs=0.02)
    assert straight_line(Curve(x=X[:1], y=(0.4,)), [1.0, 2.0]).tolist() == [0.4, 0.4]


def test_an_origin_that_is_refused_is_left_out():
    def refuses(known, later):
        if len(known.x) == 5:
            raise InputError("no")
        return power3(known, later)

    assert len(rolling(Curve(x=X, y=tuple(exact(X))), refuses)) == 3


def test_a_curve_is_sorted_and_its_replicates_kept():
    curve = Curve(x=(4, 1, 2, 2), y=(0.4, 0.1, 0.2, 0.4), se=(4, 1, 2, 2), run=("d", "a", "b", "c"))
    assert curve.x == (1, 2, 2, 4) and curve.y == (0.1, 0.2, 0.4, 0.4) and curve.run == ("a", "b", "c", "d")
    assert curve.at(2) == pytest.approx(0.3) and curve.until(2).x == (1, 2, 2)
    assert not curve.single_run and Curve(x=(1, 2), y=(1, 2), run=("a", "a")).single_run
    dense = Curve(x=tuple(range(1, 11)), y=tuple(range(10)))
    assert dense.spaced(2.0).x == (1, 2, 5, 10)


def table(**columns):
    count = len(next(iter(columns.values())))
    return Dataset.from_rows(
        {"id": f"p{i}", **{name: values[i] for name, values in columns.items()}} for i in range(count)
    )


def test_columns_become_a_curve():
    points = table(
        x=[20, 10], y=[1.0, 2.0], se=[0.1, 0.2], run=["b", "a"], metric=["loss"] * 2, direction=[-1, -1]
    )
    curve = curve_of(points)
    assert (curve.x, curve.y, curve.se, curve.run) == ((10, 20), (2, 1), (0.2, 0.1), ("a", "b"))
    assert (curve.metric, curve.direction, curve.x_unit) == ("loss", -1, "x")
    assert curve_of(points, y="se", direction=1).direction == 1


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"x": [1.0, 2.0], "y": [1.0, float("nan")]}, "(?s)not usable.*point 2"),
        ({"x": [1.0, -2.0], "y": [1.0, 1.0]}, "(?s)not usable.*positive"),
        ({"x": [1.0, 2.0], "y": [1.0, None]}, "(?s)row p1, column 'y'"),
        ({"x": [1.0, 2.0], "z": [1.0, 2.0]}, "no column 'y'"),
        ({"x": [1, 1], "y": [1.0, 2.0], "seed": [3, 3]}, "(?s)twice.*p0 and p1"),
        ({"x": [1, 2], "y": [1.0, 2.0], "se": [0.1, None]}, "(?s)some points have a 'se'.*p1"),
        ({"x": [1, 2], "y": [1.0, 2.0], "phase": ["stable", "decay"]}, "(?s)learning-rate phases.*decay, stable"),
        ({"x": [1, 2], "y": [1.0, 2.0], "direction": [1, -1]}, "directions"),
    ],
)
def test_points_that_are_no_curve(columns, says):
    with pytest.raises(InputError, match=says):
        curve_of(table(**columns))


def test_too_few_points_and_too_narrow_a_span():
    with pytest.raises(InputError, match=r"(?s)too few points.*5 different.*4: 100, 200, 400, 800"):
        Curve(x=X[:4], y=X[:4]).require()
    with pytest.raises(InputError, match=r"(?s)span too little.*8 times.*4 times"):
        Curve(x=(1, 2, 2.5, 3, 4), y=(1, 2, 3, 4, 5)).require()
    assert Curve(x=X[:5], y=X[:5]).require().x == X[:5]
    # Replicates are no further sizes.
    with pytest.raises(InputError, match="too few"):
        Curve(x=X[:4] * 2, y=X[:4] * 2).require()
