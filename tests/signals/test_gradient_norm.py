"""signals.gradient_norm against a plain backward pass per row through transformers."""

import math

import numpy as np
import pytest
import torch

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, ModelError
from tutelage.models.toy import tiny_causal_lm
from tutelage.signals.gradient_norm import GradientNorm

PROOF = {"signals.gradient_norm": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/gradient_norm.py", "/ encoded[index].n_trained", "/ len(encoded[index])"),
    ("src/tutelage/signals/gradient_norm.py", "math.sqrt(max(square, 0.0))", "max(square, 0.0)"),
    ("src/tutelage/signals/_gradients.py", "if document.cut:", "if False:"),
    ("src/tutelage/models/example_gradients.py", "-(logps * batch.token_weight)", "-(logps.exp())"),
]
TEXTS = ["The quick brown fox.", "a lazy dog sleeps in the sun, every day", "x", "numbers 1 2 3 and äöü"]


@pytest.fixture(scope="module")
def model():
    return tiny_causal_lm()


def norms(model, rows, **fields):
    data = Dataset.from_rows({"id": f"r{i}", **row} for i, row in enumerate(rows))
    return score_dataset(GradientNorm(**fields), data, {"model": model})


def expected(model, ids, start, keep=lambda name: True):
    """Norm of the gradient of the summed loss over ids[start:], by transformers' own loss times its tokens."""
    chosen = [p for name, p in model.module.named_parameters() if keep(name)]
    with model.own_attention():
        labels = torch.tensor([[-100] * start + ids[start:]])
        loss = model.module(input_ids=torch.tensor([ids]), labels=labels).loss * (len(ids) - start)
    found = torch.autograd.grad(loss, chosen, allow_unused=True)
    return math.sqrt(sum(float(g.double().square().sum()) for g in found if g is not None))


def test_texts_equal_autograd(model):
    found = norms(model, [{"text": text} for text in TEXTS])
    for i, text in enumerate(TEXTS):
        ids = [model.bos_id, *model.tokenize([text])[0], model.eos_id]
        norm = expected(model, ids, 1)
        assert found.numpy("gradient_norm")[i] == pytest.approx(norm, rel=1e-5)
        assert found.numpy("gradient_norm_mean")[i] == pytest.approx(norm / (len(ids) - 1), rel=1e-5)
    assert found.column("gradient_flag").null_count == 4


def test_only_the_response_counts(model):
    found = norms(model, [{"prompt": "The quick", "completion": " brown fox"}])
    prompt = model.tokenizer("The quick")["input_ids"]
    ids = [*prompt, *model.tokenize([" brown fox"])[0], model.eos_id]
    assert found.numpy("gradient_norm")[0] == pytest.approx(expected(model, ids, len(prompt)), rel=1e-5)
    chat = [{"role": "user", "content": "The quick"}, {"role": "assistant", "content": "brown fox"}]
    assert norms(model, [{"messages": chat}]).numpy("gradient_norm")[0] > 0


def test_the_head_alone():
    model = tiny_causal_lm("qwen2")
    found = norms(model, [{"text": TEXTS[1]}], parameters="head").numpy("gradient_norm")[0]
    ids = [model.bos_id, *model.tokenize([TEXTS[1]])[0], model.eos_id]
    assert found == pytest.approx(expected(model, ids, 1, lambda name: "lm_head" in name), rel=1e-5)
    with pytest.raises(ModelError, match="no adapter parameters"):
        norms(model, [{"text": "x"}], parameters="adapter")


def test_what_the_model_knows_pushes_it_less():
    model = tiny_causal_lm()
    optimiser = torch.optim.AdamW(model.module.parameters(), lr=1e-2)
    ids = torch.tensor([[model.bos_id, *model.tokenize([TEXTS[0]])[0], model.eos_id]])
    with model.own_attention():
        for _ in range(60):
            optimiser.zero_grad()
            model.module(input_ids=ids, labels=ids).loss.backward()
            optimiser.step()
    known, unknown = norms(model, [{"text": TEXTS[0]}, {"text": TEXTS[1]}]).numpy("gradient_norm_mean")
    assert known < 0.3 * unknown


def test_rows_that_cannot_be_trained_on_are_flagged(model):
    found = norms(model, [{"text": ""}, {"text": TEXTS[1]}, {"text": None}], max_length=6)
    values = found.numpy("gradient_norm")
    assert np.isnan(values[[0, 2]]).all() and values[1] > 0
    flags = found.column("gradient_flag").to_pylist()
    assert flags[0] == "a text is empty" and flags[1] == "cut to 6 tokens" and "none of the columns" in flags[2]
    ids = [model.bos_id, *model.tokenize([TEXTS[1]])[0]][:6]
    assert values[1] == pytest.approx(expected(model, ids, 1), rel=1e-5)
    nothing = norms(model, [{"text": ""}])
    assert np.isnan(nothing.numpy("gradient_norm")).all()


def test_refusals(model):
    with pytest.raises(InputError, match="nothing to train on"):
        norms(model, [{"prompt": "only"}])
    with pytest.raises(InputError, match="does not hold text"):
        norms(model, [{"text": 3}])
    broken = model.copy()
    with torch.no_grad():
        broken.module.get_input_embeddings().weight[model.tokenize(["z"])[0][0]] = float("nan")
    with pytest.raises(ModelError, match="not finite"):
        norms(broken, [{"text": "a"}])
    data = Dataset.from_rows([{"id": "r0", "text": ""}, {"id": "r1", "text": "a"}])
    with pytest.raises(InputError, match=r"(?s)not finite.*row r1"):
        score_dataset(GradientNorm(), data, {"model": broken}, state={})
    with pytest.raises(ConfigError, match="parameters"):
        GradientNorm(parameters="some")
