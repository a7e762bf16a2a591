"""Log-probabilities: one place, in chunks, equal to the plain formula in value and gradient."""

import math

import pytest
import scipy.stats
import torch
from torch import nn

from tutelage.models import logps
from tutelage.models.encode import Encoded
from tutelage.models.head import find_head
from tutelage.models.packing import collate
from tutelage.models.toy import tiny_causal_lm

ARCHS = ["llama", "gpt2", "qwen2", "gemma", "gemma2"]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    # Blocks smaller than the toy vocabulary and batch, so that the loops over blocks are exercised.
    monkeypatch.setattr(logps, "TOKENS", 8)
    monkeypatch.setattr(logps, "WORDS", 100)


def batch_of(model, lengths=(11, 20), prompt=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    docs = []
    for i, n in enumerate(lengths):
        ids = torch.randint(0, model.config.vocab_size, (n,), generator=generator).tolist()
        docs.append(Encoded(ids, [t >= prompt for t in range(n)], str(i)))
    return docs, collate([docs])


def plain(model, docs, temperature=1.0):
    rows = []
    with model.own_attention():
        for d in docs:
            logits = model.module(torch.tensor([d.ids])).logits[0].float() / temperature
            found = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(d.ids)[1:, None])[:, 0]
            rows.append(torch.cat([torch.zeros(1), found]) * torch.tensor(d.trained))
    return torch.cat(rows)[None]


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_values_and_gradients_equal_the_plain_formula(arch, temperature):
    model = tiny_causal_lm(arch)
    with torch.no_grad():
        # A sharp head: near-uniform predictions would hide a wrong normaliser.
        model.module.get_output_embeddings().weight.mul_(20)
    # Every head here is known; an unknown one would quietly take the slow way.
    assert model.head is not None
    docs, batch = batch_of(model)
    weight = torch.rand(batch.shape, generator=torch.Generator().manual_seed(1))
    gradients = []
    for values in (model.token_logps(batch, temperature), plain(model, docs, temperature)):
        model.module.zero_grad()
        (values * weight).sum().backward()
        gradients.append((values.detach(), [p.grad.clone() for p in model.module.parameters()]))
    (ours, ours_grad), (theirs, theirs_grad) = gradients
    assert (ours - theirs).abs().max() <= 1e-5 * max(1.0, float(theirs.abs().max()))
    for a, b in zip(ours_grad, theirs_grad):
        assert (a - b).abs().max() <= 2e-5 * b.abs().max().clamp(min=1e-3)


def test_loss_equals_transformers_with_ignored_labels():
    model = tiny_causal_lm("llama")
    docs, batch = batch_of(model, lengths=(17,), prompt=6)
    labels = torch.tensor([[i if t else -100 for i, t in zip(docs[0].ids, docs[0].trained)]])
    with torch.no_grad():
        theirs = model.module(torch.tensor([docs[0].ids]), labels=labels).loss
        ours = -model.token_logps(batch).sum() / batch.n_trained
    assert abs(float(ours - theirs)) <= 1e-5


def test_constant_logits_give_the_log_of_the_vocabulary():
    model = tiny_causal_lm("gpt2")
    with torch.no_grad():
        model.module.get_output_embeddings().weight.zero_()
    _, batch = batch_of(model)
    V = model.config.vocab_size
    found = model.token_logps(batch)
    assert torch.allclose(found[batch.response_mask], torch.tensor(-math.log(V)))
    stats = logps.token_stats(model, batch)
    assert torch.allclose(stats.entropy[batch.response_mask], torch.tensor(math.log(V)), atol=1e-4)
    assert stats.margin.abs().max() < 1e-6


