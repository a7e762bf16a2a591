"""`load_model`: one call for every source of a model, from a folder to an endpoint, offline first.

Weights are read from safetensors only; code that comes with a model runs only when `allow_remote_code` is given.
"""

import math
import re
from pathlib import Path
from typing import Any

from tutelage.core import json_text
from tutelage.core.errors import ModelError
from tutelage.models.device import choose_device, choose_dtype, is_out_of_memory
from tutelage.models.seam import Model
from tutelage.models.templates import ChatTemplate

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
MOST_LAYERS = 4096  # building more takes minutes before anything is seen to be wrong


def load_model(
    source: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    adapter: str | Path | None = None,
    allow_remote_code: bool = False,
    offline: bool = True,
    model: str | None = None,
    key_env: str | None = None,
    allow_remote: bool = False,
) -> Model:
    """Load a model: a local folder (also a PEFT adapter, a classifier or a saved n-gram model), `*.gguf`, `http(s)://`
    endpoint, a packaged name (smollm2, minilm ...) or a hub name `owner/name`.

    `device`: auto, cpu, cuda, mps. `dtype`: auto (bfloat16 where a timed probe finds it faster), float32,
    bfloat16. `adapter`: a PEFT folder to put on the model. `allow_remote_code`: run code that comes in the model's
    folder, which can do whatever you can. A hub name is looked for on disk first and downloaded
    only if `offline` is false. For an endpoint: `model` is the name it is served under (needed when there are
    several), `key_env` the environment variable with the key, `allow_remote` lets text leave this machine.
    Raises ModelError; EndpointError and ConfigError for an endpoint.
    """
    text = str(source)
    if re.match(r"https?://", text):
        from tutelage.models.endpoint import EndpointLM, served_model

        served = model or served_model(text, key_env, allow_remote)
        return EndpointLM(text, served, key_env=key_env, allow_remote=allow_remote)
    from tutelage.models.fetch import PACKAGED, convert_gguf, packaged

    path = Path(text).expanduser()
    if text.endswith(".gguf"):
        folder = convert_gguf(path)
    elif path.is_dir():
        folder = path
    elif text in PACKAGED:
        folder = packaged(text)
    else:
        folder = _hub(text, offline, allow_remote_code)
    found = load_folder(
        folder,
        device=device,
        dtype=dtype,
        adapter=adapter,
        allow_remote_code=allow_remote_code,
        offline=offline,
        name=path.stem if path.exists() else text,
    )
    if adapter is None and not path.is_dir() and text in PACKAGED:
        found.packaged = text
    return found


