"""Fused LoRA layers: PEFT's function and gradients, and PEFT's own way wherever that is another function."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import Linear

from tutelage.models.encode import encode_text
from tutelage.models.fused import FusedLoraLinear, fuse_lora
from tutelage.models.packing import collate
from tutelage.models.toy import tiny_causal_lm

TEXTS = ["The quick brown fox", "jumps over the lazy dog"]


def tuned(arch="llama", dtype=torch.float32, **settings):
    base = tiny_causal_lm(arch)
    base.module.to(dtype)
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", **settings)
    module = get_peft_model(base.module, config, autocast_adapter_dtype=False)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return base.around(module)


def loss_and_gradients(model, fused):
    for layer in model.module.modules():
        if isinstance(layer, Linear):
            layer.__class__ = FusedLoraLinear if fused else Linear
    batch = collate([[encode_text(model, t, max_length=64) for t in TEXTS]])
    model.module.zero_grad()
    loss = -model.token_logps(batch).sum()
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("arch", ["llama", "qwen2", "gemma"])
def test_loss_and_gradients_equal_peft(arch):
    model = tuned(arch)
    assert sum(isinstance(m, FusedLoraLinear) for m in model.module.modules()) == 14
    theirs, their_grads = loss_and_gradients(model, fused=False)
    ours, our_grads = loss_and_gradients(model, fused=True)
    assert ours == pytest.approx(float(theirs), rel=1e-6)
    assert our_grads.keys() == their_grads.keys()
    assert all("lora" in name for name in our_grads)
    for name, value in our_grads.items():
        assert (value - their_grads[name]).abs().max() <= 1e-5 * their_grads[name].abs().max()


def test_bfloat16_is_as_close_to_float32_as_peft_is():
    exact, _ = loss_and_gradients(tuned(), fused=False)
    theirs, _ = loss_and_gradients(tuned(dtype=torch.bfloat16), fused=False)
    ours, _ = loss_and_gradients(tuned(dtype=torch.bfloat16), fused=True)
    assert abs(ours - exact) <= abs(theirs - exact) + 0.05


def takes_the_fused_way(model, monkeypatch):
    """Whether a forward pass calls the fused product."""
    from tutelage.models import fused

    calls = []
    real = fused._LoraProduct.apply
    monkeypatch.setattr(fused._LoraProduct, "apply", lambda *a: calls.append(1) or real(*a), raising=False)
    with torch.no_grad():
        model.module(torch.arange(6)[None])
    monkeypatch.undo()
    return bool(calls)


def test_other_cases_take_pefts_own_way(monkeypatch):
    model = tuned()
    assert takes_the_fused_way(model, monkeypatch)
    with model.module.disable_adapter():
        assert not takes_the_fused_way(model, monkeypatch)
    model.module.merge_adapter()
    assert not takes_the_fused_way(model, monkeypatch)
    model.module.unmerge_adapter()
    hooks = [
        m.lora_A["default"].register_forward_hook(lambda *a: None)
        for m in model.module.modules()
        if isinstance(m, Linear)
    ]
    assert not takes_the_fused_way(model, monkeypatch)
    for hook in hooks:
        hook.remove()
    assert takes_the_fused_way(model, monkeypatch)
    dropped = tuned(lora_dropout=0.5)
    dropped.module.eval()
    assert takes_the_fused_way(dropped, monkeypatch)
    dropped.module.train()
    assert not takes_the_fused_way(dropped, monkeypatch)
    variant = tuned(use_dora=True)
    assert not takes_the_fused_way(variant, monkeypatch)


def test_copies_and_merges_are_untouched():
    model = tuned()
    ids = torch.arange(9)[None]
    with torch.no_grad():
        expected = model.module(ids).logits
        assert torch.equal(model.copy().module(ids).logits, expected)
        assert (model.merged().module(ids).logits - expected).abs().max() <= 1e-4
    assert fuse_lora(model.module) == 0


MUTATIONS = [
    ("src/tutelage/models/fused.py", "torch.mm(grad, up).mul_(ctx.scale)", "torch.mm(grad, up)"),
    ("src/tutelage/models/fused.py", "torch.mm(grad.T, low).mul_(ctx.scale)", "torch.mm(grad.T, low)"),
    ("src/tutelage/models/fused.py", "isinstance(dropout, nn.Identity) or not self.training", "True"),
]
