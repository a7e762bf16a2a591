"""`tutelage gc`: remove what no run needs any more."""

from contextlib import nullcontext
from typing import Annotated

import typer

from tutelage.cli._options import AsJson, Workspace, workspace_or_here
from tutelage.cli._output import print_json


def gc_command(
    workspace: Workspace = None,
    keep_runs: Annotated[
        int | None, typer.Option(help="Keep only what the newest so many runs need.", min=0)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Delete artifacts that no recorded run made or used, and what was left half written."""
    from tutelage.core.errors import StoreError
    from tutelage.core.store import Store
    from tutelage.runs.execute import idle
    from tutelage.runs.ledger import Ledger
    from tutelage.runs.paths import STATE

    folder = workspace_or_here(workspace)
    ledger = Ledger(folder)
    store = Store(folder / STATE / "store")
    with idle(folder) if (folder / STATE).is_dir() else nullcontext():
        if not ledger.file.exists() and next(store.keys(), None) is not None:
            raise StoreError(
                "there is no ledger to tell which artifacts are needed",
                where=ledger.file,
                expected="the ledger of the runs that made them",
                found="a store without one",
                remedy=f"run the recipes again first, or remove {store.root} to give everything up",
            )
        kept = None if keep_runs is None else [run["run_id"] for run in ledger.runs()[:keep_runs]]
        removed = store.gc(ledger.keys(kept))
    if as_json:
        print_json(removed)
    else:
        typer.echo(", ".join(f"{value} {key}" for key, value in removed.items()))
