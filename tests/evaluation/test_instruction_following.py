"""Instruction following: every rule on texts that keep and break it, degenerate outputs, the bundled probes."""

import json
import socket

import pytest

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.evaluation._checks import CHECKS, is_degenerate, passes, repeated_share
from tutelage.evaluation.instruction_following import InstructionFollowing, load_probes

PROOF = {"evaluation.instruction_following": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/evaluation/instruction_following.py", "float(kept == len(checks))", "float(kept > 0)"),
    ("src/tutelage/evaluation/_checks.py", "1 - len(set(grams)) / len(grams)", "len(set(grams)) / len(grams)"),
    ("src/tutelage/evaluation/_checks.py", "text == text.upper()", "text != text.lower()"),
    ("src/tutelage/evaluation/_checks.py", "repeated_share(text) <= share", "repeated_share(text) <= 1"),
]

CASES = {
    "contains": ({"text": "sun"}, "The Sun!", "sunny"),
    "contains_all": ({"texts": ["a", "b"]}, "b or A", "a c"),
    "contains_any": ({"texts": ["five", "5"]}, "It is 5.", "It is 55."),
    "contains_none": ({"texts": ["no"]}, "nothing", "oh no"),
    "answer_equals": ({"text": "yes"}, " Yes.", "yes it is"),
    "answer_one_of": ({"texts": ["small", "little"]}, "Little!", "big"),
    "exactly": ({"text": "RIVER"}, " RIVER\n", "RIVER."),
    "one_word": ({}, "cold.", "very cold"),
    "starts_with": ({"text": "Every"}, " every day", "On every day"),
    "ends_with": ({"text": "today"}, "We eat Today!", "today we eat"),
    "uppercase": ({}, "RIVER 1", "RIVEr"),
    "lowercase": ({}, "snow falls.", "Snow falls."),
    "n_lines": ({"n": 2}, "a\n\nb\n", "a\nb\nc"),
    "n_sentences": ({"n": 2}, 'One. "Two!"', "One."),
    "n_sentences_max": ({"n": 2}, "One? Two.", "One. Two. Three."),
    "max_words": ({"n": 3}, "one two - three", "one two three four"),
    "min_words": ({"n": 3}, "one two three", "one two"),
    "json_object": ({"texts": ["name"]}, '```json\n{"name": 1, "b": 2}\n```', '{"names": 1}'),
    "numbered_list_of": ({"n": 2}, "1. a\n2) b", "1. a\n2. b\n3. c"),
    "bullet_list_of": ({"n": 2}, "- a\n* b", "- a"),
    "no_commas": ({}, "plain and simple", "plain, simple"),
    "not_repetitive": ({"share": 0.2}, "a b c d e f g h", "a b c d a b c d a b c d"),
    "language_ascii": ({"share": 0.9}, "plain text", "привет мир"),
}


def test_every_rule_has_a_case():
    assert CASES.keys() == CHECKS.keys()


@pytest.mark.parametrize("kind", CASES)
def test_each_rule_holds_and_fails(kind):
    needs, good, bad = CASES[kind]
    rule = {"kind": kind, **needs}
    assert passes(good, rule)
    assert not passes(bad, rule)
    assert not passes("", rule) or kind in ("contains_none",)


def test_repeated_share_by_hand():
    # 9 four-grams over a b c d a b c d a b c d, of which 4 are distinct.
    assert repeated_share("a b c d a b c d a b c d") == pytest.approx(5 / 9)
    assert repeated_share("a b c") == 0.0


@pytest.mark.parametrize("text", ["", "...", "the cat sat on " * 20, "ha" * 60, "1, " * 50])
def test_degenerate(text):
    assert is_degenerate(text)


@pytest.mark.parametrize("text", ["Paris", "The capital of France is Paris.", "1. Dog\n2. Cat\n3. Bird\n4. Fish"])
def test_not_degenerate(text):
    assert not is_degenerate(text)


