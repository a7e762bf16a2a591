"""data.filter.where."""

import numpy as np
import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.data.filter.where import Where

PROOF = {"data.filter.where": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/filter/where.py", "mask = ~mask", "pass"),
    ("src/tutelage/data/filter/where.py", "[v is True if truth", "[v is not None if truth"),
]
ROWS = [
    {"id": "a", "split": "train", "bad": True, "n": 1},
    {"id": "b", "split": "test", "bad": False, "n": 2},
    {"id": "c", "split": None, "bad": None, "n": 3},
]


def kept(**fields):
    return apply_transform(Where(**fields), Dataset.from_rows(ROWS), {}).ids()


def test_every_question():
    assert kept(column="split", equals="train") == ["a"]
    assert kept(column="split", one_of=["train", "test"]) == ["a", "b"]
    assert kept(column="split", equals="train", negate=True) == ["b", "c"]
    assert kept(column="split") == ["a", "b"]
    assert kept(column="bad") == ["a"]
    assert kept(column="bad", negate=True) == ["b", "c"]
    assert kept(column="bad", equals=False) == ["b"]
    assert kept(column="n", one_of=[1, 3]) == ["a", "c"]


def test_drops_carry_the_value():
    got = Where(column="split", equals="train").apply(Dataset.from_rows(ROWS), {})
    assert got.dropped.to_pylist() == [
        {"id": "b", "reason": "where: split is 'test'"},
        {"id": "c", "reason": "where: split is None"},
    ]


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({}, ConfigError, "needs a column"),
        ({"column": "spilt", "equals": "train"}, InputError, "did you mean split"),
        ({"column": "split", "equals": "trian"}, InputError, "did you mean train"),
        ({"column": "n", "equals": "1"}, ConfigError, "never '1'"),
        ({"column": "bad", "equals": 1}, ConfigError, "never 1"),
        ({"column": "n", "equals": 1, "one_of": [2]}, ConfigError, "not both"),
    ],
)
def test_bad_input(fields, error, message):
    with pytest.raises(error, match=message):
        kept(**fields)


def test_empty_dataset_stays_empty():
    empty = Dataset.from_rows(ROWS).keep(np.zeros(3, bool), "gone")
    assert Where(column="split", equals="train").apply(empty, {}).num_rows == 0
