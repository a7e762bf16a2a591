"""`tutelage label`: a person gives the labels, on a page that this machine serves to itself."""

import enum
import getpass
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli._options import AsJson
from tutelage.cli._output import note, print_json, say
from tutelage.core.errors import ConfigError, InputError, Interrupted

if TYPE_CHECKING:
    from tutelage.core.labelling.queue import Queue


class Format(enum.StrEnum):
    """What answers can be written as."""

    label_studio = "label-studio"
    argilla = "argilla"
    rows = "rows"


def label_command(
    queue: Annotated[
        Path | None, typer.Argument(help="Rows with a column text (CSV, JSONL, ...), or a queue folder.")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="A file of classes (label, description, aliases), or names between commas.")
    ] = None,
    annotator: Annotated[str | None, typer.Option(help="Who labels; default: the login name.")] = None,
    guidelines: Annotated[Path | None, typer.Option(help="A Markdown file that the page shows.")] = None,
    batch: Annotated[int, typer.Option(min=1, max=100, help="Items on one screen.")] = 1,
    suggestions: Annotated[bool, typer.Option("--suggestions", help="Show the column suggested.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="The answers; default: answers.jsonl in the folder, or beside the file.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 takes a free one.")] = 0,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    report_on: Annotated[
        Path | None, typer.Option("--report", help="Report on a file of answers, or on a queue folder.")
    ] = None,
    export: Annotated[
        tuple[Format, Path] | None,
        typer.Option(help="Write the answers as label-studio, argilla or rows to a new file."),
    ] = None,
    import_from: Annotated[
        Path | None, typer.Option("--import", help="Take in answers of a file of Label Studio or Argilla.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Label items with the keyboard, on a page in the browser; every answer is saved before the next item."""
    modes = {"--report": report_on, "--export": export, "--import": import_from}
    given = [name for name, value in modes.items() if value is not None]
    if len(given) > 1 or (queue is None) != (given == ["--report"]):
        raise ConfigError(
            "the command is to do one thing",
            where=" and ".join(given) or "QUEUE",
            expected="QUEUE alone, with --export or with --import; or --report ANSWERS without QUEUE",
            found="no QUEUE" if queue is None else f"QUEUE {queue}",
            remedy="tutelage label --help",
        )
    if report_on is not None:
        _report(report_on, as_json)
    elif export is not None and queue is not None:
        _export(_asked(queue, labels, guidelines), queue, out, export, as_json)
    elif import_from is not None and queue is not None:
        _import(queue, labels, guidelines, out, import_from, as_json)
    elif queue is not None:
        who = _name(annotator)
        asked, labelled = _asked(queue, labels, guidelines)
        if labelled:
            note(f"{len(labelled)} rows have a label already and are not asked")
        _serve(asked, _answers(queue, out), who, (batch, suggestions, port, open_page), as_json)


def _asked(path: Path, labels: str | None, guidelines: Path | None) -> tuple["Queue", list[dict[str, Any]]]:
    from tutelage.runs.labelling.sources import read_queue

    asked, labelled = read_queue(path, labels, guidelines)
    if not asked.items:
        raise InputError(
            "there is nothing to label",
            where=path,
            expected="rows without a label",
            found=f"{len(labelled)} rows with one",
            remedy="empty the column label of the rows to ask about",
        )
    return asked, labelled


def _answers(queue: Path, out: Path | None) -> Path:
    if out is not None:
        if queue.is_dir() and not (out.resolve().parent == queue.resolve() and out.match("answers*.jsonl")):
            note(f"note: a recipe that waits for these answers reads answers*.jsonl in {queue} only")
        return out
    return queue / "answers.jsonl" if queue.is_dir() else queue.with_name(queue.name + ".answers.jsonl")


def _name(annotator: str | None) -> str:
    try:
        name = getpass.getuser() if annotator is None else annotator.strip()
    except (OSError, ImportError, KeyError):
        name = ""
    if not name or not name.isprintable() or len(name) > 80:
        raise ConfigError(
            "an annotator has a name",
            where="--annotator",
            expected="1 to 80 printable characters",
            found=repr(name),
            remedy="for example --annotator ann",
        )
    return name


def _serve(queue: "Queue", file: Path, who: str, options: tuple[int, bool, int, bool], as_json: bool) -> None:
    from tutelage.core.labelling.journal import Journal
    from tutelage.runs.labelling.server import LabelServer
    from tutelage.runs.labelling.session import Session

    batch, suggestions, port, open_page = options
    with Journal(file) as journal:
        session = Session(queue, journal, who, batch=batch, suggestions=suggestions)
        if journal.torn:
            note(f"the last line of {file} was cut off while it was written; it was never saved and is removed")
        if session.strange:
            note(f"{session.strange} answered items are not in this queue; their answers are left alone")
        with LabelServer(session, port) as server:
            note(f"{len(queue.items)} items for {who}; answers go to {file}; Ctrl-C ends")
            # With --json standard output is for the summary.
            print(server.url, file=sys.stderr if as_json else sys.stdout, flush=True)
            if open_page:
                typer.launch(server.url)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                server.finished.clear()
        summary = session.summary()
    left = summary["total"] - summary["answered"] - summary["skipped"]
    if left and not server.finished.is_set():
        raise Interrupted(
            f"labelling was stopped; {left} of {summary['total']} items are left",
            where=file,
            found=f"{summary['answered']} answered, {summary['skipped']} skipped, all saved",
            remedy="give the same command again; it goes on where it stopped",
        )
    if as_json:
        print_json(summary)
    else:
        note(f"{summary['answered']} answered, {summary['skipped']} skipped, {left} left; saved in {file}")


def _report(path: Path, as_json: bool) -> None:
    from tutelage.runs.labelling.report import report

    found = report(path)
    if as_json:
        print_json(found)
        return
    of = f" of {found['asked']}" if found["asked"] is not None else ""
    say(f"{found['items']}{of} items seen, {found['answered_by_several']} answered by several")
    for one in found["annotators"]:
        pace = f", {one['seconds']} s an answer" if one["seconds"] is not None else ""
        say(f"  {one['annotator']}: {one['answered']} answered, {one['skipped']} skipped{pace}")
    for pair in found["pairs"]:
        if pair["items"]:
            names = " and ".join(pair["annotators"])
            say(f"  {names}: agree on {pair['agreement']:.1%} of {pair['items']}; {_kappa(pair['kappa'])}")
    if len(found["annotators"]) > 2 and found["answered_by_several"]:
        say(f"  all: Krippendorff's alpha {_number(found['alpha'])}")
    if found["disagreements"]:
        say(f"{len(found['disagreements'])} items on which they disagree:")
    for one in found["disagreements"]:
        said = ", ".join(f"{name} {label}" for name, label in one["labels"].items())
        text = f"  {' '.join(one['text'].split())[:80]}" if "text" in one else ""
        say(f"  {one['id']}: {said}{text}")


def _kappa(value: float | None) -> str:
    return f"Cohen's kappa {_number(value)}"


def _number(value: float | None) -> str:
    return "undefined (only one class was used)" if value is None else f"{value:.3f}"


def _export(
    asked: tuple["Queue", list[dict[str, Any]]],
    path: Path,
    out: Path | None,
    target: tuple[Format, Path],
    as_json: bool,
) -> None:
    from tutelage.core.labelling.journal import read_answers
    from tutelage.core.labelling.queue import answer_files, gathered
    from tutelage.runs.labelling import interchange

    queue, labelled = asked
    files = answer_files(path) if out is None and path.is_dir() else [_answers(path, out)]
    for one in files:
        queue.check(read_answers(one), one)
    given = gathered(files)
    kind, file = target
    if kind is Format.rows:
        rows = interchange.labelled_rows(queue, given, labelled)
    else:
        rows = {Format.label_studio: interchange.label_studio, Format.argilla: interchange.argilla}[kind](
            queue, given
        )
    interchange.write_json(rows, file, lines=kind is Format.rows)
    facts = {"written": str(file), "format": kind.value, "rows": len(rows), "answered": len(given)}
    if as_json:
        print_json(facts)
    else:
        say(f"wrote {file}: {len(rows)} {'rows' if kind is Format.rows else 'records'}")


def _import(
    path: Path, labels: str | None, guidelines: Path | None, out: Path | None, file: Path, as_json: bool
) -> None:
    from tutelage.core.labelling.journal import Answers, Journal
    from tutelage.core.labelling.queue import Queue
    from tutelage.runs.labelling import interchange
    from tutelage.runs.labelling.sources import read_guidelines, read_labels

    kind, items, answers = interchange.read_file(file)
    if path.exists():
        queue, _ = _asked(path, labels, guidelines)
    elif labels is None:
        raise ConfigError("nobody says what the classes are", where="--labels", remedy="for example --labels a,b")
    else:
        told = read_guidelines(guidelines) if guidelines else ""
        queue = Queue(tuple(items), read_labels(labels), told)
        # Before anything is written.
        interchange.new_events(answers, queue, Answers(), kind)
        queue = queue.write(path)
    with Journal(_answers(path, out)) as journal:
        queue.check(journal.answers, journal.file)
        new = interchange.new_events(answers, queue, journal.answers, kind)
        for event in new:
            journal.append(event)
    counts = {"items": len(items), "answers": len(answers), "new": len(new)}
    facts = {"queue": str(path), "saved_in": str(journal.file), "format": kind, **counts}
    if as_json:
        print_json(facts)
    else:
        say(f"{counts['new']} of {counts['answers']} answers are new; saved in {journal.file}")
