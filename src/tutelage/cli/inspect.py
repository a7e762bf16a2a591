"""`tutelage inspect`: see what a model would be trained on, token by token, and why rows were dropped."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli._options import AllowRemoteCode, AsJson, Workspace, workspace_or_here
from tutelage.cli._output import note, plain, print_json, say
from tutelage.core.errors import InputError, suggest

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset


def inspect_command(
    data: Annotated[
        str, typer.Argument(help="A file or folder, or the name of a step of a run, also a training.")
    ],
    model: Annotated[
        str | None, typer.Option(help="Show rows as this model's tokens, trained ones marked.")
    ] = None,
    rows: Annotated[int, typer.Option(help="How many rows, or steps of a training.", min=0)] = 3,
    row_id: Annotated[str | None, typer.Option("--id", help="Show this row, kept or dropped.")] = None,
    max_length: Annotated[int, typer.Option(help="Context length in tokens.", min=2)] = 1024,
    run_id: Annotated[str, typer.Option("--run", help="The run a step belongs to.")] = "latest",
    workspace: Workspace = None,
    allow_remote_code: AllowRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Show rows as they are trained on, with counts of what was dropped and why; of a training step, the ids that
    its first optimiser steps were made of."""
    consumed = consumed_by(data, run_id, workspace_or_here(workspace), rows)
    if consumed is not None:
        print_json(consumed) if as_json else _print_consumed(consumed)
        return
    found = open_data(data, run_id, workspace)
    facts = describe(found, row_id)
    shown = [row for row in found.rows() if row_id is None or row["id"] == row_id][: rows if row_id is None else 1]
    rendered = []
    if model is not None and shown:
        from tutelage.models.load import load_model

        loaded = load_model(model, allow_remote_code=allow_remote_code)
        rendered = [trained_pieces(row, loaded, max_length) for row in shown]
    if as_json:
        print_json({**facts, "shown": rendered or shown})
        return
    _print(facts, shown, rendered)


def open_data(name: str, run_id: str, workspace: Path | None) -> "Dataset":
    """A saved dataset, raw data through its reader, or a step's dataset from the ledger.

    Where a path and a step have one name, the step is meant if a workspace was given, and it is said which.
    """
    path, folder = Path(name), workspace_or_here(workspace)
    steps = _steps(run_id, folder, required=not path.exists())
    if path.exists() and name in steps:
        if workspace is not None:
            note(f"{name}: showing the step of the run, not the path (which is {path.resolve()})")
            return _rows_of(name, steps, folder)
        note(f"{name}: showing the path, not the step of the run (which --workspace asks for)")
    if path.exists():
        from tutelage.core.dataset import MANIFEST, Dataset
        from tutelage.core.discovery import build

        if (path / MANIFEST).is_file():
            return Dataset.open(path)
        return build("data.read.auto").read(name)  # type: ignore[attr-defined]
    return _rows_of(name, steps, folder)


def _steps(run_id: str, workspace: Path, required: bool) -> dict[str, dict[str, Any]]:
    """The steps of the run that made rows, by name; none where there is no run and none is required."""
    from tutelage.runs.ledger import Ledger

    ledger = Ledger(workspace)
    if not required and not (ledger.file.exists() and ledger.runs()):
        return {}
    made_rows = ("Reader", "Scorer", "Transform")
    return {step["step"]: step for step in ledger.run(run_id)["steps"] if step["kind"] in made_rows}


def _rows_of(name: str, steps: dict[str, dict[str, Any]], workspace: Path) -> "Dataset":
    from tutelage.core.store import Store
    from tutelage.runs import payload
    from tutelage.runs.paths import STATE

    if name not in steps:
        raise InputError(
            f"{name!r} is neither a file nor a step that made rows",
            where=workspace,
            expected="a file, a folder, or a source or step of the run",
            found=name,
            remedy=suggest(name, steps) if steps else "check the path; the run has made no rows",
        )
    artifact = Store(workspace / STATE / "store").get(steps[name]["key"])
    if artifact is None:
        raise InputError(
            f"the rows of step {name!r} were removed",
            where=workspace,
            expected="its artifact in the store",
            found="none",
            remedy="run the recipe again",
        )
    return payload.load_dataset(artifact.path)


