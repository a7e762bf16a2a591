"""`tutelage explain NAME`: what a method does, what it costs, its fields, and how far it is proven."""

import ast
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cli._output import print_json


def explain_command(
    name: Annotated[str, typer.Argument(help="A method, such as data.select.top_k.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain one method in a page."""
    from tutelage.core.discovery import find, load

    card = find(name)
    docstring = ast.get_docstring(ast.parse(Path(card.source_file).read_text(encoding="utf-8"))) or ""
    fields = load(name).model_json_schema()["properties"]
    if as_json:
        print_json({**card.model_dump(mode="json", exclude={"source_file"}), "doc": docstring, "fields": fields})
        return
    lines = [f"{card.name}  ({card.kind})", card.summary, "", docstring, ""]
    source = card.paper.title + (f", {card.paper.identifier}" if card.paper.identifier else "")
    facts = {
        "source": source,
        "claim": card.headline,
        "status": ", ".join(card.status),
        "reads": ", ".join(card.reads),
        "writes": ", ".join(card.writes),
        "inputs": "; ".join(f"{key}: {value}" for key, value in card.inputs.items()),
        "needs": " ".join(f"tutelage[{extra}]" for extra in card.needs),
        "cost": card.cost,
        "baseline": card.baseline or "none: it is one",
    }
    lines += [f"{key + ':':<10}{value}" for key, value in facts.items() if value]
    lines += ["", "fields:"] + [f"  {_field(key, schema)}" for key, schema in fields.items()]
    typer.echo("\n".join(lines))


def _field(name: str, schema: dict[str, Any]) -> str:
    default = f" = {schema['default']!r}" if "default" in schema else ""
    description = f"  {schema['description']}" if "description" in schema else ""
    return f"{name}{default}{description}"