def load_folder(
    folder: Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    adapter: str | Path | None = None,
    allow_remote_code: bool = False,
    offline: bool = True,
    name: str | None = None,
) -> Model:
    """Load a model folder in `save_pretrained` or PEFT layout; see `load_model`."""
    if (folder / "adapter_config.json").is_file() and adapter is None:
        base = _json(folder / "adapter_config.json").get("base_model_name_or_path")
        if not base:
            raise ModelError(
                "an adapter does not name its base model",
                where=folder / "adapter_config.json",
                expected="base_model_name_or_path",
                remedy="load the base and pass the folder as adapter",
            )
        return load_model(
            base,
            device=device,
            dtype=dtype,
            adapter=folder,
            allow_remote_code=allow_remote_code,
            offline=offline,
        )
    if (folder / "ngram.json").is_file():
        from tutelage.models.ngram import NGramLM

        return NGramLM.load(folder)
    if (folder / "classifier.json").is_file():
        from tutelage.models.classifier import load_classifier

        return load_classifier(folder, device=device, dtype=dtype)
    name = name or folder.name
    if not (folder / "config.json").is_file():
        raise ModelError("not a model folder", where=folder, expected="config.json", found="none")
    check_folder(folder, allow_remote_code)
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=allow_remote_code, local_files_only=True)
        own = "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {})
        causal = own or any("CausalLM" in a or "LMHead" in a for a in config.architectures or [])
    except Exception as error:  # code that came with the model may raise anything
        raise ModelError(
            "a model's configuration cannot be loaded",
            where=folder,
            found=_line(error),
            remedy="check config.json, and that the files of the model's own code are there if it has some",
        ) from None
    layers = getattr(config, "num_hidden_layers", None) or 0
    if not isinstance(layers, int) or layers > MOST_LAYERS:
        raise ModelError(
            "a model's configuration asks for more layers than any model has",
            where=folder / "config.json",
            expected=f"num_hidden_layers of at most {MOST_LAYERS}",
            found=str(layers)[:80],
            remedy="check config.json",
        )
    if not causal:
        from tutelage.models.encoder import Encoder

        encoder = Encoder.load(
            folder, device=device, precision=dtype, name=name, allow_remote_code=allow_remote_code
        )
        return encoder if adapter is None else encoder.with_adapter(adapter)
    try:
        tokenizer = folder_tokenizer(folder, allow_remote_code)
    except BaseException as error:
        # The library raises whatever a damaged file makes it raise; a panic of its Rust part is no Exception.
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit | MemoryError):
            raise
        raise ModelError("a tokenizer cannot be loaded", where=folder, found=_line(error)) from None
    from transformers import AutoModelForCausalLM

    from tutelage.models.causal import CausalLM
    from tutelage.models.peft_io import put_adapter, quiet

    place = choose_device(device)
    precision = choose_dtype(dtype, place)
    try:
        with quiet():
            module: Any = _converted(folder, config, precision) or AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=precision,
                trust_remote_code=allow_remote_code,
                local_files_only=True,
                use_safetensors=True,
            )
    except Exception as error:  # code that came with the model may raise anything, as may the library
        if is_out_of_memory(error):
            raise  # nothing is wrong with the model
        raise ModelError("a model's weights cannot be loaded", where=folder, found=_line(error)) from None
    rows = module.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            "the tokenizer has more tokens than the model",
            where=folder,
            expected=f"at most {rows} tokens",
            found=f"{len(tokenizer)} tokens",
            remedy="use the tokenizer that the model was trained with",
        )
    module.to(place).eval()
    if adapter is not None:
        module = put_adapter(module, Path(adapter))
        name = Path(adapter).name
    return CausalLM(module, tokenizer, folder_template(folder, tokenizer), name=name)


