"""The log of consumed rows against the sampler: what counts as a difference and what does not."""

import json

import numpy as np
import pytest

from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import TrainingError
from tutelage.core.method import Sampler
from tutelage.data._shared import EpochDraws
from tutelage.runs.consumed import check_order, consumed_steps, head

REAL_MODELS = True
MUTATIONS = [
    ("src/tutelage/runs/consumed.py", "if drawn in logged and drawn not in before | here", "if drawn in logged"),
    ("src/tutelage/runs/consumed.py", "drawn in logged and ", ""),
    ("src/tutelage/runs/consumed.py", "name == last and drawn != name", "False"),
    ("src/tutelage/runs/consumed.py", "elif not goes_on", "elif False"),
    ("src/tutelage/runs/consumed.py", "while drawn != name and not goes_on", "while drawn != name"),
]
ROWS = Dataset.from_rows({"id": name, "text": "x"} for name in "abcdef")
IN_ORDER = build("data.order.sequential")


def log(tmp_path, *steps):
    file = tmp_path / "consumed.jsonl"
    lines = [json.dumps({"step": number, "ids": list(ids)}) for number, ids in enumerate(steps)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "steps",
    [
        ["ab", "cd", "ef", "ab"],
        ["ab", "bc", "c", "c", "def"],  # b and c are longer than a step
        ["abc", "ef", "abce", "fab"],  # nothing of d can be trained
        ["abcdef", "abcdef"],
        ["abcdef", "b", "c"],  # a was drawn again while the first step was not full, and is logged once
    ],
)
def test_what_the_sampler_draws(tmp_path, steps):
    found = check_order(log(tmp_path, *steps), ROWS, IN_ORDER, 0)
    assert found.steps == len(steps) and found.draws >= 6


@pytest.mark.parametrize(
    ("steps", "place"),
    [
        (["ab", "dc"], "step 1, row 0"),
        (["ba", "cdef"], "step 0, row 0"),
        (["ab", "ce", "df"], "step 1, row 1"),
        (["abcdef", "ab", "cdxf"], "step 2, row 2"),
        (["ab", "cb", "def"], "step 1, row 1"),
    ],
)
def test_what_it_does_not_draw(tmp_path, steps, place):
    with pytest.raises(TrainingError, match="order of the sampler") as error:
        check_order(log(tmp_path, *steps), ROWS, IN_ORDER, 0)
    assert place in str(error.value)


class Turned(Sampler):
    """a b c, then b c a."""

    def start(self, dataset, seed):
        return EpochDraws(3, seed, lambda epoch: np.array([[0, 1, 2], [1, 2, 0]][epoch % 2]))


def test_a_row_that_goes_on_uses_up_no_draw(tmp_path):
    assert check_order(log(tmp_path, "abc", "c", "bca"), ROWS, Turned(), 0).draws == 6


def test_another_seed_or_an_order_undone_is_noticed(tmp_path):
    pytest.importorskip("torch")
    from toy.training_bed import dataset, model, train
    from tutelage.core.records import Budget

    texts = [f"Row {i} is made of words and of more words. " * (1 + 4 * (i % 5 == 0)) for i in range(20)]
    data, shuffle = dataset(texts), build("data.order.shuffle")
    settings = {"max_length": 40, "step_tokens": 64}
    record = train(model("llama"), data, budget=Budget(rows=50), settings=settings, seed=3)
    assert check_order(record.consumed, data, shuffle, 3).steps == record.steps > 30
    for sampler, seed in ((shuffle, 4), (IN_ORDER, 3)):
        with pytest.raises(TrainingError, match="order of the sampler"):
            check_order(record.consumed, data, sampler, seed)
    assert head(record.consumed, 2) == list(consumed_steps(record.consumed))[:2]
