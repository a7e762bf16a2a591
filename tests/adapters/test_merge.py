"""Merging: the same function as a plain model, added in float32."""

import pytest
import torch

from toy.training_bed import model, same, weights
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError
from tutelage.models.load import load_model

PROOF = {"adapters.merge": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/adapters/merge.py", "copy.deepcopy(base.module).float()", "copy.deepcopy(base.module)"),
    ("src/tutelage/adapters/merge.py", "parameter.data.to(base.dtype)", "parameter.data"),
]
IDS = torch.arange(30)[None]


def logits(lm):
    with torch.no_grad():
        return lm.module(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def adapted(dtype=torch.float32):
    base = model("llama")
    base.module.to(dtype)
    lm = build("adapters.lora", {"rank": 4}).convert({"base": base}, None, {})
    torch.manual_seed(0)
    for name, parameter in lm.module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return base, lm


def test_merged_equals_adapted_and_reloads(tmp_path):
    base, lm = adapted()
    before = weights(lm)
    merged = build("adapters.merge").convert({"base": lm}, None, {})
    assert same(before, weights(lm))
    assert float((logits(lm) - logits(base)).abs().max()) > 1e-2
    assert float((logits(merged) - logits(lm)).abs().max()) < 1e-4
    assert weights(merged).keys() == weights(base).keys()
    again = load_model(merged.save(tmp_path / "merged"), dtype="float32")
    assert float((logits(again) - logits(merged)).abs().max()) < 1e-5


def test_the_sum_is_made_in_float32_and_rounded_once():
    _, lm = adapted(torch.bfloat16)
    layer = lm.base_module.model.layers[0].self_attn.q_proj
    A, B = layer.lora_A["default"].weight.float(), layer.lora_B["default"].weight.float()
    exact = (layer.base_layer.weight.float() + (32 / 4) * (B @ A)).detach()
    merged = build("adapters.merge").convert({"base": lm}, None, {})
    found = merged.base_module.model.layers[0].self_attn.q_proj.weight
    assert found.dtype == torch.bfloat16 and torch.equal(found, exact.to(torch.bfloat16))
    assert {b.dtype for b in merged.module.buffers()} == {torch.float32}, "rotary frequencies keep their precision"
    whole = build("adapters.merge", {"dtype": "float32"}).convert({"base": lm}, None, {})
    assert torch.allclose(whole.base_module.model.layers[0].self_attn.q_proj.weight, exact, atol=1e-7)


def test_a_model_without_an_adapter_is_copied():
    base = model("llama")
    merged = build("adapters.merge").convert({"base": base}, None, {})
    assert same(weights(base), weights(merged)) and merged is not base


def test_weights_that_are_not_finite_are_refused():
    _, lm = adapted()
    next(p for n, p in lm.module.named_parameters() if "lora_B" in n).data.fill_(float("nan"))
    with pytest.raises(ConfigError, match="cannot be merged"):
        build("adapters.merge").convert({"base": lm}, None, {})
