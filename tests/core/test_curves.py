"""The fitting core: planted constants, scipy's answer, coverage of the profile, refusals."""

import numpy as np
import pytest
from scipy import optimize

from tutelage.core.errors import InputError
from tutelage.core.stats.curves import fit_curve
from tutelage.core.stats.robust_curves import fit_robust, predict_robust

MUTATIONS = [
    ("src/tutelage/core/stats/curves.py", "np.exp(-theta[:, None, :]", "np.exp(theta[:, None, :]"),
    (
        "src/tutelage/core/stats/curves.py",
        "(beta[:, signed] >= 0).all(axis=1)",
        "(beta[:, signed] >= -9).all(axis=1)",
    ),
    (
        "src/tutelage/core/stats/curves.py",
        "stats.f.ppf(level, 1, self.df) / self.df",
        "stats.f.ppf(level, 1, self.df)",
    ),
    ("src/tutelage/core/stats/curves.py", "stats.f.ppf(level, 1, self.df) / self.df", "4 / self.df"),
    ("src/tutelage/core/stats/curves.py", "(variance + noise)", "variance"),
    ("src/tutelage/core/stats/curves.py", "ZOOMS if pairs else 1", "1"),
    (
        "src/tutelage/core/stats/curves.py",
        "np.sqrt(np.maximum(limit - rss, 0.0)",
        "np.sqrt(np.maximum(limit, 0.0)",
    ),
    ("src/tutelage/core/stats/curves.py", "return 1 / errors", "return errors"),
    ("src/tutelage/core/stats/curves.py", "0.1 * np.median(size)", "10 * np.median(size)"),
    ("src/tutelage/core/stats/curves.py", "found.x if found.fun < loss(start) else start", "start"),
    ("src/tutelage/core/stats/robust_curves.py", "np.clip(residual, -DELTA, DELTA)", "residual"),
    ("src/tutelage/core/stats/robust_curves.py", "DELTA * (size - DELTA / 2)", "residual**2 / 2"),
]
DOUBLING = 100 * 2.0 ** np.arange(6)


def grid():
    sizes, data = np.meshgrid([1e6, 4e6, 1.6e7, 6.4e7], [1e8, 4e8, 1.6e9, 6.4e9])
    return np.stack([sizes.ravel(), data.ravel()], axis=1)


def law(x, E=1.8, A=400, a=0.34, B=600, b=0.36):
    return E + A * x[:, 0] ** -a + B * x[:, 1] ** -b


def test_the_published_numbers_of_a_saturating_curve():
    y = 0.92 - 1.4 * DOUBLING**-0.45
    assert np.round(y, 4).tolist() == [0.7438, 0.7910, 0.8256, 0.8509, 0.8694, 0.8829]
    fit = fit_curve("sat3", DOUBLING, y)
    assert fit.predict(12800)[0] == pytest.approx(0.9001, abs=5e-5)
    assert fit.parameters == pytest.approx({"c": 0.92, "b": 1.4, "a": 0.45}, rel=1e-6)
    assert fit.predict(np.inf)[0] == pytest.approx(0.92)
    assert not fit.flat and not fit.edge and fit.df == 3


@pytest.mark.parametrize(
    ("form", "values", "constants"),
    [
        ("power3", lambda x: 1.8 + 30 * x**-0.31, {"E": 1.8, "A": 30, "a": 0.31}),
        ("power2", lambda x: 30 * x**-0.31, {"A": 30, "a": 0.31}),
        ("loglin", lambda x: 0.2 + 0.05 * np.log(x), {"u": 0.2, "v": 0.05}),
        ("loglog", lambda x: np.exp(1.3) * x**-0.2, {"u": 1.3, "v": -0.2}),
        ("loglaw", lambda x: np.log(3 * x**0.5) ** 1.7, {"A": 3, "a": 0.5, "b": 1.7}),
        ("last", lambda x: x, {"value": 3200}),
    ],
)
def test_exact_data_give_back_their_constants(form, values, constants):
    fit = fit_curve(form, DOUBLING, values(DOUBLING))
    assert fit.parameters == pytest.approx(constants, rel=1e-5)
    expected = values(DOUBLING[-1:] if form == "last" else np.array([25600.0]))
    assert fit.predict(25600.0)[0] == pytest.approx(expected[0], rel=1e-6)


