"""evaluation.worst_case: identities of the rarefaction curve, enumeration of all lists, missing cells."""

from itertools import combinations

import numpy as np
import pytest

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ComparisonError, ConfigError, InputError
from tutelage.core.items import ItemLog
from tutelage.core.stats.intervals import wilson
from tutelage.evaluation.multiple_choice import MultipleChoice
from tutelage.evaluation.worst_case import WorstCase, rarefied

PROOF = {"evaluation.worst_case": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/worst_case.py", "comb(attacks - int(s), k)", "comb(attacks, k)"),
    ("src/tutelage/evaluation/worst_case.py", "score=float(cells.max())", "score=float(cells.mean() > 0.5)"),
    ("src/tutelage/evaluation/worst_case.py", "else 1.0 - score", "else score"),
    ("src/tutelage/evaluation/worst_case.py", 'row["status"] != "error"', "True"),
    ("src/tutelage/evaluation/worst_case.py", "if missing.any() and not self.allow_missing", "if False"),
    ("src/tutelage/evaluation/worst_case.py", "least.max(axis=1)", "most.max(axis=1)"),
]


def log(scores, keys=None, **columns):
    rows = [
        {"item_key": f"p{i}" if keys is None else keys[i], "score": float(s)}
        | {name: values[i] for name, values in columns.items()}
        for i, s in enumerate(scores)
    ]
    return ItemLog.from_rows(rows)


def measure(*attacks, benign=None, **fields):
    return WorstCase(**fields).evaluate(None, None, {"attacks": list(attacks), "benign": benign})


def planted(n=80, attacks=4, seed=0):
    return (np.random.default_rng(seed).random((attacks, n)) < [[0.05], [0.1], [0.2], [0.3]][:attacks]).astype(
        float
    )


def test_the_curve_is_the_mean_over_all_lists_of_that_length():
    won = planted()
    found = measure(*map(log, won))
    for k in range(1, 5):
        wanted = np.mean([won[list(chosen)].max(axis=0).mean() for chosen in combinations(range(4), k)])
        assert found.extra[f"any_of[{k}]"] == pytest.approx(wanted)
    assert found.estimate == found.extra["any_of[4]"] == won.max(axis=0).mean()
    assert found.extra["any_of[1]"] == pytest.approx(found.extra["mean_rate"]) == pytest.approx(won.mean())
    assert [found.extra[f"rate[attack {j + 1}]"] for j in range(4)] == pytest.approx(won.mean(axis=1))
    assert all(found.estimate >= rate for rate in won.mean(axis=1)) and found.direction == -1
    bounds = wilson(int(won.max(axis=0).sum()), 80)
    assert (found.interval.lo, found.interval.hi) == (bounds.lo, bounds.hi)


def test_nested_attacks_are_as_bad_as_the_strongest():
    weak = np.r_[np.ones(10), np.zeros(90)]
    strong = np.r_[np.ones(30), np.zeros(70)]
    found = measure(log(weak), log(strong), attacks=("typos", "rewrite"))
    assert found.estimate == found.extra["rate[rewrite]"] == 0.3 and found.extra["rate[typos]"] == 0.1
    rows = {row["item_key"]: row for row in found.items.table.to_pylist()}
    assert rows["p0"]["prediction"] == "typos, rewrite" and rows["p29"]["prediction"] == "rewrite"
    assert rows["p50"]["prediction"] is None and found.system["attacks"] == ["typos", "rewrite"]
    assert rarefied(np.array([0, 3]), 3, 1) == 0.5


def test_several_answers_are_several_attacks_and_clusters_are_kept():
    one = log([1, 0, 0, 0], ["p0", "p0", "p1", "p1"], sample_index=[0, 1, 0, 1], cluster=["t", "t", "u", "u"])
    found = measure(one, attacks=("sampled",))
    assert found.system["attacks"] == ["sampled, answer 1", "sampled, answer 2"] and found.estimate == 0.5
    assert found.extra["any_of[1]"] == 0.25 and found.n_clusters == 2
    together = log(planted()[3], cluster=[f"c{i // 8}" for i in range(80)])
    assert measure(together).interval.covers == "clusters"


def test_a_lost_answer_is_the_success_of_an_attack_on_accuracy():
    table = {("Q", " x"): -1.0, ("Q", " y"): -2.0, ("R", " x"): -1.0, ("R", " y"): -3.0}
    data = Dataset.from_rows({"prompt": p, "choices": ["x", "y"], "answer": 0} for p in "QR")
    right, lost = (
        MultipleChoice().evaluate(LookupModel(table | more), data, {}) for more in ({}, {("R", " y"): -0.5})
    )
    found = measure(right, lost, success="failure", attacks=("template 1", "template 2"))
    assert found.estimate == 0.5 and found.extra["rate[template 1]"] == 0
    assert found.system["weights"] == "lookup" and found.items.scores().keys() == right.items.scores().keys()
    assert measure(right, lost).estimate == 1.0


def test_missing_cells_give_bounds_and_never_a_defence():
    full, part = log([0, 0, 1, 0]), log([0, 0], ["p0", "p1"])
    with pytest.raises(ComparisonError, match=r"attack attack 2, item p2[\s\S]*2 cells missing"):
        measure(full, part)
    found = measure(full, part, allow_missing=True)
    assert (found.extra["least"], found.extra["most"], found.estimate) == (0.25, 0.5, 0.5)
    assert found.extra["missing_cells"] == 2 and found.extra["rate[attack 2]"] == 0
    broken = log([0, 0, 1, 0], status=["ok", "error", "ok", "refused"])
    with pytest.raises(ComparisonError, match="item p1"):
        measure(full, broken)
    assert "least" not in measure(full, full).extra


def test_the_benign_rate_stands_beside():
    assert measure(log([0, 1]), benign=log([1, 0, 0, 0], ["a", "b", "c", "d"])).extra["benign_refused"] == 0.25


def test_bad_input():
    with pytest.raises(InputError, match=r"succeeds or it does not[\s\S]*item p1[\s\S]*0.5"):
        measure(log([1, 0.5]))
    with pytest.raises(ConfigError, match="each attack has a name"):
        measure(log([1]), log([1]), attacks=("one",))
    with pytest.raises(ConfigError, match="at least one result"):
        measure()
    with pytest.raises(ConfigError, match="2 different names"):
        measure(log([1]), log([1]), attacks=("one", "one"))
    with pytest.raises(InputError, match="several training seeds"):
        measure(log([1, 1], ["p0", "p0"], train_seed=[0, 1]))
