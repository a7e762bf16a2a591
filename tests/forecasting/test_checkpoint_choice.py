"""forecasting.checkpoint_choice: oracle, random and reversed criteria, ties, one standard error, too few runs."""

import numpy as np
import pytest
from scipy import stats

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.forecasting.checkpoint_choice import CheckpointChoice, choose, earned

PROOF = {"forecasting.checkpoint_choice": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/forecasting/checkpoint_choice.py", '- rows[f"{name}_se"][best]', ""),
    (
        "src/tutelage/forecasting/checkpoint_choice.py",
        "abs(float(values.max()))))[-1])",
        "abs(float(values.max()))))[0])",
    ),
    ("src/tutelage/forecasting/checkpoint_choice.py", "if count < MIN_RUNS", "if count < 1"),
    ("src/tutelage/forecasting/checkpoint_choice.py", "bounds(values, seed)[1]", "bounds(values, seed)[0]"),
    ("src/tutelage/forecasting/checkpoint_choice.py", "rule != LAST, rule", "rule == LAST, rule"),
    ("src/tutelage/forecasting/checkpoint_choice.py", '(-1 if given.startswith("-") else 1)', "1"),
    ("src/tutelage/forecasting/checkpoint_choice.py", "np.delete(values, number)", "values"),
    ("src/tutelage/forecasting/checkpoint_choice.py", 'argsort(columns["x"][mine]', 'argsort(-columns["x"][mine]'),
    ("src/tutelage/forecasting/checkpoint_choice.py", "stats.rankdata(rows[name])", "rows[name]"),
]


def runs(count=12, points=8, seed=0, noise=0.01, open_=1, **changes):
    """Scores rise and fall again; the validation loss follows them with noise, `blind` does not."""
    rng = np.random.default_rng(seed)
    rows = []
    for r in range(count + open_):
        peak = rng.uniform(2, points - 3)
        for x in range(points):
            score = 0.8 - 0.02 * (x - peak) ** 2
            row = {"id": f"{r}-{x}", "run": f"run{r}", "x": float(x + 1), "score": score if r < count else None}
            row |= {"validation_loss": 1 - score + noise * rng.normal(), "blind": rng.random()}
            rows.append({**row, "truth": score, **{name: make(score, x) for name, make in changes.items()}})
    return rows


def decide(rows, **fields):
    method = CheckpointChoice(**fields)
    return method.predict(method.fit(Dataset.from_rows(rows), {}), None)


def test_a_good_criterion_earns_its_use():
    rows = runs()
    result = decide(rows, criteria=("-validation_loss", "blind"))
    assert result.system["chosen"]["rule"] == "validation_loss"
    last = [row for row in rows if row["run"] == "run12"]
    kept = result.system["chosen"]["keep"]["run12"]
    assert kept == min(last, key=lambda row: row["validation_loss"])["x"]
    assert any("items that no criterion saw" in line for line in result.system["told"])
    assert result.estimate < 0.02 < result.extra["regret[last]"]
    assert result.extra["tau[validation_loss]"] > 0.8 > abs(result.extra["tau[blind]"])
    assert result.interval.lo <= result.estimate <= result.interval.hi and result.n_items == 12


def test_an_oracle_has_no_regret_and_a_random_choice_the_mean_one():
    rows = runs(60, oracle=lambda score, x: score)
    result = decide(rows, criteria=("oracle", "blind"))
    assert result.extra["regret[oracle]"] == 0.0 and result.system["chosen"]["rule"] == "oracle"
    by_run = {}
    for row in rows[: 60 * 8]:
        by_run.setdefault(row["run"], []).append(row["score"])
    expected = np.mean([max(scores) - np.mean(scores) for scores in by_run.values()])
    assert result.extra["regret[blind]"] == pytest.approx(expected, rel=0.2)
    tau = np.mean([stats.kendalltau(range(8), scores).statistic for scores in by_run.values()])
    assert result.extra["tau[last]"] == pytest.approx(tau)


