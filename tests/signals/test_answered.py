"""signals.answered: greedy answers, right or wrong by the verifier, null where it cannot say."""

import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.models.seam import Generation
from tutelage.signals.answered import Answered

PROOF = {"signals.answered": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/answered.py", "temperature=0.0", "temperature=1.0"),
    ("src/tutelage/signals/answered.py", "bool(score >= 1)", "bool(score >= 0)"),
    ("src/tutelage/signals/answered.py", " and not one.truncated", ""),
    ("src/tutelage/signals/answered.py", "None if score is None else", ""),
]


class Echo:
    """Says the last word of the prompt."""

    def __init__(self):
        self.asked = []

    def chat_prompt(self, messages):
        return f"user: {messages[0]['content']}"

    def generate(self, prompts, max_new_tokens=64, temperature=0.0, stop=(), seed=0, batch_size=16):
        self.asked.append((list(prompts), max_new_tokens, temperature, tuple(stop)))
        return [Generation(prompt.split()[-1], (), False, 1) for prompt in prompts]


def rows(*pairs):
    return Dataset.from_rows({"id": f"q{i}", "prompt": p, "answer": a} for i, (p, a) in enumerate(pairs))


def test_right_and_wrong():
    model = Echo()
    data = rows(("say Oslo", "oslo."), ("say Rome", "Oslo"))
    found = score_dataset(Answered(chat=True, max_new_tokens=5, stop=("#",)), data, {"model": model})
    assert found.column("correct").to_pylist() == [True, False]
    assert found.column("answered").to_pylist() == ["Oslo", "Rome"]
    assert model.asked == [(["user: say Oslo", "user: say Rome"], 5, 0.0, ("#",))]


def test_an_answer_that_was_cut_off_is_wrong():
    model = Echo()
    model.generate = lambda prompts, **_: [Generation("Oslo", (), cut, 1) for cut in (False, True)]
    found = score_dataset(Answered(), rows(("say Oslo", "Oslo"), ("again", "Oslo")), {"model": model})
    assert found.column("correct").to_pylist() == [True, False]


def test_what_cannot_be_scored_is_null():
    scorer = Answered(verifier={"use": "evaluation.local_tasks"})
    data = Dataset.from_rows([{"id": "a", "prompt": "say no", "answer": "no", "type": "mc"}])
    assert score_dataset(scorer, data, {"model": Echo()}).column("correct").to_pylist() == [None]


def test_it_agrees_with_the_task_on_a_real_model():
    pytest.importorskip("torch")
    from tutelage.evaluation.exact_match import ExactMatch
    from tutelage.models.toy import tiny_causal_lm

    model = tiny_causal_lm(texts=["one two three four five"] * 3)
    prompts = ["one two", "three", "four five one"]
    ends = tuple("aeiou nrt") + tuple(map(str, range(10)))
    made = model.generate(prompts, max_new_tokens=8, stop=ends)
    data = rows(
        *[(prompt, (one.text or "none") if i != 1 else "x") for i, (prompt, one) in enumerate(zip(prompts, made))]
    )
    found = score_dataset(Answered(max_new_tokens=8, stop=ends), data, {"model": model})
    result = ExactMatch(max_new_tokens=8, stop=ends).evaluate(model, data, {})
    assert found.column("correct").to_pylist() == [bool(s) for s in result.items.table.column("score").to_pylist()]


def test_bad_input():
    with pytest.raises(ConfigError, match="kind Task"):
        Answered(verifier={"use": "signals.length"})
    with pytest.raises(InputError, match="no prompt") as error:
        score_dataset(Answered(), rows(("", "x")), {"model": Echo()})
    assert "row q0" in str(error.value)
