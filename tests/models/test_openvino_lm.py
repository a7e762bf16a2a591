"""A model with openvino-genai behind it: what the engine is given and what becomes of its tokens.

The engine itself is a stand-in that reads the file it is given with this project's own reader, so the file must
hold the model, its adapter and its vocabulary."""

import sys
import types
from typing import ClassVar

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tutelage.core.errors import ModelError
from tutelage.models.causal import CausalLM
from tutelage.models.load import load_model
from tutelage.models.openvino_lm import OpenVinoLM, with_openvino
from tutelage.models.toy import tiny_causal_lm, tiny_encoder

MUTATIONS = [
    ("src/tutelage/models/openvino_lm.py", "if self._versions() != self._of:", "if False:"),
    ("src/tutelage/models/openvino_lm.py", 'if self.dtype == torch.bfloat16 else "f32"', 'if True else "f32"'),
    ("src/tutelage/models/openvino_lm.py", "self.max_length - prompt", "self.max_length"),
    ("src/tutelage/models/openvino_lm.py", "generation.seed_of(seed, i)", "generation.seed_of(seed, 0)"),
    ("src/tutelage/models/openvino_lm.py", "tuple(tokens[:count]), False", "tuple(tokens), False"),
    ("src/tutelage/models/openvino_lm.py", "sum(map(len, encoded)) + sum(map(len, made))", "sum(map(len, made))"),
    ("src/tutelage/runs/outside.py", 'spec.engine == "openvino"', "False"),
]
PROMPTS = ["The quick brown fox", "x", "def add(first"]


class Settings(types.SimpleNamespace):
    def __init__(self):
        super().__init__(do_sample=False, rng_seed=None, temperature=1.0, stop_token_ids=set(), stop_strings=set())


class Engine:
    """Greedy, and like the real one not bound to stop where we would: it goes one token beyond an end."""

    made: ClassVar[list] = []

    def __init__(self, file, scheduler, device, options):
        self.model = load_model(file, dtype="float32")
        self.options, self.device, self.calls = options, device, []
        Engine.made.append(self)

    def generate(self, given, settings):
        self.calls.append(settings)
        return [self.one([int(i) for i in ids.values[0]], wish) for ids, wish in zip(given, settings)]

    def one(self, ids, wish):
        out = []
        while len(out) < wish.max_new_tokens:
            with torch.no_grad():
                out.append(int(self.model.module(torch.tensor([ids + out])).logits[0, -1].argmax()))
            if set(out[:-1]) & wish.stop_token_ids:
                break
        return types.SimpleNamespace(m_generation_ids=[out])


@pytest.fixture
def library(monkeypatch):
    genai = types.ModuleType("openvino_genai")
    genai.__version__ = "1"
    genai.SchedulerConfig = types.SimpleNamespace
    genai.GenerationConfig = Settings
    genai.ContinuousBatchingPipeline = Engine
    base = types.ModuleType("openvino")
    base.Tensor = lambda values: types.SimpleNamespace(values=values)
    monkeypatch.setitem(sys.modules, "openvino_genai", genai)
    monkeypatch.setitem(sys.modules, "openvino", base)
    Engine.made = []
    return genai


def lively():
    model = tiny_causal_lm("qwen2")
    torch.manual_seed(0)
    with torch.no_grad():
        for name, weight in model.module.named_parameters():
            if "_proj.weight" in name:
                weight.normal_(std=0.3)
    return model


