"""Loading and saving: what a folder must hold, adapters on their base, and equality after a round trip."""

import json
import shutil
import socket

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from toy.own_code import bring_code, own_cache
from tutelage.core.errors import ModelError
from tutelage.models import load
from tutelage.models.load import load_model
from tutelage.models.peft_io import put_adapter
from tutelage.models.toy import tiny_causal_lm

IDS = torch.arange(20)[None] + 5


def logits(model):
    with torch.no_grad():
        return model.module(IDS).logits


def adapted(base, targets=("q_proj", "down_proj"), seed=0):
    torch.manual_seed(seed)
    module = get_peft_model(base.copy().module, LoraConfig(r=4, target_modules=list(targets)))
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return base.around(module.eval())


@pytest.fixture
def folder(tmp_path):
    return tiny_causal_lm("llama").save(tmp_path / "base")


@pytest.mark.parametrize("arch", ["llama", "gpt2", "qwen2", "gemma", "gemma2"])
def test_saved_and_loaded_model_gives_the_same_logits(tmp_path, arch):
    model = tiny_causal_lm(arch)
    loaded = load_model(model.save(tmp_path / "m"), dtype="float32", device="cpu")
    assert (logits(loaded) - logits(model)).abs().max() <= 1e-5
    assert loaded.fingerprint == model.fingerprint
    assert loaded.template.source == model.template.source
    talk = [{"role": "user", "content": "hi"}]
    assert loaded.chat_prompt(talk) == model.chat_prompt(talk)
    assert loaded.generate(["The"], 4) == model.generate(["The"], 4)
    assert sorted(p.suffix for p in (tmp_path / "m").iterdir() if p.suffix != ".json") == [
        ".jinja",
        ".safetensors",
    ]


def test_bfloat16_by_name(folder):
    assert load_model(folder, dtype="bfloat16", device="cpu").dtype == torch.bfloat16
    with pytest.raises(ModelError, match="bfloat16"):
        load_model(folder, dtype="bfloat")


@pytest.mark.parametrize("shard", ["1GB", "60KB"], ids=["one file", "several"])
def test_a_model_in_another_precision_is_the_one_that_the_library_loads(tmp_path, shard, monkeypatch):
    model = tiny_causal_lm("llama")
    model.module.generation_config.max_length = 77
    folder = model.save(tmp_path / "m")
    model.module.save_pretrained(folder, max_shard_size=shard)
    if shard == "60KB":
        (folder / "model.safetensors").unlink(missing_ok=True)
        (folder / "consolidated.safetensors").write_bytes(b"of another layout")
    real, calls = load._converted, []
    monkeypatch.setattr(load, "_converted", lambda *a: calls.append(real(*a)) or calls[-1])
    ours = load_model(folder, dtype="bfloat16", device="cpu")
    assert calls == [ours.module], "converted by us"
    monkeypatch.setattr(load, "_converted", lambda *_: None)
    theirs = load_model(folder, dtype="bfloat16", device="cpu")
    assert ours.fingerprint == theirs.fingerprint and ours.dtype == theirs.dtype == torch.bfloat16
    assert ours.module.generation_config.to_dict() == theirs.module.generation_config.to_dict()
    assert ours.module.generation_config.max_length == 77
    assert ours.module.name_or_path == theirs.module.name_or_path == str(folder)
    monkeypatch.setattr(load, "_converted", lambda *a: calls.append(real(*a)) or calls[-1])
    load_model(folder, dtype="float32", device="cpu")
    assert calls[-1] is None, "nothing to convert"


def test_adapter_round_trip_and_merge(tmp_path, folder):
    base = load_model(folder, dtype="float32", device="cpu")
    tuned = adapted(base)
    assert (logits(tuned) - logits(base)).abs().max() > 1e-3
    saved = tuned.save(tmp_path / "adapter")
    assert (saved / "adapter_model.safetensors").is_file() and not (saved / "model.safetensors").exists()
    before = logits(base)
    again = base.with_adapter(saved)
    assert (logits(again) - logits(tuned)).abs().max() <= 1e-5
    assert torch.equal(logits(base), before)
    # The folder names its base, so it loads on its own.
    alone = load_model(saved, dtype="float32", device="cpu")
    assert (logits(alone) - logits(tuned)).abs().max() <= 1e-5
    merged = tuned.merged()
    assert not hasattr(merged.module, "get_base_model")
    assert (logits(merged) - logits(tuned)).abs().max() <= 1e-4
    whole = load_model(merged.save(tmp_path / "merged"), dtype="float32", device="cpu")
    assert (logits(whole) - logits(tuned)).abs().max() <= 1e-4
    assert hasattr(tuned.module, "get_base_model")


