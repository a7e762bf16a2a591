"""evaluation.loyalty against scipy's Jensen-Shannon distance, hand tables and planted flips."""

import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon
from scipy.stats import pearsonr

from toy.labelled import labelled
from toy.lookup_model import LookupModel
from tutelage.core import discovery
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ComparisonError, InputError
from tutelage.core.items import ItemLog
from tutelage.core.stats.intervals import wilson
from tutelage.evaluation.loyalty import Loyalty, probability_loyalty
from tutelage.evaluation.multiple_choice import MultipleChoice

PROOF = {"evaluation.loyalty": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/loyalty.py", "np.log2(ratio)", "np.log(ratio)"),
    ("src/tutelage/evaluation/loyalty.py", "middle = (p + q) / 2", "middle = p + q"),
    ("src/tutelage/evaluation/loyalty.py", "a.said is not None and a.said == b.said", "a.said == b.said"),
    ("src/tutelage/evaluation/loyalty.py", "(moved & (was > now))", "(moved & (was < now))"),
    ("src/tutelage/evaluation/loyalty.py", "& (now < 1)", ""),
    ("src/tutelage/evaluation/loyalty.py", "own[name] - values[name]", "values[name] - own[name]"),
    ("src/tutelage/evaluation/loyalty.py", "values[name].mean()) / ceiling", "values[name].mean())"),
    ("src/tutelage/evaluation/loyalty.py", "np.argsort(np.argsort(sure", "np.argsort(np.argsort(-sure"),
    ("src/tutelage/evaluation/loyalty.py", "groups == name", "groups != name"),
    ("src/tutelage/evaluation/_paired_answers.py", "a.classes != b.classes or", ""),
]


def rows_of(said, truth=None, probs=None, **columns):
    return Dataset.from_rows(
        {"id": f"r{i}", "predicted": word}
        | ({} if truth is None else {"label": truth[i]})
        | ({} if probs is None else {"predicted_probs": probs[i], "classes": ["a", "b"]})
        | {name: values[i] for name, values in columns.items()}
        for i, word in enumerate(said)
    )


def measure(source, derived, again=None, **fields):
    return Loyalty(**fields).evaluate(None, None, {"source": source, "derived": derived, "again": again})


def test_probability_loyalty_is_one_less_scipys_distance():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(4), 50), rng.dirichlet(np.full(4, 0.2), 50)
    wanted = [1 - jensenshannon(a, b, base=2) for a, b in zip(p, q)]
    assert probability_loyalty(p, q) == pytest.approx(wanted, abs=1e-12)
    assert probability_loyalty(p, p) == pytest.approx(np.ones(50), abs=1e-7)
    assert probability_loyalty(np.eye(2), np.eye(2)[::-1]).tolist() == [0.0, 0.0]
    assert probability_loyalty(np.array([[0.9, 0.1]]), np.array([[0.6, 0.4]]))[0] == pytest.approx(
        0.6978, abs=5e-5
    )


def test_a_model_is_loyal_to_itself_and_shuffled_answers_are_at_chance():
    rng = np.random.default_rng(1)
    said = list(rng.choice(["a", "b"], 600))
    probs = [[0.8, 0.2] if word == "a" else [0.3, 0.7] for word in said]
    same = measure(rows_of(said, said, probs), rows_of(said, said, probs))
    assert same.estimate == 1 and same.extra["probability_loyalty"] == pytest.approx(1)
    assert same.extra["flips"] == same.extra["accuracy_change"] == 0 and "few_items" not in same.extra
    order = rng.permutation(600)
    mixed = measure(rows_of(said), rows_of([said[i] for i in order]))
    assert mixed.estimate == pytest.approx(0.5, abs=0.07)
    assert (mixed.interval.lo, mixed.interval.hi) == tuple(
        getattr(wilson(round(mixed.estimate * 600), 600), end) for end in ("lo", "hi")
    )


def test_flips_of_equally_accurate_models_are_counted():
    truth = ["a"] * 100
    source = ["a"] * 80 + ["b"] * 20
    derived = ["b"] * 12 + ["a"] * 68 + ["a"] * 12 + ["c"] * 5 + ["b"] * 3
    found = measure(rows_of(source, truth), rows_of(derived, truth))
    assert found.estimate == pytest.approx(0.71) and found.extra["flips"] == pytest.approx(0.29)
    assert found.extra["right_to_wrong"] == found.extra["wrong_to_right"] == 0.12
    assert found.extra["wrong_to_other_wrong"] == 0.05
    assert found.extra["accuracy_source"] == found.extra["accuracy_derived"] == 0.8
    assert found.extra["accuracy_change_lo"] < 0 < found.extra["accuracy_change_hi"] and found.extra["few_items"]
    worse = measure(rows_of(source, truth), rows_of(["b"] * 30 + ["a"] * 50 + ["b"] * 20, truth))
    assert worse.extra["right_to_wrong"] == 0.3 and worse.extra["wrong_to_right"] == 0
    assert worse.extra["accuracy_change"] == pytest.approx(-0.3)
    assert "flips" not in measure(rows_of(source), rows_of(derived)).extra


def test_two_right_answers_in_other_words_are_a_flip_and_no_mistake():
    def log(said):
        items = [{"item_key": str(i), "score": 1.0, "prediction": w, "target": "4"} for i, w in enumerate(said)]
        return ItemLog.from_rows(items)

    found = measure(log(["4", "four", "4"]), log(["4", "4", "4"])).extra
    assert found["flips"] == pytest.approx(1 / 3) and found["wrong_to_other_wrong"] == 0