def test_completions_are_those_of_the_module_with_its_adapter(library):
    model = lively()
    module = get_peft_model(model.module, LoraConfig(r=4, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.3)
    model = CausalLM(module.eval(), model.tokenizer, model.template)
    engine = with_openvino(model)
    found = engine.generate(PROMPTS, 8, batch_size=2)
    assert found == model.generate(PROMPTS, 8)
    assert len({token for one in found for token in one.token_ids}) > 8
    (running,) = Engine.made
    assert [len(call) for call in running.calls] == [2, 1] and running.device == "CPU"
    assert running.options["INFERENCE_PRECISION_HINT"] == "f32"
    assert engine.chat_prompt([{"role": "user", "content": "a"}]) == model.chat_prompt(
        [{"role": "user", "content": "a"}]
    )
    assert engine.fingerprint != model.fingerprint
    library.__version__ = "2"
    assert engine.fingerprint != OpenVinoLM(lively()).fingerprint


def test_ends_stops_and_costs(library):
    model = lively()
    engine = OpenVinoLM(model)
    free = model.generate(PROMPTS[:1], 12)[0]
    model.eos_id = engine.eos_id = free.token_ids[4]
    try:
        before = engine.meter.cost
        found = engine.generate(PROMPTS[:1], 12)
        assert found == model.generate(PROMPTS[:1], 12) and not found[0].truncated
        assert len(found[0].token_ids) <= 5
        made = len(
            Engine.made[0]
            .one(engine.prefix_ids + engine.tokenize(PROMPTS[:1])[0], Engine.made[0].calls[0][0])
            .m_generation_ids[0]
        )
    finally:
        model.eos_id = engine.eos_id = tiny_causal_lm("qwen2").eos_id
    spent = engine.meter.since(before)
    assert spent.forward_flops >= 2 * model.active_params * (2 * found[0].prompt_tokens + made)
    stop = free.text[2:4]
    assert engine.generate(PROMPTS[:1], 12, stop=(stop,)) == model.generate(PROMPTS[:1], 12, stop=(stop,))
    assert Engine.made[0].calls[-1][0].stop_strings == {stop}


def test_settings_of_each_prompt(library):
    engine = OpenVinoLM(tiny_causal_lm("llama", max_length=64))
    engine.generate(PROMPTS, 60, temperature=0.7, seed=[3, 4, 5])
    (call,) = Engine.made[0].calls
    assert [one.rng_seed for one in call] == [3, 4, 5]
    assert all(one.do_sample and one.temperature == 0.7 for one in call)
    lengths = [len(engine.prefix_ids) + len(ids) for ids in engine.tokenize(PROMPTS)]
    assert [one.max_new_tokens for one in call] == [min(60, 64 - n) for n in lengths]
    assert lengths[0] > 4
    with pytest.raises(ModelError, match="prompt 0"):
        engine.generate(["word " * 100])


def test_trained_weights_are_read_again(library):
    model = lively()
    engine = OpenVinoLM(model)
    before = engine.generate(PROMPTS, 5)
    with torch.no_grad():
        model.module.model.layers[0].mlp.up_proj.weight.mul_(-2)
    assert engine.generate(PROMPTS, 5) == model.generate(PROMPTS, 5) != before
    engine.generate(PROMPTS, 5)
    assert len(Engine.made) == 2


def test_precision_follows_the_module(library):
    exact = lively()
    OpenVinoLM(exact.around(exact.copy().module.bfloat16()))
    assert Engine.made[0].options["INFERENCE_PRECISION_HINT"] == "bf16"


def test_watched_text_comes_from_the_module(library):
    model = lively()
    pieces = []
    (found,) = OpenVinoLM(model).generate(PROMPTS[:1], 8, on_text=pieces.append)
    assert "".join(pieces) == found.text and not Engine.made[0].calls


def test_a_recipe_may_ask_for_the_engine(library, tmp_path):
    from tutelage.runs import Recipe
    from tutelage.runs.outside import load_spec

    lively().save(tmp_path / "model")
    given = {"load": "model", "dtype": "float32"}
    recipe = Recipe(
        name="two",
        sources={"rows": {"path": "rows.jsonl"}},
        models={"fast": given | {"engine": "openvino"}, "plain": given},
        steps=[{"name": "scored", "use": "signals.token_loss", "model": "plain", "from": "rows"}],
    ).placed(tmp_path)
    assert type(load_spec(recipe, tmp_path, "fast")) is OpenVinoLM
    assert type(load_spec(recipe, tmp_path, "plain")) is CausalLM


def test_what_cannot_be_is_said(library, monkeypatch):
    with pytest.raises(ModelError, match="causal"):
        with_openvino(tiny_encoder())
    with pytest.raises(ModelError, match="architecture"):
        OpenVinoLM(tiny_causal_lm("gpt2"))
    monkeypatch.setitem(sys.modules, "openvino_genai", None)
    with pytest.raises(ModelError, match="not installed"):
        OpenVinoLM(tiny_causal_lm("llama"))
