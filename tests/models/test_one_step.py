"""One optimiser step that is taken back, against torch's optimisers."""

import pytest
import torch

from tutelage.adapters.lora import Lora
from tutelage.core.errors import ModelError
from tutelage.models.encode import encode_text
from tutelage.models.one_step import OneStep, in_float32, mean_loss, trained_weights
from tutelage.models.packing import collate
from tutelage.models.toy import tiny_causal_lm

MUTATIONS = [
    (
        "src/tutelage/models/one_step.py",
        "torch.lerp(v, g * g, 1 - BETAS[1]))",
        "torch.lerp(v, g.abs(), 1 - BETAS[1]))",
    ),
    ("src/tutelage/models/one_step.py", "steps = self.steps + 1", "steps = self.steps"),
    ("src/tutelage/models/one_step.py", "p.copy_(before[name])", "p.add_(0)"),
    ("src/tutelage/models/one_step.py", "* (name in self._decayed)", ""),
    ("src/tutelage/models/one_step.py", "/ batch.n_trained\n", "\n"),
    (
        "src/tutelage/models/one_step.py",
        "self.clip / (norm + 1e-6), max=1.0",
        "self.clip / (norm + 1e-6), max=9.0",
    ),
    ("src/tutelage/models/one_step.py", "p.requires_grad_(mark)", "pass"),
    ("src/tutelage/models/one_step.py", "copy.module.float()", "copy.module.to(torch.float64)"),
]
TEXTS = ["The quick brown fox", "jumps over the lazy dog, again", "Numbers 1 2 3", "and words of every day"]


def batches(model, texts=TEXTS):
    return [collate([[encode_text(model, text, max_length=64)]]) for text in texts]


def by_torch(model, warm, batch, kind, **options):
    """The weights that torch's own optimiser comes to, with rate 0 while it warms up."""
    copy = model.copy()
    copy.module.eval()
    decayed = [p for n, p in copy.module.named_parameters() if p.ndim >= 2 and "embed_tokens" not in n]
    others = [p for p in copy.module.parameters() if all(p is not d for d in decayed)]
    groups = [{"params": decayed, "weight_decay": options["decay"]}, {"params": others, "weight_decay": 0.0}]
    if kind == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.95))
    else:
        optimizer = torch.optim.SGD([{**g, "weight_decay": 0.0} for g in groups], lr=0.0)
    for number, one in enumerate([*warm, batch]):
        optimizer.zero_grad()
        (-copy.token_logps(one).sum() / one.n_trained).backward()
        if options["clip"]:
            torch.nn.utils.clip_grad_norm_(copy.module.parameters(), options["clip"])
        for group in optimizer.param_groups:
            group["lr"] = options["rate"] if number == len(warm) else 0.0
        optimizer.step()
    return dict(copy.module.named_parameters())


@pytest.mark.parametrize(
    ("kind", "clip", "decay"), [("adamw", 0, 0), ("adamw", 0.3, 0.1), ("sgd", 0.3, 0), ("sgd", 90.0, 0)]
)
@pytest.mark.parametrize("warm", [0, 3])
def test_equals_torch(kind, clip, decay, warm):
    model = tiny_causal_lm()
    given = batches(model)
    probe = OneStep(model, optimizer=kind, learning_rate=1e-2, weight_decay=decay, clip=clip)
    probe.warm(given[:warm])
    expected = by_torch(model, given[:warm], given[3], kind, rate=1e-2, decay=decay, clip=clip)
    with probe.taken(given[3]):
        for name, p in model.module.named_parameters():
            # Where a gradient is nearly nothing, rounding decides what AdamW's first step makes of it.
            far = ~torch.isclose(p, expected[name], rtol=1e-4, atol=1e-6)
            assert far.float().mean() <= 1e-3, name


def test_decay_leaves_embeddings_and_vectors_alone():
    model = tiny_causal_lm()
    probe = OneStep(model, optimizer="sgd", learning_rate=0.5, weight_decay=0.5, clip=1e-9)
    before = {name: p.detach().clone() for name, p in model.module.named_parameters()}
    with probe.taken(batches(model)[0]):
        for name, p in model.module.named_parameters():
            kept = 1.0 if p.ndim < 2 or "embed_tokens" in name else 0.75
            assert torch.allclose(p, kept * before[name], atol=1e-6), name


def test_a_hundred_probes_leave_every_bit_as_it_was():
    model = tiny_causal_lm()
    given = batches(model)
    probe = OneStep(model, learning_rate=1e-2, weight_decay=0.1, clip=1.0)
    probe.warm(given[:2])
    weights = {name: p.detach().clone() for name, p in model.module.named_parameters()}
    moments = {name: (m.clone(), v.clone()) for name, (m, v) in probe.moments.items()}
    next(model.module.parameters()).requires_grad_(False)
    model.module.train()
    for number in range(100):
        with probe.taken(given[number % 4]):
            assert any((p != weights[name]).any() for name, p in model.module.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in model.module.named_parameters())
    assert all(torch.equal(a, b) for name in moments for a, b in zip(moments[name], probe.moments[name]))
    assert not next(model.module.parameters()).requires_grad and model.module.training and probe.steps == 2
    with pytest.raises(RuntimeError, match="on the way"), probe.taken(given[0]):
        raise RuntimeError("on the way")
    assert all(torch.equal(p, weights[name]) for name, p in model.module.named_parameters())


def test_an_adapter_is_moved_alone():
    model = Lora(rank=2).convert({"base": tiny_causal_lm()}, None, {"seed": 0})
    assert trained_weights(model) and all("lora_" in name for name in trained_weights(model))
    before = {name: p.detach().clone() for name, p in model.module.named_parameters()}
    with OneStep(model, learning_rate=1e-2, weight_decay=0.1, clip=1.0).taken(batches(model)[0]):
        moved = {n for n, p in model.module.named_parameters() if not torch.equal(p, before[n])}
    assert moved and all("lora_" in name for name in moved)


def test_state_goes_through_arrays():
    model = tiny_causal_lm()
    given = batches(model)
    first, second = (OneStep(model, learning_rate=1e-2) for _ in range(2))
    first.warm(given[:3])
    second.load_state(first.state())

    def loss(probe):
        with probe.taken(given[3]):
            return mean_loss(model, given)

    assert loss(first) == loss(second) != loss(OneStep(model, learning_rate=1e-2))


def test_the_mean_is_over_tokens_and_half_precision_is_refused():
    model = tiny_causal_lm()
    given = batches(model)
    total = sum(float(-model.token_logps(b).detach().double().sum()) for b in given)
    assert mean_loss(model, given) == pytest.approx(total / sum(b.n_trained for b in given), rel=1e-6)
    half = model.copy()
    half.module.to(torch.bfloat16)
    with pytest.raises(ModelError, match="too small to be seen"):
        OneStep(half, learning_rate=1e-3)
    whole = in_float32(half)
    assert whole is not half and whole.meter is half.meter and whole.dtype == torch.float32
    assert half.dtype == torch.bfloat16 and in_float32(model) is model
