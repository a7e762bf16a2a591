"""forecasting.in_context_ceiling: planted coefficients, the identity, shuffled models, too few models."""

import numpy as np
import pytest

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.forecasting.in_context_ceiling import (
    InContextCeiling,
    left_out,
    rank_correlation,
    ridge,
    ridge_predict,
)

PROOF = {"forecasting.in_context_ceiling": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/forecasting/in_context_ceiling.py", "penalty * np.eye", "0.0 * penalty * np.eye"),
    ("src/tutelage/forecasting/in_context_ceiling.py", "beta[: x.shape[1]] / spread", "beta[: x.shape[1]]"),
    ("src/tutelage/forecasting/in_context_ceiling.py", "known = ~out", "known = out | ~out"),
    ("src/tutelage/forecasting/in_context_ceiling.py", "x[out, 0] - y[out]", "x[out, -1] - y[out]"),
    ("src/tutelage/forecasting/in_context_ceiling.py", "models >= MIN_MODELS", "models >= 2"),
    (
        "src/tutelage/forecasting/in_context_ceiling.py",
        "good = models >= MIN_MODELS, skill > 0",
        "good = True, True",
    ),
    ("src/tutelage/forecasting/in_context_ceiling.py", "x[asked][i, 0] > self.margin", "x[asked][i, 0] > 0"),
    ("src/tutelage/forecasting/in_context_ceiling.py", "np.sqrt(1 + 1 / models)", "np.sqrt(1 / models)"),
    ("src/tutelage/forecasting/in_context_ceiling.py", "weight *= counts[place]", "weight = counts[place]"),
]
TASKS = {"a": 0.0, "b": 0.08, "c": -0.05, "d": 0.02}


def rows(models=12, noise=0.01, seed=0, untuned=0, beta=0.7, gamma=0.2):
    rng = np.random.default_rng(seed)
    found = []
    for m in range(models):
        skill = rng.uniform(0.2, 0.7)
        for task, effect in TASKS.items():
            k, zero = skill + 0.1 * rng.normal(), skill - 0.1 + 0.1 * rng.normal()
            tuned = 0.15 + beta * k + gamma * zero + effect + noise * rng.normal()
            row = {"model": f"m{m}", "task": task, "k_shot": k, "zero_shot": zero}
            found.append({**row, "id": f"{m}{task}", "tuned": None if m < untuned else tuned, "truth": tuned})
    return found


def forecast(data, **fields):
    method = InContextCeiling(**fields)
    return method.predict(method.fit(Dataset.from_rows(data), {}), None)


def test_planted_coefficients_are_recovered():
    result = forecast(rows(40, noise=0.01), penalty=0.01)
    assert (result.extra["beta_k_shot"], result.extra["beta_zero_shot"]) == pytest.approx((0.7, 0.2), abs=0.03)
    assert result.extra["skill"] > 0.5 and result.interval is not None
    assert result.extra["error_ridge"] < 0.02 < result.extra["error_identity"]


def test_an_untuned_model_is_foretold():
    data = rows(16, untuned=1)
    result = forecast(data)
    truth = np.mean([row["truth"] for row in data[:4]])
    assert result.estimate == pytest.approx(truth, abs=0.03)
    assert result.interval.lo < truth < result.interval.hi
    assert result.n_items == 60 and result.n_clusters == 15
    (table,) = result.system["tables"]
    assert [row[:2] for row in table["rows"]] == [["m0", task] for task in "abcd"]
    gains = [row["truth"] - row["k_shot"] for row in data[:4]]
    assert [float(row[4]) > 0.9 for row in table["rows"]] == [gain > 0.05 for gain in gains]
    assert forecast(data, margin=0.9).extra["p_worth"] == 0.0


def test_the_interval_covers_new_models():
    inside = 0
    for seed in range(40):
        data = rows(9, noise=0.02, seed=seed, untuned=1)
        result = forecast(data, draws=100)
        truth = np.mean([row["truth"] for row in data[:4]])
        inside += result.interval is not None and result.interval.lo <= truth <= result.interval.hi
    assert inside >= 35