def test_adapter_acts_on_every_verb(tmp_path, folder):
    base = load_model(folder, dtype="float32", device="cpu")
    tuned = adapted(base)
    assert base.score_texts(["The quick"])[0].nll_sum != tuned.score_texts(["The quick"])[0].nll_sum
    pair = [("The", " quick")]
    assert base.loglikelihood(pair)[0].sum != tuned.loglikelihood(pair)[0].sum
    assert abs(base.embed(["The quick"]) - tuned.embed(["The quick"])).max() > 0


def test_adapter_with_another_vocabulary_is_refused(tmp_path, folder):
    other = tiny_causal_lm("llama", vocab_size=300)
    saved = adapted(other, ("q_proj", "lm_head")).save(tmp_path / "adapter")
    with pytest.raises(ModelError, match="vocabularies") as error:
        load_model(folder, adapter=saved, dtype="float32", device="cpu")
    assert "384" in str(error.value.expected) and "300" in str(error.value.found)


def test_adapter_of_another_shape_or_architecture_is_refused(tmp_path, folder):
    wide = adapted(tiny_causal_lm("llama", width=64)).save(tmp_path / "wide")
    with pytest.raises(ModelError, match="does not fit"):
        load_model(folder, adapter=wide, dtype="float32", device="cpu")
    other = adapted(tiny_causal_lm("gpt2"), ("c_attn",)).save(tmp_path / "gpt2")
    with pytest.raises(ModelError, match=r"does not fit|not applied"):
        load_model(folder, adapter=other, dtype="float32", device="cpu")


@pytest.mark.parametrize("targets", [["q_proj"], ["embed_tokens", "q_proj"]])
def test_an_adapter_is_loaded_and_saved_without_asking_anybody(tmp_path, folder, monkeypatch, targets):
    """Also where its base is named as on the hub: PEFT would look there whether the vocabulary was changed."""
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # nobody would be asked anyway
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    base = load_model(folder, dtype="float32")
    trained = adapted(base, targets)
    trained.module.peft_config["default"].base_model_name_or_path = "somebody/some-model"
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_given, **_named: pytest.fail("asks the network"))
    first = trained.save(tmp_path / "first")
    found = load_model(folder, adapter=first, dtype="float32")
    again = found.save(tmp_path / "again")
    one, other = (load_file(place / "adapter_model.safetensors") for place in (first, again))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert any("embed_tokens" in key for key in one) == ("embed_tokens" in targets)
    assert torch.equal(logits(found), logits(trained))


def test_an_adapter_whose_settings_nest_too_deeply_is_refused(tmp_path, folder):
    saved = adapted(load_model(folder, dtype="float32", device="cpu")).save(tmp_path / "adapter")
    config = json.loads((saved / "adapter_config.json").read_text(encoding="utf-8"))
    deep = {}
    for _ in range(60):
        deep = {"a": deep}
    (saved / "adapter_config.json").write_text(json.dumps({**config, "megatron_core": deep}), encoding="utf-8")
    with pytest.raises(ModelError, match="nested too deeply"):
        load_model(folder, adapter=saved, dtype="float32", device="cpu")


def test_adapter_that_would_not_apply_is_an_error(tmp_path, folder):
    from safetensors.torch import load_file, save_file

    base = load_model(folder, dtype="float32", device="cpu")
    saved = adapted(base).save(tmp_path / "adapter")
    file = saved / "adapter_model.safetensors"
    renamed = {k.replace("layers.0", "blocks.0"): v for k, v in load_file(file).items()}
    save_file(renamed, file)
    with pytest.raises(ModelError, match="not applied"):
        put_adapter(base.copy().module, saved)
    file.rename(saved / "adapter_model.bin")
    with pytest.raises(ModelError, match="no safetensors weights"):
        base.with_adapter(saved)


def test_adapter_without_base_says_so(tmp_path):
    saved = adapted(tiny_causal_lm("llama")).save(tmp_path / "adapter")
    config = json.loads((saved / "adapter_config.json").read_text(encoding="utf-8"))
    (saved / "adapter_config.json").write_text(
        json.dumps({**config, "base_model_name_or_path": None}), encoding="utf-8"
    )
    with pytest.raises(ModelError, match="does not name its base"):
        load_model(saved)


def test_folder_without_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        load_model(folder)


def test_pickled_checkpoint_is_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled") as error:
        load_model(folder)
    assert "pytorch_model.bin" in str(error.value.found)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="no weights"):
        load_model(folder)


