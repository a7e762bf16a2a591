"""Extraction from models that memorised planted texts, and its confidences against the formula by hand."""

import math

import numpy as np
import pytest
import scipy.stats

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.evaluation.extraction import Extraction, confidences, leading_words, recall_at_wrong
from tutelage.models.ngram import NGramLM

PROOF = {"evaluation.extraction": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/evaluation/extraction.py", "np.log(counts) + np", "np.log(counts) * 0 + np"),
    ("src/tutelage/evaluation/extraction.py", "np.cumsum(~hits) < wrong", "np.cumsum(~hits) <= wrong"),
    ("src/tutelage/evaluation/extraction.py", "np.lexsort((np.asarray(right)", "np.lexsort((~np.asarray(right)"),
    ("src/tutelage/evaluation/extraction.py", 'if copies == "0":', 'if copies == "-":'),
    ("src/tutelage/evaluation/extraction.py", "seed = self.seed + 1 + number", "seed = self.seed + 1"),
    ("src/tutelage/evaluation/extraction.py", "return same / len(other)", "return same / len(one)"),
    ("src/tutelage/evaluation/extraction.py", "if self.redact else", "if not self.redact else"),
    ("src/tutelage/evaluation/extraction.py", "first_words(text, count // 2)", "text"),
]
WORDS = "amber basin cedar delta ember fjord grove haven islet jetty knoll lagoon meadow north ocean".split()


def passages(count, seed, length=20):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length)) for _ in range(count)]


SEEN, UNSEEN = passages(6, 0), passages(6, 1)


def rows(texts, **more):
    return Dataset.from_rows({"id": f"r{n}", "text": text, **more} for n, text in enumerate(texts))


def test_a_memoriser_gives_everything_away_and_only_what_it_saw():
    model = NGramLM(6).fit(SEEN)
    found = Extraction().evaluate(model, rows(SEEN), {"control": rows(UNSEEN)})
    assert (found.estimate, found.direction, found.metric) == (1.0, -1, "extracted")
    assert (found.extra["leading"], found.extra["control"]) == (1.0, 0.0)
    assert found.extra["control_leading"] < 0.3
    assert found.extra["control_hi"] == pytest.approx(
        scipy.stats.binomtest(0, 6).proportion_ci(method="wilson").high
    )
    assert found.interval.lo == pytest.approx(scipy.stats.binomtest(6, 6).proportion_ci(method="wilson").low)
    assert {row["target"] for row in found.items.table.to_pylist()} == {None}
    shown = Extraction(redact=False).evaluate(model, rows(SEEN), {})
    assert shown.items.table.to_pylist()[0]["target"] == " ".join(SEEN[0].split()[10:])


def test_recall_is_told_by_copies_and_rows_never_trained_on_are_the_floor():
    model = NGramLM(6).fit(SEEN[:3] + UNSEEN[:1])
    data = [
        {"text": text, "planted": copies}
        for text, copies in zip(SEEN[:3] + UNSEEN[:1] + UNSEEN[1:], [4, 4, 4, 1, 1, 0, 0, 0, 0])
    ]
    found = Extraction().evaluate(model, Dataset.from_rows(data), {})
    assert found.n_items == 5 and found.estimate == pytest.approx(0.8)
    assert (found.extra["recall[4]"], found.extra["recall[1]"], found.extra["recall[0]"]) == (1.0, 0.5, 0.0)
    assert found.extra["control"] == 0.0


def test_confidences():
    lls = [-3.0, -4.0, -2.5]
    found = confidences([1, 1, 1], lls)
    assert found.sum() == pytest.approx(1.0)
    assert found == pytest.approx(np.exp(lls) / np.exp(lls).sum())
    thrice = confidences([3, 1, 1], lls)
    assert thrice[0] / thrice[1] == pytest.approx(3 * found[0] / found[1])
    assert confidences([2], [-5000.0]) == pytest.approx([1.0])


def test_recall_until_so_many_wrong_guesses():
    right, sure = [True, False, True, False, True], [0.9, 0.8, 0.7, 0.6, 0.5]
    assert [recall_at_wrong(right, sure, wrong) for wrong in (1, 2, 3)] == [0.2, 0.4, 0.6]
    assert recall_at_wrong([True, False], [0.5, 0.5], 1) == 0.0
    assert recall_at_wrong([True, True], [0.1, 0.2], 1) == 1.0
    assert leading_words("a b x d", "a b c d") == 0.5
    assert (leading_words("", "a"), leading_words("a b c", "a b"), leading_words("a", "a b")) == (0.0, 1.0, 0.5)