def test_scores_clusters_and_extras():
    rows = [
        {"prompt": "a", "cluster": "t1", "checks": [{"kind": "one_word"}, {"kind": "contains", "text": "cold"}]},
        {"prompt": "b", "cluster": "t1", "checks": [{"kind": "one_word"}, {"kind": "contains", "text": "warm"}]},
        {"prompt": "c", "cluster": "t2", "checks": [{"kind": "max_words", "n": 5}]},
    ]
    outputs = {"a": "Cold", "b": "cold", "c": "round and round it goes " * 9 + "..."}
    result = InstructionFollowing().evaluate(LookupModel(outputs=outputs), Dataset.from_rows(rows), {})
    assert result.items.table["score"].to_pylist() == [1.0, 0.0, 0.0]
    assert result.extra["rules"] == pytest.approx(3 / 5)
    assert result.extra["degenerate"] == result.extra["truncated"] == pytest.approx(1 / 3)
    assert result.n_clusters == 2
    task = InstructionFollowing()
    assert task.score(rows[0], "cold") == 1.0
    assert task.score(rows[0], "it is cold") == 0.0


def test_keys_do_not_depend_on_the_other_rows():
    rows = [
        {"prompt": "a", "checks": [{"kind": "one_word"}]},
        {"prompt": "b", "checks": [{"kind": "max_words", "n": 1}]},
    ]
    task, model = InstructionFollowing(), LookupModel()
    both = task.evaluate(model, Dataset.from_rows(rows), {}).items.table["item_key"].to_pylist()
    alone = task.evaluate(model, Dataset.from_rows(rows[1:]), {}).items.table["item_key"].to_pylist()
    assert both[1:] == alone


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ([{"kind": "max_word", "n": 3}], "did you mean max_words"),
        ([{"kind": "max_words", "text": "3"}], "needs the field 'n'"),
        ([], "has no checks"),
    ],
)
def test_bad_checks_name_the_row(checks, message):
    with pytest.raises(InputError, match="row c9") as error:
        InstructionFollowing().score({"id": "c9", "checks": checks}, "x")
    assert message in str(error.value)


def test_the_bundled_probes_are_sixty_in_twenty_clusters_without_python():
    rows = list(load_probes().rows())
    assert len(rows) == 60
    assert len({row["cluster"] for row in rows}) == 20
    assert len({row["prompt"] for row in rows}) == 60
    for row in rows:
        for rule in row["checks"]:
            assert rule["kind"] in CHECKS
        text = json.dumps(row).lower()
        assert not any(word in text for word in ("python", "function", "code", "program", "module"))


def test_the_probes_run_on_a_chat_model_and_open_no_connection(monkeypatch):
    from tutelage.models.toy import tiny_causal_lm

    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    model = tiny_causal_lm()
    result = InstructionFollowing(max_new_tokens=4).evaluate(model, None, {})
    assert (result.n_items, result.n_clusters) == (60, 20)
    assert result.cost.generated_tokens <= 240
    # An untrained model babbles.
    assert result.estimate < 0.2


class Talking(LookupModel):
    """A table model with a chat template."""

    template = "angle brackets"

    def chat_prompt(self, messages):
        return "".join(f"<{message['content']}>" for message in messages)


def test_chat_and_stop_change_what_is_asked_and_judged():
    rows = Dataset.from_rows([{"prompt": "Q", "checks": [{"kind": "one_word"}]}])
    model = Talking(outputs={"Q": "one\nand more", "<Q>": "two words"})
    assert InstructionFollowing().evaluate(model, rows, {}).estimate == 0.0
    assert model.asked == ["<Q>"], "a template is used where there is one"
    assert InstructionFollowing(chat=False).evaluate(model, rows, {}).estimate == 0.0
    assert model.asked[-1] == "Q"
    assert InstructionFollowing(chat=False, stop=("\n",)).evaluate(model, rows, {}).estimate == 1.0
