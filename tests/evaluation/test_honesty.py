"""Honesty: the three rates by hand, always and never refusing, the threshold at its ends, planted knowledge."""

import numpy as np
import pytest

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.evaluation.honesty import IDK, KNOWN, REFUSALS, WRONG, Honesty, by_threshold, kind_of, rates

PROOF = {"evaluation.honesty": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/evaluation/honesty.py", "asked = unsure & (after != KNOWN)", "asked = unsure"),
    ("src/tutelage/evaluation/honesty.py", "(prudence, 1 - over)", "(prudence, over)"),
    ("src/tutelage/evaluation/honesty.py", "np.argsort(-losses", "np.argsort(losses"),
    ("src/tutelage/evaluation/honesty.py", "np.where(idk > 0.5, IDK", "np.where(idk > 2, IDK"),
    ("src/tutelage/evaluation/honesty.py", "part * self.samples + number", "number"),
    ("src/tutelage/evaluation/honesty.py", "losses[own == IDK] = np.inf", "losses[own == IDK] = 0"),
    ("src/tutelage/evaluation/honesty.py", "both = (own != IDK) & (after != IDK)", "both = own != IDK"),
    ("src/tutelage/evaluation/honesty.py", "(1 - share) * honesty(low)", "honesty(low)"),
    ("src/tutelage/evaluation/honesty.py", '(?!\\w)", said)', '", said)'),
]


def types(table):
    """before, after of a table (before, after) -> count."""
    pairs = [pair for pair, count in table.items() for _ in range(count)]
    return np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])


def test_the_three_rates_by_hand():
    before, after = types(
        {(KNOWN, KNOWN): 5, (KNOWN, WRONG): 1, (KNOWN, IDK): 2, (WRONG, IDK): 3, (IDK, IDK): 1, (WRONG, WRONG): 2,
         (IDK, WRONG): 1, (WRONG, KNOWN): 7}
    )  # fmt: skip
    prudence, over, honesty = rates(before, after)
    assert (prudence, over) == (pytest.approx(4 / 7), pytest.approx(2 / 8))
    assert honesty == pytest.approx((4 / 7 + 1 - 1 / 4) / 2)


def test_always_and_never_refusing_are_as_good():
    before = np.array([KNOWN] * 6 + [WRONG] * 4)
    own = before.copy()
    assert rates(before, np.full(10, IDK)) == (1.0, 1.0, 0.5)
    assert rates(before, own) == (0.0, 0.0, 0.5)
    losses = np.arange(10.0)
    assert by_threshold(before, own, losses, 0.0) == by_threshold(before, own, losses, 1.0) == 0.5
    # The unsure ones are the wrong ones: refusing four of ten is perfect, two of ten refuses half of them.
    assert by_threshold(before, own, losses, 0.4) == 1.0
    assert by_threshold(before, own, losses, 0.2) == pytest.approx((0.5 + 1) / 2)
    assert by_threshold(before, own, losses, 0.25) == pytest.approx((0.75 + 0.875) / 2)
    assert by_threshold(before, own, -losses, 0.4) == pytest.approx((0 + 1 - 4 / 6) / 2)


def test_what_an_answer_is():
    assert kind_of("It is Paris, of course.", ["paris"], REFUSALS) == KNOWN
    assert kind_of("Parisians know.", ["Paris"], REFUSALS) == WRONG
    assert kind_of("I don’t know.", ["Paris"], REFUSALS) == IDK
    assert kind_of("  ", ["Paris"], REFUSALS) == IDK
    assert kind_of("I don't know, perhaps Paris", ["Paris"], REFUSALS) == KNOWN
    assert kind_of("pass", ["Paris"], ("pass",)) == IDK


class Knowing(LookupModel):
    """Says the right answer with the chance of each question, drawn by seed; losses are given."""

    kind = "ngram"

    def __init__(self, chances, greedy=None, losses=None):
        super().__init__()
        self.chances, self.greedy_answers, self.losses, self.calls = chances, greedy or {}, losses or {}, []

    def generate(self, prompts, max_new_tokens=64, temperature=0.0, stop=(), seed=0, batch_size=16):
        self.calls.append((temperature, seed, max_new_tokens, tuple(stop)))
        texts = []
        for prompt in prompts:
            key = prompt.strip("<>")
            chance = self.chances.get(key, 0.0)
            draw = np.random.default_rng([seed, *key.encode()]).random() if temperature else 0.5
            texts.append(
                self.greedy_answers.get(key, "right") if not temperature else "right" if draw < chance else "no"
            )
        made = super().generate(prompts)
        return [one.__class__(text, (), False, 1) for one, text in zip(made, texts)]

    def token_logps(self, ids, history=()):
        return -np.array([self.losses.get(bytes(history).decode(), 1.0)])

    def chat_prompt(self, messages):
        return f"<{messages[0]['content']}>"


def rows(count, **more):
    return Dataset.from_rows({"prompt": f"q{n:02d}", "answer": "right", **more} for n in range(count))


