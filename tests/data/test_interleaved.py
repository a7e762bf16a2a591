"""data.order.interleaved: levels ascend, subjects take turns, the controls, the trainer's log."""

import itertools
import json
import random

import numpy as np
import pytest

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, StoreError, TutelageError
from tutelage.data.order.interleaved import Interleaved

PROOF = {"data.order.interleaved": ["consistent"]}
MUTATIONS = [
    (
        "src/tutelage/data/order/interleaved.py",
        "np.lexsort((turn, rounds, levels))",
        "np.lexsort((rounds, levels))",
    ),
    ("src/tutelage/data/order/interleaved.py", "np.lexsort((turn, rounds, levels))", "np.lexsort((turn, levels))"),
    ("src/tutelage/data/order/interleaved.py", "(levels[ahead] != levels[behind]) | ", ""),
    ("src/tutelage/data/order/interleaved.py", "levels = -levels", "levels = +levels"),
    ("src/tutelage/data/order/interleaved.py", "return np.lexsort((within, levels, turn))", "pass"),
    ("src/tutelage/data/order/interleaved.py", "ids()), stages))", "ids()), 0 * stages))"),
    ("src/tutelage/data/order/interleaved.py", "hash64(seed, name) for", "hash64(0, name) for"),
    (
        "src/tutelage/data/order/interleaved.py",
        "average_ranks(values) - 0.5 / len(values)",
        "average_ranks(values) * 0.99",
    ),
]
LEVELS = ("remember", "understand", "apply")


def rows(count=90, seed=0, subjects=5):
    """Uneven subjects and levels, in random order."""
    draw = random.Random(seed)
    made = []
    for i in range(count):
        subject = min(draw.randrange(subjects), draw.randrange(subjects))
        made.append(
            {
                "id": f"r{i}",
                "text": f"Row {i} of some.",
                "subject": f"s{subject}",
                "level": draw.choice(LEVELS),
                "stage": draw.randrange(3),
            }
        )
    return made


def order(data, seed=0, **fields):
    draws = Interleaved(**fields).start(data, seed)
    return [draws.next() for _ in range(data.num_rows)]


def test_a_curriculum_by_hand():
    """Three subjects of unequal size in two levels: turns, a subject that runs out, then the next level."""
    given = ["a1", "a1", "a1", "b1", "c1", "c1", "a2", "b2", "b2"]
    made = [{"id": str(i), "text": "x", "subject": g[0], "level": LEVELS[int(g[1])]} for i, g in enumerate(given)]
    found = [given[i] for i in order(Dataset.from_rows(made), seed=4)]
    turns = [g[0] for g in found[:3]]
    assert sorted(turns) == ["a", "b", "c"]
    second, third = [s for s in turns if s != "b"], ["a"]
    last = [s for s in turns if s != "c"]
    assert [g[0] for g in found] == turns + second + third + last + ["b"]
    assert [g[1] for g in found] == ["1"] * 6 + ["2"] * 3


@pytest.mark.parametrize("seed", range(6))
def test_rounds_begin_anew_with_every_level(seed):
    given = ["a1", "a1", "a1", "a2", "a2", "b2", "b2"]
    made = [{"id": str(i), "text": "x", "subject": g[0], "level": LEVELS[int(g[1])]} for i, g in enumerate(given)]
    second = [given[i][0] for i in order(Dataset.from_rows(made), seed)[3:]]
    assert second in (["a", "b", "a", "b"], ["b", "a", "b", "a"])


@pytest.mark.parametrize("seed", range(5))
def test_what_the_order_promises(seed):
    made = rows(seed=seed)
    found = order(Dataset.from_rows(made), seed)
    assert sorted(found) == list(range(90)), "reordered, nothing else"
    places = [LEVELS.index(made[i]["level"]) for i in found]
    assert places == sorted(places)
    subjects = [made[i]["subject"] for i in found]
    for level in range(3):
        here = [s for s, place in zip(subjects, places) if place == level]
        for start in range(len(here)):
            left = len(set(here[start:]))
            window = here[start : start + left]
            assert len(set(window)) == len(window), "no subject twice among as many rows as subjects are left"


def test_stage_then_hash_inside_a_subject():
    made = rows(60, subjects=1)
    found = order(Dataset.from_rows(made), 3, stage_column="stage")
    keys = [(LEVELS.index(made[i]["level"]), made[i]["stage"]) for i in found]
    assert keys == sorted(keys), "one subject: level order, then stage"
    plain = order(Dataset.from_rows(made), 3)
    assert [made[i]["stage"] for i in plain] != [made[i]["stage"] for i in found]
    # The order of equal rows depends on the seed and the id, not on where they stand.
    turned = order(Dataset.from_rows(made[::-1]), 3)
    assert [f"r{i}" for i in plain] == [made[::-1][i]["id"] for i in turned]
    assert order(Dataset.from_rows(made), 4) != plain


def test_turns_of_the_subjects_depend_on_the_seed():
    made = [{"id": f"{s}{i}", "text": "x", "subject": s, "level": "apply"} for s in "abcdef" for i in range(2)]
    firsts = {tuple(made[i]["subject"] for i in order(Dataset.from_rows(made), seed)[:6]) for seed in range(8)}
    assert len(firsts) > 4 and all(sorted(first) == list("abcdef") for first in firsts)


