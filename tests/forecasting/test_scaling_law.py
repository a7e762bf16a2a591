"""forecasting.scaling_law: planted ladders, the optimum against a grid, leave-largest-out by hand, refusals."""

import numpy as np
import pytest

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.forecasting.scaling_law import (
    ScalingLaw,
    critical_batch,
    data_for,
    leave_largest_out,
    naive,
    optimal_size,
)

PROOF = {"forecasting.scaling_law": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/forecasting/scaling_law.py", "(compute / 6) **", "compute **"),
    ("src/tutelage/forecasting/scaling_law.py", "(1 / (a + b))", "(1 / (a - b))"),
    ("src/tutelage/forecasting/scaling_law.py", '(constants["B"] / left)', '(left / constants["B"])'),
    ("src/tutelage/forecasting/scaling_law.py", "known = x[:, 0] < size", "known = x[:, 0] <= size"),
    ("src/tutelage/forecasting/scaling_law.py", "(abs(share[i]), i)", "(-abs(share[i]), i)"),
    ("src/tutelage/forecasting/scaling_law.py", "min(tests, key", "max(tests, key"),
    ("src/tutelage/forecasting/scaling_law.py", "e_min / s_min)}", "s_min / e_min)}"),
    ("src/tutelage/forecasting/scaling_law.py", "target[0] / x[:, 0].max(), compute", "compute"),
    ("src/tutelage/forecasting/scaling_law.py", "at * largest]", "at]"),
    ("src/tutelage/forecasting/scaling_law.py", "    if robust:", "    if False:"),
]
LAW = {"E": 1.8, "A": 400.0, "a": 0.34, "B": 600.0, "b": 0.36}
SIZES = (1e6, 4e6, 1.6e7, 6.4e7, 2.56e8)


def loss(size, data, E=1.8, A=400.0, a=0.34, B=600.0, b=0.36):
    return E + A * size**-a + B * data**-b


def ladder(sizes=SIZES, shares=(5, 20, 80, 320), noise=0.0, seed=0, **law):
    x = np.array([(n, n * share) for n in sizes for share in shares])
    rng = np.random.default_rng(seed)
    return x, loss(x[:, 0], x[:, 1], **law) * (1 + noise * rng.normal(size=len(x)))


def points(x, y, **columns):
    rows = [{"id": f"r{i}", "size": n, "x": d, "y": float(v)} for i, ((n, d), v) in enumerate(zip(x.tolist(), y))]
    return Dataset.from_rows({**row, **{n: c[i] for n, c in columns.items()}} for i, row in enumerate(rows))


def forecast(data, at, inputs=None, **fields):
    method = ScalingLaw(**fields)
    return method.predict(method.fit(data, inputs or {}), at)


def test_a_planted_ladder_is_recovered_and_foretold():
    result = forecast(points(*ladder()), 1e9, at_data=4e10)
    assert result.estimate == pytest.approx(loss(1e9, 4e10), rel=1e-6)
    shown = result.system["forecasts"][0]
    assert shown["form"] == "twovar" and shown["status"] == "skill"
    assert shown["parameters"] == pytest.approx(LAW, rel=1e-4)
    assert shown["ratio"] == pytest.approx(1e9 / 2.56e8)
    assert result.direction == -1 and result.n_items == 20
    # Without a number of tokens: as many for each parameter as the largest run.
    assert forecast(points(*ladder()), 1e9, force=True).estimate == pytest.approx(loss(1e9, 3.2e11), rel=1e-6)


def test_the_interval_covers_the_truth_and_the_back_test_stands_beside():
    inside = 0
    for seed in range(6):
        result = forecast(points(*ladder(noise=0.003, seed=seed)), 5e8, at_data=4e10, form="twovar")
        inside += result.interval.lo <= loss(5e8, 4e10) <= result.interval.hi
        assert result.extra["error"] < 0.05 and result.extra["error"] < result.extra["error_line"]
    assert inside >= 5


def test_the_optimum_is_that_of_a_grid():
    for compute in (1e18, 1e21):
        size, data = optimal_size(LAW, compute)
        assert 6 * size * data == pytest.approx(compute)
        grid = np.geomspace(size / 10, size * 10, 20001)
        assert size == pytest.approx(grid[loss(grid, compute / 6 / grid).argmin()], rel=1e-3)
    assert loss(3e8, data_for(LAW, 3e8, 2.6)) == pytest.approx(2.6)
    assert data_for(LAW, 1e6, 2.0) == float("inf")
    result = forecast(points(*ladder()), 1e9, at_data=4e10)
    assert result.extra["optimal_size"] == pytest.approx(optimal_size(LAW, 6 * 1e9 * 4e10)[0], rel=1e-3)
    rows = result.system["tables"][0]["rows"]
    assert float(rows[2][1]) == pytest.approx(4e10, rel=1e-3) and len(rows) == 5


