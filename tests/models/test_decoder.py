"""The lean decoder computes what transformers computes, whatever comes and goes, or is not used at all."""

import dataclasses

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tutelage.models import decoder, generation
from tutelage.models.causal import CausalLM
from tutelage.models.decoder import LeanDecoder, Product, can_run
from tutelage.models.head import Head
from tutelage.models.toy import tiny_causal_lm, tiny_tokenizer

MUTATIONS = [
    ("src/tutelage/models/decoder.py", "keys[rows, :, :, slots] = k", "keys[rows, :, :, slots] = v"),
    ("src/tutelage/models/decoder.py", "places > slots[:, None]", "places >= slots[:, None]"),
    ("src/tutelage/models/decoder.py", "self._forward(tokens, self.prefix + slots", "self._forward(tokens, slots"),
    ("src/tutelage/models/decoder.py", "return out + torch.bmm", "return 0 * out + torch.bmm"),
    ("src/tutelage/models/decoder.py", "for row in rows[ids]\n", "for row in rows[ids][:1]\n"),
    ("src/tutelage/models/decoder.py", "(down, up * module.scaling[name])", "(down, up)"),
    ("src/tutelage/models/decoder.py", "return None\n        kinds", "continue\n        kinds"),
    ("src/tutelage/models/decoder.py", "window < max(length, TRIED)", "window < 0"),
    ("src/tutelage/models/decoder.py", ".max()) <= tolerance", ".max()) >= 0"),
    ("src/tutelage/models/generation.py", "len(on) <= LEAVE * batch_size", "True"),
    ("src/tutelage/models/generation.py", "drawn * ends[:, -1:]", "ends[:, -1:] / 2"),
    ("src/tutelage/models/generation.py", ".argmax(-1, keepdim=True))[:, 0]", ".argmin(-1, keepdim=True))[:, 0]"),
    ("src/tutelage/models/generation.py", "self.model.max_length - len(self.prompts[i])", "self.model.max_length"),
]  # fmt: skip
WORDS = ("one", "two", "The quick brown", "fox", "a dog and", "add", "return the", "def", "x", "jumps over")
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


def wrapped(config_class, module_class, **more):
    tokenizer = tiny_tokenizer()
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    module = module_class(config_class(vocab_size=len(tokenizer), **ids, **SHAPE, **more)).eval()
    return CausalLM(module, tokenizer)


def with_lora(model, scale=0.3):
    torch.manual_seed(5)
    module = get_peft_model(model.module, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=scale)
    return CausalLM(module.eval(), model.tokenizer)


MODELS = {
    "llama": lambda: tiny_causal_lm("llama"),
    "qwen2 with biases": lambda: tiny_causal_lm("qwen2"),
    "gemma": lambda: tiny_causal_lm("gemma"),
    "qwen3 with norms of heads": lambda: wrapped(Qwen3Config, Qwen3ForCausalLM, head_dim=16),
    "adapter": lambda: with_lora(tiny_causal_lm("llama")),
}


def lively(model):
    """The toy with larger weights, so that its next token is hardly ever the same one again."""
    with torch.no_grad():
        for name, weight in model.module.named_parameters():
            if "_proj" in name and "lora" not in name:
                weight.normal_(std=0.3)
    return model


def tokens(found):
    return [one.token_ids for one in found]


@pytest.fixture(params=MODELS)
def model(request):
    made = MODELS[request.param]()
    return lively(made)


def by_transformers(monkeypatch, model, *args, **settings):
    with monkeypatch.context() as patch:
        patch.setattr(generation, "can_run", lambda model, length: False)
        return model.generate(*args, **settings)


@pytest.mark.parametrize("beginning", ["", "The quick brown fox jumps over the lazy dog and returns. "])
def test_completions_are_those_of_transformers_while_rows_come_and_go(model, monkeypatch, beginning):
    assert can_run(model, 100)
    prompts = [beginning + word + " and" for word in WORDS] * 2
    settings = {"temperature": 1.3, "seed": list(range(len(prompts))), "stop": ("e", "o"), "batch_size": 4}
    filled = []
    fill = LeanDecoder.fill

    def watched(self, new):
        filled.append((len(self.lengths), len(new)))
        return fill(self, new)

    monkeypatch.setattr(LeanDecoder, "fill", watched)
    found = model.generate(prompts, 40, **settings)
    assert found == by_transformers(monkeypatch, model, prompts, 40, **settings)
    assert len({len(one.token_ids) for one in found}) > 3
    joined = [there for there, _ in filled if there]
    assert joined and all(there <= 3 for there in joined) and all(there + new <= 4 for there, new in filled)


def test_a_long_completion_outgrows_its_buffers(model, monkeypatch):
    prompts = ["The quick brown fox", "x"]
    found = model.generate(prompts, 2 * decoder.GROW + 3)
    assert tokens(found) == tokens(by_transformers(monkeypatch, model, prompts, 2 * decoder.GROW + 3))
    assert len(found[0].token_ids) > decoder.GROW


