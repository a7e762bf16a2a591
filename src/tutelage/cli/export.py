"""`tutelage export`: a model for others: merged safetensors with a model card, or GGUF."""

from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli._options import AsJson
from tutelage.cli._output import print_json


def export_command(
    model: Annotated[str, typer.Argument(help="A model folder, adapter folder or packaged name.")],
    out: Annotated[Path, typer.Argument(help="A folder (safetensors) or file (gguf) that does not exist yet.")],
    file_format: Annotated[str, typer.Option("--format", help="safetensors or gguf.")] = "safetensors",
    adapter: Annotated[str | None, typer.Option(help="An adapter to merge first.")] = None,
    as_json: AsJson = False,
) -> None:
    """Merge the adapter, write the model and its card, read it back and compare."""
    from tutelage.models.export import export_model
    from tutelage.models.load import load_model

    written = export_model(load_model(model, adapter=adapter), out, format=file_format)
    if as_json:
        print_json({"written": str(written)})
    else:
        typer.echo(f"wrote {written}")
