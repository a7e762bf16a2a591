"""`tutelage predict`: a trained classifier over a file or standard input."""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli._options import Workspace, workspace_or_here
from tutelage.cli._output import json_text, note
from tutelage.core.errors import ConfigError, InputError, unknown

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset

BATCH = 256
WRITERS = {".jsonl": "jsonl", ".gz": "jsonl", ".zst": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


def predict_command(
    model: Annotated[str, typer.Argument(help="A classifier: its folder, or STEP or STEP@ARM of a run.")],
    data: Annotated[str, typer.Argument(help="A file of rows with text; - is standard input.")] = "-",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="A new .jsonl, .csv or .parquet file; else standard output.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Abstain below this top probability; 0 always answers.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="The column with the text, if it is not `text`.")] = None,
    run_id: Annotated[str, typer.Option("--run", help="The run a step belongs to.")] = "latest",
    workspace: Workspace = None,
) -> None:
    """Say the class of every text, with calibrated probabilities; what is not sure enough is left unanswered.

    Standard input holds a text on each line, or a JSON object with `text`. A line of output (or row of the file)
    has what the input had and `predicted` (null where the classifier abstains; a list, in a table names between
    bars, where a text may have several labels), `confidence` and the probability of every class.
    """
    loaded = _classifier(model, run_id, workspace)
    if threshold is not None:
        loaded = loaded.calibrated(loaded.calibration, threshold or None)
    if loaded.calibration is None and not loaded.multi_label:
        note("the classifier is not calibrated: its probabilities may be far off (adapters.calibrate)")
    promised = (loaded.facts.get("abstention") or {}) if threshold is None else {}
    if promised and not promised["reached"]:
        note(
            f"no threshold could be shown to give a precision of {promised['precision']:g}: every text is answered"
        )
    counts = {"rows": 0, "abstained": 0}
    if out is None:
        for row in _predictions(loaded, _rows(data, column), counts):
            typer.echo(json_text(row))
    else:
        from tutelage.core.dataset import Dataset
        from tutelage.core.discovery import build

        writer = WRITERS.get(out.suffix)
        if writer is None:
            raise ConfigError("this kind of file is not written", where=out, expected=", ".join(WRITERS))
        flat = (
            {
                "id": str(n),
                **{k: v for k, v in row.items() if k not in ("predicted", "probabilities")},
                "predicted": _flat(row["predicted"]) if writer == "csv" else row["predicted"],
                **_columns(row["probabilities"]),
            }
            for n, row in enumerate(_predictions(loaded, _rows(data, column), counts))
        )
        build(f"data.write.{writer}").write(Dataset.from_rows(flat), str(out))  # type: ignore[attr-defined]
    note(f"{counts['rows']} texts, {counts['abstained']} left unanswered")


def _classifier(name: str, run_id: str, workspace: Path | None) -> Any:
    from tutelage.models.load import load_model
    from tutelage.runs.made import made_model

    found = None if Path(name).exists() else made_model(name, workspace_or_here(workspace), run_id)
    if found is not None:
        entry = found[1]
        place = ", ".join(f"{key} {entry[key]}" for key in ("arm", "seed", "round") if entry[key] is not None)
        note(f"{entry['step']}" + (f" ({place})" if place else ""))
    loaded = load_model(name if found is None else found[0])
    if loaded.kind != "classifier":
        raise ConfigError(
            "only a classifier predicts classes",
            where=name,
            expected="a folder with classifier.json (adapters.linear_head, adapters.tfidf_classifier ...)",
            found=f"kind {loaded.kind}",
        )
    return loaded


def _rows(data: str, column: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(text, what goes into the output beside the prediction) of every row."""
    if data == "-":
        if sys.stdin.isatty():
            note("reading texts from the terminal, one a line; Ctrl-D ends")
        for number, line in enumerate(sys.stdin, start=1):
            if line.strip():
                yield _line(line.rstrip("\n"), column or "text", number)
        return
    from tutelage.core.discovery import build
    from tutelage.core.text.rows import text_rows

    dataset: Dataset = build("data.read.auto").read(data)  # type: ignore[attr-defined]
    if column is not None:
        if column not in dataset.column_names:
            raise unknown(f"there is no column {column!r}", data, column, dataset.column_names)
        for row in dataset.rows():
            if not isinstance(row[column], str):
                raise InputError(
                    "a row has no text",
                    where=f"row {row['id']}, field {column}",
                    expected="text",
                    found=row[column],
                )
            yield row[column], row
        return
    for row, (_, text) in zip(dataset.rows(), text_rows(dataset)):
        yield text, {**row, "text": text}


def _line(line: str, column: str, number: int) -> tuple[str, dict[str, Any]]:
    if not line.lstrip().startswith("{"):
        return line, {"text": line}
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError("a line is no JSON object", where=f"line {number}", found=error) from None
    if not isinstance(row.get(column), str):
        raise InputError(
            "a line has no text", where=f"line {number}, field {column}", expected="text", found=row.get(column)
        )
    return row[column], row


def _predictions(
    model: Any, rows: Iterator[tuple[str, dict[str, Any]]], counts: dict[str, int]
) -> Iterator[dict[str, Any]]:
    # A pipe is answered line by line where a person types it, in batches where a program does.
    size = 1 if sys.stdin.isatty() else BATCH
    while batch := list(itertools.islice(rows, size)):
        probs = model.predict_proba([text for text, _ in batch])
        for (_, given), row, answer, sure in zip(batch, probs, *model.answers(probs)):
            unsure = model.threshold is not None and sure < model.threshold
            counts["rows"] += 1
            counts["abstained"] += int(unsure)
            yield {
                **given,
                "predicted": None if unsure else answer,
                "confidence": round(float(sure), 6),
                "probabilities": {name: round(float(p), 6) for name, p in zip(model.labels.names, row)},
            }


def _flat(value: Any) -> Any:
    return "|".join(value) if isinstance(value, list) else value


def _columns(probabilities: dict[str, float]) -> dict[str, float]:
    return {f"p_{name}": value for name, value in probabilities.items()}
