"""`tutelage resume`: go on with an interrupted, suspended or killed run."""

import typer

from tutelage.cli._options import AsJson, RunId, Workspace, workspace_or_here
from tutelage.cli._progress import teller
from tutelage.cli._verdicts import show_run


def resume_command(run_id: RunId = "latest", workspace: Workspace = None, as_json: AsJson = False) -> None:
    """Go on where a run stopped; complete steps are not redone and training goes on at its checkpoint.

    Of `plan --prepare` it does the rest, and no more.
    """
    from tutelage.runs.execute import resume

    result = resume(run_id, workspace_or_here(workspace), progress=teller(as_json))
    show_run(result, as_json)
    raise typer.Exit(result.exit_code)
