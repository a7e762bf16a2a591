"""signals.token_loss against transformers' own loss and by hand."""

import math

import numpy as np
import pytest
import torch

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.models.toy import tiny_causal_lm
from tutelage.signals.token_loss import TokenLoss, rates

PROOF = {"signals.token_loss": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/token_loss.py", "bits = nll_sum / math.log(2)", "bits = nll_sum"),
    ("src/tutelage/signals/token_loss.py", "total = -found[i].sum", "total = found[i].sum"),
    ("src/tutelage/signals/token_loss.py", "stride=self.stride", "stride=None"),
    ("src/tutelage/signals/token_loss.py", "len(answer.encode()), len(answer))", "len(answer), len(answer))"),
]
TEXTS = ["The quick brown fox.", "über den Dächern", "x", "", "two words again and again " * 20]


@pytest.fixture(scope="module")
def model():
    return tiny_causal_lm()


def score(rows, model, **fields):
    return list(score_dataset(TokenLoss(**fields), Dataset.from_rows(rows), {"model": model}).rows())


def library_loss(model, prompt_ids, ids):
    """Sum of transformers' cross-entropy over `ids` after `prompt_ids`."""
    full = torch.tensor([prompt_ids + ids])
    labels = torch.tensor([[-100] * len(prompt_ids) + ids])
    with torch.no_grad():
        return float(model.module(input_ids=full, labels=labels).loss) * len(ids)


def test_equals_transformers_on_texts(model):
    found = score([{"text": t} for t in TEXTS], model)
    for text, row in zip(TEXTS, found):
        ids = model.tokenize([text])[0]
        assert row["n_tok"] == len(ids)
        if not ids:
            assert math.isnan(row["nll_sum"]) and math.isnan(row["bpb"]) and row["loss_flag"] == "empty text"
            continue
        expected = library_loss(model, [model.bos_id], ids)
        assert row["nll_sum"] == pytest.approx(expected, rel=1e-4)
        assert row["nll_mean"] == pytest.approx(expected / len(ids), rel=1e-4)
        assert row["ppl"] == pytest.approx(math.exp(expected / len(ids)), rel=1e-3)
        assert row["bpb"] == pytest.approx(expected / math.log(2) / len(text.encode()), rel=1e-4)
        assert row["bpc"] == pytest.approx(expected / math.log(2) / len(text), rel=1e-4)
        assert row["first_token_scored"] and row["loss_flag"] is None


def test_pairs_score_the_response_only(model):
    rows = [{"prompt": "What is it?", "completion": " Ein Bär"}, {"prompt": "empty", "completion": ""}]
    found = score(rows, model)
    ids = model.tokenize([" Ein Bär"])[0]
    expected = library_loss(model, model.prefix_ids + model.tokenize(["What is it?"])[0], ids)
    assert found[0]["n_tok"] == len(ids)
    assert found[0]["nll_sum"] == pytest.approx(expected, rel=1e-4)
    assert found[0]["bpb"] == pytest.approx(expected / math.log(2) / len(" Ein Bär".encode()), rel=1e-4)
    assert found[1]["loss_flag"] == "empty response" and math.isnan(found[1]["nll_mean"])


def test_conversations_score_the_last_answer(model):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello you"}]
    found = score([{"messages": messages}], model)[0]
    direct = model.loglikelihood([(model.chat_prompt(messages[:1]), "Hello you")])[0]
    assert found["nll_sum"] == pytest.approx(-direct.sum, rel=1e-5)
    with pytest.raises(InputError, match="does not end with the assistant"):
        score([{"id": "m", "messages": messages[:1]}], model)


def test_a_constant_model_costs_ln_v_per_token():
    model = tiny_causal_lm(seed=1)
    with torch.no_grad():
        model.module.get_output_embeddings().weight.zero_()
    row = score([{"text": "any text at all"}], model)[0]
    assert row["nll_mean"] == pytest.approx(math.log(len(model.tokenizer)), rel=1e-5)


def test_windows_score_every_token_once(model):
    text = TEXTS[4]
    whole = score([{"text": text}], model)[0]
    pieces = score([{"text": text}], model, window=32, stride=16, per_token=True)[0]
    assert whole["n_tok"] == pieces["n_tok"] == len(pieces["token_nll"])
    assert pieces["nll_sum"] == pytest.approx(sum(pieces["token_nll"]), rel=1e-4)
    assert abs(pieces["nll_sum"] - whole["nll_sum"]) > 1e-4
    other = score([{"text": text}], model, window=32, stride=8)[0]
    assert other["n_tok"] == whole["n_tok"] and other["nll_sum"] != pieces["nll_sum"]
    short = score([{"text": "brown fox"}], model, window=64, stride=3)[0]
    assert short["nll_sum"] == pytest.approx(score([{"text": "brown fox"}], model)[0]["nll_sum"], abs=1e-4)


def test_a_response_longer_than_the_context_is_flagged():
    model = tiny_causal_lm(max_length=32)
    found = score([{"prompt": "p", "completion": "abc " * 60}, {"prompt": "p", "completion": "abc"}], model)
    assert found[0]["loss_flag"] == "response longer than the context" and found[0]["n_tok"] == 0
    assert found[1]["loss_flag"] is None


def test_rates_of_nothing_and_of_very_much():
    assert all(math.isnan(v) for v in rates(0.0, 0, 0, 0).values())
    assert np.isfinite(rates(1e6, 2, 4, 4)["ppl"])


def test_stride_must_fit():
    with pytest.raises(ConfigError, match="stride must be smaller"):
        TokenLoss(window=8, stride=8)
