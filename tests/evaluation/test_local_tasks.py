"""Local task files: each type gives the result of its own method; mixed and unknown types are errors."""

import pytest

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.evaluation.bits_per_byte import BitsPerByte
from tutelage.evaluation.exact_match import ExactMatch
from tutelage.evaluation.local_tasks import LocalTasks
from tutelage.evaluation.minimal_pairs import MinimalPairs
from tutelage.evaluation.multiple_choice import MultipleChoice

PROOF = {"evaluation.local_tasks": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/evaluation/local_tasks.py", '"good": row["choices"][gold]', '"good": row["choices"][0]'),
    (
        "src/tutelage/evaluation/local_tasks.py",
        '"completion": row.get("answer")',
        '"completion": row.get("prompt")',
    ),
]

MODEL = LookupModel({("Q", " x"): -1.0, ("Q", "long answer"): -3.0, ("Q", " y"): -0.5}, {"Q": "x"})


@pytest.mark.parametrize(
    ("row", "same_row", "method"),
    [
        ({"type": "mc", "prompt": "Q", "choices": ["x", "y"], "answer": 0}, None, MultipleChoice()),
        ({"type": "gen", "prompt": "Q", "answer": "x"}, None, ExactMatch()),
        (
            {"type": "ll", "prompt": "Q", "answer": "long answer"},
            {"prompt": "Q", "completion": "long answer"},
            BitsPerByte(),
        ),
        ({"type": "ppl", "prompt": "some text"}, {"text": "some text"}, BitsPerByte()),
        (
            {"type": "pair", "prompt": "Q", "choices": ["x", "y"], "answer": 1},
            {"prompt": "Q", "good": "y", "bad": "x"},
            MinimalPairs(),
        ),
    ],
    ids=["mc", "gen", "ll", "ppl", "pair"],
)
def test_each_type_is_its_own_method(row, same_row, method):
    found = LocalTasks().evaluate(MODEL, Dataset.from_rows([{**row, "cluster": "c"}] * 3), {})
    expected = method.evaluate(MODEL, Dataset.from_rows([{**(same_row or row), "cluster": "c"}] * 3), {})
    assert found.items.hash == expected.items.hash
    assert found.task == expected.task
    assert found.n_clusters == 1
    assert found.interval is None
    assert "two" in found.no_interval


def test_mixed_unknown_and_missing_types_are_errors():
    rows = [{"type": "mc", "prompt": "Q"}, {"type": "gen", "prompt": "Q"}]
    with pytest.raises(InputError, match="several types") as error:
        LocalTasks().evaluate(MODEL, Dataset.from_rows(rows), {})
    assert "gen, mc" in str(error.value)
    with pytest.raises(InputError, match="not known"):
        LocalTasks().evaluate(MODEL, Dataset.from_rows([{"type": "essay"}]), {})
    with pytest.raises(InputError, match="type"):
        LocalTasks().evaluate(MODEL, Dataset.from_rows([{"prompt": "Q"}]), {})
    three = [{"id": "p", "type": "pair", "prompt": "Q", "choices": ["x", "y", "z"], "answer": 1}]
    with pytest.raises(InputError, match="two choices"):
        LocalTasks().evaluate(MODEL, Dataset.from_rows(three), {})


def test_fields_reach_the_method():
    assert LocalTasks(ties="first", metric="acc_norm").task("mc") == MultipleChoice(
        ties="first", metric="acc_norm"
    )
    assert LocalTasks(match="numeric", max_new_tokens=5).task("gen") == ExactMatch(
        answer="numeric", max_new_tokens=5
    )
    assert LocalTasks(window=32).task("ppl") == BitsPerByte(window=32)


def test_chat_stop_and_extract_reach_the_method():
    fields = {"chat": True, "stop": ("end",), "extract": "a+"}
    assert LocalTasks(**fields).task("gen") == ExactMatch(chat=True, stop=("end",), extract="a+") != ExactMatch()
    assert LocalTasks(chat=True).task("mc") == MultipleChoice(chat=True) != MultipleChoice()


def test_score_is_exact_match():
    assert LocalTasks().score({"type": "gen", "answer": "x"}, "X.") == 1.0
    assert LocalTasks().score({"type": "mc", "answer": "x"}, "x") is None
