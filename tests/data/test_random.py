"""data.select.random: uniform, nested, independent of order."""

import numpy as np
import pytest

from toy.selection import scored, scored_rows
from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError
from tutelage.core.records import Budget
from tutelage.core.text.hashing import hash64
from tutelage.data.select.random import Random

PROOF = {"data.select.random": ["consistent", "verified"]}
MUTATIONS = [("src/tutelage/data/select/random.py", "uniform(self.seed, ids), ids", "uniform(0, ids), ids")]


def chosen(data, **fields):
    return apply_transform(Random(**fields), data, {})


def test_takes_the_largest_hashes():
    data = scored()
    expected = sorted(data.ids(), key=lambda i: -hash64(5, i))[:17]
    assert sorted(chosen(data, budget=Budget(rows=17), seed=5).ids()) == sorted(expected)


def test_independent_of_order_and_nested():
    rows = scored_rows()
    one = chosen(Dataset.from_rows(rows), budget=Budget(tokens=500)).ids()
    two = chosen(Dataset.from_rows(rows[::-1]), budget=Budget(tokens=500)).ids()
    assert set(one) == set(two)
    assert set(chosen(Dataset.from_rows(rows), budget=Budget(tokens=100)).ids()) < set(one)
    assert set(chosen(Dataset.from_rows(rows), budget=Budget(tokens=500), seed=1).ids()) != set(one)


def test_every_row_is_equally_likely():
    data = scored(50)
    counts = np.zeros(50)
    index = {identifier: i for i, identifier in enumerate(data.ids())}
    draws = 300
    for seed in range(draws):
        counts[[index[i] for i in chosen(data, budget=Budget(rows=10), seed=seed).ids()]] += 1
    # 49 degrees of freedom; the statistic is shrunk by (1 - 10/50) for draws without replacement.
    chi2 = ((counts - draws * 0.2) ** 2 / (draws * 0.2)).sum() / 0.8
    assert chi2 < 49 + 4 * np.sqrt(98)


def test_groups_keep_their_shares():
    got = chosen(scored(300), budget=Budget(rows=30), group_column="source")
    assert [c["rows_taken"] for c in got.report["taken_from"]["source"].values()] == [10, 10, 10]


def test_budget_larger_than_the_corpus():
    with pytest.raises(ConfigError, match="larger than what there is") as error:
        chosen(scored(10), budget=Budget(rows=11))
    assert "11 rows" in str(error.value) and "at most 10 rows" in str(error.value)
    assert chosen(scored(10), budget=Budget(rows=11), allow_short=True).num_rows == 10