def _converted(folder: Path, config: Any, dtype: Any) -> Any:
    """The model in another precision than its file's, read tensor by tensor; None where nothing is to convert,
    or the library must do it in its own way.

    The library maps the file as a whole, so that while it loads, the file and the model are both in memory.
    """
    from safetensors import safe_open
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, GenerationConfig

    index = folder / "model.safetensors.index.json"
    files = sorted(folder.glob("*.safetensors"))
    if index.is_file():
        named = _json(index).get("weight_map")
        places = sorted(set(named.values())) if isinstance(named, dict) else [""]
        if any(place not in [file.name for file in files] for place in places):
            return None
        files = [folder / place for place in places]
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    kept = [getattr(kind, name, None) for name in ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")]
    if kind is None or any(kept) or getattr(config, "quantization_config", None):
        return None
    if len(files) > 1 and not index.is_file():
        return None
    weights: dict[str, Any] = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            names = list(opened.keys())
        for name in names:
            # Closing the file gives back the pages of what was read.
            with safe_open(file, "pt") as opened:
                tensor = opened.get_tensor(name)
            if not weights and tensor.dtype == dtype:
                return None
            weights[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor.clone()
    module = kind.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)
    module.name_or_path = module.config._name_or_path = str(folder)
    if (folder / "generation_config.json").is_file():
        module.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return module


def check_folder(folder: Path, allow_remote_code: bool) -> None:
    """Refuse, with the reason, a folder that lacks its parts, has pickled weights only, or brings its own code."""
    config = _json(folder / "config.json")
    files = [folder / "config.json", folder / "tokenizer_config.json"]
    coded = [f.name for f in files if _maps_code(f)]
    if coded and not allow_remote_code:
        raise ModelError(
            "a model brings its own code, which would run on this machine",
            where=folder,
            found=f"auto_map in {', '.join(coded)}",
            remedy="read that code; to run it, write allow_remote_code: true at the model in the recipe, or give "
            "--allow-remote-code (in Python allow_remote_code=True)",
        )
    for name in coded:
        elsewhere = [str(place) for place in _json(folder / name)["auto_map"].values() if "--" in str(place)]
        if elsewhere:
            raise ModelError(
                "a model's own code is in another repository",
                where=folder / name,
                expected="code in the model's folder, where it can be read",
                found=elsewhere[0],
                remedy="copy the code files into the folder and name them without owner/repository--",
            )
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
        raise ModelError(
            "a checkpoint is pickled, and unpickling can run any code" if pickles else "a folder has no weights",
            where=folder,
            expected="*.safetensors",
            found=", ".join(pickles[:5]) or "none",
            remedy="convert it to safetensors where it was made" if pickles else None,
        )
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
    if not any((folder / n).is_file() for n in names):
        raise ModelError(
            "a model folder has no tokenizer",
            where=folder,
            expected=" or ".join(names),
            found=config.get("model_type"),
            remedy="copy the tokenizer files of the model it was made from into the folder",
        )


def _maps_code(file: Path) -> bool:
    return file.is_file() and "auto_map" in _json(file)


def folder_tokenizer(folder: Path, allow_remote_code: bool = False) -> Any:
    """The tokenizer as its file says. Raises what transformers raises, and ValueError."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    settings = folder / "tokenizer_config.json"
    declared = _json(settings).get("tokenizer_class") if settings.is_file() else None
    if declared in ("PreTrainedTokenizerFast", "TokenizersBackend") and (folder / "tokenizer.json").is_file():
        # AutoTokenizer would take the class of the model type, which splits words its own way and not as the
        # file says: other token ids after saving and loading.
        found: Any = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    else:
        found = AutoTokenizer.from_pretrained(folder, trust_remote_code=allow_remote_code, local_files_only=True)
    if not isinstance(found.model_max_length, int | float) or not 0 < found.model_max_length < math.inf:
        raise ValueError(f"model_max_length is no number of tokens: {found.model_max_length!r}"[:200])
    return found


def folder_template(folder: Path, tokenizer: Any) -> ChatTemplate | None:
    """The folder's chat template (chat_template.jinja, else the tokenizer's own), or None."""
    tokens = {k: v for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)}
    file = folder / "chat_template.jinja"
    if file.is_file():
        return ChatTemplate(file.read_text(encoding="utf-8"), tokens, tokenizer.all_special_tokens, str(file))
    source = tokenizer.chat_template
    if isinstance(source, dict):
        source = source.get("default")
    return ChatTemplate(source, tokens, tokenizer.all_special_tokens, folder.name) if source else None


def _hub(name: str, offline: bool, code: bool) -> Path:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ModelError(
            "there is no such model",
            where=name,
            expected="a folder, a .gguf file, a URL, a packaged name (smollm2, minilm) or a hub name owner/name",
            remedy="check the path",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", *(["*.py"] if code else [])]
    try:
        found = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
        # A model downloaded before its code was allowed lacks that code.
        if offline or not code or any(found.glob("*.py")) or not _maps_code(found / "config.json"):
            return found
    except (LocalEntryNotFoundError, OSError):
        if offline:
            raise ModelError(
                "a hub model is not on this machine",
                where=name,
                remedy="allow the download (offline: false), or give a local folder",
            ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, OSError) as error:
        raise ModelError(
            "a hub model cannot be downloaded", where=name, found=str(error).splitlines()[0]
        ) from None


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json_text.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError("a model file cannot be read", where=path, found=error) from None
    if not isinstance(found, dict):
        raise ModelError("a model file cannot be read", where=path, expected="a JSON object")
    return found
