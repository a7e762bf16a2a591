"""Minimal pairs: the likelier text wins, ties are halves."""

import math

import pytest

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.evaluation.minimal_pairs import MinimalPairs

PROOF = {"evaluation.minimal_pairs": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/evaluation/minimal_pairs.py", "float(good.sum > bad.sum)", "float(good.sum < bad.sum)"),
    ("src/tutelage/evaluation/minimal_pairs.py", "score=0.5 if tied", "score=1.0 if tied"),
]

ROWS = [
    {"good": "cats sleep", "bad": "cats sleeps", "cluster": "agreement"},
    {"good": "she saw him", "bad": "she saw he", "cluster": "case"},
    {"prompt": "One", "good": "cat", "bad": "dog", "cluster": "same"},
]
LLS = {("", "cats sleep"): -3.0, ("", "cats sleeps"): -4.0, ("", "she saw him"): -6.0, ("", "she saw he"): -5.0}


def test_the_likelier_text_wins_and_ties_are_halves():
    result = MinimalPairs().evaluate(LookupModel(LLS), Dataset.from_rows(ROWS), {})
    assert result.items.table["score"].to_pylist() == [1.0, 0.0, 0.5]
    assert result.items.table["prediction"].to_pylist()[:2] == ["cats sleep", "she saw he"]
    assert result.estimate == 0.5
    assert result.extra["ties"] == pytest.approx(1 / 3)
    assert result.n_clusters == 3
    assert math.isfinite(result.interval.lo)


def test_the_prompt_comes_first():
    model = LookupModel()
    MinimalPairs().evaluate(model, Dataset.from_rows(ROWS[2:]), {})
    assert model.asked == [("One", " cat"), ("One", " dog")]


def test_the_delimiter_stands_between_prompt_and_text():
    model = LookupModel()
    MinimalPairs(delimiter=": ").evaluate(model, Dataset.from_rows(ROWS[2:]), {})
    assert model.asked == [("One", ": cat"), ("One", ": dog")]


def test_a_missing_text_names_the_row():
    with pytest.raises(InputError, match="row p2"):
        MinimalPairs().evaluate(LookupModel(), Dataset.from_rows([{"id": "p2", "good": "x", "bad": ""}]), {})
    with pytest.raises(InputError, match="bad"):
        MinimalPairs().evaluate(LookupModel(), Dataset.from_rows([{"good": "x"}]), {})
