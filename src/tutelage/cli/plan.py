"""`tutelage plan`: what a run would do, what is cached, and what it will take."""

import typer

from tutelage.cli._options import (
    AllowOutside,
    AllowRemoteCode,
    AsJson,
    Limit,
    Overrides,
    RecipeFile,
    Seed,
    Workspace,
    workspace_or_here,
)
from tutelage.cli._output import print_json


def plan_command(
    recipe: RecipeFile,
    workspace: Workspace = None,
    overrides: Overrides = None,
    limit: Limit = None,
    seed: Seed = None,
    allow_outside: AllowOutside = False,
    allow_remote_code: AllowRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Show the steps in order, which are in the store, and predicted time and memory."""
    from tutelage.runs.plan import plan
    from tutelage.runs.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or (), limit, allow_outside, allow_remote_code)
    loaded = loaded if seed is None else loaded.changed(seed=seed)
    made = plan(loaded, workspace_or_here(workspace), limit=limit)
    if as_json:
        print_json(made.to_json())
        return
    for step in made.steps:
        place = " ".join(str(part) for part in (step.arm, step.seed) if part is not None)
        state = {True: "in the store", False: "to do", None: "to do (after the steps before)"}[step.cached]
        need = "" if step.cached or step.seconds is None else f", about {step.seconds:.0f} s"
        memory = "" if step.cached or step.peak_bytes is None else f", {step.peak_bytes / 2**30:.1f} GiB"
        typer.echo(f"{step.name:<20} {place:<16} {step.use:<34} {state}{need}{memory}")
    unknown = f"; {made.unknown} steps of unknown length" if made.unknown else ""
    typer.echo(f"\n{len(made.steps)} steps, about {made.seconds:.0f} s to go where known{unknown}")
