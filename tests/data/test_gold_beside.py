"""data.recipes.gold_beside: gold rows dealt evenly, beside rows of another text."""

import numpy as np
import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import InputError

PROOF = {"data.recipes.gold_beside": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/recipes/gold_beside.py", "if pair[0] != text:", "if True:"),
    (
        "src/tutelage/data/recipes/gold_beside.py",
        "for i in rng.permutation(len(gold)))",
        "for i in rng.permutation(len(gold))[:3])",
    ),
    ("src/tutelage/data/recipes/gold_beside.py", "or source != GOLD:", "or False:"),
]
ROWS = [{"id": f"r{i}", "text": f"text {i}", "label": "abc"[i % 3]} for i in range(30)]
GOLD = Dataset.from_rows(ROWS[::5])


def machine():
    return Dataset.from_rows({**row, "label_source": "pseudo:m"} for i, row in enumerate(ROWS) if i % 5)


def beside(data, **fields):
    return apply_transform(build("data.recipes.gold_beside", fields), data, {"gold": GOLD})


def test_gold_is_dealt_evenly_and_a_text_is_not_beside_itself():
    data = machine()
    made = beside(data, count=2)
    assert made.ids() == data.ids()
    used = [text for row in made.rows() for text in row["gold_texts"]]
    counts = [used.count(row["text"]) for row in GOLD.rows()]
    assert max(counts) - min(counts) <= 1
    label = {row["text"]: row["label"] for row in ROWS}
    for row in made.rows():
        assert [label[t] for t in row["gold_texts"]] == row["gold_labels"]
    own = beside(GOLD)
    assert all(row["text"] not in row["gold_texts"] for row in own.rows()) and own.num_rows == GOLD.num_rows
    same = Dataset.from_rows({"id": f"s{i}", "text": ROWS[0]["text"], "label": "a"} for i in range(20))
    assert all(row["gold_texts"] != [ROWS[0]["text"]] for row in beside(same).rows())
    assert made.hash != beside(data, count=2, seed=1).hash
    one = build("data.recipes.gold_beside")
    alone = apply_transform(one, GOLD.keep(np.arange(len(GOLD)) < 1, "x"), {"gold": Dataset.from_rows(ROWS[:1])})
    assert alone.num_rows == 0


def test_bad_rows():
    with pytest.raises(InputError, match="no gold rows"):
        build("data.recipes.gold_beside").apply(machine(), {})
    with pytest.raises(InputError, match="no gold label") as error:
        build("data.recipes.gold_beside").apply(machine(), {"gold": machine()})
    assert "pseudo:m" in str(error.value)