def test_an_unbounded_metric_may_rise_above_one():
    fit = fit_curve("sat3", DOUBLING, 60 - 90 * DOUBLING**-0.4, upper=None)
    assert fit.parameters == pytest.approx({"c": 60, "b": 90, "a": 0.4}, rel=1e-5)
    with pytest.raises(InputError, match=r"(?s)up to 1.*y = "):
        fit_curve("sat3", DOUBLING, 60 - 90 * DOUBLING**-0.4)


def test_two_variables_on_a_grid_are_recovered_exactly():
    x = grid()
    fit = fit_curve("twovar", x, law(x))
    assert fit.parameters == pytest.approx({"E": 1.8, "A": 400, "a": 0.34, "B": 600, "b": 0.36}, rel=1e-6)
    assert fit.interval([1e9, 1e11]) == pytest.approx((law(np.array([[1e9, 1e11]]))[0],) * 2, rel=1e-6)
    other = fit_curve("trajectory", x, law(x, E=0))
    assert other.parameters == pytest.approx({"A": 400, "a": 0.34, "B": 600, "b": 0.36}, rel=1e-6)


def test_agrees_with_scipy_from_the_true_start():
    rng = np.random.default_rng(3)
    y = (1.8 + 30 * DOUBLING**-0.4) * (1 + 0.005 * rng.normal(size=6))
    se = np.array([0.03, 0.01, 0.02, 0.01, 0.02, 0.01])
    model = lambda x, E, A, a: E + A * x**-a  # noqa: E731
    for sigma, given in ((y, None), (se, se)):
        theirs, _ = optimize.curve_fit(model, DOUBLING, y, p0=(1.8, 30, 0.4), sigma=sigma)
        ours = fit_curve("power3", DOUBLING, y, se=given).parameters
        assert list(ours.values()) == pytest.approx(theirs.tolist(), rel=1e-4)


def test_a_linear_forms_interval_is_the_textbooks():
    rng = np.random.default_rng(1)
    y = 5 + 0.3 * np.log(DOUBLING) + 0.05 * rng.normal(size=6)
    found = fit_curve("loglin", DOUBLING, y, se=np.ones(6)).interval(25600, level=0.9)
    design = np.stack([np.ones(6), np.log(DOUBLING)], axis=1)
    beta, rss = np.linalg.lstsq(design, y, rcond=None)[:2]
    row = np.array([1, np.log(25600)])
    half = 2.1318468 * np.sqrt(rss[0] / 4 * (row @ np.linalg.inv(design.T @ design) @ row))
    assert found == pytest.approx((row @ beta - half, row @ beta + half), rel=1e-6)
    wider = fit_curve("loglin", DOUBLING, y, se=np.ones(6)).interval(25600, level=0.9, new=True)
    new = 2.1318468 * np.sqrt(rss[0] / 4 * (1 + row @ np.linalg.inv(design.T @ design) @ row))
    assert wider == pytest.approx((row @ beta - new, row @ beta + new), rel=1e-6)


@pytest.mark.parametrize(("points", "ahead", "width"), [(5, 8, 0.17), (6, 2, None), (8, 8, 0.047)])
def test_the_profile_covers(points, ahead, width):
    """Noise .5 %: 95 % within binomial bounds of 400 draws; the widths say how little five points decide."""
    rng = np.random.default_rng(points)
    x = 100 * 2.0 ** np.arange(points)
    at = x[-1] * ahead
    truth, inside, again, widths = 1.8 + 30 * at**-0.4, 0, 0, []
    for _ in range(400):
        fit = fit_curve("power3", x, (1.8 + 30 * x**-0.4) * (1 + 0.005 * rng.normal(size=points)))
        lo, hi = fit.interval(at)
        inside += lo <= truth <= hi
        widths.append((hi - lo) / truth)
        lo, hi = fit.interval(at, new=True)
        again += lo <= truth * (1 + 0.005 * rng.normal()) <= hi
    assert 0.925 <= inside / 400 <= 0.975 and 0.925 <= again / 400 <= 0.975
    if width:
        assert np.median(widths) == pytest.approx(width, rel=0.2)


@pytest.mark.parametrize("noise", [0.003, 0.0003])
def test_the_profile_of_two_variables_covers(noise):
    inside, at = 0, np.array([[1e9, 1e10]])
    for seed in range(40):
        x = grid()
        fit = fit_curve("twovar", x, law(x) * (1 + noise * np.random.default_rng(seed).normal(size=16)))
        lo, hi = fit.interval(at[0])
        inside += lo <= law(at)[0] <= hi
    assert inside >= 35