def test_the_ceiling_is_how_loyal_the_source_is_to_itself():
    source, again = ["a"] * 100, ["a"] * 90 + ["b"] * 10
    derived = ["a"] * 81 + ["b"] * 19
    found = measure(rows_of(source), rows_of(derived), rows_of(again))
    assert found.extra["label_ceiling"] == pytest.approx(0.9)
    assert found.extra["label_share_of_ceiling"] == pytest.approx(0.9)
    assert found.extra["label_below_ceiling"] == pytest.approx(0.09)
    assert 0 < found.extra["label_below_ceiling_lo"] < 0.09 < found.extra["label_below_ceiling_hi"]


def test_breakdown_by_group_and_by_the_sources_confidence():
    sure = [0.6] * 30 + [0.7] * 30 + [0.9] * 30
    probs = [[p, 1 - p] for p in sure]
    derived = ["b"] * 30 + ["b"] * 15 + ["a"] * 15 + ["a"] * 30
    group = ["north" if i % 2 else "south" for i in range(90)]
    mine, theirs = (rows_of(said, None, probs, group=group) for said in (["a"] * 90, derived))
    found = measure(mine, theirs).extra
    assert [found[f"label_loyalty[{name}]"] for name in ("least sure", "middle", "surest")] == [0, 0.5, 1]
    north = [a == "a" for a, g in zip(derived, group) if g == "north"]
    assert found["label_loyalty[group north]"] == pytest.approx(np.mean(north))
    assert measure(mine, theirs).interval.covers == "clusters"


def test_numbers_are_compared_by_correlation_and_gap():
    rng = np.random.default_rng(2)
    x = rng.normal(size=200)
    y = 2 * x + rng.normal(size=200)
    found = measure(rows_of(list(x)), rows_of(list(y)), metric="regression")
    assert found.estimate == pytest.approx(pearsonr(x, y).statistic)
    assert found.extra["mean_absolute_gap"] == pytest.approx(np.abs(x - y).mean())
    bounds = pearsonr(x, y).confidence_interval()
    assert (found.interval.lo, found.interval.hi) == pytest.approx((bounds.low, bounds.high), abs=0.02)
    with pytest.raises(InputError, match="correlation is undefined"):
        measure(rows_of([1.0] * 20), rows_of(list(x[:20])), metric="regression")
    with pytest.raises(InputError, match="no regression loyalty"):
        measure(rows_of(["a"]), rows_of(["b"]), metric="regression")


def test_results_of_a_task_and_of_a_classifier():
    table = {("Q", " x"): -1.0, ("Q", " y"): -2.0, ("R", " x"): -1.0, ("R", " y"): -3.0}
    data = Dataset.from_rows({"prompt": p, "choices": ["x", "y"], "answer": 0} for p in "QR")
    one = MultipleChoice().evaluate(LookupModel(table), data, {})
    other = MultipleChoice().evaluate(LookupModel(table | {("R", " y"): -0.5}), data, {})
    found = measure(one, other, metric="probability")
    assert found.extra["label_loyalty"] == 0.5 and found.extra["right_to_wrong"] == 0.5
    p, q = np.exp([-1.0, -3.0]), np.exp([-1.0, -0.5])
    assert found.estimate == pytest.approx((1 + 1 - jensenshannon(p, q, base=2)) / 2)
    assert found.items.scores().keys() == one.items.scores().keys()
    made = discovery.build("adapters.tfidf_classifier").convert({}, labelled(20), {})
    result = discovery.build("evaluation.classification").evaluate(made, labelled(10, seed=1), {})
    assert measure(result, result).estimate == 1
    with pytest.raises(InputError, match="no probability loyalty"):
        measure(result, result, metric="probability")


def test_other_columns_and_answers_that_are_missing():
    rows = [{"id": str(i), "said": w, "truth": "a", "q": [0.5, 0.5]} for i, w in enumerate(["a", None, "b"])]
    data = Dataset.from_rows(rows)
    found = measure(data, data, predicted="said", label="truth", probs="q")
    assert found.estimate == pytest.approx(2 / 3) and found.extra["unanswered"] == pytest.approx(1 / 3)
    assert found.status_counts == {"ok": 2, "unparsed": 1}
    assert found.extra["accuracy_source"] == pytest.approx(1 / 3) and found.extra["probability_loyalty"] == 1


def test_bad_input():
    with pytest.raises(
        ComparisonError, match=r"not of the same items[\s\S]*first keys: r2[\s\S]*1 of 3 in source"
    ):
        measure(rows_of(["a"] * 3), rows_of(["a"] * 2))
    turned = Dataset.from_rows(
        [{"id": "r0", "predicted": "a", "predicted_probs": [1.0, 0.0], "classes": ["b", "a"]}]
    )
    with pytest.raises(InputError, match="different options"):
        measure(rows_of(["a"], None, [[1.0, 0.0]]), turned)
    with pytest.raises(InputError, match=r"inputs.derived[\s\S]*found:    str"):
        measure(rows_of(["a"]), "b")
    with pytest.raises(InputError, match="no column 'predicted'"):
        measure(rows_of(["a"]), Dataset.from_rows([{"id": "r0", "x": 1}]))