def test_equal_checkpoints_have_no_regret_and_the_last_is_kept():
    result = decide([{**row, "score": 0.5 if row["score"] else None} for row in runs()])
    assert result.extra["regret[validation_loss]"] == result.extra["regret[last]"] == 0.0
    assert result.system["chosen"] == {"rule": "last", "keep": {"run12": 8.0}}


def test_a_criterion_of_the_wrong_direction_is_caught():
    result = decide(runs(), criteria=("validation_loss",))
    assert result.system["chosen"]["rule"] == "last"
    assert result.extra["regret[validation_loss]"] > result.extra["regret[last]"]
    assert result.extra["tau[validation_loss]"] < -0.8


def test_the_upper_bound_decides_and_not_the_mean():
    steady, risky = np.full(8, 0.03), np.array([0.0] * 7 + [0.2])
    assert risky.mean() < steady.mean()
    assert earned({"last": np.full(8, 0.5), "risky": risky, "steady": steady}, 0) == "steady"
    assert earned({"last": steady, "steady": steady}, 0) == "last"
    assert earned({"last": np.full(4, 0.5), "steady": np.zeros(4)}, 0) == "last"


def test_the_regret_reported_is_that_of_the_procedure():
    """A rule that is best only by one run is not chosen without it: that run's regret is another rule's."""
    rows = []
    for r in range(6):
        for x in range(3):
            score = [0.5, 0.6, 0.7][x] if r < 5 else [0.9, 0.0, 0.0][x]
            row = {"id": f"{r}-{x}", "run": f"r{r}", "x": float(x), "score": score}
            rows.append(
                {**row, "first": 2.0 - x if r == 5 else float(x) - 0.5 * (x == 2) * (r == 0) - (x == 2) * (r == 0)}
            )
    result = decide(rows, criteria=("first",))
    assert result.system["chosen"]["rule"] == "first"
    items = result.items.scores()
    assert items["run r5"] == pytest.approx(0.9) and result.extra["regret[first]"] < 0.05


def test_rules_by_hand():
    rows = {name: np.array(values, float) for name, values in HAND.items()}
    assert choose(rows, "last") == 4
    assert choose(rows, "a") == 4  # equal values: the later one
    assert choose(rows, "one se of a") == 1
    # Ranks of a: 1 3 2 4.5 4.5, of b: 5 4 1 3 2.
    assert choose(rows, "mean rank") == 3


HAND = {
    "x": [1, 2, 3, 4, 5],
    "a": [0.1, 0.75, 0.3, 0.8, 0.8],
    "a_se": [0.1, 0.1, 0.1, 0.06, 0.1],
    "b": [50, 4, 1, 3, 2],
}


def test_fewer_than_five_runs_keep_the_last():
    result = decide(runs(4))
    assert result.system["chosen"]["rule"] == "last" and result.no_interval == "4 of 5 past runs"


def test_the_order_of_rows_does_not_matter():
    rows = runs()
    order = np.random.default_rng(0).permutation(len(rows))
    a, b = decide(rows), decide([rows[i] for i in order])
    assert a.system["chosen"] == b.system["chosen"] and a.extra == pytest.approx(b.extra)


def test_standard_errors_make_a_rule():
    rows = [{**row, "validation_loss_se": 0.05} for row in runs()]
    result = decide(rows)
    assert "regret[one se of validation_loss]" in result.extra and "regret[mean rank]" not in result.extra


def test_refusals():
    with pytest.raises(InputError, match=r"(?s)lacks a number.*0-3.*validation_loss"):
        bad = runs()
        bad[3]["validation_loss"] = float("nan")
        decide(bad)
    with pytest.raises(InputError, match="no past run"):
        decide(runs(0))
    with pytest.raises(InputError, match="no column 'rank'"):
        decide(runs(), criteria=("rank",))


def test_columns_may_have_other_names():
    names = {"run": "trial", "x": "step", "score": "accuracy"}
    renamed = [{names.get(name, name): value for name, value in row.items()} for row in runs()]
    found = decide(renamed, run="trial", x="step", score="accuracy", seed=1)
    assert found.system["chosen"] == decide(runs()).system["chosen"]
