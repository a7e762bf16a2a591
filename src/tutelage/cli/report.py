"""`tutelage report`: one HTML file about a run, from the ledger and the store."""

from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli._options import AsJson, RunId, Workspace, workspace_or_here
from tutelage.cli._output import print_json, say


def report_command(
    run_id: RunId = "latest",
    workspace: Workspace = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write; default: report.html in the workspace.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a run: verdict first, then the evidence."""
    from tutelage.report.build import build_view
    from tutelage.report.render import write

    folder = workspace_or_here(workspace)
    file = write(build_view(folder, run_id), out or folder / "report.html")
    if as_json:
        print_json({"report": str(file)})
    else:
        say(f"wrote {file}")
