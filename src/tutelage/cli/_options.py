"""Options that several subcommands share, so that they are spelt and explained once."""

from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[Path, typer.Argument(help="A recipe (YAML).")]
Workspace = Annotated[
    Path | None,
    typer.Option(
        "--workspace", "-w", help="Where runs, artifacts and the ledger live; default: the current folder."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a value, as in --set trained.learning_rate=1e-4; repeatable."),
]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Keep this many rows of each source and shrink budgets: a try-out."),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Replace the recipe's seed.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and plan; run nothing.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AllowOutside = Annotated[
    bool, typer.Option("--allow-outside", help="Let paths of the recipe leave its folder and the workspace.")
]
AllowRemoteCode = Annotated[
    bool,
    typer.Option(
        "--allow-remote-code",
        help="Run code that comes with a model; it can do whatever you can, so read it first.",
    ),
]
RunId = Annotated[str, typer.Argument(help="A run, or `latest`.")]


def workspace_or_here(workspace: Path | None) -> Path:
    """The workspace asked for, or the current folder."""
    return Path.cwd() if workspace is None else workspace
