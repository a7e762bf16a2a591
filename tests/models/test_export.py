"""Exported models come back equal: safetensors, GGUF through transformers, and GGUF through llama.cpp itself."""

import json

import pytest
import torch
import yaml
from tokenizers import Regex, pre_tokenizers

from tutelage.core.errors import ModelError, StoreError
from tutelage.models import export
from tutelage.models.convert import QWEN2_SPLIT, convert_gguf
from tutelage.models.export import export_model, model_card
from tutelage.models.load import load_model
from tutelage.models.toy import tiny_causal_lm, tiny_encoder

MUTATIONS = [
    (
        "src/tutelage/models/gguf_writer.py",
        "return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)",
        "return matrix",
    ),
    ("src/tutelage/models/gguf_writer.py", "writer.add_chat_template(template)", "pass"),
    ("src/tutelage/models/gguf_writer.py", 'return "smollm"', 'return "gpt-2"'),
    ("src/tutelage/models/export.py", "if written != read:", "if False:"),
    ("src/tutelage/models/export.py", "if not worst <= tolerance:", "if False:"),
    ("src/tutelage/models/export.py", "merged = model.merged()", "merged = model"),
]
TEXTS = ["12 jumps over 345 dogs", "def add(first, second):\n    return first", "Question: two and two?"]


def splitting(tokenizer, name: str) -> None:
    """Give a toy tokenizer one of the pre-tokenizers that GGUF names."""
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    chosen = {
        "gpt-2": whole,
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole]),
        "qwen2": pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated"), inner]),
    }
    tokenizer.backend_tokenizer.pre_tokenizer = chosen[name]


