"""signals.clear: agreement and self-check by hand, AUROC against scikit-learn, planted swapped answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from toy.lookup_model import LookupModel
from toy.planted_pool import make_pool
from tutelage.core.apply import apply_transform, score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.text.hashing import hash64
from tutelage.data.filter.clear import Clear as Filter
from tutelage.signals import clear
from tutelage.signals.clear import QUESTIONS, Clear, auroc, observed, self_check, swap, token_f1

PROOF = {"signals.clear": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/signals/clear.py", "alpha * agree(answer, z) + (1 - alpha)", "agree(answer, z) + (1 - alpha)"),
    ("src/tutelage/signals/clear.py", "(1 - self.beta, checked)", "(self.beta, checked)"),
    ("src/tutelage/signals/clear.py", "np.exp(yes - np.logaddexp(yes, no))", "np.exp(no - np.logaddexp(yes, no))"),
    (
        "src/tutelage/signals/clear.py",
        "auroc(values[~changed], values[changed])",
        "auroc(values[changed], values[~changed])",
    ),
    ("src/tutelage/signals/clear.py", "np.repeat([1.0, 0.0]", "np.repeat([0.0, 1.0]"),
    ("src/tutelage/signals/clear.py", "pairs[(i + 1) % count][1]", "pairs[i][1]"),
    ("src/tutelage/signals/clear.py", 'hash64(self.seed, f"{one} {j}")', "hash64(0, one)"),
]


def ask(prompt, answer, question):
    return f"Question: {prompt}\nProposed answer: {answer}\n{question} Answer yes or no:"


def score(rows, model, **fields):
    return list(score_dataset(Clear(**fields), Dataset.from_rows(rows), {"model": model}).rows())


def test_agreement_by_hand():
    assert token_f1("The red ball.", "red ball here") == pytest.approx(2 * 2 / 6)
    assert token_f1("a a b", "a b b") == pytest.approx(2 * 2 / 6) and token_f1("", "") == 0.0
    assert observed("Red.", ["red", "blue"], alpha=0.8) == pytest.approx(0.5)
    assert observed("the red one", ["red one", "the red one"], alpha=0.8) == pytest.approx((0.8 * 0.8 + 1.0) / 2)
    assert observed("it is 12", ["so 12.0", "13"], alpha=1.0, numeric=True) == 0.5


def test_confidence_mixes_both_parts():
    model = LookupModel(
        lls={
            (ask("p", "red", QUESTIONS[0]), " yes"): math.log(0.6),
            (ask("p", "red", QUESTIONS[0]), " no"): math.log(0.2),
            (ask("p", "red", QUESTIONS[1]), " yes"): math.log(0.1),
            (ask("p", "red", QUESTIONS[1]), " no"): math.log(0.3),
        },
        outputs={("p", hash64(0, f"a {sample}") % 2**31): text for sample, text in enumerate(("red", "blue"))},
    )
    rows = [{"id": "a", "prompt": "p", "completion": "red"}]
    assert self_check([("p", "red")], model) == pytest.approx([0.5])
    found = score(rows, model, samples=2, beta=0.6, alpha=0.7)[0]
    assert (found["clear_observed"], found["clear_self"]) == pytest.approx((0.5, 0.5))
    other = score(
        rows,
        LookupModel(lls={**model.lls, (ask("p", "red", QUESTIONS[0]), " no"): -99.0}, outputs={"p": "red"}),
        beta=0.6,
    )[0]
    assert other["clear_conf"] == pytest.approx(0.6 * 1.0 + 0.4 * (1 + 0.25) / 2)


def test_beta_one_is_the_samples_alone_and_zero_the_questions():
    model = LookupModel(outputs={"p": "red ball"})
    rows = [{"prompt": "p", "completion": "red cube"}]
    found = score(rows, model, beta=1.0)[0]
    assert found["clear_conf"] == found["clear_observed"] == pytest.approx(0.4) and math.isnan(found["clear_self"])
    assert not any(isinstance(asked, tuple) for asked in model.asked)
    checked = score(rows, model, beta=0.0)[0]
    assert math.isnan(checked["clear_observed"]) and checked["clear_conf"] == checked["clear_self"]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.lists(st.integers(0, 6), min_size=1, max_size=20))
def test_auroc_equals_scikit_learn(good, bad):
    expected = roc_auc_score([1] * len(good) + [0] * len(bad), good + bad)
    assert auroc(np.array(good), np.array(bad)) == pytest.approx(expected)


def test_swapped_answers_go_round_and_equal_ones_do_not_count():
    pairs = [(f"p{i}", a) for i, a in enumerate(["x", "y", "y", "z", "w", "v"])]
    mixed, changed = swap(pairs, 0.5)
    assert [answer for _, answer in mixed] == ["y", "y", "x", "z", "w", "v"]
    assert changed.tolist() == [True, False, True, False, False, False]
    assert [prompt for prompt, _ in mixed] == [prompt for prompt, _ in pairs]
    assert math.isnan(auroc(np.zeros(3), np.zeros(0)))


@pytest.fixture(scope="module")
def planted():
    pool = [r for r in make_pool(300, seed=4, shares={"pair": 1.0}, swapped=0.2) if r["kind"] == "pair"]
    return [{name: row[name] for name in ("id", "prompt", "completion", "swapped")} for row in pool]


class Knows(LookupModel):
    """Answers a question right with probability 0.7; which answers are right, the pool says."""

    def __init__(self, rows, skill):
        super().__init__()
        right = {row["prompt"]: row["completion"] for row in rows if not row["swapped"]}
        self._right, self._skill, self._all = right, skill, sorted(set(right.values()))

    def generate(self, prompts, seed=0, **options):
        texts = []
        for p, one in zip(prompts, seed):
            rng = np.random.default_rng(one)
            texts.append(self._right[p] if rng.random() < self._skill else self._all[rng.integers(len(self._all))])
        made = super().generate(prompts, seed=seed)
        return [type(one)(text, one.token_ids, False, one.prompt_tokens) for one, text in zip(made, texts)]


def test_a_model_that_knows_finds_swapped_answers_and_the_filter_keeps_the_others(planted):
    scored = score_dataset(Clear(beta=1.0), Dataset.from_rows(planted), {"model": Knows(planted, 0.7)})
    power = scored.numpy("clear_auroc")
    assert len(set(power)) == 1 and power[0] > 0.75
    confidence, wrong = scored.numpy("clear_conf"), scored.numpy("swapped").astype(bool)
    lowest = np.argsort(confidence, kind="stable")[: round(0.2 * len(wrong))]
    assert wrong[lowest].mean() > 0.6, "precision of the least trusted fifth; chance is 0.2"
    kept = apply_transform(Filter(), scored, {})
    assert kept.numpy("swapped").mean() < 0.05


def test_a_model_that_guesses_is_refused_by_the_filter(planted):
    scored = score_dataset(Clear(beta=1.0), Dataset.from_rows(planted), {"model": Knows(planted, 0.0)})
    assert 0.35 < scored.numpy("clear_auroc")[0] < 0.6
    with pytest.raises(InputError, match="does not tell wrong answers"):
        apply_transform(Filter(), scored, {})


def test_fields_reach_the_model_and_the_check(planted, monkeypatch):
    calls = []

    class Records(LookupModel):
        def generate(self, prompts, **options):
            calls.append((len(prompts), options))
            return super().generate(prompts)

    score(
        planted[:20],
        Records(),
        samples=2,
        temperature=0.4,
        max_new_tokens=7,
        stop=("\n",),
        seed=3,
        check_rows=10,
        swapped=0.5,
    )
    expected = {"max_new_tokens": 7, "temperature": 0.4, "stop": ("\n",)}
    seeds = [(n, options.pop("seed")) for n, options in calls]
    assert [n for n, _ in calls] == [10, 10, 20, 20] and all(options == expected for _, options in calls)
    assert all(len(set(own)) == n for n, own in seeds)
    assert not set(seeds[2][1]) & set(seeds[3][1]), "every sample has its own"
    calls.clear()
    score(planted[:20], Records(), samples=2, seed=4, check_rows=10, swapped=0.5)
    assert calls[-1][1]["seed"] != seeds[3][1]
    shares = []
    monkeypatch.setattr(clear, "swap", lambda pairs, share: (shares.append(share), swap(pairs, share))[1])
    numbers = [{"prompt": f"p{i}", "completion": f"it is {i}"} for i in range(10)]
    found = score(
        numbers, LookupModel(outputs={f"p{i}": f"{i}.0" for i in range(10)}), agreement="numeric", swapped=0.4
    )
    assert shares == [0.4] and all(row["clear_observed"] == 0.8 for row in found)
    assert found[0]["clear_auroc"] > 0.9


def test_conversations_empty_answers_and_missing_prompts():
    class Chats(LookupModel):
        def chat_prompt(self, messages):
            return "|".join(m["content"] for m in messages)

    turns = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "red"}]
    found = score([{"messages": turns}], Chats(outputs={"p": "red"}), beta=1.0)
    assert found[0]["clear_conf"] == 1.0 and math.isnan(found[0]["clear_auroc"])
    rows = [{"id": "a", "prompt": "p", "completion": ""}, {"id": "b", "prompt": "p", "completion": "x"}]
    assert math.isnan(score(rows, LookupModel())[0]["clear_conf"])
    for bad in ({"id": "c", "prompt": "", "completion": "x"}, {"id": "c", "prompt": None, "completion": "x"}):
        with pytest.raises(InputError, match="no prompt to answer") as error:
            score([*rows, bad], LookupModel())
        assert "row c" in str(error.value)
    with pytest.raises(InputError, match="no prompt to answer"):
        score([{"id": "a", "text": "plain"}], LookupModel())
