"""A model folder that brings its own code, as its author would have saved it."""

import json
from pathlib import Path
from typing import Any

CODE = """\
import pathlib

from transformers import LlamaConfig, LlamaForCausalLM

pathlib.Path({marker!r}).touch()


class OwnConfig(LlamaConfig):
    model_type = "own_llama"


class OwnLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def bring_code(folder: Path, marker: Path) -> Path:
    """Turn a saved Llama into a model of its own class, whose code makes the file `marker` when it is run."""
    (folder / "modeling_own.py").write_text(CODE.format(marker=str(marker)), encoding="utf-8")
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "model_type": "own_llama",
        "architectures": ["OwnLM"],
        "auto_map": {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnLM"},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def own_cache(monkeypatch: Any, folder: Path) -> None:
    """Let transformers keep its copies of such code in `folder`, not in the user's cache."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(folder))
    monkeypatch.syspath_prepend(str(folder))
