"""`tutelage validate`: check a recipe whole, without running anything."""

from tutelage.cli._options import (
    AllowOutside,
    AsJson,
    Overrides,
    RecipeFile,
    Workspace,
    workspace_or_here,
)
from tutelage.cli._output import note, print_json, say


def validate_command(
    recipe: RecipeFile,
    workspace: Workspace = None,
    overrides: Overrides = None,
    allow_outside: AllowOutside = False,
    as_json: AsJson = False,
) -> None:
    """Check a recipe: keys, methods, fields, references, and that its local sources and models are there."""
    from tutelage.runs.paths import check_paths
    from tutelage.runs.recipe import load_recipe

    found = load_recipe(recipe, overrides or (), allow_outside=allow_outside)
    notes = check_paths(found, workspace_or_here(workspace))
    if as_json:
        print_json({"valid": True, "recipe": found.flat(), "notes": notes})
    else:
        say(f"{recipe}: valid; {len(found.steps)} steps, {len(found.arms)} arms, {len(found.sources)} sources")
        for line in notes:
            note(f"note: {line}")
