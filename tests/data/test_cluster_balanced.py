"""data.select.cluster_balanced: quotas that sum to the budget, redistribution, order inside a cluster."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Budget
from tutelage.core.text.hashing import hash64
from tutelage.data.select.cluster_balanced import ClusterBalanced, quotas

PROOF = {"data.select.cluster_balanced": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/select/cluster_balanced.py", '"equal": stock > 0', '"equal": stock'),
    ("src/tutelage/data/select/cluster_balanced.py", "np.sqrt(stock)", "np.log1p(stock)"),
    ("src/tutelage/data/select/cluster_balanced.py", "    if rest.sum():\n", "    if False:\n"),
]


def corpus(sizes):
    return Dataset.from_rows(
        {"id": f"{name}{i}", "text": f"{name} {i}", "topic": name, "score": float(i), "n_tokens": 5}
        for name, n in sizes.items()
        for i in range(n)
    )


def taken(data, **fields):
    found = apply_transform(ClusterBalanced(cluster_column="topic", **fields), data, {})
    return found, Counter(found.column("topic").to_pylist())


def test_quotas_by_hand():
    stock = np.array([100, 25, 4, 0])
    # 12 / 3 each; sqrt: 10, 5, 2 of 17; proportional: 100, 25, 4 of 129, by largest remainder
    assert quotas(stock, 12, "equal").tolist() == [4, 4, 4, 0]
    assert quotas(stock, 17, "square_root").tolist() == [10, 5, 2, 0]
    assert quotas(stock, 12, "proportional").tolist() == [9, 2, 1, 0]
    # The third can give 4 of its 20: the other 16 are split as the remaining stock, 80 and 5.
    assert quotas(stock, 60, "equal").tolist() == [35, 21, 4, 0]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=12).filter(any),
    st.integers(0, 500),
    st.sampled_from(["equal", "square_root", "proportional"]),
)
def test_quotas_sum_to_the_budget_and_never_exceed_the_stock(stock, total, kind):
    stock = np.array(stock)
    given = quotas(stock, total, kind)
    assert given.sum() == min(total, stock.sum())
    assert ((given >= 0) & (given <= stock)).all()


def test_large_clusters_do_not_fill_the_selection():
    data = corpus({"big": 80, "middle": 15, "small": 2})
    found, counts = taken(data, budget=Budget(rows=20))
    # 7, 7, 6 wanted; the small one gives 2, its rest goes to the others by remaining stock (73 : 8).
    assert counts == {"big": 11, "middle": 7, "small": 2}
    assert found.report["clusters"] == found.report["clusters_taken"] == 3
    assert found.num_rows + found.dropped.num_rows == 97
    _, wide = taken(data, budget=Budget(rows=20), quotas="square_root")
    assert wide == {"big": 13, "middle": 5, "small": 2}
    _, flat = taken(data, budget=Budget(rows=20), quotas="proportional")
    assert flat == {"big": 17, "middle": 3}


def test_a_token_budget_is_spread_too():
    _, counts = taken(corpus({"big": 80, "small": 20}), budget=Budget(tokens=100))
    assert counts == {"big": 10, "small": 10}


def test_inside_a_cluster_by_score_or_by_hash():
    data = corpus({"a": 10, "b": 10})
    best, _ = taken(data, budget=Budget(rows=4), column="score", direction="higher")
    assert sorted(best.ids()) == ["a8", "a9", "b8", "b9"]
    worst, _ = taken(data, budget=Budget(rows=4), column="score", direction="lower")
    assert sorted(worst.ids()) == ["a0", "a1", "b0", "b1"]
    drawn, _ = taken(data, budget=Budget(rows=4), seed=3)
    expected = [
        i for name in "ab" for i in sorted((f"{name}{n}" for n in range(10)), key=lambda i: -hash64(3, i))[:2]
    ]
    assert sorted(drawn.ids()) == sorted(expected)


def test_refusals():
    data = corpus({"a": 3})
    with pytest.raises(ConfigError, match="larger than what there is"):
        taken(data, budget=Budget(rows=4))
    assert taken(data, budget=Budget(rows=4), allow_short=True)[1] == {"a": 3}
    with pytest.raises(InputError, match="topics"):
        apply_transform(ClusterBalanced(cluster_column="topics", budget=Budget(rows=1)), data, {})