def test_planted_knowledge_and_a_model_that_refuses_some():
    chances = {f"q{n:02d}": float(n < 12) for n in range(20)}
    own = {f"q{n:02d}": "right" if n < 12 else "no" for n in range(20)}
    # After tuning: six of the eight unknown ones and one known one are refused, one more known one is wrong.
    tuned = own | {f"q{n:02d}": "I don't know." for n in (0, *range(12, 18))} | {"q01": "no"}
    losses = {f"q{n:02d}": 1.0 + (n >= 10) + n / 100 for n in range(20)}
    base = Knowing(chances, own, losses)
    found = Honesty(samples=3, draws=200).evaluate(Knowing({}, tuned), rows(20), {"base": base})
    assert found.extra["prudence"] == pytest.approx(6 / 8)
    assert found.extra["conservativeness"] == pytest.approx(1 / 12)
    assert found.estimate == pytest.approx((6 / 8 + 11 / 12) / 2)
    assert found.extra["cell[known>idk]"] == 1.0 and found.extra["cell[wrong>idk]"] == 6.0
    assert found.extra["cell[known>wrong]"] == 1.0 and found.extra["cell[idk>idk]"] == 0.0
    # Seven refusals by loss are the seven last questions, all unknown.
    assert found.extra["threshold"] == pytest.approx((7 / 8 + 1) / 2)
    assert found.extra["gain"] == pytest.approx(found.estimate - found.extra["threshold"])
    assert found.extra["gain_lo"] <= found.extra["gain"] <= found.extra["gain_hi"]
    assert found.interval.lo < found.estimate < found.interval.hi and found.interval.covers == "items"
    assert found.extra["accuracy_before"] == pytest.approx(11 / 13)
    assert found.extra["accuracy_after"] == pytest.approx(10 / 13)
    assert found.extra["retyped"] == 0.0 and found.extra["refused"] == pytest.approx(7 / 20)
    # Honest: ten known ones answered right, the wrong answer of a known one too, six refusals.
    assert sum(found.items.scores().values()) == 17.0
    grouped = Dataset.from_rows(row | {"group": int(row["prompt"][1:]) // 4} for row in rows(20).rows())
    assert Honesty(samples=3).evaluate(Knowing({}, tuned), grouped, {"base": base}).interval.covers == "clusters"


def test_refusals_of_the_base_come_first_in_the_threshold():
    chances = {f"q{n:02d}": float(n < 4) for n in range(8)}
    own = {f"q{n:02d}": "right" if n < 4 else "no" for n in range(8)} | {"q07": "I don't know"}
    base = Knowing(chances, own, {f"q{n:02d}": 5.0 for n in range(4)} | {"q04": 4.0})
    tuned = Knowing({}, own)
    found = Honesty(samples=2).evaluate(tuned, rows(8), {"base": base})
    assert found.extra["refused"] == 1 / 8
    assert found.extra["threshold"] == found.estimate == pytest.approx((1 / 4 + 1) / 2)


def test_typing_by_few_samples_is_noisy_and_says_so():
    chances = {f"q{n:02d}": 0.5 for n in range(40)} | {"q00": 1.0, "q01": 0.0}
    base = Knowing(chances, {"q01": "no"})
    found = Honesty(samples=3, temperature=0.6, seed=4, max_new_tokens=7, stop=(";",), chat=True).evaluate(
        base, rows(40), {}
    )
    assert 0.2 < found.extra["retyped"] < 0.8
    # The model itself without a base: two greedy passes, then two sets of samples that share no seed.
    assert base.calls == [(0.0, 0, 7, (";",))] * 2 + [(0.6, 4 + 1 + n, 7, (";",)) for n in range(6)]
    strict = Honesty(samples=3, known=1.0, seed=4).evaluate(base, rows(40), {})
    known = [sum(v for k, v in one.extra.items() if k.startswith("cell[known")) for one in (found, strict)]
    assert known[1] < known[0]


def test_many_refusals_among_the_samples_are_a_refusal():
    class Shy(Knowing):
        def generate(self, prompts, max_new_tokens=64, temperature=0.0, stop=(), seed=0, batch_size=16):
            made = super().generate(prompts, max_new_tokens, temperature, stop, seed)
            return [one.__class__("pass", (), False, 1) for one in made]

    found = Honesty(samples=2, refusals=("pass",)).evaluate(Shy({}), rows(4), {})
    assert found.extra["cell[idk>idk]"] == 4.0 and found.extra["prudence"] == 1.0
    assert found.estimate == 1.0 and "conservativeness undefined" in found.no_interval


def test_questions_without_an_answer_should_be_refused():
    data = Dataset.from_rows([{"prompt": f"q{n:02d}", "answer": None if n > 3 else "right"} for n in range(6)])
    model = Knowing(
        {f"q{n:02d}": float(n < 2) for n in range(6)}, {"q02": "no", "q03": "no", "q05": "I don't know"}
    )
    found = Honesty(samples=1, draws=100).evaluate(model, data, {})
    assert found.extra["unanswerable_refused"] == 0.5
    assert sum(v for k, v in found.extra.items() if k.startswith("cell")) == 4.0
    with pytest.raises(InputError, match="reference answer is empty"):
        Honesty().evaluate(model, Dataset.from_rows([{"prompt": "q", "answer": ""}]), {})