def with_lora(model, tmp_path):
    """The model with a random LoRA adapter, saved and put on again."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    adapted = get_peft_model(model.copy().module, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(tmp_path / "adapter")
    return model.copy().with_adapter(tmp_path / "adapter")


def greedy(model):
    return [one.token_ids for one in model.generate(TEXTS, max_new_tokens=12)]


def test_merged_safetensors_folder_with_card(tmp_path) -> None:
    model = with_lora(tiny_causal_lm(seed=2), tmp_path)
    card = model_card("toy", base_model="tiny", licence="apache-2.0", datasets=["mine"], metrics={"bits": 1.25})
    out = export_model(model, tmp_path / "out", card=card)
    assert not list(out.glob("adapter*")) and not list(out.glob("*.bin"))
    back = load_model(out, device="cpu", dtype="float32")
    assert greedy(back) == greedy(model)
    for a, b in zip(model.score_texts(TEXTS), back.score_texts(TEXTS), strict=True):
        assert a.nll_sum == pytest.approx(b.nll_sum, abs=1e-4)
    front = yaml.safe_load((out / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert front["base_model"] == "tiny" and front["license"] == "apache-2.0"
    assert front["datasets"] == ["mine"] and front["metrics"] == ["bits"]


@pytest.mark.parametrize("arch", ["llama", "qwen2"])
@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2"])
def test_gguf_comes_back_through_transformers(arch, pre, tmp_path) -> None:
    model = tiny_causal_lm(arch, seed=3, width=64)
    splitting(model.tokenizer, pre)
    file = export_model(model, tmp_path / "out", format="gguf", weights="f32", check=False)
    back = load_model(convert_gguf(file, out=tmp_path / "back"), device="cpu", dtype="float32")
    assert back.tokenize(TEXTS) == model.tokenize(TEXTS)
    assert back.template.source == model.template.source
    assert (back.bos_id, back.eos_id) == (model.bos_id, model.eos_id)
    for a, b in zip(model.score_texts(TEXTS), back.score_texts(TEXTS), strict=True):
        assert a.nll_sum == pytest.approx(b.nll_sum, abs=1e-3)
    assert greedy(back) == greedy(model)


@pytest.mark.parametrize("weights", ["f16", "q8_0"])
def test_smaller_weights_pass_the_built_in_check(weights, tmp_path) -> None:
    model = with_lora(tiny_causal_lm(seed=4, width=64), tmp_path)
    file = export_model(model, tmp_path / f"{weights}.gguf", format="gguf", weights=weights)
    plain = export_model(model, tmp_path / "f32.gguf", format="gguf", weights="f32")
    assert file.stat().st_size < plain.stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["adapter", "f32.gguf", f"{weights}.gguf"])


def test_greedy_text_equals_llama_cpp(tmp_path) -> None:
    engine = pytest.importorskip("xllamacpp")
    for pre in ("gpt-2", "smollm", "qwen2"):
        model = tiny_causal_lm(seed=5, width=64, layers=2)
        splitting(model.tokenizer, pre)
        file = export_model(model, tmp_path / pre, format="gguf", weights="f32")
        options = engine.CommonParams()
        options.model.path = str(file)
        options.n_ctx, options.n_parallel, options.cpuparams.n_threads = 256, 1, 1
        # Exact arithmetic: no half-precision cache, no fused attention.
        options.cache_type_k = options.cache_type_v = engine.ggml_type.GGML_TYPE_F32
        options.flash_attn_type = engine.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        server = engine.Server(options)
        conversations = [[{"role": "user", "content": text}] for text in TEXTS]
        prompts = [model.chat_prompt(messages) for messages in conversations]
        for messages, prompt, ours in zip(
            conversations, prompts, model.generate(prompts, max_new_tokens=8), strict=True
        ):
            request = {"max_tokens": 8, "temperature": 0, "samplers": ["temperature"], "cache_prompt": False}
            plain = server.handle_completions({"prompt": prompt, **request})
            assert plain["choices"][0]["text"] == ours.text
            # The template inside the file, rendered by the engine, gives the same prompt and so the same answer.
            chat = server.handle_chat_completions({"messages": messages, **request})
            assert chat["usage"]["prompt_tokens"] == len(model.tokenize([prompt])[0]) == ours.prompt_tokens
            assert chat["choices"][0]["message"]["content"] == ours.text


def test_what_comes_back_different_is_refused_and_removed(tmp_path, monkeypatch) -> None:
    model = tiny_causal_lm(seed=6)
    other, renamed = tiny_causal_lm(seed=9), tiny_causal_lm(seed=6)
    renamed.template = None
    for wrong, words in ((other, "scores text differently"), (renamed, "other chat template")):
        monkeypatch.setattr(export, "_load", lambda _folder, _allowed, wrong=wrong: wrong)
        with pytest.raises(ModelError, match=words):
            export_model(model, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported(tmp_path) -> None:
    model = tiny_causal_lm()
    with pytest.raises(ModelError, match="one of llama, mistral, qwen2"):
        export_model(tiny_causal_lm("gpt2"), tmp_path / "x", format="gguf")
    with pytest.raises(ModelError, match="did you mean gguf"):
        export_model(model, tmp_path / "x", format="ggu")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="only causal"):
        export_model(tiny_encoder(), tmp_path / "x")  # type: ignore[arg-type]
    model.tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(ModelError, match="byte-level BPE"):
        export_model(model, tmp_path / "x", format="gguf")
    rope = tiny_causal_lm()
    rope.config.rope_parameters = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(ModelError, match="rotary positions"):
        export_model(rope, tmp_path / "x", format="gguf")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(StoreError, match="already there"):
        export_model(model, tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text(encoding="utf-8") == "keep"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full"]


def test_saved_tokenizer_is_the_one_in_the_file(tmp_path) -> None:
    # transformers would give a Qwen2 folder its own splitting whatever tokenizer.json says.
    model = tiny_causal_lm("qwen2")
    back = load_model(model.save(tmp_path / "m"), device="cpu", dtype="float32")
    assert back.tokenize(TEXTS) == model.tokenize(TEXTS)
    stated = json.loads((tmp_path / "m" / "tokenizer.json").read_text(encoding="utf-8"))["pre_tokenizer"]
    assert json.loads(back.tokenizer.backend_tokenizer.to_str())["pre_tokenizer"] == stated
