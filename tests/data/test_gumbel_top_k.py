"""data.select.gumbel_top_k against the exact law of sequential sampling."""

import itertools

import numpy as np
import pytest

from toy.selection import scored
from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Budget
from tutelage.core.text.hashing import uniform
from tutelage.data.select.gumbel_top_k import GumbelTopK, gumbel_keys, standardise

PROOF = {"data.select.gumbel_top_k": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/select/gumbel_top_k.py", "good / temperature - np.log", "good / temperature + np.log"),
    (
        "src/tutelage/data/select/gumbel_top_k.py",
        "good = signed(values, self.direction, self.column)",
        "good = values",
    ),
    ("src/tutelage/data/select/gumbel_top_k.py", "/ spread", "/ spread**2"),
    ("src/tutelage/data/select/gumbel_top_k.py", "standardise(values[here])", "standardise(values)[here]"),
]
P = np.array([0.5, 0.25, 0.15, 0.10])


def chosen(data, **fields):
    return apply_transform(GumbelTopK(**fields), data, {})


def test_pairs_follow_sampling_without_replacement():
    draws = 40_000
    u = uniform(0, [f"{d}-{i}" for d in range(draws) for i in range(4)]).reshape(draws, 4)
    top = np.sort(np.argsort(-gumbel_keys(np.log(P)[None, :], u, 1.0), axis=1)[:, :2], axis=1)
    for pair, stated in zip(itertools.combinations(range(4), 2), (0.417, 0.238, 0.156, 0.094, 0.061, 0.034)):
        i, j = pair
        exact = P[i] * P[j] / (1 - P[i]) + P[j] * P[i] / (1 - P[j])
        assert abs(exact - stated) < 6e-4
        found = ((top[:, 0] == i) & (top[:, 1] == j)).mean()
        assert abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / draws), pair


def test_temperature_goes_from_top_to_uniform():
    data = scored(400)
    budget = Budget(rows=40)
    cold = chosen(data, column="score", temperature=1e-6, budget=budget)
    best = np.sort(data.numpy("score")[~np.isnan(data.numpy("score"))])[-40:]
    assert np.allclose(np.sort(cold.numpy("score")), best)
    means = [
        chosen(data, column="score", temperature=t, budget=budget).numpy("score").mean() for t in (0.3, 1, 30)
    ]
    assert best.mean() > means[0] > means[1] > means[2]
    assert abs(means[2]) < 0.4


def test_low_scores_win_when_low_is_good():
    data = scored(400)
    low = chosen(data, column="bpb", direction="lower", temperature=0.5, budget=Budget(rows=60))
    high = chosen(data, column="bpb", direction="higher", temperature=0.5, budget=Budget(rows=60))
    everything = data.numpy("bpb").mean()
    assert low.numpy("bpb").mean() < 0.8 * everything < 1.2 * everything < high.numpy("bpb").mean()


def test_standardised_and_raw_scores():
    x = np.array([1.0, 2.0, 4.0, np.nan])
    z = standardise(x)
    assert np.isclose(np.nanmean(z), 0) and np.isclose(np.nanstd(z), 1) and np.isnan(z[3])
    rows = [{"id": f"r{i}", "text": "x", "score": float(s)} for i, s in enumerate(np.log(np.tile(P, 25)))]
    data = Dataset.from_rows(rows)
    once = chosen(data, column="score", standardise=False, budget=Budget(rows=10)).ids()
    scaled = Dataset.from_rows([{**r, "score": 5 * r["score"]} for r in rows])
    assert once != chosen(scaled, column="score", standardise=False, budget=Budget(rows=10)).ids()
    plain = chosen(data, column="score", budget=Budget(rows=10)).ids()
    assert plain == chosen(scaled, column="score", budget=Budget(rows=10)).ids()


def test_groups_are_standardised_by_themselves():
    rng = np.random.default_rng(0)
    level = {"easy": 5.0, "hard": -5.0}
    rows = [
        {"id": f"{g}{i}", "text": "x", "domain": g, "score": float(m + rng.normal() * (1 + abs(m) / 5))}
        for g, m in level.items()
        for i in range(300)
    ]
    data = Dataset.from_rows(rows)
    values = data.numpy("score")
    groups = np.array([r["domain"] for r in rows])
    z = standardise(values, groups)
    for g in level:
        here = values[groups == g]
        assert np.allclose(z[groups == g], (here - here.mean()) / here.std())
    cold = {"column": "score", "temperature": 0.01, "budget": Budget(rows=60)}
    together = chosen(data, **cold).column("domain").to_pylist()
    apart = chosen(data, **cold, standardise_within="domain").column("domain").to_pylist()
    assert together.count("easy") == 60 and 20 < apart.count("easy") < 40
    one = standardise(np.array([1.0, 3.0, np.nan, np.nan]), np.array(["a", "a", "a", "b"]))
    assert np.array_equal(one, [-1, 1, np.nan, np.nan], equal_nan=True)
    with pytest.warns(UserWarning, match="uniform among them"):
        assert standardise(np.array([2.0, 2.0, 1.0, 3.0]), np.array([0, 0, 1, 1])).tolist() == [0, 0, -1, 1]


def test_budgets_are_nested_and_equal_scores_warn():
    data = scored(200)
    sets = [set(chosen(data, column="score", budget=Budget(tokens=t)).ids()) for t in (50, 500)]
    assert sets[0] < sets[1]
    flat = Dataset.from_rows([{"id": f"r{i}", "text": "x", "score": 0.1} for i in range(20)])
    with pytest.warns(UserWarning, match="uniform"):
        assert chosen(flat, column="score", budget=Budget(rows=5)).num_rows == 5


def test_bad_input():
    with pytest.raises(ConfigError, match="temperature"):
        GumbelTopK(temperature=0)
    with pytest.raises(ConfigError, match="standardise: true"):
        GumbelTopK(standardise=False, standardise_within="domain")
    with pytest.raises(InputError, match="domain"):
        chosen(scored(), column="score", standardise_within="domain", budget=Budget(rows=3))
    with pytest.raises(ConfigError, match="say whether high or low"):
        chosen(scored(), column="bpb", budget=Budget(rows=3))


def test_seed_groups_and_short_stock():
    data = scored(200)
    budget = Budget(rows=30)
    draws = [chosen(data, column="score", budget=budget, seed=seed).ids() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    best = chosen(data, column="score", temperature=1e-6, budget=budget)
    groups = chosen(data, column="score", temperature=1e-6, budget=budget, group_column="source")
    counts = [c["rows_taken"] for c in groups.report["taken_from"]["source"].values()]
    assert counts == [10, 10, 10] and groups.ids() != best.ids()
    with pytest.raises(ConfigError, match="larger than what there is"):
        chosen(data, column="score", budget=Budget(rows=1000))
    assert chosen(data, column="score", budget=Budget(rows=1000), allow_short=True).num_rows == 199
