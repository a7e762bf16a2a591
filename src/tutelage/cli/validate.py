"""`tutelage validate`: check a recipe whole, without running anything."""

import typer

from tutelage.cli._options import AllowOutside, AsJson, Overrides, RecipeFile
from tutelage.cli._output import print_json


def validate_command(
    recipe: RecipeFile,
    overrides: Overrides = None,
    allow_outside: AllowOutside = False,
    as_json: AsJson = False,
) -> None:
    """Check a recipe: keys, methods, fields and references."""
    from tutelage.runs.recipe import load_recipe

    found = load_recipe(recipe, overrides or (), allow_outside=allow_outside)
    if as_json:
        print_json({"valid": True, "recipe": found.flat()})
    else:
        typer.echo(
            f"{recipe}: valid; {len(found.steps)} steps, {len(found.arms)} arms, {len(found.sources)} sources"
        )
