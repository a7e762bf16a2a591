"""Exact match: normalisation, extraction, and that failures stay in the denominator."""

import pytest

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.evaluation.exact_match import ExactMatch

PROOF = {"evaluation.exact_match": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/evaluation/exact_match.py", 'float(right and status == "ok")', "float(right)"),
    ("src/tutelage/evaluation/exact_match.py", "matches[-1].groups()", "matches[0].groups()"),
    (
        "src/tutelage/evaluation/exact_match.py",
        "any(self.equal(found, reference) for reference in accepted)",
        "all(self.equal(found, reference) for reference in accepted)",
    ),
]


ROWS = [
    {"prompt": "capital of France?", "answer": ["Paris"]},
    {"prompt": "capital of Spain?", "answer": ["Madrid", "madrid city"]},
    {"prompt": "capital of Peru?", "answer": ["Lima"]},
    {"prompt": "capital of Chad?", "answer": ["Ndjamena"]},
]
OUTPUTS = {
    "capital of France?": "paris.\nAnd more",
    "capital of Spain?": " MADRID  City.",
    "capital of Peru?": "Lima...",
    "capital of Chad?": " \n",
}


def test_failures_are_statuses_and_stay_in_the_denominator():
    result = ExactMatch(stop=("\n",)).evaluate(LookupModel(outputs=OUTPUTS), Dataset.from_rows(ROWS), {})
    assert result.items.table["status"].to_pylist() == ["ok", "ok", "truncated", "unparsed"]
    assert result.items.table["score"].to_pylist() == [1.0, 1.0, 0.0, 0.0]
    assert (result.estimate, result.n_items) == (0.5, 4)
    assert result.status_counts == {"ok": 2, "unparsed": 1, "truncated": 1}
    assert result.extra == {"failure_rate": 0.5, "many_failures": 1.0}
    assert result.system["decoding"]["stop"] == ["\n"]


def test_numbers_and_extraction():
    rows = [{"prompt": "sum", "answer": "1,200"}, {"prompt": "none", "answer": "3"}]
    outputs = {"sum": "I add #### 3 and get #### 1200.0 dollars, or 7", "none": "no number here"}
    task = ExactMatch(answer="numeric", extract=r"#### (\S+)")
    result = task.evaluate(LookupModel(outputs=outputs), Dataset.from_rows(rows), {})
    assert result.items.table["score"].to_pylist() == [1.0, 0.0]
    assert result.items.table["prediction"].to_pylist() == ["1200.0", None]
    assert ExactMatch(answer="numeric").score({"answer": "7"}, outputs["sum"]) == 1.0


def test_score_is_the_reward_of_one_output():
    task = ExactMatch()
    assert task.score(ROWS[1], "Madrid!") == 1.0
    assert task.score(ROWS[1], "Barcelona") == 0.0
    assert task.score(ROWS[1], "") == 0.0


def test_bad_references_and_patterns_are_errors():
    with pytest.raises(InputError, match="row q1"):
        ExactMatch(answer="numeric").score({"id": "q1", "answer": "many"}, "3")
    with pytest.raises(InputError, match="row q2"):
        ExactMatch().score({"id": "q2", "answer": []}, "3")
    with pytest.raises(ConfigError, match="extract"):
        ExactMatch(extract="(")


def test_a_chat_prompt_goes_through_the_template():
    from tutelage.models.toy import tiny_causal_lm

    model = tiny_causal_lm()
    rows = [{"prompt": "Say hi", "answer": "hi"}]
    result = ExactMatch(chat=True, max_new_tokens=2).evaluate(model, Dataset.from_rows(rows), {})
    expected = model.tokenizer.encode(model.chat_prompt([{"role": "user", "content": "Say hi"}]))
    assert result.items.table["tokens_in"].to_pylist() == [len(expected)]
    messages = [{"messages": [{"role": "user", "content": "Say hi"}], "answer": "hi"}]
    again = ExactMatch(max_new_tokens=2).evaluate(model, Dataset.from_rows(messages), {})
    assert again.items.table["raw"].to_pylist() == result.items.table["raw"].to_pylist()


class Talking(LookupModel):
    """A table model with a chat template."""

    template = "angle brackets"

    def chat_prompt(self, messages):
        return "".join(f"<{message['content']}>" for message in messages)


def test_seed_temperature_and_chat_reach_the_generation():
    given = {}

    class Recording(Talking):
        def generate(self, prompts, **options):
            given.update(options, prompts=prompts)
            return super().generate(prompts, **options)

    rows = Dataset.from_rows([{"prompt": "Q", "answer": "b"}])
    model = Recording(outputs={("Q", 0): "a", ("Q", 3): "b", "<Q>": "c"})
    assert ExactMatch().evaluate(model, rows, {}).estimate == 0.0
    assert ExactMatch(seed=3, temperature=0.7).evaluate(model, rows, {}).estimate == 1.0
    assert given["temperature"] == 0.7
    ExactMatch(chat=True).evaluate(model, rows, {})
    assert given["prompts"] == ["<Q>"]
