"""A GGUF file becomes a safetensors folder, once.

`transformers` reads and dequantises the tensors; what it leaves wrong is repaired here: the quantisation config
that would make the folder unloadable, the pre-tokenizer of vocabularies that split digits (GGUF stores only its
name, `tokenizer.ggml.pre`), the tokenizer's context length, the ids that end a turn. Weights are kept in float32:
dequantised 4-bit values (scale times integer plus offset) are not representable in bfloat16.
"""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tutelage.core.errors import ModelError
from tutelage.models.cache import building, cache_dir, complete, file_sha256, locked

# Changes whenever the same file would convert to a different folder.
CONVERTER = 1
# llama.cpp's names for the pre-tokenizers that we know (its llm_tokenizer_bpe): those that isolate every \p{N}
# before the GPT-2 pattern, the GPT-2 pattern alone, and Qwen2's pattern.
_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"})
_GPT2 = frozenset({"gpt-2", "mpt", "olmo", "jais"})
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

Progress = Callable[[str], None]


def convert_gguf(
    path: str | Path, out: str | Path | None = None, sha256: str | None = None, progress: Progress | None = None
) -> Path:
    """Convert a GGUF file to a safetensors folder and return the folder; a second call returns the same one.

    path: the GGUF file (any architecture and quantisation that `transformers` reads).
    out: where to write; default: the model cache, under the hash of the file's content.
    sha256: expected hash of the file; checked before anything is read from it.
    progress: called with one line per stage.

    Raises ModelError for a file that is not GGUF, is damaged or truncated, has another hash, or holds an
    architecture that is not supported. Scores of dequantised weights say nothing about published numbers of the
    original model.
    """
    require_converter()
    source = Path(path).expanduser()
    say = progress or (lambda _line: None)
    if not source.is_file():
        raise ModelError("no such GGUF file", where=source, remedy="check the path")
    with source.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ModelError(
            "not a GGUF file",
            where=source,
            expected="a file that begins with GGUF",
            found=repr(magic),
            remedy="pass a .gguf file, or a folder with config.json and *.safetensors",
        )
    say(f"checking {source.name}")
    digest = file_sha256(source)
    if sha256 is not None and digest != sha256.lower():
        raise ModelError(
            "the GGUF file is not the expected one",
            where=source,
            expected=f"sha256 {sha256}",
            found=f"sha256 {digest}",
            remedy="download it again; do not use this file",
        )
    final = Path(out).expanduser().resolve() if out is not None else cache_dir() / "converted" / digest[:32]
    with locked(final):
        marker = complete(final)
        if marker and marker.get("gguf_sha256") == digest and marker.get("converter") == CONVERTER:
            return final
        if out is not None and final.exists() and (not final.is_dir() or any(final.iterdir())) and not marker:
            raise ModelError(
                "the output folder is not empty",
                where=final,
                expected="a new or empty folder",
                remedy="choose another folder, or delete this one",
            )
        pre = _checked_header(source)
        with building(final, {"gguf_sha256": digest, "converter": CONVERTER, "tokenizer_pre": pre}) as work:
            say(f"converting {source.name} (about half a minute for 100 million weights)")
            _write(source, work, pre)
    return final


def require_converter() -> None:
    """Raise ModelError when the packages that read GGUF files are not installed."""
    missing = [name for name in ("torch", "transformers", "gguf") if importlib.util.find_spec(name) is None]
    if missing:
        raise ModelError(
            "reading GGUF files needs packages that are not installed",
            found=f"no {', '.join(missing)}",
            remedy='run: pip install "tutelage[train]"',
        )


def _checked_header(source: Path) -> str:
    """The name of the pre-tokenizer; ModelError when the tensors do not fit into the file."""
    from gguf import GGUFReader

    class Bounded(GGUFReader):
        """Ends where the file does: the reader itself goes on counting through a list of 2^40 entries."""

        def _get(self, offset: int, dtype: Any, count: int = 1, *more: Any, **named: Any) -> Any:
            found = super()._get(offset, dtype, count, *more, **named)
            if len(found) < count:
                raise ValueError("a value goes on behind the end of the file")
            return found

    try:
        reader = Bounded(str(source))
        if not reader.tensors:
            raise ValueError("no tensors")
        kind, pre = (reader.get_field(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
        # Only byte-level BPE ("gpt2") has a pre-tokenizer to name.
        return str(pre.contents()) if kind and pre and kind.contents() == "gpt2" else ""
    except Exception as error:  # the reader raises whatever numpy and its enums raise on damaged bytes
        raise ModelError(
            "the GGUF file is damaged or cut off",
            where=source,
            found=error,
            remedy="download it again and compare its sha256",
        ) from error


def _write(source: Path, work: Path, pre: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
            model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        except Exception as error:  # unsupported architecture, damaged values: many types, one meaning here
            raise ModelError(
                "transformers cannot read this GGUF file",
                where=source,
                found=error,
                remedy="use a file of an architecture that transformers reads from GGUF (llama, qwen2, gemma ...)",
            ) from error
    _strip_quantisation(model)
    tokenizer = repaired(tokenizer, pre)
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit:
        tokenizer.model_max_length = int(limit)
    # The GGUF names the folder it came from in the config; a path of another machine says nothing.
    model.config._name_or_path = ""
    if hasattr(model.config, "_model_name_or_path"):
        del model.config._model_name_or_path
    model.generation_config.eos_token_id = stop_ids(tokenizer, model.generation_config.eos_token_id)
    with _quiet():
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)


def _strip_quantisation(model: Any) -> None:
    # The weights are plain float32 now; a remaining quantisation config would make the folder unloadable.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    model.is_quantized = False


def repaired(tokenizer: Any, pre: str) -> Any:
    """The tokenizer with the splitting that `tokenizer.ggml.pre` names; "" leaves it as it is.

    transformers chooses by architecture and ignores the name; its own classes would do so again when the folder
    is loaded, so the result is the generic class, which takes the splitting from the file. Warns when the name is
    none of those known here.
    """
    from tokenizers import Regex, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if pre in _GPT2:
        chosen: Any = whole
    elif pre in _DIGITS:
        chosen = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole])
    elif pre == "qwen2":
        split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated")
        inner = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        chosen = pre_tokenizers.Sequence([split, inner])
    else:
        if pre:
            warnings.warn(
                f"pre-tokenizer {pre!r} of this GGUF is left as transformers converts it and was not checked; "
                "compare its token ids with the original tokenizer before trusting scores",
                stacklevel=2,
            )
        return tokenizer
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = chosen
    specials = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=tokenizer.chat_template, **specials)


def stop_ids(tokenizer: Any, declared: Any) -> int | list[int] | None:
    """All token ids that end a turn or a document: those declared and the known end markers in the vocabulary."""
    known = list(declared) if isinstance(declared, list) else [declared] if declared is not None else []
    vocabulary = tokenizer.get_vocab()
    template = tokenizer.chat_template or ""
    for marker in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>"):
        # An end-of-turn marker counts only if the chat template writes it.
        if marker in vocabulary and marker in template and vocabulary[marker] not in known:
            known.append(vocabulary[marker])
    return known[0] if len(known) == 1 else known or None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # The conversion bar of transformers cannot be switched off through its own settings.
    with contextlib.redirect_stderr(io.StringIO()):
        yield
