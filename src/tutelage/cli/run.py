"""`tutelage run`: run a recipe; what is in the store already is not done again."""

import typer

from tutelage.cli._options import (
    AllowOutside,
    AllowRemoteCode,
    AsJson,
    DryRun,
    Limit,
    Overrides,
    RecipeFile,
    Seed,
    Workspace,
    workspace_or_here,
)
from tutelage.cli._progress import teller
from tutelage.cli._verdicts import show_run


def run_command(
    recipe: RecipeFile,
    workspace: Workspace = None,
    overrides: Overrides = None,
    limit: Limit = None,
    seed: Seed = None,
    dry_run: DryRun = False,
    allow_outside: AllowOutside = False,
    allow_remote_code: AllowRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe and print its verdicts; Ctrl-C leaves a run that `resume` goes on with."""
    from tutelage.runs.execute import run
    from tutelage.runs.recipe import load_recipe

    result = run(
        load_recipe(recipe, overrides or (), limit, allow_outside, allow_remote_code),
        workspace_or_here(workspace),
        limit=limit,
        seed=seed,
        dry_run=dry_run,
        progress=teller(as_json),
    )
    show_run(result, as_json)
    raise typer.Exit(result.exit_code)