def consumed_by(name: str, run_id: str, workspace: Path, steps: int) -> dict[str, Any] | None:
    """The head of the log of a training step of the run (of its last arm and seed), or None if it is none."""
    from tutelage.core.store import Store
    from tutelage.runs.consumed import LOG, consumed_steps, head
    from tutelage.runs.ledger import Ledger
    from tutelage.runs.paths import STATE

    ledger = Ledger(workspace)
    if Path(name).exists() or not (ledger.file.exists() and ledger.runs()):
        return None
    made = [step for step in ledger.run(run_id)["steps"] if (step["step"], step["kind"]) == (name, "Trainer")]
    artifact = Store(workspace / STATE / "store").get(made[-1]["key"]) if made else None
    if artifact is None or not (artifact.path / LOG).is_file():
        return None
    log = artifact.path / LOG
    return {
        "step": name,
        **{key: made[-1][key] for key in ("arm", "seed")},
        "optimiser_steps": sum(1 for _ in consumed_steps(log)),
        "consumed": [{"step": number, "ids": ids} for number, ids in head(log, steps)],
    }


def describe(data: "Dataset", row_id: str | None) -> dict[str, Any]:
    """Counts of rows kept, dropped (reasons alike but for numbers count together) and quarantined."""
    reasons: dict[str, int] = {}
    examples: dict[str, str] = {}
    fate = None
    for row in data.dropped.to_pylist():
        # Reasons that differ in a number or an id only are one kind.
        kind = re.sub(r"[-+]?\d[\d.e+-]*", "..", row["reason"].split(" of ")[0])
        reasons[kind] = reasons.get(kind, 0) + 1
        examples.setdefault(kind, row["id"])
        if row["id"] == row_id:
            fate = row["reason"]
    return {
        "rows": data.num_rows,
        "columns": data.column_names,
        "dropped": [{"reason": kind, "rows": count, "example": examples[kind]} for kind, count in reasons.items()],
        "quarantined": data.quarantined.to_pylist()[:20],
        **({"id": row_id, "dropped_because": fate} if row_id is not None else {}),
    }


def trained_pieces(row: dict[str, Any], model: Any, max_length: int) -> dict[str, Any]:
    """The row as runs of tokens of one kind: `pieces` is a list of (text, trained)."""
    from tutelage.models.encode import encode_row

    encoded = encode_row(row, model, max_length)
    runs: list[tuple[list[int], bool]] = []
    for token, trained in zip(encoded.ids, encoded.trained):
        if not runs or runs[-1][1] != trained:
            runs.append(([], trained))
        runs[-1][0].append(token)
    pieces = [(model.tokenizer.decode(ids), trained) for ids, trained in runs]
    return {"id": encoded.example_id, "tokens": len(encoded), "trained": encoded.n_trained, "pieces": pieces}


def _print_consumed(facts: dict[str, Any]) -> None:
    where = "".join(f", {key} {facts[key]}" for key in ("arm", "seed") if facts[key] is not None)
    say(f"{facts['step']}{where}: {facts['optimiser_steps']} optimiser steps; rows in their order")
    for entry in facts["consumed"]:
        say(f"step {entry['step']}: {', '.join(entry['ids'])}")


def _print(facts: dict[str, Any], shown: list[dict[str, Any]], rendered: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    tell = lambda text: console.print(plain(text), markup=False)  # noqa: E731
    tell(f"{facts['rows']} rows; columns {', '.join(facts['columns'])}")
    for entry in facts["dropped"]:
        tell(f"  dropped {entry['rows']}: {entry['reason']} (for example {entry['example']})")
    for entry in facts["quarantined"]:
        tell(f"  set aside: {entry['where']}: {entry['reason']}")
    if facts.get("dropped_because"):
        tell(f"{facts['id']} was dropped: {facts['dropped_because']}")
    if rendered:
        console.print(Text("trained", style="bold green") + Text("  not trained", style="dim"))
    for row in rendered:
        tell(f"\n{row['id']}: {row['tokens']} tokens, {row['trained']} trained")
        line = Text()
        for text, trained in row["pieces"]:
            line.append(plain(text), style="bold green" if trained else "dim")
        console.print(line)
    for row in shown if not rendered else []:
        tell("\n" + "\n".join(f"{key}: {str(value)[:500]!r}" for key, value in row.items()))
