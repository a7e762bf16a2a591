"""signals.instruction_quality: the fit of statsmodels, a planted rule, extrapolation, what it refuses."""

import warnings

import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.outliers_influence import variance_inflation_factor

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Result
from tutelage.signals.instruction_quality import InstructionQuality, eliminate, inflation, least_squares

PROOF = {"signals.instruction_quality": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/instruction_quality.py", "np.column_stack([np.ones(len(y)), x])", "x"),
    ("src/tutelage/signals/instruction_quality.py", "(errors @ errors) / free", "(errors @ errors) / len(y)"),
    ("src/tutelage/signals/instruction_quality.py", "y - errors / (1 - leverage)", "y - errors"),
    ("src/tutelage/signals/instruction_quality.py", "int(np.argmax(fit", "int(np.argmin(fit"),
    ("src/tutelage/signals/instruction_quality.py", "np.clip(z, -REACH, REACH)", "z"),
    ("src/tutelage/signals/instruction_quality.py", "np.log(losses)", "losses"),
    ("src/tutelage/signals/instruction_quality.py", "centred = x - x.mean(axis=0)", "centred = x"),
]
NAMES = ("length", "loss", "noise")


def planted(k=40, seed=0, error=0.02):
    """Subset means and ln loss = 0.5 - 0.002 length + 0.1 loss + noise; `noise` has no part in it."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.uniform(80, 200, k), rng.uniform(1, 4, k), rng.normal(size=k)])
    return x, 0.5 - 0.002 * x[:, 0] + 0.1 * x[:, 1] + error * rng.normal(size=k)


def table(x, y):
    return Dataset.from_rows(
        {"id": f"s{i}", **dict(zip(NAMES, row)), "held_out_loss": float(np.exp(value))}
        for i, (row, value) in enumerate(zip(x.tolist(), y.tolist()))
    )


def pool(n=200, seed=1):
    rng = np.random.default_rng(seed)
    values = np.column_stack([rng.uniform(100, 180, n), rng.uniform(1.5, 3.5, n), 0.5 * rng.normal(size=n)])
    rows = ({"id": f"r{i}", **dict(zip(NAMES, row))} for i, row in enumerate(values.tolist()))
    return values, Dataset.from_rows(rows)


def result(estimate, direction=-1):
    return Result(
        task="t", metric="m", direction=direction, estimate=estimate, n_items=1, no_interval="one measurement"
    )


def test_the_fit_is_statsmodels_fit():
    x, y = planted(30, 3, 0.1)
    mine, theirs = least_squares(x, y), sm.OLS(y, sm.add_constant(x)).fit()
    assert mine["coefficients"] == pytest.approx(theirs.params, rel=1e-8)
    assert mine["p"] == pytest.approx(theirs.pvalues, rel=1e-6)
    assert mine["r2"] == pytest.approx(theirs.rsquared)
    left_out = []
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        one = sm.OLS(y[others], sm.add_constant(x[others])).fit()
        left_out.append(one.predict(np.concatenate([[1.0], x[i]]))[0])
    assert mine["left_out"] == pytest.approx(left_out)
    assert mine["left_out_r2"] == pytest.approx(1 - ((y - left_out) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    assert mine["left_out_r2"] < mine["r2"] and 0.5 < mine["left_out_rank"] <= 1
    design = sm.add_constant(np.column_stack([x, x[:, 0] + 5 * x[:, 2]]) + np.array([0, 9, 0, 0]))
    noisy = design[:, 1:] + np.random.default_rng(0).normal(size=(30, 4))
    expected = [variance_inflation_factor(sm.add_constant(noisy), j) for j in range(1, 5)]
    assert inflation(noisy) == pytest.approx(expected)
    assert np.isinf(inflation(np.column_stack([x, x[:, 0]]))[[0, 3]]).all()


def test_a_planted_rule_is_found_within_two_standard_errors():
    x, y = planted()
    kept, fit = eliminate(x, y, 0.05)
    assert kept == [0, 1], "what plays no part is left out"
    errors = sm.OLS(y, sm.add_constant(x[:, :2])).fit().bse
    assert (np.abs(fit["coefficients"] - [0.5, -0.002, 0.1]) < 2 * errors).all()
    # Backwards, the least significant first: `a` and its copy with noise explain y together with nothing else.
    rng = np.random.default_rng(4)
    a = rng.normal(size=60)
    two = np.column_stack([a, a + 0.3 * rng.normal(size=60), rng.normal(size=60)])
    assert eliminate(two, a + 0.1 * rng.normal(size=60), 0.05)[0] == [0]


def test_rows_are_scored_by_the_rule():
    x, y = planted()
    values, rows = pool()
    scorer = InstructionQuality(indicators=NAMES)
    state = scorer.fit(rows, {"subsets": table(x, y)})
    assert state["names"] == ["length", "loss"] and state["r2"] > 0.9
    scored = score_dataset(scorer, rows, {"subsets": table(x, y)}).numpy("predicted_log_loss")
    theirs = sm.OLS(y, sm.add_constant(x[:, :2])).fit()
    assert scored == pytest.approx(theirs.predict(sm.add_constant(values[:, :2])))
    assert scored.mean() == pytest.approx(theirs.predict(np.concatenate([[1.0], values[:, :2].mean(axis=0)]))[0])


def test_rows_far_from_the_subsets_are_clipped_and_counted():
    x, y = planted()
    far = Dataset.from_rows(
        [
            {"id": "far", "length": 1e6, "loss": 2.0, "noise": 0.0},
            {"id": "edge", "length": float(x[:, 0].mean() + 3 * x[:, 0].std(ddof=1)), "loss": 2.0, "noise": 0.0},
            {"id": "none", "length": None, "loss": 2.0, "noise": 0.0},
        ]
    )
    found = score_dataset(InstructionQuality(indicators=NAMES), far, {"subsets": table(x, y)})
    scores = found.numpy("predicted_log_loss")
    assert scores[0] == pytest.approx(scores[1]) and np.isnan(scores[2])
    assert found.numpy("indicators_clipped")[0] == 1


def test_subsets_as_datasets_with_results_are_the_same_fit():
    x, y = planted(12)
    rng = np.random.default_rng(2)
    subsets = []
    for mean in x:
        off = rng.normal(size=(6, 3)) * [5, 0.1, 0.1]
        block = mean + off - off.mean(axis=0)
        subsets.append(
            Dataset.from_rows({"id": str(i), **dict(zip(NAMES, row))} for i, row in enumerate(block.tolist()))
        )
    _, rows = pool()
    scorer = InstructionQuality(indicators=NAMES)
    given = {"subsets": subsets, "results": [result(float(np.exp(v))) for v in y]}
    plain = score_dataset(scorer, rows, {"subsets": table(x, y)}).numpy("predicted_log_loss")
    assert score_dataset(scorer, rows, given).numpy("predicted_log_loss") == pytest.approx(plain)
    with pytest.raises(ConfigError, match="loss of every subset"):
        scorer.fit(rows, {**given, "results": given["results"][1:]})
    with pytest.raises(ConfigError, match="larger is better"):
        scorer.fit(rows, {**given, "results": [result(0.5, 1)] * 12})


def test_what_it_refuses():
    x, y = planted()
    _, rows = pool()
    scorer = InstructionQuality(indicators=NAMES)
    with pytest.raises(InputError, match="too few subsets") as error:
        scorer.fit(rows, {"subsets": table(x[:7], y[:7])})
    assert "at least 8 subsets" in str(error.value)
    with pytest.raises(InputError, match="no indicator tells"):
        InstructionQuality(indicators=("noise",), significance=0.001).fit(rows, {"subsets": table(x, y)})
    still = x.copy()
    still[:, 2] = 7.0
    with pytest.raises(InputError, match="same mean in every subset"):
        scorer.fit(rows, {"subsets": table(still, y)})
    holes = x.copy()
    holes[3, 1] = np.nan
    with pytest.raises(InputError, match="subset 3"):
        scorer.fit(rows, {"subsets": table(holes, y)})
    twin = x.copy()
    twin[:, 2] = x[:, 0] + 0.01 * x[:, 2]
    with pytest.warns(UserWarning, match="variance inflation"):
        scorer.fit(rows, {"subsets": table(twin, y)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer.fit(rows, {"subsets": table(x, y)})
    with pytest.raises(InputError, match="n_tokens"):
        InstructionQuality().fit(rows, {"subsets": table(x, y)})
    with pytest.raises(InputError, match="other_loss"):
        InstructionQuality(indicators=NAMES, loss_column="other_loss").fit(rows, {"subsets": table(x, y)})
    with pytest.raises(ConfigError, match="indicators"):
        InstructionQuality(indicators=())
