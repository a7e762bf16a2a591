"""The written-out decoder layer: the library's function, gradients and gradients of gradients, on packs."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tutelage.models import attention, fused_layer
from tutelage.models.encode import Encoded
from tutelage.models.fused_layer import fused_layers
from tutelage.models.packing import collate
from tutelage.models.toy import tiny_causal_lm


def tuned(arch="llama", dtype=torch.float32, lora=True, **settings):
    base = tiny_causal_lm(arch)
    torch.manual_seed(0)
    for name, parameter in base.module.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(parameter, mean=0.0 if "bias" in name else 1.0, std=0.3)
    base.module.to(dtype)
    if not lora:
        base.module.train()
        return base
    config = LoraConfig(r=4, lora_alpha=6, target_modules="all-linear", **settings)
    module = get_peft_model(base.module, config, autocast_adapter_dtype=False)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return base.around(module)


def packs(lengths=((9, 23, 24, 5), (40,))):
    drawn = torch.Generator().manual_seed(1)
    return collate(
        [
            [Encoded(torch.randint(4, 200, (n,), generator=drawn).tolist(), [True] * n, "") for n in row]
            for row in lengths
        ]
    )


def run(model, batch, fused, monkeypatch=None):
    """(loss, gradients, how many layers went the written-out way)."""
    calls = []
    real = fused_layer._Layer.forward
    model.module.zero_grad()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_layer._Layer, "forward", staticmethod(lambda *a: calls.append(1) or real(*a)))
        if fused:
            with fused_layers(model.module):
                loss = (model.token_logps(batch) * torch.linspace(0.5, 2, batch.shape[1])).sum()
                loss.backward()
        else:
            loss = (model.token_logps(batch) * torch.linspace(0.5, 2, batch.shape[1])).sum()
            loss.backward()
    grads = {n: p.grad.clone() for n, p in model.module.named_parameters() if p.grad is not None}
    return float(loss.detach()), grads, len(calls)


def close(ours, theirs, tolerance):
    assert ours[1].keys() == theirs[1].keys()
    assert ours[0] == pytest.approx(theirs[0], rel=tolerance)
    for name, value in ours[1].items():
        scale = theirs[1][name].abs().max()
        assert (value - theirs[1][name]).abs().max() <= 10 * tolerance * scale, name


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("lora", [True, False])
def test_loss_and_gradients_equal_the_library(arch, lora):
    model, batch = tuned(arch, lora=lora), packs()
    theirs, ours = run(model, batch, fused=False), run(model, batch, fused=True)
    assert (theirs[2], ours[2]) == (0, model.config.num_hidden_layers)
    assert len(ours[1]) > 10
    close(ours, theirs, 1e-5)


def test_long_documents_in_pieces(monkeypatch):
    monkeypatch.setattr(attention, "LONG", 16)
    monkeypatch.setattr(fused_layer, "LONG", 16)
    monkeypatch.setattr(attention, "PIECE", 8)
    model, batch = tuned(), packs(((9, 31, 20, 5), (40,)))
    theirs, ours = run(model, batch, fused=False), run(model, batch, fused=True)
    assert ours[2] == model.config.num_hidden_layers
    close(ours, theirs, 1e-5)


def test_bfloat16_is_as_close_to_float32_as_the_library_is():
    batch = packs()
    exact = run(tuned(), batch, fused=False)
    theirs, ours = (run(tuned(dtype=torch.bfloat16), batch, fused=fused) for fused in (False, True))
    assert abs(ours[0] - exact[0]) <= abs(theirs[0] - exact[0]) + 0.01 * abs(exact[0])

    def error(run):
        return sum(float((run[1][n].float() - exact[1][n]).square().sum()) for n in exact[1]) ** 0.5

    assert ours[2] and error(ours) <= 1.2 * error(theirs)


def test_only_some_weights_trained():
    model, batch = tuned(), packs()
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_("layers.1" in name and ("q_proj.lora" in name or "input_layernorm" in name))
    theirs, ours = run(model, batch, fused=False), run(model, batch, fused=True)
    assert len(ours[1]) == 3
    close(ours, theirs, 1e-5)


def test_gradients_of_gradients_equal_the_library():
    model, batch = tuned(), packs(((7, 12),))
    parameters = [p for p in model.module.parameters() if p.requires_grad]

    def second():
        logps = model.token_logps(batch)
        v = torch.ones_like(logps, requires_grad=True)
        first = torch.autograd.grad((v * logps).sum(), parameters, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), v)[0]

    theirs = second()
    with fused_layers(model.module):
        ours = second()
        loss = (-model.token_logps(batch)).sum()
    (late,) = torch.autograd.grad(loss, parameters[:1], create_graph=True)
    assert late.requires_grad
    assert theirs.abs().max() > 0
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_other_calls_go_the_librarys_way():
    batch = packs()
    model = tuned()
    hook = model.base_module.model.layers[0].mlp.down_proj.register_forward_hook(lambda *a: None)
    assert run(model, batch, fused=True)[2] == model.config.num_hidden_layers - 1
    hook.remove()
    dropped = tuned(lora_dropout=0.5)
    dropped.module.train()
    assert run(dropped, batch, fused=True)[2] == 0
    assert run(tuned(use_dora=True), batch, fused=True)[2] == 0
    model.use_isolation("mask")
    assert run(model, batch, fused=True)[2] == 0
    model.use_isolation("documents")
    with fused_layers(model.module) as count:
        assert count == model.config.num_hidden_layers
    assert run(model, batch, fused=False)[2] == 0
    with fused_layers(tuned("gemma").module) as count:
        assert count == 0


def test_a_window_shorter_than_a_document_is_kept():
    model, batch = tuned(), packs()
    for layer in model.base_module.model.layers:
        layer.self_attn.sliding_window = 8
    assert run(model, batch, fused=True)[2] == 0
    for layer in model.base_module.model.layers:
        layer.self_attn.sliding_window = 40
    assert run(model, batch, fused=True)[2] == model.config.num_hidden_layers


@pytest.mark.parametrize(("arch", "lora"), [("llama", True), ("qwen2", False)])
def test_without_gradients_it_is_the_same_function(arch, lora, monkeypatch):
    model, batch = tuned(arch, lora=lora), packs()
    theirs = model.token_logps(batch).detach()
    calls = []
    real = fused_layer._scored
    monkeypatch.setattr(fused_layer, "_scored", lambda *a: calls.append(1) or real(*a))
    monkeypatch.setattr(attention, "SCORED", 16)
    with model.scoring():
        ours = model.token_logps(batch)
    assert len(calls) == model.config.num_hidden_layers
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


def test_what_is_added_up_over_the_layers_is_not_rounded():
    batch = packs()
    exact = tuned(lora=False)
    half = exact.copy()
    half.module.to(torch.bfloat16)
    exact.module.load_state_dict(half.module.state_dict())
    with exact.scoring(), half.scoring():
        truth, ours = exact.token_logps(batch), half.token_logps(batch)
        hook = half.base_module.model.layers[1].mlp.down_proj.register_forward_hook(lambda *a: None)
        mixed = half.token_logps(batch)
        hook.remove()
    with torch.no_grad():
        theirs = half.token_logps(batch)
    assert theirs.dtype == ours.dtype == torch.float32
    assert (ours - truth).abs().mean() < 0.7 * (theirs - truth).abs().mean()
    # A layer that goes the library's way among others takes and gives what the weights are.
    assert 0 < (mixed - truth).abs().mean() < 1.2 * (theirs - truth).abs().mean()


MUTATIONS = [
    ("src/tutelage/models/fused_layer.py", "mul_(r.pow(3) / x.shape[1])", "mul_(r.pow(2) / x.shape[1])"),
    ("src/tutelage/models/fused_layer.py", "value=-1 if back else 1)", "value=1)"),
    (
        "src/tutelage/models/fused_layer.py",
        "lower = torch.mm(g, linear.up).mul_(linear.scale)",
        "lower = torch.mm(g, linear.up)",
    ),
    ("src/tutelage/models/fused_layer.py", "of_up = wide.mul_(s)", "of_up = wide.mul_(gate)"),
    (
        "src/tutelage/models/fused_layer.py",
        "total.index_add_(0, bucket.keys.reshape(-1), laid)",
        "total.index_copy_(0, bucket.keys.reshape(-1), laid)",
    ),
    ("src/tutelage/models/fused_layer.py", "window < longest", "window < 0"),
    ("src/tutelage/models/fused_layer.py", "to(torch.float32, copy=True)", "to(first.dtype, copy=True)"),
    ("src/tutelage/models/fused_layer.py", "silu(gate, inplace=True).mul_(up)", "silu(up).mul_(gate)"),
    (
        "src/tutelage/models/fused_layer.py",
        "hidden_states = hidden_states.to(own)",
        "hidden_states = hidden_states * 1.5",
    ),
]
