"""`tutelage export`: a model for others: merged safetensors with a model card, or GGUF."""

import enum
from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli._options import AllowRemoteCode, AsJson
from tutelage.cli._output import print_json, say
from tutelage.core.errors import ModelError


class Format(enum.StrEnum):
    """What can be written."""

    safetensors = "safetensors"
    gguf = "gguf"


def export_command(
    model: Annotated[str, typer.Argument(help="A model folder, adapter folder or packaged name.")],
    out: Annotated[Path, typer.Argument(help="A folder (safetensors) or file (gguf) that does not exist yet.")],
    file_format: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.safetensors,
    adapter: Annotated[str | None, typer.Option(help="An adapter to merge first.")] = None,
    allow_remote_code: AllowRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Merge the adapter, write the model and its card, read it back and compare."""
    from tutelage.models.causal import CausalLM
    from tutelage.models.export import export_model
    from tutelage.models.load import load_model

    loaded = load_model(model, adapter=adapter, allow_remote_code=allow_remote_code)
    if not isinstance(loaded, CausalLM):
        raise ModelError(
            "only a causal language model can be exported", where=model, expected="causal", found=loaded.kind
        )
    written = export_model(loaded, out, format=file_format.value)
    if as_json:
        print_json({"written": str(written)})
    else:
        say(f"wrote {written}")