def test_a_gain_is_a_difference_with_its_own_interval():
    y = 0.92 - 1.4 * DOUBLING**-0.45
    fit = fit_curve("sat3", DOUBLING, y)
    value, lo, hi = fit.gain(3200, np.inf)
    assert (value, lo, hi) == pytest.approx((0.92 - 0.8829, 0.92 - 0.8829, 0.92 - 0.8829), abs=1e-4)
    noisy = fit_curve("sat3", DOUBLING, y + 0.002 * np.array([1, -1, 1, 1, -1, 0]))
    value, lo, hi = noisy.gain(3200, 6400)
    assert 0 < lo < value < hi
    loss = fit_curve("power3", DOUBLING, 2 + 3 * DOUBLING**-0.5)
    assert loss.gain(100, 400)[0] == pytest.approx(3 / 20 - 3 / 10)


def test_signs_are_kept_and_a_constant_is_flat():
    for form in ("power3", "sat3", "loglin", "loglog"):
        assert fit_curve(form, DOUBLING, np.full(6, 0.7)).flat
    falling = fit_curve("sat3", DOUBLING, 0.5 + 1.4 * DOUBLING**-0.45)
    assert falling.flat and falling.parameters["b"] == 0
    below = fit_curve("power3", DOUBLING, 0.3 * DOUBLING**-0.2 - 0.05)
    assert below.parameters["E"] == 0 and below.interval(1e6)[0] == 0.0
    assert below.rss == pytest.approx(fit_curve("power2", DOUBLING, 0.3 * DOUBLING**-0.2 - 0.05).rss)
    assert fit_curve("power3", DOUBLING, 1 + DOUBLING**-3.0).edge


def test_a_zero_among_scores_does_not_rule_the_fit():
    y = np.array([0.0, 0.21, 0.42, 0.55, 0.6, 0.61])
    assert fit_curve("loglin", DOUBLING, y).predict(100.0)[0] < 0.1
    heavy = fit_curve("loglin", DOUBLING, y).predict(3200.0)[0]
    assert heavy == pytest.approx(0.8, abs=0.1)


def test_no_degrees_of_freedom_no_interval():
    fit = fit_curve("power3", DOUBLING[:3], 2 + 3 * DOUBLING[:3] ** -0.5)
    lo, hi = fit.interval(1e5)
    assert lo == 0.0 and hi == np.inf


def test_bad_runs_do_not_bend_a_robust_fit():
    rng = np.random.default_rng(0)
    x = np.stack([10 ** rng.uniform(7, 10, 60), 10 ** rng.uniform(9, 11.5, 60)], axis=1)
    y = law(x, 1.8, 480, 0.35, 2100, 0.37) * (1 + 0.001 * rng.normal(size=60))
    y[::10] *= 1.1
    found = fit_robust(x, y)
    assert found["E"] == pytest.approx(1.8, rel=0.01)
    assert (found["a"], found["b"]) == pytest.approx((0.35, 0.37), abs=0.01)
    at = np.array([[1e11, 1e12]])
    assert predict_robust(found, at)[0] == pytest.approx(law(at, 1.8, 480, 0.35, 2100, 0.37)[0], rel=0.005)
    squares = fit_curve("twovar", x, y)
    assert abs(squares.parameters["b"] - 0.37) > 0.05


def test_the_robust_fit_of_one_variable_is_that_of_all_starts():
    x = 10 ** np.linspace(2, 6, 12)
    y = 1.5 + 20 * x**-0.5
    assert fit_robust(x, y) == pytest.approx({"E": 1.5, "A": 20, "a": 0.5}, rel=1e-3)
    assert fit_robust(x, y, starts=None) == pytest.approx(fit_robust(x, y), rel=1e-3)
    with pytest.raises(InputError, match="logarithms"):
        fit_robust(x, y - 2)


@pytest.mark.parametrize(
    ("x", "y", "se", "says"),
    [
        ([1, 2], [1], None, "2 x, 1 y"),
        ([1, -2], [1, 1], None, "point 2"),
        ([1, 2], [1, np.nan], None, "y = nan"),
        ([1, 2], [1, 2], [0.1, 0.0], "standard error"),
    ],
)
def test_refusals(x, y, se, says):
    with pytest.raises(InputError, match=says):
        fit_curve("power3", x, y, se=se)
