"""A model leaves the house: a merged safetensors folder or a GGUF file, with a model card, read back and compared.

Merging is done in float32. What was written is loaded again by an independent reader (transformers) and must give
the same token ids, chat template and stop tokens, and the same log-probabilities within the precision written.
llama.cpp gives the same greedy text for such a file when its key-value cache is float32; with its default
(float16) near ties may fall the other way.
"""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from tutelage.core.errors import ModelError, StoreError, suggest
from tutelage.models.causal import CausalLM
from tutelage.models.gguf_writer import Weights, write_gguf

FORMATS = ("safetensors", "gguf")
# Largest change of a token's log-probability (nats) that the precision of the weights explains.
_TOLERANCE = {"safetensors": 1e-4, "f32": 1e-3, "f16": 0.05, "q8_0": 0.5}
# Digits, code, white space and other scripts: where pre-tokenizers differ.
_PROBES = (
    "The quick brown fox jumps over the lazy dog, 12 times in 2024.",
    "def area(radius):\n    return 3.14159 * radius ** 2\n",
    "Naïve café: 猫 – “quoted”\t\ttabs",
)


def export_model(
    model: CausalLM,
    out: str | Path,
    *,
    format: Literal["safetensors", "gguf"] = "safetensors",
    card: str | None = None,
    weights: Weights = "f16",
    check: bool = True,
) -> Path:
    """Write a causal language model without its adapter (merged into the weights) and return what was written.

    out: a new or empty folder (for GGUF it gets `model.gguf`, whose path is returned), or a new `*.gguf` file.
    card: text of README.md (see `model_card`); default: a card with what the model itself knows.
    weights: precision of a GGUF file. check: read it back and compare (seconds to a minute).

    Raises ModelError when the model cannot be written in this format or does not come back equal, and StoreError
    when the folder cannot be written; nothing is left behind then.
    """
    if format not in FORMATS:
        raise ModelError(f"there is no export format {format!r}", where="format", remedy=suggest(format, FORMATS))
    if not isinstance(model, CausalLM):
        raise ModelError(
            "only causal language models are exported", where=getattr(model, "name", "model"),
            found=getattr(model, "kind", type(model).__name__), remedy="use save(path) for other kinds",
        )  # fmt: skip
    final = Path(out)
    one_file = format == "gguf" and final.suffix == ".gguf"
    if final.exists() and (one_file or not final.is_dir() or any(final.iterdir())):
        raise StoreError(
            "something is already there", where=final, expected="a new or empty folder",
            remedy="choose another place, or delete this one",
        )  # fmt: skip
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
        try:
            _write(model, work, format, weights, check)
            if one_file:
                (work / "model.gguf").rename(final)
                return final
            (work / "README.md").write_text(card or model_card(model.name), encoding="utf-8")
            if final.exists():
                final.rmdir()
            work.rename(final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise StoreError(
            "the export cannot be written",
            where=final,
            found=error,
            remedy="free some space, or choose another place",
        ) from error
    final.chmod(0o755)  # temporary folders are private
    return final / "model.gguf" if format == "gguf" else final


def model_card(
    name: str,
    *,
    base_model: str = "",
    licence: str = "other",
    datasets: Sequence[str] = (),
    metrics: Mapping[str, float] | None = None,
    text: str = "",
) -> str:
    """A README.md in the form of model hubs: YAML front matter, then `text`.

    metrics: measured values by name; they appear in the front matter's list and as a table.
    """
    front: dict[str, Any] = {"library_name": "transformers", "license": licence, "tags": ["tutelage"]}
    if base_model:
        front["base_model"] = base_model
    if datasets:
        front["datasets"] = list(datasets)
    lines = [f"# {name}", ""]
    if text:
        lines += [text.strip(), ""]
    if metrics:
        front["metrics"] = list(metrics)
        lines += [
            "| metric | value |",
            "|---|---|",
            *(f"| {key} | {value:.6g} |" for key, value in metrics.items()),
            "",
        ]
    lines += ["Made with tutelage.", ""]
    return "---\n" + yaml.safe_dump(front, sort_keys=False, allow_unicode=True) + "---\n\n" + "\n".join(lines)


def _write(model: CausalLM, work: Path, format: str, weights: Weights, check: bool) -> None:
    merged = model.merged()
    if format == "safetensors":
        merged.save(work)
        if check:
            _compare(merged, _load(work, bool(model.own_code)), _TOLERANCE["safetensors"], work)
        return
    template = merged.template.source if merged.template is not None else None
    write_gguf(merged.module, merged.tokenizer, template, work / "model.gguf", weights)
    if check:
        from tutelage.models.convert import convert_gguf

        with tempfile.TemporaryDirectory(dir=work) as scratch:
            back = _load(convert_gguf(work / "model.gguf", out=Path(scratch) / "back"))
            _compare(merged, back, _TOLERANCE[weights], work / "model.gguf")


def _load(folder: Path, allow_remote_code: bool = False) -> CausalLM:
    from tutelage.models.load import load_model

    loaded = load_model(folder, device="cpu", dtype="float32", allow_remote_code=allow_remote_code)
    assert isinstance(loaded, CausalLM)
    return loaded


def _compare(model: CausalLM, back: CausalLM, tolerance: float, where: Path) -> None:
    """Raise ModelError when what was read back differs from what was written."""
    from tutelage.models.generation import end_ids

    model.module.to("cpu")
    facts = {
        "token ids": (model.tokenize(_PROBES), back.tokenize(_PROBES)),
        "chat template": tuple(m.template.source if m.template else None for m in (model, back)),
        "stop tokens": (end_ids(model), end_ids(back)),
        "start token": (model.bos_id, back.bos_id),
    }
    for what, (written, read) in facts.items():
        if written != read:
            raise ModelError(
                f"the exported model has other {what}", where=where, expected=written, found=read,
                remedy="report this; the export was removed",
            )  # fmt: skip
    before, after = (m.score_texts(_PROBES, per_token=True) for m in (model, back))
    pairs = [(a.per_token, b.per_token) for a, b in zip(before, after, strict=True)]
    worst = max(float(abs(a - b).max()) for a, b in pairs if a is not None and b is not None)
    if not worst <= tolerance:
        raise ModelError(
            "the exported model scores text differently", where=where,
            expected=f"log-probabilities within {tolerance:g} nats", found=f"{worst:.3g}",
            remedy="report this; the export was removed",
        )  # fmt: skip
