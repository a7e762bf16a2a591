"""QLoRA: four-bit weights by the library's own formula; trains, saves, reloads, is used."""

import sys

import pytest
import torch

from toy.training_bed import dataset, model, same, weights
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError
from tutelage.models.load import load_model

PROOF = {"adapters.qlora": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/adapters/qlora.py", "or layer is head", "or False"),
    ("src/tutelage/adapters/qlora.py", "four.support_avx512bf16_for_cpu = False", "pass"),
    ("src/tutelage/adapters/qlora.py", "for name in Lora.model_fields", 'for name in ("rank", "targets")'),
    ("src/tutelage/training/_copy.py", "if type(parameter) is not nn.Parameter and not trained:", "if False:"),
]
IDS = torch.arange(30)[None]
STEP = {
    "step_tokens": 100,
    "micro_tokens": 64,
    "max_length": 128,
    "learning_rate": 1e-2,
    "budget": {"tokens": 500},
}
# The code book of NF4 (quantiles of a normal distribution scaled to [-1, 1]), from the paper's appendix.
NF4 = [-1.0, -0.6961928, -0.5250731, -0.3949175, -0.2844414, -0.1847734, -0.0910500, 0.0]
NF4 += [0.0795803, 0.1609302, 0.2461123, 0.3379152, 0.4407098, 0.5626170, 0.7229568, 1.0]


def logits(lm):
    with torch.no_grad():
        return lm.module(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def wide():
    return model("llama", width=64)


def qlora(base, **fields):
    pytest.importorskip("bitsandbytes")
    return build("adapters.qlora", {"rank": 4, **fields}).convert({"base": base}, None, {})


def test_weights_are_the_nearest_codes():
    base = wide()
    before = weights(base)
    found = qlora(base, double_quantise=False)
    assert same(before, weights(base))
    layer = found.base_module.model.layers[0].mlp.up_proj.base_layer
    assert layer.weight.dtype == torch.uint8 and layer.weight.numel() * 2 == layer.in_features * layer.out_features
    exact = base.module.model.layers[0].mlp.up_proj.weight.detach().reshape(-1, 64)
    scale = exact.abs().max(dim=1, keepdim=True).values
    codes = torch.tensor(NF4)
    expected = codes[(exact / scale).unsqueeze(-1).sub(codes).abs().argmin(-1)] * scale
    with torch.no_grad():
        got = layer(torch.eye(layer.in_features)).T
    assert torch.allclose(got, expected.reshape(got.shape), atol=1e-5)
    assert type(found.base_module.get_output_embeddings()) is torch.nn.Linear, "the head keeps its precision"


def test_train_save_reload_use(tmp_path):
    base = wide()
    folder = base.save(tmp_path / "base")
    fresh = qlora(base)
    drift = float((logits(fresh) - logits(base)).abs().max())
    assert 0 < drift < 0.2 * float(logits(base).abs().max()) + 0.2
    trained, record = build("training.fit", STEP).train(fresh, dataset())
    assert record.losses[-1] < record.losses[0]
    moved = {n for n, v in weights(trained).items() if not torch.equal(v, weights(fresh)[n])}
    assert moved and all("lora_" in name for name in moved)
    path = trained.save(tmp_path / "adapter")
    assert not (path / "model.safetensors").exists()
    again = load_model(folder, dtype="float32", adapter=path)
    lora_parts = {n.replace(".base_layer", ""): v for n, v in weights(trained).items() if "lora_" in n}
    assert all(torch.equal(v, weights(again)[n]) for n, v in lora_parts.items())
    # On the base in full precision the trained adapter does what it learnt on four bits.
    assert float((logits(again) - logits(trained)).abs().max()) < 2 * drift + 0.2
    text = next(dataset().rows())["text"]
    assert again.score_texts([text])[0].nll_sum < base.score_texts([text])[0].nll_sum
    assert trained.generate(["The number"], 4)[0].token_ids


def test_gradients_are_those_of_the_dequantised_weights_also_after_use():
    """Using the model first must not change what is learnt (a kernel for inference once dropped the gradient)."""
    from bitsandbytes.functional import dequantize_4bit

    lm = qlora(wide())
    logits(lm)
    lm, _ = build("training.fit", STEP).train(lm, dataset())
    plain = build("adapters.lora", {"rank": 4}).convert({"base": wide()}, None, {})
    with torch.no_grad():
        for name, parameter in plain.module.named_parameters():
            mine = dict(lm.module.named_parameters())[name]
            full = dequantize_4bit(mine.data, mine.quant_state) if hasattr(mine, "quant_state") else mine
            parameter.copy_(full)
    grads = []
    for one in (lm, plain):
        ids = torch.tensor(one.tokenize(["The number 3 comes after 2"]))
        one.module(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).loss.backward()
        grads.append({n: p.grad for n, p in one.module.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys() and len(grads[0]) > 10
    assert all(torch.allclose(g, grads[1][n], atol=1e-5) for n, g in grads[0].items())
    assert all(float(g.abs().max()) > 0 for g in grads[0].values())


def test_alpha_scales_the_adapter():
    layers = [qlora(wide(), alpha=a).base_module.model.layers[0].mlp.up_proj for a in (4.0, 8.0)]
    assert [layer.scaling["default"] for layer in layers] == [1.0, 2.0]


def test_without_the_library_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match=r"tutelage\[qlora\]"):
        build("adapters.qlora").convert({"base": wide()}, None, {})


def test_another_device_is_refused(monkeypatch):
    base = wide()
    monkeypatch.setattr(type(base), "device", property(lambda self: torch.device("mps")))
    with pytest.raises(ConfigError, match="not available on this device"):
        build("adapters.qlora").convert({"base": base}, None, {})


def test_fields_of_lora_reach_the_adapter():
    base = wide()
    found = qlora(base, targets=("q_proj",), dropout=0.25)
    adapted = [name for name in weights(found) if "lora_A" in name]
    assert adapted and all("q_proj" in name for name in adapted)
    assert 0.25 in {part.p for part in found.module.modules() if isinstance(part, torch.nn.Dropout)}
    first, again, other = (weights(qlora(base, seed=seed))[adapted[0]] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