def test_the_back_test_decides_between_the_forms():
    x, y = ladder(E=0.0)
    assert forecast(points(x, y), 1e9, at_data=4e10).system["forecasts"][0]["form"] in ("trajectory", "twovar")
    x, y = ladder()
    tests = ScalingLaw().fit(points(x, y), {})["tests"]
    assert {test.ratio for test in tests["twovar"]} == {4.0, 16.0}
    assert max(test.error for test in tests["twovar"]) < 1e-6 < 1e-3 < min(t.error for t in tests["trajectory"])
    asked = forecast(points(x, y), 1e9, at_data=4e10, form="trajectory")
    assert asked.system["forecasts"][0]["form"] == "trajectory"


def test_leave_largest_out_by_hand():
    x, y = ladder()
    near, far = leave_largest_out(x, y, "twovar")
    # Sizes four and five, four runs each: one is 16 times beyond in compute, the rest 4 times in size.
    assert (near.ratio, near.points, far.ratio, far.points) == (4, 6, 16, 2)
    target = x[-1]
    last, line = naive(x[:16], y[:16], target)
    assert last == y[15]  # 6.4e7 at 320 tokens a parameter
    like = [3, 7, 11, 15]
    slope, level = np.polyfit(np.log(x[like].prod(axis=1)), np.log(y[like]), 1)
    assert line == pytest.approx(np.exp(level + slope * np.log(target.prod())))
    # A larger run's result changes no forecast of a smaller one.
    other = y.copy()
    other[x[:, 0] == SIZES[-1]] *= 3
    bent = leave_largest_out(x[:16], other[:16], "twovar")
    assert bent == leave_largest_out(x[:16], y[:16], "twovar")


def test_one_run_for_each_size():
    sizes = np.array([1e6, 3e6, 1e7, 3e7, 1e8, 3e8])
    x = np.stack([sizes, 20 * sizes], axis=1)
    result = forecast(points(x, 1.5 + 300 * sizes**-0.4), 1e9, form="power3")
    assert result.estimate == pytest.approx(1.5 + 300 * 1e9**-0.4, rel=1e-6)
    assert result.unit == "size" and "optimal_size" not in result.extra
    plain = forecast(points(x, 300 * sizes**-0.4), 1e9, form="power2")
    assert plain.extra["value"] == pytest.approx(300 * 1e9**-0.4, rel=1e-6)


def test_bad_runs_do_not_bend_a_robust_fit():
    x, y = ladder(noise=0.001)
    y[::6] *= 1.15
    truth = loss(1e9, 4e10)
    robust = forecast(points(x, y), 1e9, at_data=4e10, robust=True)
    assert robust.estimate == pytest.approx(truth, rel=0.01)
    squares = forecast(points(x, y), 1e9, at_data=4e10, form="twovar")
    assert abs(squares.extra["value"] / truth - 1) > 2 * abs(robust.estimate / truth - 1)
    assert robust.interval is None and "robust" in robust.no_interval


def test_the_hyperbola_of_batches():
    batch = np.array([1000.0, 2000.0, 4000.0, 8000.0])
    steps = np.array([3000.0, 2000.0, 1500.0, 1250.0])
    assert critical_batch(batch, steps) == pytest.approx({"s_min": 1000, "e_min": 2e6, "b_crit": 2000})
    batches = Dataset.from_rows({"batch": b, "steps": s} for b, s in zip(batch, steps))
    found = forecast(points(*ladder()), 1e9, {"batches": batches}, at_data=4e10)
    assert found.extra["b_crit"] == pytest.approx(2000)
    with pytest.raises(InputError, match="too few batch sizes"):
        critical_batch(batch[:2], steps[:2])
    with pytest.raises(InputError, match="no trade"):
        critical_batch(batch, batch)


def test_refusals():
    x, y = ladder()
    with pytest.raises(InputError, match=r"(?s)too few sizes.*4 different.*3: 1e\+06"):
        forecast(points(x[:12], y[:12]), 1e9)
    with pytest.raises(InputError, match="learning-rate phases"):
        forecast(points(x, y, phase=["stable"] * 19 + ["decay"]), 1e9)
    with pytest.raises(InputError, match=r"(?s)too far.*16 times"):
        forecast(points(x, y), 1e10)
    with pytest.raises(InputError, match="not usable"):
        forecast(points(x, [*y[:-1], float("nan")]), 1e9)
    with pytest.raises(InputError, match="offset"):
        forecast(points(x, y), 1e9, form="trajectory", robust=True)
    with pytest.raises(ConfigError, match="at_data"):
        ScalingLaw(at_data=-1)


def test_columns_may_have_other_names():
    x, y = ladder()
    rows = [{"n": n, "tokens": d, "nll": float(v)} for (n, d), v in zip(x.tolist(), y)]
    method = ScalingLaw(size="n", data="tokens", y="nll", at_data=4e10, form="twovar")
    named = method.predict(method.fit(Dataset.from_rows(rows), {}), 1e9)
    assert named.estimate == pytest.approx(loss(1e9, 4e10), rel=1e-6) and named.unit == "n * tokens"
