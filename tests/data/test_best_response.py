"""data.select.best_response: one candidate per prompt, guards first, ties decided by rule."""

import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.data.select.best_response import BestResponse

PROOF = {"data.select.best_response": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/select/best_response.py", "(-keys[row], lengths[row], row)", "(-keys[row], row)"),
    ("src/tutelage/data/select/best_response.py", "(-keys[row], lengths[row], row)", "(keys[row], lengths[row])"),
    ("src/tutelage/data/select/best_response.py", "if words < self.min_words", "if words < 1"),
    ("src/tutelage/data/select/best_response.py", 'or self.none_correct == "drop"', "or True"),
]


def candidate(name, prompt, completion, fit, source="a", correct=True):
    row = {"id": name, "prompt": prompt, "completion": completion, "fit_score": fit}
    return {**row, "source": source, "correct": correct}


ROWS = [
    candidate("p1", "p", "three words here", -1.0, "strong", False),
    candidate("q1", "q", "only one", -3.0, "strong"),
    candidate("p2", "p", "short one", -0.5, "self"),
    candidate("p3", "p", "a longer one", -2.0, "weak"),
    candidate("r1", "r", "tied and long", -1.0, "strong", False),
    candidate("r2", "r", "tied one", -1.0, "weak", False),
    candidate("r3", "r", "tied two", -1.0, "self", False),
]


def chosen(rows=ROWS, **fields):
    found = apply_transform(BestResponse(**{"column": "fit_score", **fields}), Dataset.from_rows(rows), {})
    return found.ids(), found


def test_the_best_by_score_with_ties_by_length_then_order():
    ids, found = chosen()
    assert ids == ["q1", "p2", "r2"]
    assert found.report["single_candidate"] == 1 and found.report["prompts"] == 3
    assert found.report["sources"]["weak"] == {"candidates": 2, "taken": 1}
    assert found.report["mean_characters_after"] == pytest.approx((8 + 9 + 8) / 3)
    assert dict(zip(*found.dropped.to_pydict().values()))["p1"] == "candidate: p2 was chosen"


def test_the_worst_and_the_random_one_are_there_to_compare_with():
    assert chosen(direction="lower")[0][:2] == ["q1", "p3"]
    draws = {tuple(chosen(column=None, seed=seed)[0]) for seed in range(12)}
    assert len(draws) > 4 and all(len(draw) == 3 and "q1" in draw for draw in draws)
    assert chosen(column=None, seed=3)[0] == chosen(column=None, seed=3)[0]


def test_guards_come_first():
    assert chosen(exclude_sources=["self"])[0] == ["p1", "q1", "r2"]
    ids, found = chosen(min_words=3)
    assert ids == ["p1", "r1"] and found.report["prompts_dropped"] == 1
    renamed = [{**row, "made_by": row["source"]} for row in ROWS]
    assert chosen(renamed, source_column="made_by", exclude_sources=["self"])[0] == ["p1", "q1", "r2"]


def test_a_verifier_decides_which_candidates_count():
    ids, found = chosen(correct="correct")
    assert ids == ["q1", "p2"] and found.report["none_correct"] == 1
    assert "candidate: not correct" in found.dropped.column("reason").to_pylist()
    assert chosen(correct="correct", none_correct="keep")[0] == ["q1", "p2", "r2"]


def test_candidates_without_a_score_lose():
    rows = [dict(row) for row in ROWS]
    rows[2]["fit_score"] = float("nan")
    assert chosen(rows)[0] == ["p1", "q1", "r2"]


def test_conversations_compete_by_what_comes_before_the_answer():
    def talk(name, question, answer, fit):
        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {"id": name, "messages": turns, "fit_score": fit}

    assert chosen([talk("a", "x", "1", -2.0), talk("b", "x", "2", -1.0), talk("c", "y", "3", -9.0)])[0] == [
        "b",
        "c",
    ]


def test_refusals():
    with pytest.raises(InputError, match="no candidate answer") as error:
        chosen([*ROWS, candidate("s1", "s", "", -1.0)])
    assert "row s1" in str(error.value)
    with pytest.raises(InputError, match="is no candidate"):
        chosen([{"id": "a", "text": "x", "fit_score": 1.0}])
    with pytest.raises(InputError, match="fit_scores"):
        chosen(column="fit_scores")
    with pytest.raises(InputError, match="judged"):
        chosen(correct="judged")
    with pytest.raises(ConfigError, match="say whether"):
        chosen([{**row, "nll_mean": 1.0} for row in ROWS], column="nll_mean")
