"""`tutelage label` as a person meets it: the command, a kill between answers, a recipe that waits, exchange."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from toy.command_line import tutelage, write_rows
from toy.labelling import Client
from tutelage.core.labelling.journal import Journal, read_answers
from tutelage.runs.ledger import Ledger

MUTATIONS = [
    ("src/tutelage/cli/label.py", "if left and not server.finished.is_set():", "if False:"),
    ("src/tutelage/cli/label.py", "print_json(summary)", "note(str(summary))"),
    ("src/tutelage/runs/labelling/sources.py", 'if not row.get("label")]', "]"),
    (
        "src/tutelage/runs/engine.py",
        'extra["outside"] = method.outside',
        'extra["outside"] = type(method).outside and str',
    ),
    ("src/tutelage/runs/engine.py", '"workspace": self.workspace,\n            "meter"', '"meter"'),
]
START = "from tutelage.cli.main import run; run()"
ROWS = [{"id": f"m{n}", "text": f"message {n}"} for n in range(6)]
RECIPE = """\
name: asking
sources:
  pool: {path: pool.jsonl}
  classes: {path: classes.csv}
steps:
  - {name: labelled, use: data.label.ask, from: pool, inputs: {labels: classes}, guidelines: "Is it wanted?"}
  - {name: written, use: data.write.jsonl, from: labelled, to: labelled.jsonl}
