"""SAR: the paper's formula on numbers worked out by hand, AUROC of planted uncertainty, baselines beside it."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.text.similarity import rouge_l
from tutelage.evaluation._answers import answer_losses, without_each_token
from tutelage.evaluation.sar import Sar, sentence_energy, token_energy
from tutelage.models.ngram import NGramLM

PROOF = {"evaluation.sar": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/evaluation/sar.py", "others / t", "others"),
    ("src/tutelage/evaluation/sar.py", "similarity @ p - np.diagonal(similarity) * p", "similarity @ p"),
    ("src/tutelage/evaluation/sar.py", "np.maximum(relevance, 0.0)", "np.abs(relevance)"),
    ("src/tutelage/evaluation/sar.py", "if total <= 0 else", "if False else"),
    ("src/tutelage/evaluation/sar.py", "1 - cosines(part)[0, 1:]", "cosines(part)[0, 1:]"),
    ("src/tutelage/evaluation/sar.py", "seed=self.seed + number", "seed=self.seed"),
    ("src/tutelage/evaluation/sar.py", "not right(one.text", "right(one.text"),
    ("src/tutelage/evaluation/sar.py", "known.max() + 1 if", "known.min() - 1 if"),
    ("src/tutelage/evaluation/_answers.py", "*ids[place + 1 :]", "*ids[place + 2 :]"),
    ("src/tutelage/evaluation/_answers.py", "[False] * len(before) + [True]", "[True] * len(before) + [True]"),
]


def test_the_formula_by_hand():
    losses = np.array([0.1, 2.0]), np.array([0.2, 1.0])
    energies = np.array([token_energy(one, np.ones(2)) for one in losses])
    assert energies == pytest.approx([1.05, 0.6])
    similarity = np.array([[1.0, 0.5], [0.5, 1.0]])
    assert sentence_energy(energies, similarity, 1e12) == pytest.approx(0.825)
    assert sentence_energy(energies, similarity, 1.0) == pytest.approx(0.3972, abs=5e-5)
    assert sentence_energy(energies, similarity, 0.001) == pytest.approx(-5.392, abs=5e-4)
    # One answer: the token part alone.
    assert sentence_energy(energies[:1], similarity[:1, :1], 0.001) == pytest.approx(1.05)


def test_relevance_weighs_tokens():
    losses = np.array([1.0, 3.0, 5.0])
    assert token_energy(losses, np.array([0.0, 0.2, 0.6])) == pytest.approx((0.2 * 3 + 0.6 * 5) / 0.8)
    assert token_energy(losses, np.array([1.0, -4.0, 0.0])) == 1.0
    for none in (np.zeros(3), np.array([-1.0, -2.0, 0.0])):
        assert token_energy(losses, none) == 3.0


class Sure(LookupModel):
    """Token losses of answers from a table; words are tokens; vectors from a table."""

    kind = "ngram"

    def __init__(self, outputs, losses=None, vectors=None):
        super().__init__(outputs=outputs)
        self.losses, self.vectors = losses or {}, vectors or {}

    def tokenize(self, texts):
        return [text.split() for text in texts]

    def decode(self, ids):
        return " ".join(ids)

    def token_logps(self, ids, history=()):
        return -np.array([self.losses.get(word, 1.0) for word in ids])

    def embed(self, texts):
        return np.array([self.vectors.get(text, [1.0, 0.0]) for text in texts])


def test_only_the_place_of_a_token_is_removed():
    assert without_each_token(Sure({}), "yes no yes") == ["no yes", "yes yes", "yes no"]


def test_one_item_through_all_its_parts():
    outputs = {("Q ", 0): "red fox", ("Q ", 1): "blue"}
    vectors = {
        "Q red fox": [1.0, 0.0],
        "Q fox": [0.6, 0.8],  # without red: cosine .6
        "Q red": [1.0, 0.0],  # without fox: nothing changes
        "Q blue": [0.8, 0.6],
        "Q ": [0.0, 1.0],
    }
    model = Sure(outputs, {"red": 2.0, "fox": 4.0, "blue": 0.5}, vectors)
    task = Sar(samples=2, t=0.5)
    scores = task._scores(model, model, ["Q "], ["red fox"], [["red fox", "blue"]])
    energies = np.array([2.0, 0.5])
    assert scores["token_sar"][0] == pytest.approx(1.25)
    p = np.exp(-energies)
    assert scores["sar"][0] == pytest.approx(-np.mean(np.log([p[0] + 1.6 * p[1], p[1] + 1.6 * p[0]])))
    whole = np.exp([-6.0, -0.5])
    expected = -np.mean(np.log([whole[0] + 1.6 * whole[1], whole[1] + 1.6 * whole[0]]))
    assert scores["sentence_sar"][0] == pytest.approx(expected)
    assert scores["normalised_entropy"][0] == pytest.approx((3.0 + 0.5) / 2)
    assert scores["probability"][0] == 6.0
    assert scores["disagreement"][0] == 1 - rouge_l("red fox", "blue")


def planted(count=24, seed=0):
    """Questions whose answers are unsure mostly where they are wrong."""
    rng = np.random.default_rng(seed)
    rows, outputs, losses, wrong = [], {}, {}, []
    for n in range(count):
        bad = n % 3 == 0
        word = f"answer{n}"
        losses[word] = float(rng.normal(2.0 if bad else 1.0, 0.7)) ** 2
        rows.append({"prompt": f"Q{n} ", "answer": f"answer{n + 100 * bad}", "topic": n})
        outputs |= {f"Q{n} ": word, (f"Q{n} ", 3): word if n % 4 else f"other{n}"}
        wrong.append(bad)
    return rows, outputs, losses, np.array(wrong)


def test_auroc_of_planted_uncertainty():
    rows, outputs, losses, wrong = planted()
    model = Sure(outputs, losses)
    found = Sar(samples=3, seed=1, t=1.0).evaluate(model, Dataset.from_rows(rows), {})
    sure = np.array([float(row["raw"]) for row in found.items.table.to_pylist()])
    assert found.estimate == pytest.approx(roc_auc_score(wrong, sure)) and found.estimate > 0.7
    assert found.extra["accuracy"] == pytest.approx(2 / 3)
    assert found.interval.lo < found.estimate <= found.interval.hi and found.direction == 1
    own = [losses[f"answer{n}"] for n in range(24)]
    assert found.extra["auroc[probability]"] == pytest.approx(roc_auc_score(wrong, own))
    gap = found.extra["auroc[sar]"] - found.extra["auroc[probability]"]
    assert found.extra["gain[probability]"] == pytest.approx(gap)
    assert found.extra["gain[probability]_lo"] <= gap <= found.extra["gain[probability]_hi"]
    disagree = [float(n % 4 == 0) * 2 / 3 for n in range(24)]
    assert found.extra["auroc[disagreement]"] == pytest.approx(roc_auc_score(wrong, disagree))
    grouped = [row | {"group": row["topic"] // 2} for row in rows]
    assert Sar(samples=3).evaluate(model, Dataset.from_rows(grouped), {}).interval.covers == "clusters"


def test_an_encoder_may_judge_and_what_has_no_answer_is_least_sure():
    rows, outputs, losses, _ = planted()
    outputs |= {"Q0 ": "", "Q3 ": ""}
    model = Sure(outputs, losses)

    class Encoder:
        asked = 0

        def embed(self, texts):
            Encoder.asked += len(texts)
            return np.ones((len(texts), 2))

    found = Sar(samples=2).evaluate(model, Dataset.from_rows(rows), {"encoder": Encoder()})
    assert Encoder.asked == 22 * 4 and found.extra["no_answer"] == 2.0
    assert found.status_counts == {"ok": 22, "unparsed": 2}
    sure = {row["target"]: float(row["raw"]) for row in found.items.table.to_pylist()}
    assert sorted(sure, key=sure.get)[-2:] == ["answer100", "answer103"]


def test_nothing_to_rank_is_said():
    rows = [{"prompt": f"Q{n}", "answer": "x"} for n in range(6)]
    found = Sar(samples=1).evaluate(Sure({f"Q{n}": "x" for n in range(6)}), Dataset.from_rows(rows), {})
    assert (found.estimate, found.interval) == (0.5, None)
    assert "0 of 6 answers are wrong" in found.no_interval


def test_what_is_asked():
    class Talking(Sure):
        def chat_prompt(self, messages):
            return f"<{messages[0]['content']}>"

        def generate(self, prompts, max_new_tokens=64, temperature=0.0, stop=(), seed=0, batch_size=16):
            self.settings = [*getattr(self, "settings", []), (max_new_tokens, temperature, tuple(stop), seed)]
            return super().generate(prompts, max_new_tokens, temperature, stop, seed)

    model = Talking({"<Q>": "yes"})
    task = Sar(samples=2, seed=5, temperature=0.7, max_new_tokens=9, stop=(";",), chat=True)
    task.evaluate(model, Dataset.from_rows([{"prompt": "Q", "answer": "yes"}]), {})
    assert model.asked == ["<Q>"] * 3
    assert model.settings == [(9, 0.0, (";",), 0), (9, 0.7, (";",), 5), (9, 0.7, (";",), 6)]


def test_losses_of_real_models():
    import torch

    from tutelage.models.toy import tiny_causal_lm

    model = tiny_causal_lm("gpt2")
    pairs = [("The quick", " brown fox"), ("Question:", " what")]
    for (prompt, answer), found in zip(pairs, answer_losses(model, pairs)):
        before = model.tokenizer(prompt)["input_ids"]
        after = model.tokenizer(answer, add_special_tokens=False)["input_ids"]
        with torch.no_grad():
            logps = model.module(input_ids=torch.tensor([before + after])).logits[0].log_softmax(-1)
        assert found == pytest.approx(
            [-float(logps[len(before) - 1 + i, t]) for i, t in enumerate(after)], abs=1e-4
        )
    ngram = NGramLM(2).fit(["a b a b c"])
    assert answer_losses(ngram, [("a b", "a c")])[0].sum() == pytest.approx(
        -ngram.loglikelihood([("a b", "a c")])[0].sum
    )
    assert math.isfinite(
        float(
            Sar(samples=2, max_new_tokens=3)
            .evaluate(model, Dataset.from_rows([{"prompt": "Question:", "answer": "four"}] * 2), {})
            .extra["mean_sar"]
        )
    )


def test_refusals():
    with pytest.raises(InputError, match="no reference answer"):
        Sar().evaluate(Sure({}), Dataset.from_rows([{"prompt": "Q", "answer": None}]), {})
    with pytest.raises(ConfigError, match="no log-probabilities"):
        Sar(samples=1).evaluate(LookupModel(), Dataset.from_rows([{"prompt": "Q", "answer": "x"}]), {})
