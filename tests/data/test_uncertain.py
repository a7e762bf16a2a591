"""data.select.uncertain: scipy's entropy, values by hand, ties by id, disagreement of classifiers, small pools."""

import numpy as np
import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Budget
from tutelage.data.select.uncertain import Uncertain, uncertainty

PROOF = {"data.select.uncertain": ["consistent", "verified"]}
MUTATIONS = [
    (
        "src/tutelage/data/select/uncertain.py",
        "entropies(mean) - entropies(probs).mean(axis=0)",
        "entropies(mean)",
    ),
    ("src/tutelage/data/select/uncertain.py", "return ordered[:, -2] - ordered[:, -1]", "return -ordered[:, -1]"),
    ("src/tutelage/data/select/uncertain.py", "-np.round(values, 12)))", "np.round(values, 12)))"),
    ("src/tutelage/data/select/uncertain.py", "return 1.0 - ordered[:, -1]", "return ordered[:, -1]"),
    ("src/tutelage/data/select/uncertain.py", "== dataset.num_rows else", "== -1 else"),
]
PROBS = [[0.5, 0.49, 0.01], [0.4, 0.3, 0.3], [0.9, 0.05, 0.05], [0.6, 0.4, 0.0]]


def data_of(probs, ids=None, **more):
    return Dataset.from_rows(
        {
            "id": ids[i] if ids else f"r{i}",
            "text": "some text",
            "classes": ["a", "b", "c"][: len(row)],
            "predicted_probs": list(row),
            **{name: list(values[i]) for name, values in more.items()},
        }
        for i, row in enumerate(probs)
    )


def taken(data, rows=1, **fields):
    return apply_transform(Uncertain(budget=Budget(rows=rows), **fields), data, {})


def test_each_measure_asks_for_another_row():
    assert taken(data_of(PROBS), by="margin").ids() == ["r0"]
    assert taken(data_of(PROBS), by="confidence").ids() == ["r1"]
    assert taken(data_of(PROBS), 2, by="entropy").ids() == ["r0", "r1"]
    assert taken(data_of(PROBS), 3, by="confidence").ids() == ["r0", "r1", "r3"]
    assert uncertainty(np.array([PROBS]), "margin") == pytest.approx([-0.01, -0.1, -0.85, -0.2])


def test_entropy_and_disagreement_are_those_of_scipy():
    from scipy.stats import entropy

    probs = np.random.default_rng(0).dirichlet(np.ones(4), (3, 20))
    assert np.allclose(uncertainty(probs[:1], "entropy"), entropy(probs[0], axis=1))
    expected = entropy(probs.mean(0), axis=1) - entropy(probs, axis=2).mean(0)
    assert np.allclose(uncertainty(probs, "bald"), expected)
    # Of classifiers that agree in all there is nothing to learn, however unsure they are.
    assert np.allclose(uncertainty(probs[[0, 0, 0]], "bald"), 0, atol=1e-12)


def test_several_classifiers():
    first, second = [[0.9, 0.1], [0.5, 0.5], [0.8, 0.2]], [[0.1, 0.9], [0.5, 0.5], [0.7, 0.3]]
    data = data_of(first, other=second)
    columns = ("predicted_probs", "other")
    assert taken(data, by="bald", columns=columns).ids() == ["r0"]
    found = taken(data, 2, by="margin", columns=columns)
    assert found.ids() == ["r0", "r1"] and found.report["mean_taken"] == pytest.approx(0.0)
    with pytest.raises(ConfigError, match="two columns"):
        Uncertain(by="bald")


def test_ties_go_by_id_whatever_the_order():
    # 0.1 + 0.2 is not 0.3: equal margins that differ in the last bit are equal.
    probs = [[0.7, 0.3], [0.7, 0.1 + 0.2], [0.3, 0.7], [0.8, 0.2]]
    assert taken(data_of(probs, ids=["d", "c", "b", "a"]), 2).ids() == ["c", "b"]
    assert taken(data_of(probs[::-1], ids=["a", "b", "c", "d"]), 2).ids() == ["b", "c"]


def test_a_small_pool_is_taken_whole():
    found = taken(data_of(PROBS), 10)
    assert found.num_rows == 4 and found.report["status"] == "pool_exhausted"
    some = taken(data_of(PROBS), 3)
    assert some.report["status"] == "selected"
    assert some.dropped.to_pylist() == [{"id": "r2", "reason": "not selected: margin -0.85"}]


def test_refusals():
    with pytest.raises(ConfigError, match="budget"):
        Uncertain(budget={"rows": 0})
    with pytest.raises(ConfigError, match="needs a budget"):
        apply_transform(Uncertain(), data_of(PROBS), {})
    with pytest.raises(InputError, match="no rows to ask about"):
        taken(data_of(PROBS).keep(np.zeros(4, bool), "gone"))
    with pytest.raises(InputError, match="no column 'missing'"):
        taken(data_of(PROBS), columns=("missing",))
