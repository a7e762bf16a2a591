"""signals.step_influence: the product of gradients for small steps, and what helps stands above noise."""

import numpy as np
import pytest
import torch

from toy.lookup_model import LookupModel
from toy.planted_pool import make_evaluation, make_pool
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.models.encode import encode_row
from tutelage.models.packing import collate
from tutelage.models.toy import tiny_causal_lm
from tutelage.runs import payload
from tutelage.signals.step_influence import StepInfluence

PROOF = {"signals.step_influence": ["consistent", "verified"]}
MUTATIONS = [
    (
        "src/tutelage/signals/step_influence.py",
        'state["before"] - mean_loss',
        "mean_loss(probe.model, reference) - 0 * mean_loss",
    ),
    ("src/tutelage/signals/step_influence.py", "probe.load_state", "len"),
    ("src/tutelage/signals/step_influence.py", "if shared:", "if not reference:"),
    ("src/tutelage/signals/step_influence.py", "clip=self.gradient_clip", "clip=0.0"),
    (
        "src/tutelage/signals/step_influence.py",
        'inputs["reference"], self.reference_rows',
        'inputs["reference"], 9999',
    ),
]
TEXTS = [
    f"{a} fox {b} over {c}" for a in ("The", "A", "no") for b in ("ran", "jumps", "12") for c in ("dogs", "it")
]
REFERENCE = ["The quick brown fox jumps over the lazy dog.", "Numbers such as 0 1 2 3 and words of every day."]


@pytest.fixture(scope="module")
def model():
    return tiny_causal_lm(layers=1, width=16)


def rows(texts):
    return Dataset.from_rows({"id": f"r{i}", "text": text} for i, text in enumerate(texts))


def score(model, texts, reference=REFERENCE, evaluation=None, **fields):
    inputs = {"model": model, "reference": rows(reference)}
    if evaluation is not None:
        inputs["evaluation"] = rows(evaluation)
    return score_dataset(StepInfluence(**fields), rows(texts), inputs)


def mean_gradient(model, texts):
    """Gradient of the mean loss per token over `texts`, flat, by autograd."""
    batch = collate([[encode_row({"text": text}, model, 256) for text in texts]])
    loss = -model.token_logps(batch).sum() / batch.n_trained
    found = torch.autograd.grad(loss, [p.requires_grad_() for p in model.module.parameters()])
    return torch.cat([g.reshape(-1) for g in found]).double()


def test_small_steps_of_sgd_give_the_product_of_the_gradients(model):
    rate = 1e-2
    found = score(model, TEXTS, optimizer="sgd", learning_rate=rate, weight_decay=0.0, gradient_clip=0.0)
    wanted = mean_gradient(model, REFERENCE)
    products = np.array([float(mean_gradient(model, [text]) @ wanted) for text in TEXTS])
    influence = found.numpy("influence") / rate
    assert np.corrcoef(influence, products)[0, 1] > 0.999
    assert np.abs(influence - products).max() < 0.05 * np.abs(products).max()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_rows_of_the_references_domain_stand_above_noise(optimizer):
    pool = make_pool(60, seed=3, shares={"target": 1, "random": 1})
    reference = [row["text"] for row in make_evaluation(6, seed=9)]
    lm = tiny_causal_lm(texts=[row["text"] for row in pool], vocab_size=512, layers=1, width=16)
    data = Dataset.from_rows(pool)
    inputs = {"model": lm, "reference": rows(reference)}
    method = StepInfluence(optimizer=optimizer, learning_rate=1e-2, moment_rows=8, max_length=96)
    found = score_dataset(method, data, inputs).numpy("influence")
    inside = np.array([row["kind"] == "target" for row in pool])
    pairs = found[inside][:, None] > found[~inside][None]
    assert pairs.mean() > 0.9


def test_the_model_is_as_it_was_and_is_charged(model):
    before, paid = model.fingerprint, model.meter.cost
    first = score(model, TEXTS[:3])
    assert model.fingerprint == before
    spent = model.meter.since(paid)
    assert spent.forward_flops > spent.backward_flops > 0
    assert score(model, TEXTS[:3]).hash == first.hash


def test_every_field_of_the_step_matters(model):
    plain = score(model, TEXTS[:4]).numpy("influence")
    changes = [
        {"optimizer": "sgd"},
        {"learning_rate": 3e-3},
        {"weight_decay": 5.0},
        {"optimizer": "sgd", "gradient_clip": 0.01},
        {"moment_rows": 2},
        {"moment_rows": 0},
        {"reference_rows": 1},
        {"max_length": 4},
    ]
    found = [score(model, TEXTS[:4], **change).numpy("influence") for change in changes]
    for i, one in enumerate([plain, *found]):
        assert not any(np.allclose(one, other, rtol=1e-3) for other in [plain, *found][:i]), i
    drawn = [score(model, TEXTS[:4], reference_rows=1, seed=seed).numpy("influence") for seed in range(6)]
    assert len({tuple(values) for values in drawn}) == 2


def test_empty_rows_are_flagged_and_the_state_can_be_stored(model, tmp_path):
    method, inputs = StepInfluence(), {"model": model, "reference": rows(REFERENCE)}
    data = rows([TEXTS[0], "", TEXTS[1]])
    state = method.fit(data, inputs)
    payload.save_state(state, tmp_path)
    kept = score_dataset(method, data, inputs, payload.load_state(tmp_path))
    assert np.isnan(kept.numpy("influence")).tolist() == [False, True, False]
    assert kept.column("influence_flag").to_pylist() == [None, "a text is empty", None]
    assert kept.hash == score_dataset(method, data, inputs).hash


def test_half_precision_is_computed_in_float32():
    whole = tiny_causal_lm(layers=1, width=16)
    half = whole.copy()
    half.module.to(torch.bfloat16)
    found = score(half, TEXTS[:2]).numpy("influence")
    assert half.dtype == torch.bfloat16 and np.isfinite(found).all() and (found != 0).all()


def test_mistakes_are_named(model):
    with pytest.raises(InputError, match="reported on") as error:
        score(model, TEXTS, evaluation=["something else", REFERENCE[1] + "\n"])
    assert "r1" in error.value.found
    assert score(model, TEXTS[:1], evaluation=["something else"]).num_rows == 1
    with pytest.raises(ConfigError, match="needs a causal language model"):
        score(LookupModel(), TEXTS)
    with pytest.raises(InputError, match=r"no row can be learnt from[\s\S]*inputs.reference"):
        score(model, TEXTS, reference=[""])
