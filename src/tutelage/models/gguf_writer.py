"""A causal language model becomes one GGUF file, for llama.cpp and the programs built on it.

Written with the format's own library (`gguf`): metadata, byte-level BPE vocabulary, chat template, tensors. Covers
the Llama layout (Llama, SmolLM2, Mistral) and Qwen2 with plain rotary positions; anything else is refused rather
than written wrong. For the Llama layout llama.cpp rotates neighbouring pairs of features where transformers
rotates halves, so the rows of each head's query and key projections are reordered (half, j) -> (j, half).
"""

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tutelage.core.errors import ModelError
from tutelage.models.convert import QWEN2_SPLIT

Weights = Literal["f32", "f16", "q8_0"]
_LAYOUTS = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
_NORMAL, _CONTROL, _USER, _UNUSED = 1, 3, 4, 5


def write_gguf(module: Any, tokenizer: Any, template: str | None, path: Path, weights: Weights = "f16") -> None:
    """Write a merged transformers module with its tokenizer and chat template to `path`.

    weights: "f32", "f16" or "q8_0" (8-bit blocks of 32); vectors stay float32. Raises ModelError naming what the
    format or this writer cannot hold.
    """
    import gguf

    config = module.config
    layout = _LAYOUTS.get(config.model_type)
    if layout is None:
        raise _refused("architecture", f"one of {', '.join(_LAYOUTS)}", config.model_type)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        raise _refused("rotary positions", "rope_type default", rope.get("rope_type"))
    if getattr(config, "mlp_bias", False) or (layout == "llama" and getattr(config, "attention_bias", False)):
        raise _refused("layer", "projections without bias", "attention_bias or mlp_bias")
    vocabulary = _vocabulary(tokenizer, config.vocab_size)

    heads = config.num_attention_heads
    writer = gguf.GGUFWriter(str(path), layout)
    writer.add_name(getattr(config, "_name_or_path", "") or path.stem)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_rope_dimension_count(width)
    writer.add_key_length(width)
    writer.add_value_length(width)
    kinds = {"f32": gguf.LlamaFileType.ALL_F32, "f16": gguf.LlamaFileType.MOSTLY_F16,
             "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}  # fmt: skip
    writer.add_file_type(kinds[weights])
    _add_vocabulary(writer, tokenizer, vocabulary)
    if template:
        writer.add_chat_template(template)
    _add_tensors(writer, module, layout, weights)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def pre_tokenizer_name(tokenizer: Any) -> str:
    """llama.cpp's name for the tokenizer's pre-tokenizer; ModelError when it has none that splits alike."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model, steps = backend["model"], backend["pre_tokenizer"] or {}
    steps = steps.get("pretokenizers", [steps])
    kinds = [step.get("type") for step in steps]
    last = steps[-1]
    if (
        model["type"] != "BPE"
        or model.get("byte_fallback")
        or kinds[-1] != "ByteLevel"
        or last["add_prefix_space"]
    ):
        raise _refused("tokenizer", "byte-level BPE without prefix space", f"{model['type']}, {kinds}")
    if (backend["normalizer"] or {}).get("type") not in (None, "NFC"):
        raise _refused("tokenizer", "no normaliser", backend["normalizer"]["type"])
    if kinds == ["ByteLevel"] and last["use_regex"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and last["use_regex"] and steps[0]["individual_digits"]:
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not last["use_regex"] and steps[0]["pattern"] == {"Regex": QWEN2_SPLIT}:
        return "qwen2"
    raise _refused("pre-tokenizer", "that of GPT-2, SmolLM or Qwen2", kinds)


def _vocabulary(tokenizer: Any, size: int) -> list[tuple[str, int]]:
    """(token, type) by id, filled up to the model's table with unused tokens."""
    names = {i: name for name, i in tokenizer.get_vocab().items()}
    if names and max(names) >= size:
        raise _refused("tokenizer", f"ids below {size}", max(names))
    added = tokenizer.added_tokens_decoder
    found = []
    for i in range(size):
        if i not in names:
            found.append((f"[UNUSED{i}]", _UNUSED))
        elif i in added:
            found.append((names[i], _CONTROL if added[i].special else _USER))
        else:
            found.append((names[i], _NORMAL))
    return found


def _add_vocabulary(writer: Any, tokenizer: Any, vocabulary: list[tuple[str, int]]) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer_name(tokenizer))
    writer.add_token_list([name for name, _kind in vocabulary])
    writer.add_token_types([kind for _name, kind in vocabulary])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if token is not None:
            add(token)
    empty = tokenizer("")["input_ids"]
    writer.add_add_bos_token(bool(empty) and empty[0] == tokenizer.bos_token_id)
    writer.add_add_space_prefix(False)


def _add_tensors(writer: Any, module: Any, layout: str, weights: Weights) -> None:
    import gguf
    from gguf.quants import quantize

    config = module.config
    kind = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16,
            "q8_0": gguf.GGMLQuantizationType.Q8_0}[weights]  # fmt: skip
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[layout.upper()], config.num_hidden_layers)
    for name, value in module.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue  # a file without output weights uses the embedding table
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise _refused("tensor", "a name of the Llama layout", name)
        array = value.detach().float().cpu().numpy()
        if layout == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            count = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            array = _pairs(array, count)
        # Vectors (norms, biases) are small and sensitive; rows that do not fill blocks of 32 cannot be 8-bit.
        chosen = gguf.GGMLQuantizationType.F32 if array.ndim == 1 else kind
        if chosen == gguf.GGMLQuantizationType.Q8_0 and array.shape[-1] % 32:
            chosen = gguf.GGMLQuantizationType.F16
        writer.add_tensor(target, quantize(np.ascontiguousarray(array), chosen), raw_dtype=chosen)


def _pairs(matrix: np.ndarray, heads: int) -> np.ndarray:
    """[heads * d, n]: within each head, rows (half, j) -> (j, half)."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _refused(what: str, expected: str, found: object) -> ModelError:
    return ModelError(
        f"this model's {what} cannot be written as GGUF", where=what, expected=expected, found=found,
        remedy="export safetensors, and convert it with the converter of llama.cpp",
    )  # fmt: skip