"""


@contextlib.contextmanager
def running(*arguments: object) -> Iterator[tuple[subprocess.Popen, Client]]:
    """The command in a process of its own, and its page."""
    command = [sys.executable, "-c", START, "label", *map(str, arguments)]
    # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
    listen = None if os.name == "nt" else lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen
    )
    # A command that says nothing ends the test, too.
    patience = threading.Timer(120, process.kill)
    patience.start()
    try:
        said = process.stderr if "--json" in arguments else process.stdout
        url = next((line.strip() for line in said if line.startswith("http://127.0.0.1:")), "")
        assert url, process.stderr.read()
        yield process, Client(url)
    finally:
        patience.cancel()
        process.kill()
        process.communicate()


@pytest.fixture
def mail(tmp_path) -> Path:
    return write_rows(tmp_path / "mail.jsonl", ROWS)


def test_nothing_that_was_saved_is_lost_to_a_kill(mail):
    options = (mail, "--labels", "ham,spam", "--annotator", "ann")
    for number in range(3):
        with running(*options) as (process, client):
            state = client.get("state")
            assert (state["answered"], state["next"]) == (number, number)
            client.post("answer", id=f"m{number}", label="spam" if number % 2 else "ham", seconds=0.5)
            process.kill()
            assert process.wait() != 0
    answers = read_answers(mail.with_name("mail.jsonl.answers.jsonl"))
    assert [answers.given(f"m{n}", "ann").label for n in range(3)] == ["ham", "spam", "ham"]


def test_two_processes_on_one_file_are_refused(mail, capfd):
    options = (mail, "--labels", "ham,spam", "--annotator", "ann")
    with running(*options) as (_, client):
        refused = tutelage(capfd, "label", *options)
        assert refused.code == 2 and "another process is writing these answers" in refused.err
        assert "--out" in refused.err and refused.out == ""
        with running(*options, "--out", mail.with_name("bob.jsonl")) as (_, other):
            other.post("answer", id="m0", label="ham")
        client.post("answer", id="m0", label="spam")
    assert read_answers(mail.with_name("bob.jsonl")).given("m0", "ann").label == "ham"


def test_finish_on_the_page_ends_the_command(mail):
    with running(mail, "--labels", "ham,spam", "--annotator", "ann") as (process, client):
        for row in ROWS:
            client.post("answer", id=row["id"], label="ham", seconds=2)
        client.post("finish")
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0 and out == "" and "6 answered, 0 skipped, 0 left" in err


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C cannot be sent to one process")
def test_ctrl_c_says_how_to_go_on(mail):
    with running(mail, "--labels", "ham,spam", "--annotator", "ann") as (process, client):
        client.post("answer", id="m0", label="ham")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=90)
    assert process.returncode == 130 and "5 of 6 items are left" in err and "same command again" in err
    assert "Traceback" not in err and out == ""


def test_json_keeps_standard_output_for_the_summary(mail):
    with running(mail, "--labels", "ham,spam", "--annotator", "ann", "--json") as (process, client):
        client.post("answer", id="m0", label="ham", seconds=1)
        client.post("finish")
        out, _ = process.communicate(timeout=90)
    summary = json.loads(out)
    assert process.returncode == 0 and summary["answered"] == 1 and summary["annotator"] == "ann"


def test_a_recipe_waits_for_answers_and_goes_on(tmp_path, capfd):
    write_rows(tmp_path / "pool.jsonl", ROWS)
    (tmp_path / "classes.csv").write_text("label,description,aliases\nham,wanted,\nspam,not wanted,junk|ad\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    assert tutelage(capfd, "plan", recipe, "-w", tmp_path).code == 0
    stopped = tutelage(capfd, "run", recipe, "-w", tmp_path)
    assert stopped.code == 4 and "6 of 6 rows wait for an answer" in stopped.err
    run_id = Ledger(tmp_path).run()["run_id"]
    (folder,) = (tmp_path / "labelling").iterdir()
    assert f"tutelage label {folder}; then: tutelage resume {run_id}" in stopped.err
    with running(folder, "--annotator", "ann") as (_, client):
        state = client.get("state")
        assert state["guidelines"] == "Is it wanted?\n"
        assert [(c["name"], c["description"], c["aliases"]) for c in state["classes"]] == [
            ("ham", "wanted", []),
            ("spam", "not wanted", ["junk", "ad"]),
        ]
        for row in ROWS[:4]:
            client.post("answer", id=row["id"], label="ham")
    again = tutelage(capfd, "resume", run_id, "-w", tmp_path)
    assert again.code == 4 and "2 of 6 rows wait" in again.err and "ann 4" in again.err
    with running(folder, "--annotator", "ann") as (_, client):
        client.post("answer", id="m4", label="spam")
        client.post("skip", id="m5")
    assert tutelage(capfd, "resume", run_id, "-w", tmp_path).code == 0
    written = tmp_path / "labelled.jsonl"
    assert labels_in(written) == {"m0": "ham", "m1": "ham", "m2": "ham", "m3": "ham", "m4": "spam"}
    assert "skipped by ann" in tutelage(capfd, "why", "m5", "-w", tmp_path).out
    # The same answers are in the store; changed ones are not passed over.
    assert _cached(tutelage(capfd, "run", recipe, "-w", tmp_path), tmp_path)
    with Journal(folder / "answers.jsonl") as journal:
        journal.append({"event": "answer", "id": "m0", "annotator": "ann", "label": "spam"})
    assert not _cached(tutelage(capfd, "run", recipe, "-w", tmp_path), tmp_path)
    assert labels_in(written)["m0"] == "spam"


def labels_in(file: Path) -> dict[str, str]:
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: row["label"] for row in rows}


def _cached(answer, workspace: Path) -> bool:
    assert answer.code == 0, answer.err
    return next(step for step in Ledger(workspace).run()["steps"] if step["step"] == "labelled")["cached"]


def test_report_export_and_import(mail, tmp_path, capfd):
    answers = mail.with_name("mail.jsonl.answers.jsonl")
    given = {
        "ann": ["ham", "ham", "spam", "spam", "ham", None],
        "bob": ["ham", "ham", "spam", "ham", "ham", "spam"],
    }
    with Journal(answers) as journal:
        for name, labels in given.items():
            for number, label in enumerate(labels):
                event = {"event": "skip"} if label is None else {"event": "answer", "label": label}
                journal.append({**event, "id": f"m{number}", "annotator": name, "seconds": 1.0})
    told = tutelage(capfd, "label", "--report", answers)
    assert told.code == 0 and "ann: 5 answered, 1 skipped, 1.0 s an answer" in told.out
    # By hand: agree on 4 of 5; chance .6 * .8 + .4 * .2 = .56; kappa (.8 - .56) / .44.
    assert "agree on 80.0% of 5; Cohen's kappa 0.545" in told.out and "m3: ann spam, bob ham" in told.out
    assert tutelage(capfd, "label", "--report", answers, "--json").json()["pairs"][0]["items"] == 5
    asked = ("label", mail, "--labels", "ham,spam")
    for kind in ("label-studio", "argilla"):
        file = tmp_path / f"{kind}.json"
        assert tutelage(capfd, *asked, "--export", kind, file, "--json").json()["rows"] == 6
        assert tutelage(capfd, *asked, "--export", kind, file).code == 2, "never overwritten"
        again = tutelage(capfd, *asked, "--import", file)
        assert again.code == 0 and "0 of 12 answers are new" in again.out
        folder = tmp_path / kind
        taken = tutelage(capfd, "label", folder, "--labels", "ham,spam", "--import", file, "--json").json()
        assert (taken["items"], taken["answers"], taken["new"]) == (6, 12, 12)
        assert tutelage(capfd, "label", "--report", folder, "--json").json()["pairs"][0]["kappa"] == pytest.approx(
            6 / 11
        )
        refused = tutelage(capfd, "label", tmp_path / "none", "--labels", "ham,spam_", "--import", file)
        assert refused.code == 2 and "nearest is 'spam_'" in refused.err and "record 3" in refused.err
        assert not (tmp_path / "none").exists()
    other = tutelage(capfd, "label", mail, "--labels", "ham,spam_", "--export", "rows", tmp_path / "no.jsonl")
    assert other.code == 2 and "nearest is 'spam_'" in other.err and "item m2, annotator ann" in other.err
    rows = tmp_path / "rows.jsonl"
    assert tutelage(capfd, *asked, "--export", "rows", rows).code == 0
    assert labels_in(rows) == {"m0": "ham", "m1": "ham", "m2": "spam", "m4": "ham", "m5": "spam"}


def test_rows_that_have_a_label_are_not_asked(tmp_path, capfd):
    file = tmp_path / "mail.csv"
    file.write_text("text,label\nwin now,\nsee you,ham\ncheap,\n", encoding="utf-8")
    with running(file, "--labels", "ham,spam", "--annotator", "ann") as (_, client):
        assert [item["text"] for item in client.get("items?start=0&count=9")["items"]] == ["win now", "cheap"]
    full = tmp_path / "full.csv"
    full.write_text("text,label\nsee you,ham\n", encoding="utf-8")
    nothing = tutelage(capfd, "label", full, "--labels", "ham,spam")
    assert nothing.code == 2 and "nothing to label" in nothing.err and "1 rows with one" in nothing.err


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ([], ["the command is to do one thing"]),
        (["mail.jsonl"], ["what the classes are", "--labels spam,ham"]),
        (["mail.jsonl", "--labels", "ham"], ["no such file of classes"]),
        (["mail.jsonl", "--labels", "classes.csv"], ["no such file of classes"]),
        (["mail.jsonl", "--labels", "a,A"], ["cannot be told apart"]),
        (["mail.jsonl", "--labels", "a,b", "--annotator", " "], ["an annotator has a name"]),
        (["mail.jsonl", "--labels", "a,b", "--guidelines", "none.md"], ["guidelines cannot be read"]),
        (["none.jsonl", "--labels", "a,b"], ["none.jsonl"]),
        (["mail.jsonl", "--labels", "a,b", "--out", "mail.jsonl"], ["a line of the answers is broken", "line 1"]),
        (["mail.jsonl", "--labels", "a,b", "--port", "70000"], ["--port"]),
        (["mail.jsonl", "--labels", "a,b", "--batch", "0"], ["--batch"]),
        (["mail.jsonl", "--report", "mail.jsonl"], ["the command is to do one thing"]),
        (["--report", "mail.jsonl"], ["a line of the answers is broken"]),
        (["--report", "none.jsonl"], ["no such file of answers"]),
        (["mail.jsonl", "--labels", "a,b", "--export", "xml", "out.xml"], ["xml"]),
        (["mail.jsonl", "--labels", "a,b", "--import", "mail.jsonl"], ["neither Label Studio's nor Argilla's"]),
        (["empty.jsonl", "--labels", "a,b"], ["no text to label", "row e"]),
        (["odd.jsonl", "--labels", "aa,bb"], ["nearest is 'aa'", "row o, field suggested"]),
    ],
)
def test_bad_input(mail, capfd, monkeypatch, arguments, facts):
    monkeypatch.chdir(mail.parent)
    write_rows(mail.parent / "empty.jsonl", [{"id": "e", "text": " "}])
    write_rows(mail.parent / "odd.jsonl", [{"id": "o", "text": "t", "suggested": "aaa"}])
    before = mail.read_bytes()
    refused = tutelage(capfd, "label", *arguments)
    assert refused.code == 2 and refused.out == "" and "Traceback" not in refused.err
    for fact in facts:
        assert fact in refused.err
    assert mail.read_bytes() == before


def test_a_queue_folder_has_its_classes(mail, tmp_path, capfd):
    from toy.labelling import queue

    queue(2).write(tmp_path / "q")
    refused = tutelage(capfd, "label", tmp_path / "q", "--labels", "a,b")
    assert refused.code == 2 and "has its classes" in refused.err
