"""signals.influence_regressor against scikit-learn's ridge regression, and on planted scores."""

import numpy as np
import pytest

from toy.planted_pool import make_pool
from tutelage.core.apply import apply_transform, score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.records import Budget
from tutelage.data.select.gumbel_top_k import GumbelTopK
from tutelage.signals.influence_regressor import InfluenceRegressor, held_out, ridge

PROOF = {"signals.influence_regressor": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/influence_regressor.py", "centred = kernel - kernel.mean(axis=0)", "centred = kernel"),
    ("src/tutelage/signals/influence_regressor.py", " - y[~out].mean()", ""),
    ("src/tutelage/signals/influence_regressor.py", "fold == number", "fold != number"),
    ("src/tutelage/signals/influence_regressor.py", "int(np.argmax(found))", "int(np.argmin(found))"),
    ("src/tutelage/signals/influence_regressor.py", "if found[best] < NOISE:", "if found[best] < -NOISE:"),
    ("src/tutelage/signals/influence_regressor.py", "y[usable].mean()) / y[usable].std()", "y[usable].mean())"),
]


def pool(count=300, seed=1, noise=0.3):
    """Rows whose influence depends on their kind, with noise; the first third is probed."""
    rng = np.random.default_rng(seed)
    worth = {"prose": 0.0, "target": 2.0, "template": -2.0}
    rows = make_pool(count, seed=seed, shares=dict.fromkeys(worth, 1))
    return [
        {
            "id": row["id"],
            "text": row["text"],
            "kind": row["kind"],
            "influence": worth[row["kind"]] + noise * rng.normal(),
        }
        for row in rows
    ]


def predicted(rows, probes, **fields):
    inputs = {"fit_on": Dataset.from_rows(probes)}
    return score_dataset(InfluenceRegressor(**fields), Dataset.from_rows(rows), inputs)


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_equals_scikit_learn(penalty):
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(40, 5)) + 3.0, rng.normal(size=(7, 5))
    y = x @ rng.normal(size=5) + rng.normal(size=40) + 10
    centred = x - x.mean(axis=0)
    alpha = penalty * np.trace(centred @ centred.T) / 40
    expected = Ridge(alpha=alpha).fit(x, y).predict(new)
    dual, offset = ridge(x @ x.T, y, penalty)
    assert np.allclose(new @ x.T @ dual + offset, expected)
    assert np.allclose(new @ (x.T @ dual) + offset, expected)


def test_held_out_rows_are_not_seen():
    from sklearn.linear_model import Ridge

    rng = np.random.default_rng(1)
    x, y, fold = rng.normal(size=(30, 4)), rng.normal(size=30), np.arange(30) % 3
    found = held_out(x @ x.T, y, 0.1, fold)
    for number in range(3):
        inside = x[fold != number]
        alpha = 0.1 * np.trace((inside - inside.mean(0)) @ (inside - inside.mean(0)).T) / len(inside)
        model = Ridge(alpha=alpha).fit(inside, y[fold != number])
        assert np.allclose(found[fold == number], model.predict(x[fold == number]) - y[fold != number].mean())


@pytest.mark.parametrize("ngrams", [1, 2])
def test_planted_scores_are_recovered_from_words(ngrams):
    from scipy.stats import spearmanr

    rows = pool()
    found = predicted(rows, rows[:100], ngrams=ngrams)
    rest = found.numpy("influence_hat")[100:]
    assert (
        spearmanr(rest, [row["influence"] for row in rows[100:]]).statistic > 0.85
    )  # 0.94 is the most: within a kind there is only noise
    spearman = found.numpy("influence_hat_spearman")
    assert len(set(spearman)) == 1 and 0.8 < spearman[0] < 1.0
    # Standardised, so that predictions for probes of all kinds have mean 0 and a spread of about 1.
    assert abs(found.numpy("influence_hat")[:100].mean()) < 0.05
    assert 0.8 < found.numpy("influence_hat")[:100].std() < 1.1


def test_vectors_may_stand_for_words():
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(120, 6))
    slope = rng.normal(size=6)
    rows = [
        {"id": f"r{i}", "text": "x", "vector": v.tolist(), "lift": float(v @ slope)} for i, v in enumerate(vectors)
    ]
    found = predicted(rows, rows[:60], column="lift", embedding_column="vector").numpy("influence_hat")
    expected = (vectors @ slope - (vectors[:60] @ slope).mean()) / (vectors[:60] @ slope).std()
    assert np.corrcoef(found, expected)[0, 1] > 0.999
    assert np.polyfit(expected, found, 1) == pytest.approx([1.0, 0.0], abs=0.15)  # shrunk a little


def test_noise_is_called_noise():
    rows = pool()
    rng = np.random.default_rng(7)
    for row in rows:
        row["influence"] = rng.normal()
    with pytest.warns(UserWarning, match="is noise"):
        found = predicted(rows, rows[:250], seed=1)
    assert found.numpy("influence_hat_spearman")[0] < 0.1


def test_rows_without_a_word_or_a_measurement():
    rows = pool()
    rows[0]["influence"] = float("nan")
    found = predicted([*rows[:3], {"id": "empty", "text": "", "influence": 0.0}], rows[:90])
    assert np.isnan(found.numpy("influence_hat")).tolist() == [False, False, False, True]


def test_sampling_by_the_prediction_prefers_what_helps():
    rows = pool()
    found = predicted(rows, rows[:100])
    method = GumbelTopK(column="influence_hat", budget=Budget(rows=60))
    kept = apply_transform(method, found, {"seed": 0}).column("kind").to_pylist()
    assert kept.count("target") > 2 * kept.count("template") and len(set(kept)) > 1


def test_mistakes_are_named():
    rows = pool(60)
    with pytest.raises(InputError, match="too little to learn from"):
        predicted(rows, rows[:9])
    with pytest.raises(InputError, match="too little to learn from"):
        predicted(rows, [{**row, "influence": 1.0} for row in rows])
    with pytest.raises(InputError, match="no column 'vec'"):
        predicted(rows, rows, embedding_column="vec")
    with pytest.raises(InputError):
        predicted(rows, rows, column="influense")
