"""LoRA: starts as the base, trains alone, saves, reloads, is used; its formula by hand and by the library."""

import pytest
import torch

from toy.training_bed import dataset, model, same, weights
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError
from tutelage.models.load import load_model
from tutelage.models.toy import tiny_causal_lm

PROOF = {"adapters.lora": ["consistent", "verified"]}


def test_the_last_layers_alone():
    base = tiny_causal_lm(layers=3)
    for fields, modules in (({"top_layers": 1}, 7), ({"top_layers": 2, "targets": ["q_proj"]}, 2)):
        adapted = build("adapters.lora", fields).convert({"base": base}, None, {})
        names = [n for n, p in adapted.module.named_parameters() if p.requires_grad]
        assert len(names) == 2 * modules and not any("layers.0." in n for n in names)
    with pytest.raises(ConfigError, match="fewer layers"):
        build("adapters.lora", {"top_layers": 4}).convert({"base": base}, None, {})


MUTATIONS = [
    ("src/tutelage/adapters/lora.py", "lora_alpha=self.alpha", "lora_alpha=2 * self.alpha"),
    ("src/tutelage/adapters/lora.py", 'int(inputs.get("seed", self.seed))', "0"),
    ("src/tutelage/models/peft_io.py", "copy.deepcopy(module, memo)", "copy.deepcopy(module)"),
]
IDS = torch.arange(30)[None]
STEP = {
    "step_tokens": 100,
    "micro_tokens": 64,
    "max_length": 128,
    "learning_rate": 1e-2,
    "budget": {"tokens": 500},
}


def logits(lm):
    with torch.no_grad():
        return lm.module(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


def lora(base, **fields):
    return build("adapters.lora", {"rank": 4, **fields}).convert({"base": base}, None, {})


def test_a_fresh_adapter_changes_nothing_and_shares_the_base():
    base = model("llama")
    before, flags = weights(base), [p.requires_grad for p in base.module.parameters()]
    adapted = lora(base)
    assert torch.equal(logits(base), logits(adapted))
    assert same(before, weights(base)) and flags == [p.requires_grad for p in base.module.parameters()]
    trainable = {n for n, p in adapted.module.named_parameters() if p.requires_grad}
    assert trainable and all("lora_" in n for n in trainable)
    memory = {p.data_ptr() for p in base.module.parameters()}
    frozen = [p for n, p in adapted.module.named_parameters() if "lora_" not in n]
    assert all(p.data_ptr() in memory for p in frozen), "the base is shared, not copied"


def test_the_formula():
    base = model("llama")
    adapted = lora(base, alpha=12.0)
    layer = adapted.base_module.model.layers[0].mlp.up_proj
    A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    torch.nn.init.normal_(B)
    x = torch.randn(5, A.shape[1])
    with torch.no_grad():
        expected = x @ layer.base_layer.weight.T + (12.0 / 4) * (x @ A.T) @ B.T
        assert torch.allclose(layer(x), expected, atol=1e-5)


def test_seeds_decide_the_adapter():
    base = model("llama")
    parts = [weights(build("adapters.lora").convert({"base": base}, None, {"seed": s})) for s in (0, 0, 1)]
    assert same(parts[0], parts[1]) and not same(parts[0], parts[2])
    assert same(weights(build("adapters.lora", {"seed": 1}).convert({"base": base}, None, {})), parts[2])


def test_train_save_reload_use(tmp_path):
    base = model("llama")
    folder = base.save(tmp_path / "base")
    before = weights(base)
    adapted = lora(base)
    fresh = weights(adapted)
    trained, record = build("training.fit", STEP).train(adapted, dataset())
    assert same(before, weights(base)) and same(fresh, weights(adapted))
    assert record.losses[-1] < record.losses[0]
    path = trained.save(tmp_path / "adapter")
    assert (path / "adapter_config.json").is_file() and not (path / "model.safetensors").exists()
    again = load_model(folder, dtype="float32", adapter=path)
    assert float((logits(trained) - logits(again)).abs().max()) < 1e-5
    assert float((logits(trained) - logits(base)).abs().max()) > 1e-3
    assert [g.text for g in again.generate(["The number 3"], 8)] == [
        g.text for g in trained.generate(["The number 3"], 8)
    ]
    further, _ = build("training.fit", STEP).train(again, dataset())
    assert not same(weights(further), weights(again)), "a loaded adapter can be trained on"
    moved = {n for n, p in weights(further).items() if not torch.equal(p, weights(again)[n])}
    assert all("lora_" in n for n in moved)


def test_trained_in_bfloat16(tmp_path):
    folder = model("llama").save(tmp_path / "base")
    base = load_model(folder, dtype="bfloat16")
    adapted = lora(base)
    assert {p.dtype for p in adapted.module.parameters()} == {torch.bfloat16}
    trained, record = build("training.fit", STEP).train(adapted, dataset())
    assert record.losses[-1] < record.losses[0]
    again = load_model(folder, dtype="bfloat16", adapter=trained.save(tmp_path / "adapter"))
    assert again.fingerprint == trained.fingerprint
    assert torch.equal(logits(again), logits(trained))


def test_chosen_targets_and_dropout():
    adapted = lora(model("llama"), targets=["q_proj"], dropout=0.1)
    names = {n for n, p in adapted.module.named_parameters() if p.requires_grad}
    assert names and all("q_proj" in n for n in names)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: lora(model("llama"), targets=["no_such_layer"]), "fits no module"),
        (lambda: lora(lora(model("llama"))), "an adapter already"),
        (lambda: build("adapters.lora").convert({}, None, {}), "causal language model"),
        (lambda: build("adapters.lora", {"rank": 0}), "rank"),
    ],
)
def test_errors(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_another_alpha_is_another_model(tmp_path):
    """Alpha is no weight: equal weights with another scale must not share a cache key."""
    base = tiny_causal_lm()
    low, high = (
        build("adapters.lora", {"rank": 4, "alpha": alpha}).convert({"base": base}, None, {})
        for alpha in (1.0, 256.0)
    )
    assert low.fingerprint != high.fingerprint
    base.save(tmp_path / "base")
    loaded = load_model(tmp_path / "base", dtype="float32")
    made = build("adapters.lora", {"rank": 4, "alpha": 8.0}).convert({"base": loaded}, None, {})
    made.save(tmp_path / "adapter")
    assert load_model(tmp_path / "adapter", dtype="float32").fingerprint == made.fingerprint