def test_equal_prompts_are_computed_once_and_sampled_by_their_probabilities():
    model = tiny_causal_lm("llama", seed=2)
    with torch.no_grad():
        model.module.get_output_embeddings().weight.mul_(4)
    prompt, draws = "The quick brown fox jumps", 1500
    before = model.meter.cost
    found = model.generate([prompt] * draws, 1, temperature=1.2, seed=7, batch_size=draws)
    ids = model.prefix_ids + model.tokenize([prompt])[0]
    assert model.meter.since(before).forward_flops == 2 * model.active_params * len(ids)
    logits = model.module(torch.tensor([ids])).logits[0, -1].detach()
    expected = torch.softmax(logits / 1.2, -1).numpy() * draws
    counts = np.bincount([one.token_ids[0] for one in found], minlength=len(expected))
    often = expected > 5
    assert often.sum() > 5
    statistic = float(((counts - expected)[often] ** 2 / expected[often]).sum())
    # Chi-squared: mean and variance are the number of cells and twice that.
    assert abs(statistic - often.sum()) < 4 * np.sqrt(2 * often.sum())


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_a_packed_product_is_its_layers(adapted, biased):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no packed product")
    model = tiny_causal_lm("qwen2" if biased else "llama")
    with torch.no_grad():
        for module in model.module.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.normal_()
    model = with_lora(model) if adapted else model
    model.module.bfloat16()
    core = model.base_module.model.layers[0].self_attn
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(0)).bfloat16()
    with model.scoring():
        product = Product([core.q_proj, core.k_proj, core.v_proj], 6)
        assert product.packed is not None
        expected = torch.cat([core.q_proj(x), core.k_proj(x), core.v_proj(x)], -1).float()
        found = product(x).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=0.01 * float(expected.abs().max()))


def test_packed_generation_is_near_float32(monkeypatch):
    exact = tiny_causal_lm("llama", seed=3, width=64)
    model = exact.around(exact.copy().module.bfloat16())
    monkeypatch.setattr(decoder, "WORTH_PACKING", 1)
    packed = []
    make = Product.__init__

    def watched(self, modules, rows):
        make(self, modules, rows)
        packed.append(self.packed)

    monkeypatch.setattr(Product, "__init__", watched)
    made = tokens(model.generate([*WORDS], 4))
    if decoder._packs(model):
        assert any(one is not None for one in packed)
    # The weights rounded, but computed in float32.
    truth = tokens(exact.around(model.copy().module.float()).generate([*WORDS], 4))
    assert np.mean([a == b for a, b in zip(made, truth)]) >= 0.8


def test_ties_of_rounded_logits_are_decided_by_the_states():
    head = nn.Linear(4, 3, bias=True).bfloat16()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[256.0, 0, 0, 0], [256, 0, 1, 0], [256, 0, 0, 1]]))
        head.bias.copy_(torch.tensor([0.0, 0, 0.25]))
    states = torch.tensor([[1.0, 0, 0.3, 0.1], [1.0, 0, -0.3, -0.7]])
    logits = head(states.bfloat16()).float()
    assert len(set(logits[0].tolist())) == 1
    assert generation.greedy(Head(head), logits, states, torch.bfloat16).tolist() == [2, 0]


def test_a_hook_is_honoured():
    model = tiny_causal_lm("llama")
    plain = tokens(model.generate(WORDS, 6))
    push = torch.randn(32, generator=torch.Generator().manual_seed(1))
    handle = model.module.model.layers[0].register_forward_hook(lambda module, args, out: out + push)
    assert not can_run(model, 20)
    pushed = tokens(model.generate(WORDS, 6))
    handle.remove()
    assert can_run(model, 20)
    assert pushed != plain == tokens(model.generate(WORDS, 6))


def test_a_hook_that_changes_nothing_sees_every_step():
    model, seen = tiny_causal_lm("llama"), []
    model.module.model.layers[0].register_forward_hook(lambda module, args, out: seen.append(len(out)))
    model.generate(WORDS[:1], 30)
    assert len(seen) >= 30


def test_weights_may_change_between_calls(monkeypatch):
    model = lively(tiny_causal_lm("llama"))
    before = tokens(model.generate(WORDS, 6))
    with torch.no_grad():
        model.module.model.layers[1].mlp.up_proj.weight.mul_(-3)
    after = tokens(model.generate(WORDS, 6))
    assert after != before and after == tokens(by_transformers(monkeypatch, model, WORDS, 6))


def test_an_adapter_that_is_off_is_off():
    model = with_lora(tiny_causal_lm("llama"))
    adapted = tokens(model.generate(WORDS, 6))
    assert can_run(model, 30)
    with model.module.disable_adapter():
        off = tokens(model.generate(WORDS, 6))
    assert off == tokens(tiny_causal_lm("llama").generate(WORDS, 6)) != adapted


def test_what_the_plan_does_not_hold_is_refused():
    assert not can_run(tiny_causal_lm("gpt2"), 30) and not can_run(tiny_causal_lm("gemma2"), 30)
    granite = wrapped(GraniteConfig, GraniteForCausalLM, residual_multiplier=0.3, embedding_multiplier=5.0)
    assert not can_run(granite, 30)
    sliding = wrapped(MistralConfig, MistralForCausalLM, sliding_window=40)
    assert can_run(sliding, 40) and not can_run(sliding, 41)
    prompt = "The quick brown fox jumps over the lazy dog"
    with sliding.own_attention(), torch.no_grad():
        ids = sliding.prefix_ids + sliding.tokenize([prompt])[0]
        for token in sliding.generate([prompt], 40)[0].token_ids:
            assert token == int(sliding.module(torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(token)
    assert len(ids) > 45


def test_the_end_of_the_context_is_each_prompts_own():
    model = tiny_causal_lm("llama", max_length=64)
    long = "The quick brown fox jumps over the lazy dog. " * 8
    ids = model.tokenize([long])[0][:60]
    long = model.tokenizer.decode(ids)
    settings = {"max_new_tokens": 12, "temperature": 1.0, "seed": [1, 2]}
    found = model.generate([long, "x"], **settings)
    room = 64 - found[0].prompt_tokens
    assert 0 < room < 12
    assert len(found[0].token_ids) == room and found[0].truncated
    assert found[1] == dataclasses.replace(model.generate(["x"], 12, 1.0, seed=[2])[0])
    assert len(found[1].token_ids) == 12 or not found[1].truncated
