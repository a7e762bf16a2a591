"""`tutelage compare`: hold a recipe against its baseline at equal cost, whether or not it says how."""

from typing import Annotated

import typer

from tutelage.cli._options import (
    AllowOutside,
    AllowRemoteCode,
    AsJson,
    DryRun,
    Limit,
    Overrides,
    RecipeFile,
    Workspace,
    workspace_or_here,
)
from tutelage.cli._progress import teller
from tutelage.cli._verdicts import show_run


def compare_command(
    recipe: RecipeFile,
    baseline: Annotated[
        str | None, typer.Option(help="An arm, or the baseline method a step is replaced by (data.select.random).")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Training seeds, as in 0,1,2; a claim needs three.")] = None,
    at: Annotated[str | None, typer.Option(help="equal_total_flops, equal_tokens, equal_seconds or none.")] = None,
    workspace: Workspace = None,
    overrides: Overrides = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    allow_outside: AllowOutside = False,
    allow_remote_code: AllowRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Run a recipe's arms, or the recipe against a baseline method, at equal total cost over seeds."""
    from tutelage.runs.execute import run
    from tutelage.runs.recipe import load_recipe

    given = {"baseline": baseline, "seeds": f"[{seeds}]" if seeds else None, "at": at}
    changes = [*(overrides or ()), *(f"compare.{key}={value}" for key, value in given.items() if value)]
    result = run(
        load_recipe(recipe, changes, limit, allow_outside, allow_remote_code),
        workspace_or_here(workspace),
        limit=limit,
        dry_run=dry_run,
        progress=teller(as_json),
    )
    show_run(result, as_json)
    raise typer.Exit(result.exit_code)
