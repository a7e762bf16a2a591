"""`tutelage explain NAME`: what a method or a shipped recipe does, what it costs, and how it fared here."""

import ast
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cli._output import print_json, say


def explain_command(
    name: Annotated[
        str, typer.Argument(help="A method, such as data.select.top_k, or a recipe, such as preselect.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain one method, or one of the recipes that ship, in a page."""
    from tutelage.core.discovery import find, load, measurements, shipped_recipes

    recipe = shipped_recipes().get(name)
    if recipe is not None:
        facts = describe_recipe(recipe)
        print_json(facts) if as_json else say("\n".join(_recipe_page(facts)))
        return
    card = find(name)
    docstring = ast.get_docstring(ast.parse(Path(card.source_file).read_text(encoding="utf-8"))) or ""
    fields = load(name).model_json_schema()["properties"]
    fared = measurements().get(card.name, [])
    if as_json:
        told = {"doc": docstring, "fields": fields, "measured": fared}
        print_json({**card.model_dump(mode="json", exclude={"source_file"}), **told})
        return
    lines = [f"{card.name}  ({card.kind})", card.summary, "", docstring, ""]
    source = card.paper.title + (f", {card.paper.identifier}" if card.paper.identifier else "")
    found = {
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
    lines += [f"{key + ':':<10}{value}" for key, value in found.items() if value]
    lines += ["", "fields:"] + [f"  {_field(key, schema)}" for key, schema in fields.items()]
    lines += _fared({card.name: fared})
    say("\n".join(lines))


def describe_recipe(file: Path) -> dict[str, Any]:
    """A recipe's own words, its arms, what it compares, and its methods with cost and committed comparisons."""
    from tutelage.core.discovery import cards, measurements
    from tutelage.runs import load_recipe

    recipe = load_recipe(file)
    head = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#").strip())
    used = [step.use for step in recipe.steps]
    used += [str(change["use"]) for arm in recipe.arms.values() for change in arm.values() if "use" in change]
    known = [name for name in dict.fromkeys(used) if name in cards()]
    compare = recipe.compare
    return {
        "recipe": recipe.name,
        "doc": " ".join(head),
        "file": str(file),
        "arms": list(recipe.arms),
        "baseline": compare.baseline if compare else None,
        "seeds": len(compare.seeds) if compare else None,
        "budget": compare.budget.model_dump(exclude_none=True) if compare and compare.budget else None,
        "methods": [
            {"name": name, "summary": cards()[name].summary, "cost": cards()[name].cost} for name in known
        ],
        "measured": {name: measurements()[name] for name in known if name in measurements()},
    }


def _recipe_page(facts: dict[str, Any]) -> list[str]:
    lines = [f"{facts['recipe']}  (recipe)", facts["doc"], ""]
    if facts["arms"]:
        budget = ", ".join(f"{value:g} {unit}" for unit, value in (facts["budget"] or {}).items())
        lines.append(f"{'arms:':<10}{', '.join(facts['arms'])}")
        lines.append(
            f"{'baseline:':<10}{facts['baseline']}, {facts['seeds']} seeds, each run {budget or 'as written'}"
        )
    lines.append(f"{'file:':<10}{facts['file']}")
    lines += ["", "steps, and what each costs:"]
    for method in facts["methods"]:
        lines.append(f"  {method['name']}: {method['summary']} Cost: {method['cost']}.")
    return lines + _fared(facts["measured"])


def _fared(measured: dict[str, list[dict[str, Any]]]) -> list[str]:
    """How methods did in the comparisons that are kept with the project; lost and undecided ones as well."""
    lines = []
    for method, rows in measured.items():
        for row in rows:
            interval = row["interval"]
            bounds = f" [{interval['lo']:+.4f}, {interval['hi']:+.4f}]" if interval else ""
            note = "" if row["primary"] else ", exploratory"
            sets = f" on {row['sets']} sets" if "sets" in row else ""
            lines.append(
                f"  {method} (arm {row['arm']} of {row['where']}) against {row['against']}: {row['verdict']}, "
                f"{row['difference']:+.4f}{bounds}, {row['seeds']} seeds{sets}{note}"
            )
    return ["", "measured here (right of zero is better):", *lines] if lines else []


def _field(name: str, schema: dict[str, Any]) -> str:
    default = f" = {schema['default']!r}" if "default" in schema else ""
    description = f"  {schema['description']}" if "description" in schema else ""
    return f"{name}{default}{description}"