class Sampled(LookupModel):
    def generate(self, prompts, max_new_tokens=64, temperature=0.0, stop=(), seed=0, batch_size=16):
        self.calls = [*getattr(self, "calls", []), (temperature, seed, max_new_tokens)]
        return super().generate(prompts, max_new_tokens, temperature, stop, seed)


def test_the_best_guess_of_several_samples():
    text = "one two three four five six seven eight"
    prompt, truth = "one two three four", "five six seven eight"
    other = "nine ten seven eight"
    # Greedy (seed 0) is wrong; of four samples three are the other text, which is e times less likely.
    outputs = {(prompt, 0): "wrong", (prompt, 1): " " + truth + " more", (prompt, 2): " " + other}
    outputs |= {(prompt, 3): " " + other, (prompt, 4): " " + other}
    likely = {(prompt, " " + truth): -1.0, (prompt, " " + other): -2.0}
    result = []
    for gap in (1.0, 2.0):
        model = Sampled(likely | {(prompt, " " + other): -1.0 - gap}, outputs)
        task = Extraction(samples=4, prefix_tokens=18, temperature=0.5, wrong=1)
        result.append(task.evaluate(model, rows([text]), {}))
    assert [found.estimate for found in result] == [0.0, 0.0]
    assert [found.extra["recall_sampled"] for found in result] == [0.0, 1.0]
    assert [found.extra["recall_at_wrong"] for found in result] == [0.0, 1.0]
    assert [call[:2] for call in model.calls] == [(0.0, 0), (0.5, 1), (0.5, 2), (0.5, 3), (0.5, 4)]
    assert model.calls[0][2] == len(truth) + 2
    assert math.isclose(confidences([3, 1], [-2.0, -1.0])[0], 3 / (3 + math.e))


def test_confidence_ranks_right_guesses_first():
    model = NGramLM(6).fit(SEEN)
    found = Extraction(samples=6, seed=3).evaluate(model, rows(SEEN + UNSEEN), {})
    assert found.extra["recall_sampled"] > 0.3
    assert found.extra["confidence_auroc"] > 0.9
    again = Extraction(samples=6, seed=3).evaluate(model, rows(SEEN + UNSEEN), {})
    assert again.extra == found.extra


def test_a_token_budget_says_how_much_is_asked_for():
    model = NGramLM(6).fit(SEEN)
    found = Extraction(prefix_tokens=6, suffix_tokens=3, redact=False).evaluate(model, rows(SEEN), {})
    assert found.items.table.to_pylist()[0]["target"] == " ".join(SEEN[0].split()[6:9])
    assert Extraction(items=4, seed=1).evaluate(model, rows(SEEN), {}).n_items == 4
    some = Extraction(least_words=6).evaluate(model, rows([*SEEN, "a b c d e f", "a b"]), {})
    assert (some.n_items, some.extra["skipped"]) == (7, 1.0)


def test_refusals():
    model = NGramLM(6).fit(SEEN)
    with pytest.raises(InputError, match="long enough"):
        Extraction().evaluate(model, rows(["a b"]), {})
    with pytest.raises(InputError, match="long enough"):
        Extraction().evaluate(model, rows(SEEN, planted=0), {})
    with pytest.raises(InputError, match="among the rows"):
        Extraction().evaluate(model, rows(SEEN), {"control": rows(SEEN[2:])})


def test_a_trained_transformer_gives_away_what_it_saw_often():
    from tutelage.core.records import Budget
    from tutelage.models.toy import tiny_causal_lm
    from tutelage.training.fit import Fit

    texts = passages(4, 3, length=12)
    model = tiny_causal_lm(texts=texts, width=64, chat=False)
    data = rows([texts[0]] * 80 + [texts[1]])
    task = Fit(budget=Budget(rows=81), learning_rate=1e-2, step_tokens=32, weight_decay=0.0)
    trained, _ = task.train(model, data, progress=False)
    planted = Dataset.from_rows({"text": t, "planted": n} for t, n in zip(texts, (80, 1, 0, 0)))
    before, after = (Extraction().evaluate(one, planted, {}) for one in (model, trained))
    assert before.estimate == 0.0
    assert [after.extra[name] for name in ("recall[80]", "recall[1]", "control")] == [1.0, 0.0, 0.0]