def test_shuffled_models_have_no_skill_and_the_page_says_so():
    data = rows(12)
    rng = np.random.default_rng(1)
    for task in TASKS:
        same = [row for row in data if row["task"] == task]
        for row, tuned in zip(same, rng.permutation([row["tuned"] for row in same])):
            row["tuned"] = float(tuned)
    result = forecast(data)
    assert result.extra["skill"] <= 0 and result.interval is None and result.no_interval == "no skill"
    assert "no skill" in result.system["told"][0] and "k-shot score is shown" in result.system["told"][2]
    assert result.estimate == pytest.approx(np.mean([row["k_shot"] for row in data]))


def test_the_identity_cannot_be_beaten_where_it_holds():
    data = [{**row, "tuned": row["k_shot"]} for row in rows(10)]
    result = forecast(data)
    assert result.extra["error_identity"] == 0.0 and result.extra["skill"] < 0
    law = ridge(
        np.array([[row["k_shot"], row["zero_shot"]] for row in data]),
        np.array([row["tuned"] for row in data]),
        np.array([row["task"] for row in data]),
        1e-9,
    )
    assert (law["alpha"], *law["slopes"]) == pytest.approx((0, 1, 0), abs=1e-6)


def test_ridge_equals_sklearns():
    linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(0)
    x, y, tasks = rng.normal(size=(30, 2)) * [3, 0.2], rng.normal(size=30), rng.choice(list("abc"), 30)
    ours = ridge_predict(ridge(x, y, tasks, 2.0), x, tasks)
    design = np.concatenate(
        [(x - x.mean(0)) / x.std(0), (tasks[:, None] == np.unique(tasks)).astype(float)], axis=1
    )
    assert ours == pytest.approx(linear.Ridge(alpha=2.0).fit(design, y).predict(design))


def test_who_is_left_out_is_not_known():
    data = rows(6)
    x = np.array([[row["k_shot"]] for row in data])
    y = np.array([row["tuned"] for row in data])
    groups = {kind: np.array([row[kind] for row in data]) for kind in ("model", "task")}
    errors = left_out(x, y, groups, "model", 1.0)
    first = groups["model"] == "m0"
    other = y.copy()
    other[first] += 5.0
    moved = left_out(x, other, groups, "model", 1.0)
    assert moved["ridge"][first] == pytest.approx(errors["ridge"][first] - 5.0)
    assert errors["task mean"][0] == pytest.approx(y[[4, 8, 12, 16, 20]].mean() - y[0])
    by_task = left_out(x, y, groups, "task", 1.0)
    assert by_task["model mean"][0] == pytest.approx(y[1:4].mean() - y[0])


def test_the_correlation_counts_models_and_tasks_not_rows():
    data = rows(12)
    groups = {kind: np.array([row[kind] for row in data]) for kind in ("model", "task")}
    k, y = (np.array([row[name] for row in data]) for name in ("k_shot", "tuned"))
    rho, low, high = rank_correlation(k, y, groups, 400, 0)
    alone = {"model": np.arange(48).astype(str), "task": np.zeros(48).astype(str)}
    _, rows_low, rows_high = rank_correlation(k, y, alone, 400, 0)
    assert rows_low < rho - 0.01 and rows_high > rho + 0.01
    assert low < rho < high and high - low > 1.3 * (rows_high - rows_low)


def test_fewer_than_six_models_are_descriptive_only():
    result = forecast(rows(5))
    assert result.no_interval.startswith("descriptive only") and result.extra["skill"] > 0


def test_refusals():
    with pytest.raises(InputError, match="too few models"):
        forecast(rows(1))
    bad = rows(6)
    bad[3]["k_shot"] = None
    with pytest.raises(InputError, match=r"(?s)lacks a score.*row 0d"):
        forecast(bad)
    with pytest.raises(InputError, match="no column 'tuned'"):
        forecast([{name: value for name, value in row.items() if name != "tuned"} for row in rows(6)])
