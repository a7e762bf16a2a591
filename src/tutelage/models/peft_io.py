"""Adapters and model folders: putting a PEFT adapter on a base and proving that it took, and saving either.

An adapter that silently does not apply looks like a model that did not learn, so every tensor of the file is
compared with what sits in the model after loading.
"""

import contextlib
import copy
import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tutelage.core import json_text
from tutelage.core.errors import ModelError
from tutelage.models.seam import saving
from tutelage.models.soft_prompt import PROMPT, is_soft, splice

if TYPE_CHECKING:
    from tutelage.models.causal import CausalLM

WEIGHTS = "adapter_model.safetensors"
# The part of a classifier's module that is trained beside an adapter.
HEAD = "classifier_head"
# What a configuration says about where a model came from and how it is run, not about what it computes.
_PASSING = {
    "architectures",
    "auto_mapping",
    "base_model_name_or_path",
    "dtype",
    "inference_mode",
    "peft_version",
    "revision",
    "task_type",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is a PEFT model."""
    return hasattr(module, "get_base_model")


def adapter_marks(module: Any) -> tuple[str, ...]:
    """What the names of an adapter's own weights contain, one of them each; PEFT names them after their kind."""
    return (f"{PROMPT}.",) if is_soft(module) else (module.base_model.prefix, ".modules_to_save.")


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without what does not change outputs; sets in order."""
    return {
        str(key): sorted(map(str, value)) if isinstance(value, set | frozenset) else value
        for key, value in config.items()
        if key not in _PASSING and not str(key).startswith("_")
    }


def adapter_facts(module: nn.Module) -> list[Any]:
    """Name and configuration of each adapter: its scale is in its configuration alone, so equal weights with
    another alpha are another model."""
    adapters: dict[str, Any] = getattr(module, "peft_config", {})
    return [[name, settled(config.to_dict())] for name, config in sorted(adapters.items())]


def frozen_view(module: Any) -> Any:
    """A module tree of its own whose parameters share memory with `module`'s and need no gradient.

    Wrapping its layers changes nothing in `module`; only weights added later take memory. Quantised weights are
    copied, because they know how to do it and change their layout when used.
    """
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), requires_grad=False)
        for p in module.parameters()
        if type(p) is nn.Parameter
    }
    memo.update({id(b): b for b in module.buffers()})
    return copy.deepcopy(module, memo)


def put_adapter(module: Any, folder: Path) -> Any:
    """The PEFT model of `module` (changed in place) and the adapter in `folder`.

    Raises ModelError when the folder is not an adapter in safetensors, does not fit the base (vocabulary, shapes,
    layer names), or was not applied.
    """
    from peft import PeftConfig, PeftModel

    if is_adapted(module):
        raise ModelError("a model already carries an adapter", where=folder, remedy="merge it first")
    if not (folder / "adapter_config.json").is_file():
        raise ModelError("not an adapter folder", where=folder, expected="adapter_config.json", found="none")
    if not (folder / WEIGHTS).is_file():
        raise ModelError(
            "an adapter has no safetensors weights",
            where=folder,
            expected=WEIGHTS,
            found=", ".join(sorted(p.name for p in folder.glob("adapter_model*"))) or "none",
            remedy="save it again with safetensors",
        )
    from safetensors.torch import load_file

    try:
        stored = load_file(folder / WEIGHTS)
        if json_text.deeper(json_text.loads((folder / "adapter_config.json").read_bytes()), json_text.MOST_LEVELS):
            raise ValueError("nested too deeply")  # PEFT copies it level by level, until Python gives up
        config = PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # the libraries raise whatever a damaged file makes them raise
        raise _no_adapter(folder, error) from None
    _check_vocabulary(module, folder, stored)
    if config.is_prompt_learning and config.peft_type != "PROMPT_TUNING":
        raise ModelError(
            "this kind of prompt learning is not supported",
            where=folder,
            expected="PROMPT_TUNING, or an adapter of weights",
            found=str(config.peft_type),
        )
    try:
        # In the base's precision, as it was trained: other dtypes would cost a cast per layer and change logits.
        adapted = PeftModel.from_pretrained(
            module,
            folder,
            is_trainable=False,
            autocast_adapter_dtype=False,
            low_cpu_mem_usage=True,
            local_files_only=True,
        )
    except Exception as error:
        raise ModelError(
            "an adapter does not fit its base model",
            where=folder,
            found=" ".join(str(error).split())[:300],
            remedy="load it on the model it was trained on",
        ) from None
    _check_applied(adapted, folder, stored)
    if lacking := [name for name, weight in adapted.named_parameters() if weight.is_meta]:
        raise ModelError(
            "an adapter lacks weights that its configuration asks for",
            where=folder,
            expected=lacking[0],
            found=f"{len(lacking)} such weights that are not in {WEIGHTS}",
            remedy="save or download it again",
        )
    if is_soft(adapted):
        splice(adapted)
    adapted.eval()
    return adapted


def _no_adapter(folder: Path, error: Exception) -> ModelError:
    return ModelError(
        "an adapter cannot be read",
        where=folder,
        expected=f"adapter_config.json and {WEIGHTS} as PEFT writes them",
        found=f"{type(error).__name__}: {' '.join(str(error).split())[:300]}",
        remedy="save or download it again",
    )


def _check_vocabulary(module: Any, folder: Path, stored: dict[str, torch.Tensor]) -> None:
    rows = module.get_input_embeddings().weight.shape[0]
    widths = {}
    for name, value in stored.items():
        if name.endswith("lm_head.lora_B.weight") or name.endswith(("embed_tokens.weight", "lm_head.weight")):
            widths[name] = value.shape[0]
        elif "lora_embedding_A" in name:
            widths[name] = value.shape[1]
    wrong = {name: n for name, n in widths.items() if n != rows}
    tokenizer = folder / "tokenizer.json"
    if not wrong and tokenizer.is_file():
        size = _vocabulary_size(tokenizer.read_bytes())
        if size > rows:
            wrong["tokenizer.json"] = size
    if wrong:
        name, found = next(iter(wrong.items()))
        raise ModelError(
            "the vocabularies of an adapter and its base differ",
            where=f"{folder}: {name}",
            expected=f"{rows} tokens (the base)",
            found=f"{found} tokens",
            remedy="load it on the model it was trained on",
        )


@functools.lru_cache(maxsize=1)
def _vocabulary_size(tokenizer: bytes) -> int:
    """Of a `tokenizer.json`; the adapters of one run all carry the same."""
    from tokenizers import Tokenizer

    return int(Tokenizer.from_buffer(tokenizer).get_vocab_size(with_added_tokens=True))


def _check_applied(adapted: Any, folder: Path, stored: dict[str, torch.Tensor]) -> None:
    from peft import get_peft_model_state_dict

    adapted.whole_embeddings = any(mark in name for name in stored for mark in ("embed", "lm_head", "wte"))
    present = get_peft_model_state_dict(adapted, save_embedding_layers=adapted.whole_embeddings)
    lost = [
        name
        for name, value in stored.items()
        if name not in present or not torch.equal(present[name].detach().cpu(), value.to(present[name].dtype))
    ]
    if lost or not stored:
        raise ModelError(
            "an adapter was not applied to the model",
            where=folder,
            expected=f"all {len(stored)} tensors of {WEIGHTS} in the model" if stored else "tensors",
            found=f"{len(lost)} missing or different, first {lost[0]}" if lost else "an empty file",
            remedy="load it on the model it was trained on",
        )


def save(model: "CausalLM", folder: Path) -> Path:
    """Write model or adapter, tokenizer and chat template; raises StoreError when the place cannot be written."""
    with saving(folder), quiet():
        save_module(model.module, folder)
        model.tokenizer.save_pretrained(folder)
        if model.template is not None:
            (folder / "chat_template.jinja").write_text(model.template.source, encoding="utf-8")
    return folder


def save_module(module: Any, folder: Path) -> None:
    """`save_pretrained`. Whether an adapter holds whole embeddings is said here: PEFT would ask the hub for the
    base model's vocabulary to find it out, and nobody is asked anything but for a download."""
    if not is_adapted(module):
        module.save_pretrained(folder)
        return
    targets = " ".join(str(config.target_modules) for config in module.peft_config.values() if not is_soft(module))
    trained = any(name in targets for name in ("embed_tokens", "lm_head", "wte"))
    module.save_pretrained(folder, save_embedding_layers=trained or getattr(module, "whole_embeddings", False))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of transformers, and PEFT's warnings about hubs it cannot reach."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="peft")
            yield
    finally:
        if bars:
            logging.enable_progress_bar()
