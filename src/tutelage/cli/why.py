"""`tutelage why`: why a row of a run was taken or dropped, step by step."""

from typing import Annotated

import typer

from tutelage.cli._options import AsJson, Workspace, workspace_or_here
from tutelage.cli._output import print_json, say


def why_command(
    row_id: Annotated[str, typer.Argument(help="The id of a document or of a part of one.")],
    run_id: Annotated[str, typer.Option("--run", help="The run to look at.")] = "latest",
    workspace: Workspace = None,
    as_json: AsJson = False,
) -> None:
    """Tell what every step of a run did with a row: kept, scored, dropped and why, trained on in which step."""
    from tutelage.core.store import Store
    from tutelage.runs.fate import fate
    from tutelage.runs.ledger import Ledger
    from tutelage.runs.paths import STATE

    folder = workspace_or_here(workspace)
    run = Ledger(folder).run(run_id)
    events = fate(run, Store(folder / STATE / "store"), row_id)
    if as_json:
        print_json({"run_id": run["run_id"], "id": row_id, "events": [e.model_dump(mode="json") for e in events]})
        return
    for event in events:
        where = f" [{', '.join(event.arms)}]" if event.arms else ""
        count = "" if event.ids == (row_id,) else f" {event.rows} row{'s' * (event.rows != 1)}"
        say(f"{event.step}{where}: {event.outcome}{count} ({event.method})")
        for line in event.details or (event.ids if event.ids != (row_id,) else ()):
            say(f"    {line}")
        if event.rows > max(len(event.ids), len(event.details)):
            say(f"    and {event.rows - len(event.ids)} more")
