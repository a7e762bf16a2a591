"""Blank prompts: each scorer by a table made by hand, the identity of blank and cloze, demonstrations."""

import math

import pytest

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.evaluation.blank_prompt import BlankPrompt, parts
from tutelage.models.ngram import NGramLM

PROOF = {"evaluation.blank_prompt": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/blank_prompt.py", "one.sum / max(1, one.n_tokens)", "one.sum"),
    ("src/tutelage/evaluation/blank_prompt.py", "one.sum / len(option.encode())", "one.sum / len(option)"),
    (
        "src/tutelage/evaluation/blank_prompt.py",
        "[one.sum for one in cloze]",
        "[one.sum / one.n_tokens for one in cloze]",
    ),
    ("src/tutelage/evaluation/blank_prompt.py", "before + option + after)", "before + option)"),
    ("src/tutelage/evaluation/blank_prompt.py", "[: self.k + 1]", "[: self.k]"),
    ("src/tutelage/evaluation/blank_prompt.py", "at += 3 * count", "at += 2 * count"),
    (
        "src/tutelage/evaluation/blank_prompt.py",
        '["choices"]) != (row["prompt"]',
        '["choices"]) == (row["prompt"]',
    ),
]
ROW = {"prompt": "The ___ barks.", "choices": ["dog", "kätzchen"], "answer": 0}
QUESTION = "The ___ barks.\nA. dog\nB. kätzchen\nAnswer:"


def one(lls, row=ROW, inputs=None, **fields):
    model = LookupModel(lls, bits_per_byte=50.0)
    return model, BlankPrompt(**fields).evaluate(model, Dataset.from_rows([row]), inputs or {})


@pytest.mark.parametrize(
    ("scorer", "winner"), [("blank", "dog"), ("blank_bytes", "kätzchen"), ("cloze", "dog"), ("letter", "dog")]
)
def test_each_scorer_by_its_own_rule(scorer, winner):
    lls = {
        ("", "The dog barks."): -14.0,  # 14 bytes: -1 a token; 3 bytes of option: -4.67 a byte
        ("", "The kätzchen barks."): -40.0,  # 20 bytes: -2 a token; 9 bytes of option: -4.44 a byte
        ("The", " dog"): -9.0,
        ("The", " kätzchen"): -10.0,
        (QUESTION, " A"): -1.0,
        (QUESTION, " B"): -2.0,
    }
    for answer, choice in enumerate(ROW["choices"]):
        _, found = one(lls, {**ROW, "answer": answer}, scorer=scorer)
        assert found.estimate == found.extra[f"acc[{scorer}]"] == float(choice == winner)
    assert found.items.table.to_pylist()[0]["prediction"] == winner
    assert found.extra["filled_tokens"] == 17.0


def test_what_is_the_whole_text_is_what_the_model_would_score():
    """Without demonstrations the mean loss of the filled text is that of the text as a whole."""
    import torch

    from tutelage.models.toy import tiny_causal_lm

    model = tiny_causal_lm("llama")
    found = BlankPrompt().evaluate(model, Dataset.from_rows([ROW]), {})
    row = found.items.table.to_pylist()[0]
    for option, value in zip(ROW["choices"], row["choice_ll"]):
        ids = model.tokenizer(ROW["prompt"].replace("___", option), add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logps = model.module(input_ids=torch.tensor([[model.bos_id, *ids]])).logits[0].log_softmax(-1)
        assert value == pytest.approx(float(logps[range(len(ids)), ids].mean()), abs=1e-4)


def test_a_blank_at_the_end_and_equal_lengths_agree_with_cloze():
    texts = ["the sky is blue today", "the sea is deep water", "a fox is a red animal", "the sea is grey water"]
    model = NGramLM(3).fit(texts)
    rows = [
        {"prompt": f"the {noun} is", "choices": ["blue", "deep", "grey"], "answer": 0}
        for noun in ("sky", "sea", "fox")
    ]
    rows = [{**row, "prompt": row["prompt"] + " ___"} for row in rows]
    found = {}
    for scorer in ("blank", "cloze"):
        log = BlankPrompt(scorer=scorer).evaluate(model, Dataset.from_rows(rows), {}).items
        found[scorer] = [row["prediction"] for row in log.table.to_pylist()]
    assert found["blank"] == found["cloze"] and found["blank"][0] == "blue"


def test_questions_without_a_blank_get_one():
    assert parts("What barks? ", "row 1") == ("What barks? The answer is ", "")
    assert parts("A ___ barks.", "row 1") == ("A ", " barks.")
    lls = {("", "What barks? The answer is dog"): -1.0, ("What barks? The answer is", " dog"): -1.0}
    _, found = one(lls, {**ROW, "prompt": "What barks?"})
    assert found.extra["acc[blank]"] == found.extra["acc[cloze]"] == 1.0


def test_the_same_demonstrations_before_every_item_and_never_itself():
    rows = [
        {"id": f"d{n}", "prompt": f"Fact {n}: ___ is {n}.", "choices": ["one", "two"], "answer": n % 2}
        for n in range(4)
    ]
    shown = Dataset.from_rows(rows)
    model = LookupModel()
    task = BlankPrompt(k=2, seed=3)
    task.evaluate(model, Dataset.from_rows([ROW, {**ROW, "prompt": "A ___ sings."}]), {"demonstrations": shown})
    first, second = model.asked[0][0], model.asked[6][0]
    assert first == second and first.count("\n\n") == 2
    named = [int(part[5]) for part in first.split("\n\n")[:2]]
    for number, part in zip(named, first.split("\n\n")):
        assert part == f"Fact {number}: {('one', 'two')[number % 2]} is {number}."
    letters = model.asked[4][0]
    assert letters.startswith(
        f"Fact {named[0]}: ___ is {named[0]}.\nA. one\nB. two\nAnswer: {'AB'[named[0] % 2]}\n\n"
    )
    assert letters.endswith(QUESTION)
    for number in range(4):
        model.asked = []
        task.evaluate(model, Dataset.from_rows([rows[number]]), {"demonstrations": shown})
        assert f"Fact {number}" not in model.asked[0][0] and model.asked[0][0].count("\n\n") == 2
    other = LookupModel()
    BlankPrompt(k=2, seed=4).evaluate(other, Dataset.from_rows([ROW]), {"demonstrations": shown})
    third = LookupModel()
    BlankPrompt(k=2, seed=6).evaluate(third, Dataset.from_rows([ROW]), {"demonstrations": shown})
    assert len({first, other.asked[0][0], third.asked[0][0]}) > 1
    with pytest.raises(InputError, match="too few demonstrations"):
        BlankPrompt(k=4).evaluate(model, Dataset.from_rows([ROW]), {"demonstrations": shown})


def test_ties_are_shared_and_probabilities_are_of_the_options():
    lls = {("", "The dog barks."): -14.0, ("", "The kätzchen barks."): -20.0}
    _, found = one(lls)
    assert found.estimate == 0.5
    row = found.items.table.to_pylist()[0]
    assert row["p_correct"] == pytest.approx(1 / (1 + math.exp(-6)))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "A ___ and a ___.", "choices": ["a", "b"], "answer": 0}, "several blanks"),
        ({"prompt": "A ___.", "choices": ["a", "b"], "answer": 2}, "not one of the options"),
        ({"prompt": "A ___.", "choices": [f"o{n}" for n in range(27)], "answer": 0}, "more options than letters"),
        ({"prompt": "", "choices": ["a", "b"], "answer": 0}, "no 'prompt'"),
    ],
)
def test_bad_rows(row, message):
    with pytest.raises(InputError, match=message):
        one({}, row)