def test_stats_equal_scipy_and_sorting():
    model = tiny_causal_lm("llama")
    with torch.no_grad():
        model.module.get_output_embeddings().weight.mul_(20)
    docs, batch = batch_of(model, lengths=(12,), prompt=1)
    stats = logps.token_stats(model, batch)
    with torch.no_grad():
        p = model.module(torch.tensor([docs[0].ids])).logits[0].double().softmax(-1)[:-1]
    true = torch.tensor(docs[0].ids)[1:]
    order = p.sort(descending=True).values
    assert torch.allclose(
        stats.entropy[0, 1:].double(), torch.from_numpy(scipy.stats.entropy(p.numpy(), axis=1)), atol=1e-4
    )
    assert torch.allclose(stats.margin[0, 1:].double(), order[:, 0] - order[:, 1], atol=1e-5)
    rank = (p > p.gather(1, true[:, None])).sum(1) + 1
    assert torch.equal(stats.rank[0, 1:].long(), rank)
    assert torch.allclose(stats.logp, model.token_logps(batch), atol=1e-5)


def test_bfloat16_head_is_close_to_float32_and_never_above_one():
    torch.manual_seed(0)
    hidden, weight = torch.randn(64, 32), torch.randn(384, 32)
    targets = torch.randint(0, 384, (64,))
    targets[:16] = (hidden[:16] @ weight.T).argmax(1)
    head = logps.Head(torch.nn.Linear(32, 384, bias=False))
    rounded = {}
    for dtype in (torch.float32, torch.bfloat16):
        head.module.weight = torch.nn.Parameter(weight.bfloat16().to(dtype))
        rounded[dtype] = logps.head_logps(head, hidden.bfloat16().to(dtype), targets)
    assert (rounded[torch.bfloat16] - rounded[torch.float32]).abs().max() < 0.1
    assert rounded[torch.bfloat16].max() <= 1e-4


def test_bias_and_unlabelled_positions():
    torch.manual_seed(0)
    linear = torch.nn.Linear(8, 50)
    hidden, targets = torch.randn(20, 8, requires_grad=True), torch.randint(0, 50, (20,))
    ours = logps.head_logps(logps.Head(linear), hidden, targets)
    theirs = -nn.functional.cross_entropy(linear(hidden), targets, reduction="none")
    assert torch.allclose(ours, theirs, atol=1e-5)
    for a, b in zip(
        torch.autograd.grad(ours.square().sum(), [hidden, linear.weight, linear.bias]),
        torch.autograd.grad(theirs.square().sum(), [hidden, linear.weight, linear.bias]),
    ):
        assert torch.allclose(a, b, atol=1e-4)
    model = tiny_causal_lm("llama")
    _, batch = batch_of(model, lengths=(5,), prompt=9)
    assert model.token_logps(batch).abs().sum() == 0


def test_scaled_and_unknown_heads(monkeypatch):
    model = tiny_causal_lm("llama")
    docs, batch = batch_of(model)
    linear = model.module.lm_head
    forward = model.module.forward

    def scaled(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = out.logits * 0.25
        return out

    monkeypatch.setattr(model.module, "forward", scaled)
    # The configuration does not say so: the comparison with the model's own logits notices.
    assert find_head(model.module) is None
    assert model.head is None
    expected = plain(model, docs)
    assert torch.allclose(model.token_logps(batch), expected, atol=1e-5)
    assert torch.allclose(logps.token_stats(model, batch).logp, expected, atol=1e-5)
    model.module.config.logit_scale = 0.25
    head = find_head(model.module)
    assert head is not None and head.scale == 0.25 and head.module is linear
    model._head_key = None
    assert torch.allclose(model.token_logps(batch), expected, atol=1e-5)


MUTATIONS = [
    ("src/tutelage/models/logps.py", "total.mul_(shrink).add_(z.sum(1))", "total.add_(z.sum(1))"),
    ("src/tutelage/models/logps.py", "mul_(-grad[:, None])", "mul_(grad[:, None])"),
    ("src/tutelage/models/logps.py", "z.mul_(ctx.scale)", "z.mul_(1.0)"),
    ("src/tutelage/models/head.py", "torch.tanh(logits / self.cap) * self.cap", "torch.tanh(logits / self.cap)"),
]
