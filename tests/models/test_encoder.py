"""The encoder against plain transformers calls: pooling, padding, order, saving, bad input."""

import warnings

import numpy as np
import pytest
import torch

from tutelage.core.errors import ModelError
from tutelage.models.encoder import Encoder
from tutelage.models.load import load_model
from tutelage.models.toy import tiny_bert, tiny_encoder

MUTATIONS = [
    ("src/tutelage/models/seam.py", "with disk_errors():", "if True:"),
    ("src/tutelage/models/encoder.py", "mean = (states * kept).sum(1) / kept.sum(1)", "mean = states.mean(1)"),
    (
        "src/tutelage/models/encoder.py",
        "attention_mask=mask.long(),",
        "attention_mask=torch.ones_like(mask).long(),",
    ),
    (
        "src/tutelage/models/encoder.py",
        "out[chosen] = mean.cpu().numpy()",
        "out[sorted(chosen)] = mean.cpu().numpy()",
    ),
]
TEXTS = ["one", "a much longer text with many more words than the first", "two words", "0 1 2 3 4 5 6 7 8 9 10 11"]


def test_mean_pooling_equals_one_text_at_a_time() -> None:
    module, tokenizer = tiny_bert(seed=3)
    encoder = Encoder(module, tokenizer)
    plain = []
    for text in TEXTS:
        with torch.no_grad():
            states = module(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        plain.append((states.mean(0) / states.mean(0).norm()).numpy())
    found = encoder.embed(TEXTS, batch_size=3)
    assert found.dtype == np.float32
    assert found == pytest.approx(np.stack(plain), abs=1e-5)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-5)
    raw = encoder.embed(TEXTS, normalise=False)
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1.0)


def test_hidden_states_are_those_of_the_module_in_input_order() -> None:
    encoder = tiny_encoder(seed=1)
    for layer in (0, 1, -1):
        for text, states in zip(TEXTS, encoder.hidden_states(TEXTS, layer, batch_size=2), strict=True):
            with torch.no_grad():
                all_layers = encoder.module(
                    **encoder.tokenizer(text, return_tensors="pt"), output_hidden_states=True
                ).hidden_states
            assert states.shape == (int(encoder.count_tokens([text])[0]), encoder.width)
            assert states == pytest.approx(all_layers[layer][0].numpy(), abs=1e-5)


def test_a_place_that_cannot_be_written_is_said(tmp_path, monkeypatch) -> None:
    from safetensors import SafetensorError

    from tutelage.core.errors import StoreError

    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StoreError, match="cannot be saved") as error:
        tiny_encoder().save(tmp_path / "file" / "enc")
    assert error.value.remedy and error.value.where == tmp_path / "file" / "enc"

    def full(*_arguments, **_options):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(StoreError, match="No space left on device") as error:
        tiny_encoder().save(tmp_path / "enc")
    assert "free some space" in str(error.value)


def test_save_reload_and_fingerprint(tmp_path) -> None:
    encoder = tiny_encoder(seed=2)
    again = Encoder.load(encoder.save(tmp_path / "enc"), device="cpu", precision="float32")
    assert again.embed(TEXTS) == pytest.approx(encoder.embed(TEXTS), abs=1e-6)
    assert again.fingerprint == encoder.fingerprint
    assert tiny_encoder(seed=5).fingerprint != encoder.fingerprint
    shorter = Encoder(encoder.module, encoder.tokenizer, max_length=8)
    assert Encoder.load(shorter.save(tmp_path / "short")).max_length == 8


def test_load_model_gives_an_encoder(tmp_path) -> None:
    encoder = tiny_encoder(seed=2)
    again = load_model(encoder.save(tmp_path / "enc"), device="cpu", dtype="float32")
    assert isinstance(again, Encoder) and again.fingerprint == encoder.fingerprint


def test_long_texts_are_cut_with_a_warning() -> None:
    module, tokenizer = tiny_bert()
    encoder = Encoder(module, tokenizer, max_length=4)
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 4 tokens"):
        found = encoder.embed(["word " * 30, "a"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ids = tokenizer("word " * 30)["input_ids"][:4]
        same = encoder.embed([tokenizer.decode(ids)])
    assert found[0] == pytest.approx(same[0], abs=1e-5)


def test_bfloat16_stays_close_to_float32() -> None:
    module, tokenizer = tiny_bert(width=64)
    exact = Encoder(module, tokenizer, precision="float32").embed(TEXTS)
    half = Encoder(module, tokenizer, precision="bfloat16").embed(TEXTS)
    assert (exact * half).sum(1).min() > 0.999
    assert not np.array_equal(exact, half)


def test_automatic_precision_is_one_that_is_close(monkeypatch) -> None:
    monkeypatch.setattr("tutelage.models.encoder.bf16_is_faster", lambda _device: True)
    module, tokenizer = tiny_bert(width=64)
    encoder = Encoder(module, tokenizer, precision="auto")
    assert encoder.half
    assert encoder.meter.cost.scored_tokens == 0
    monkeypatch.setattr("tutelage.models.encoder.MIN_COSINE", 1.5)
    assert not Encoder(module, tokenizer, precision="auto").half
    monkeypatch.setattr("tutelage.models.encoder.bf16_is_faster", lambda _device: False)
    monkeypatch.setattr("tutelage.models.encoder.MIN_COSINE", 0.999)
    assert not Encoder(module, tokenizer, precision="auto").half


def test_costs_are_counted() -> None:
    encoder = tiny_encoder()
    encoder.embed(TEXTS)
    tokens = int(encoder.count_tokens(TEXTS).sum())
    assert encoder.meter.cost.scored_tokens == tokens
    assert encoder.meter.cost.forward_flops == 2.0 * encoder.active_params * tokens


def test_bad_input(tmp_path) -> None:
    encoder = tiny_encoder()
    assert encoder.embed([]).shape == (0, encoder.width)
    with pytest.raises(ModelError, match="text 1"):
        encoder.embed(["a", ""])
    with pytest.raises(ModelError, match="item 0"):
        encoder.embed([None])  # type: ignore[list-item]
    with pytest.raises(ModelError, match="cannot generate"):
        encoder.generate(["a"])
    with pytest.raises(ModelError, match="did you mean float32"):
        Encoder(encoder.module, encoder.tokenizer, precision="float3")
    with pytest.raises(ModelError, match="no such folder"):
        Encoder.load(tmp_path / "absent")
    folder = encoder.save(tmp_path / "enc")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        Encoder.load(folder)
    (folder / "model.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(ModelError, match="cannot be loaded"):
        Encoder.load(folder)