def test_code_of_a_model_never_runs_unasked(folder, tmp_path):
    ran = tmp_path / "ran"
    (folder / "modeling_evil.py").write_text(f"open({str(ran)!r}, 'w').close()\n", encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil", "AutoConfig": "modeling_evil.EvilConfig"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="brings its own code"):
        load_model(folder)
    assert not ran.exists()


def test_code_of_a_model_runs_when_allowed_and_is_part_of_what_it_is(folder, tmp_path, monkeypatch):
    plain = load_model(folder, dtype="float32", device="cpu")
    bring_code(folder, tmp_path / "ran")
    own_cache(monkeypatch, tmp_path / "cache")
    model = load_model(folder, dtype="float32", device="cpu", allow_remote_code=True)
    assert (tmp_path / "ran").exists() and type(model.module).__name__ == "OwnLM"
    assert list(model.own_code) == ["modeling_own.py"] and plain.own_code == {}
    assert torch.equal(logits(model), logits(plain))
    saved = model.save(tmp_path / "saved")
    with pytest.raises(ModelError, match="brings its own code"):
        load_model(saved)
    again = load_model(saved, dtype="float32", device="cpu", allow_remote_code=True)
    assert again.fingerprint == model.fingerprint != plain.fingerprint
    with (saved / "modeling_own.py").open("a", encoding="utf-8") as code:
        code.write("# other code may compute otherwise\n")
    other = load_model(saved, dtype="float32", device="cpu", allow_remote_code=True)
    assert other.fingerprint != model.fingerprint
    tuned = load_model(adapted(model).save(tmp_path / "tuned"), device="cpu", allow_remote_code=True)
    assert tuned.own_code == model.own_code
    with pytest.raises(ModelError, match="brings its own code"):
        load_model(tmp_path / "tuned")


def test_code_that_is_broken_or_elsewhere(folder, tmp_path, monkeypatch):
    own_cache(monkeypatch, tmp_path / "cache")
    bring_code(folder, tmp_path / "ran")
    (folder / "modeling_own.py").write_text("raise KeyError('no such luck')\n", encoding="utf-8")
    with pytest.raises(ModelError, match="configuration cannot be loaded") as error:
        load_model(folder, allow_remote_code=True)
    assert "no such luck" in str(error.value) and error.value.remedy
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"]["AutoConfig"] = "some-owner/some-model--modeling_own.OwnConfig"
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match="in another repository"):
        load_model(folder, allow_remote_code=True)


def test_damaged_folders(folder, tmp_path):
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelError, match="weights cannot be loaded"):
        load_model(folder)
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match="not a model folder"):
        load_model(folder)


def test_tokenizer_larger_than_the_model(folder, tmp_path):
    big = tiny_causal_lm("llama", vocab_size=600, texts=["many different words make many merges " * 3] * 3)
    big.tokenizer.add_tokens([f"token{i}" for i in range(400)])
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    big.tokenizer.save_pretrained(tmp_path / "x")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "x" / name, folder / name)
    with pytest.raises(ModelError, match="more tokens than the model"):
        load_model(folder)


def test_unknown_sources_and_offline_hub(monkeypatch, tmp_path):
    with pytest.raises(ModelError, match="no such model"):
        load_model(str(tmp_path / "nowhere"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match="not on this machine"):
        load_model("some-owner/some-model")
    with pytest.raises(ModelError, match="no device"):
        load_model(tiny_causal_lm("llama").save(tmp_path / "m"), device="gpu")


MUTATIONS = [
    (
        "src/tutelage/models/peft_io.py",
        "save_embedding_layers=trained or getattr",
        "save_embedding_layers=getattr",
    ),
    ("src/tutelage/models/peft_io.py", ", save_embedding_layers=adapted.whole_embeddings", ""),
    ("src/tutelage/models/peft_io.py", "if json_text.deeper(", "if False and json_text.deeper("),
    ("src/tutelage/models/peft_io.py", "if n != rows}", "if n < 0}"),
    ("src/tutelage/models/load.py", "if coded and not allow_remote_code", "if False"),
    ("src/tutelage/models/load.py", "weights[name] = tensor.to(dtype)", "weights[name] = 2 * tensor.to(dtype)"),
    ("src/tutelage/models/load.py", "        files = [folder / place for place in places]\n", ""),
    ("src/tutelage/models/load.py", "module.name_or_path = module.config", "module.config"),
    ("src/tutelage/models/causal.py", "[self.own_code] if self.own_code else []", "[]"),
]
