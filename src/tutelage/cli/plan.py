"""`tutelage plan`: what a run would do, what is cached, and what it will take."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

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
from tutelage.cli._output import print_json, say
from tutelage.cli._progress import teller

if TYPE_CHECKING:
    from tutelage.runs.plan import PlannedStep


def plan_command(
    recipe: RecipeFile,
    workspace: Workspace = None,
    overrides: Overrides = None,
    limit: Limit = None,
    seed: Seed = None,
    allow_outside: AllowOutside = False,
    allow_remote_code: AllowRemoteCode = False,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="First run everything that no training step is behind.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the steps, which are in the store, and predicted time and memory.

    With --prepare everything that no training step is behind is run first and kept for the run: only then can the
    rest be foreseen in a fresh workspace.
    """
    from tutelage.runs.execute import prepare as run_before_training
    from tutelage.runs.plan import plan
    from tutelage.runs.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or (), limit, allow_outside, allow_remote_code)
    loaded = loaded if seed is None else loaded.changed(seed=seed)
    folder = workspace_or_here(workspace)
    if prepare:
        run_before_training(loaded, folder, limit=limit, progress=teller(as_json))
    made = plan(loaded, folder, limit=limit)
    if as_json:
        print_json(made.to_json())
        return
    for line in summary(made.steps):
        say(line)
    unknown = f"; {made.unknown} steps of unknown length" if made.unknown else ""
    if made.unknown and not prepare:
        unknown += " (--prepare runs what comes before training and tells)"
    memory = "" if made.peak_bytes is None else f", {made.peak_bytes / 2**30:.1f} GiB"
    say(f"\nabout {made.seconds:.0f} s to go{memory}{unknown}")


def summary(steps: "Sequence[PlannedStep]") -> list[str]:
    """One line for each step of the recipe, its runs in all arms and seeds together."""
    runs: dict[tuple[str, str], list[PlannedStep]] = {}
    for step in steps:
        runs.setdefault((step.name, step.use), []).append(step)
    lines = []
    for (name, use), found in runs.items():
        todo = [step for step in found if not step.cached]
        state = f"{len(todo)} of {len(found)} to do" if todo else "in the store"
        known = [step.seconds for step in todo if step.seconds is not None]
        need = f", about {sum(known):.0f} s" if known else ""
        need += f" and {len(todo) - len(known)} unknown" if known and len(known) < len(todo) else ""
        peak = max((step.peak_bytes or 0 for step in todo), default=0)
        memory = f", {peak / 2**30:.1f} GiB" if peak else ""
        lines.append(f"{name:<20} {use:<34} {state}{need}{memory}")
    return lines
