"""signals.grape against transformers' own loss, signals.token_loss, and planted candidates."""

import math
import random

import pytest
import torch

from toy.training_bed import train
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.models.encode import encode_messages
from tutelage.models.toy import tiny_causal_lm
from tutelage.signals.grape import Grape
from tutelage.signals.token_loss import TokenLoss

PROOF = {"signals.grape": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/grape.py", "float(part.sum())", "float(part[:-1].sum())"),
    ("src/tutelage/signals/grape.py", "sums[i] / unique[i].n_trained", "sums[i] / len(unique[i])"),
    ("src/tutelage/signals/grape.py", 'turns="last"', 'turns="all"'),
]
PAIRS = [
    {"id": "a", "prompt": "What is it?", "completion": " a lazy dog"},
    {"id": "b", "prompt": "What is it?", "completion": " the quick brown fox jumps over the lazy dog"},
    {"id": "c", "prompt": "And the other", "completion": " ünd noch etwas"},
    {"id": "d", "prompt": "What is it?", "completion": " a lazy dog"},
]


@pytest.fixture(scope="module")
def model():
    return tiny_causal_lm()


def score(rows, model, **fields):
    return list(score_dataset(Grape(**fields), Dataset.from_rows(rows), {"model": model}).rows())


def library_mean(model, ids, trained):
    labels = [i if flag else -100 for i, flag in zip(ids, trained)]
    with torch.no_grad():
        return -float(model.module(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss)


def test_equals_transformers_end_token_included(model):
    for row in score(PAIRS, model):
        before = model.prefix_ids + model.tokenize([row["prompt"]])[0]
        answer = [*model.tokenize([row["completion"]])[0], model.eos_id]
        expected = library_mean(model, before + answer, [False] * len(before) + [True] * len(answer))
        assert row["fit_score"] == pytest.approx(expected, rel=1e-4)
        assert row["fit_tokens"] == len(answer) and row["fit_flag"] is None


def test_without_an_end_token_it_is_minus_the_mean_loss(model):
    rows = [{**row, "partial": True} for row in PAIRS]
    losses = score_dataset(TokenLoss(), Dataset.from_rows(rows), {"model": model}).numpy("nll_mean")
    assert [row["fit_score"] for row in score(rows, model)] == pytest.approx([-loss for loss in losses], rel=1e-5)


def test_equal_candidates_tie_and_company_does_not_matter(model):
    found = score(PAIRS, model)
    assert found[0]["fit_score"] == found[3]["fit_score"]
    for row, together in zip(PAIRS, found):
        assert score([row], model)[0]["fit_score"] == pytest.approx(together["fit_score"], abs=1e-4)


def test_of_a_conversation_the_last_answer_counts_with_its_end_of_turn(model):
    turns = [("user", "Hi"), ("assistant", "Hello you"), ("user", "And?"), ("assistant", "Good day")]
    messages = [{"role": role, "content": content} for role, content in turns]
    found = score([{"messages": messages}], model)[0]
    encoded = encode_messages(model, messages, max_length=512, turns="last")
    assert found["fit_score"] == pytest.approx(library_mean(model, encoded.ids, encoded.trained), rel=1e-4)
    assert found["fit_tokens"] == encoded.n_trained < encode_messages(model, messages, max_length=512).n_trained


def test_the_models_own_samples_fit_better_than_shuffled_ones():
    texts = [f"Row {i} of the big table holds the number {i * 7}." for i in range(30)]
    lm = tiny_causal_lm(texts=texts, layers=1)
    train(lm, Dataset.from_rows({"id": str(i), "text": t} for i, t in enumerate(texts)), tokens=6000)
    prompts = [f"Row {i} of" for i in range(12)]
    rows, rng = [], random.Random(0)
    for i, made in enumerate(lm.generate(prompts, max_new_tokens=16, temperature=0.3)):
        words = made.text.split()
        mixed = words[:]
        while mixed == words:
            rng.shuffle(mixed)
        for kind, answer in (("own", words), ("shuffled", mixed)):
            rows.append({"id": f"{kind}{i}", "prompt": prompts[i], "completion": " " + " ".join(answer)})
    found = {row["id"]: row["fit_score"] for row in score(rows, lm)}
    assert all(found[f"own{i}"] > found[f"shuffled{i}"] for i in range(12))


def test_flags_and_refusals(model):
    empty, long = score(
        [{"prompt": "p", "completion": ""}, {"prompt": "p", "completion": "abc " * 60}], model, max_length=32
    )
    assert math.isnan(empty["fit_score"]) and empty["fit_flag"] == "empty response" and empty["fit_tokens"] == 0
    assert math.isfinite(long["fit_score"]) and long["fit_flag"] == "cut to the context"
    for row in ({"id": "x", "text": "plain"}, {"id": "x", "messages": [{"role": "user", "content": "Hi"}]}):
        with pytest.raises(InputError, match="no candidate answer") as error:
            score([row], model)
        assert "row x" in str(error.value)