def test_controls():
    made = rows()
    data = Dataset.from_rows(made)
    blocked = [made[i] for i in order(data, subjects="blocked")]
    seen = [row["subject"] for row in blocked]
    assert sum(a != b for a, b in itertools.pairwise(seen)) == len(set(seen)) - 1, "one subject after the other"
    for subject in set(seen):
        places = [LEVELS.index(row["level"]) for row in blocked if row["subject"] == subject]
        assert places == sorted(places)
    down = [LEVELS.index(made[i]["level"]) for i in order(data, by_level="descending")]
    assert down == sorted(down, reverse=True)
    flat = order(data, by_level="ignored")
    places = [LEVELS.index(made[i]["level"]) for i in flat]
    assert sorted(flat) == list(range(90)) and places != sorted(places)
    without = Dataset.from_rows([{k: v for k, v in row.items() if k != "level"} for row in made])
    assert order(without, by_level="ignored") == flat


def test_numbers_are_cut_into_levels_of_equal_size():
    values = np.random.default_rng(0).permutation(31).astype(float)
    made = [{"id": str(i), "text": "x", "field": "all", "loss": v} for i, v in enumerate(values)]
    fields = {"level_column": "loss", "subject_column": "field"}
    found = values[order(Dataset.from_rows(made), **fields)]
    # 31 rows in thirds by the middle of their rank: 10, 11, 10.
    assert sorted(found[:10]) == list(range(10)) and sorted(found[10:21]) == list(range(10, 21))
    two = values[order(Dataset.from_rows(made), levels=("easy", "hard"), **fields)]
    assert sorted(two[:15]) == list(range(15))
    few = [{**row, "loss": (5, 7, 100)[i % 3]} for i, row in enumerate(made)]
    assert [few[i]["loss"] for i in order(Dataset.from_rows(few), **fields)] == [5] * 11 + [7] * 10 + [100] * 10
    # Equal numbers are never torn apart.
    tied = [{**row, "loss": float(v)} for row, v in zip(made, [1] * 16 + list(range(2, 17)))]
    first = [tied[i]["loss"] for i in order(Dataset.from_rows(tied), **fields)]
    assert first[:16] == [1.0] * 16


def test_epochs_repeat_and_resume_is_exact():
    data = Dataset.from_rows(rows(20))
    whole = Interleaved().start(data, 1)
    stream = [whole.next() for _ in range(55)]
    assert stream[:20] == stream[20:40]
    for cut in (0, 7, 20, 33):
        first = Interleaved().start(data, 1)
        for _ in range(cut):
            first.next()
        second = Interleaved().start(data, 1)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert [second.next() for _ in range(55 - cut)] == stream[cut:]
    with pytest.raises(StoreError, match="another seed"):
        Interleaved().start(data, 2).load_state_dict(first.state_dict())


def test_bad_input():
    with pytest.raises(ConfigError, match="levels"):
        Interleaved(levels=("easy", "easy"))
    with pytest.raises(ConfigError, match="levels"):
        Interleaved(levels=())
    made = rows(6)
    made[4]["level"] = "aply"
    with pytest.raises(InputError, match="row r4") as error:
        order(Dataset.from_rows(made))
    assert "one of remember, understand, apply" in str(error.value) and "did you mean apply" in str(error.value)
    made[4]["level"] = None
    with pytest.raises(InputError, match="row r4"):
        order(Dataset.from_rows(made))
    holes = Dataset.from_rows([{**row, "hard": 0.5 if i != 2 else None} for i, row in enumerate(rows(6))])
    with pytest.raises(InputError, match="row r2") as error:
        order(holes, level_column="hard")
    assert "a number" in str(error.value)
    with pytest.raises(InputError, match="holds no levels"):
        order(Dataset.from_rows([{**row, "yes": True} for row in rows(6)]), level_column="yes")
    with pytest.raises(TutelageError, match="topic"):
        order(Dataset.from_rows(rows(6)), subject_column="topic")
    with pytest.raises(InputError, match="no rows"):
        order(Dataset.from_rows(rows(3)).keep(np.zeros(3, bool), "gone"))
    odd = rows(6)
    odd[0]["subject"] = None
    assert sorted(order(Dataset.from_rows(odd))) == list(range(6)), "rows without a subject are a subject"


def test_the_trainer_consumes_this_order():
    pytest.importorskip("torch")
    from toy.training_bed import model, train
    from tutelage.core.records import Budget
    from tutelage.runs.consumed import check_order, consumed_steps

    made = rows(30)
    data = Dataset.from_rows(made)
    sampler = Interleaved(stage_column="stage")
    record = train(model("llama"), data, sampler=sampler, budget=Budget(rows=45), seed=2)
    ids = [name for _, names in consumed_steps(record.consumed) for name in names]
    assert ids[:30] == [f"r{i}" for i in order(data, 2, stage_column="stage")]
    level = {row["id"]: LEVELS.index(row["level"]) for row in made}
    places = [level[name] for name in ids[:30]]
    assert places == sorted(places)
    assert check_order(record.consumed, data, sampler, 2).steps == record.steps
    with pytest.raises(TutelageError, match="order of the sampler"):
        check_order(record.consumed, data, Interleaved(by_level="descending"), 2)
