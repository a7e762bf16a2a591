"""Every subcommand on a tiny project, as a user would run it: results on standard output, everything else on
standard error, one JSON document with --json, and Ctrl-C that loses nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from toy.command_line import RECIPE, documents, tutelage, write_rows
from tutelage import __version__
from tutelage.cli.main import COMMANDS
from tutelage.runs.ledger import Ledger

pytest.importorskip("torch")
PROMISED = (
    "init validate plan run resume compare compare-results methods explain inspect label predict search why report"
    " export fetch chat gc audit"
)
START = "from tutelage.cli.main import run; run()"
COMPARED = """\
arms:
  base: {held_out: {model: base}}
  random: {}
  same: {chosen: {use: data.select.random, budget: {rows: 20}}}
compare: {baseline: random, metric_step: held_out, at: equal_tokens, budget: {tokens: 256}, seeds: [0, 1]}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with documents, a base model, a recipe that has run once and one that compares arms."""
    from tutelage.models.toy import tiny_causal_lm
    from tutelage.runs import load_recipe, run

    folder = tmp_path_factory.mktemp("project")
    rows = documents()
    write_rows(folder / "docs.jsonl", rows)
    tiny_causal_lm(texts=[row["text"] for row in rows]).save(folder / "base")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    (folder / "arms.yaml").write_text(RECIPE + COMPARED, encoding="utf-8")
    run(load_recipe(folder / "recipe.yaml"), folder)
    return folder


@pytest.fixture
def here(project, monkeypatch) -> Path:
    monkeypatch.chdir(project)
    return project


def test_the_promised_commands_are_there(capfd):
    assert sorted(COMMANDS) == sorted(PROMISED.split())
    page = tutelage(capfd, "--help")
    assert page.code == 0 and all(name in page.out for name in COMMANDS)
    for name in COMMANDS:
        assert tutelage(capfd, name, "--help").code == 0
    assert tutelage(capfd, "--version").out.strip() == __version__


@pytest.mark.parametrize("arguments", ["--help", "methods", "methods --json", "explain training.fit", "--version"])
def test_listing_starts_without_heavy_libraries(arguments):
    program = (
        "import sys\nfrom tutelage.cli.main import run\n"
        "try:\n    run(sys.argv[1:])\nexcept SystemExit as end:\n    code = end.code or 0\n"
        "heavy = {'torch', 'transformers', 'peft', 'sklearn', 'scipy', 'pandas'} & set(sys.modules)\n"
        "sys.stderr.write(' '.join(sorted(heavy)))\nsys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout
    assert done.stderr == "", "nothing heavy is imported and nothing is said"


def test_methods_and_explain(capfd):
    from tutelage.core.discovery import cards

    listed = tutelage(capfd, "methods", "--json").json()
    assert [row["name"] for row in listed] == list(cards())
    known = {"implemented", "consistent", "verified", "measured"}
    for row in listed:
        assert {"name", "room", "kind", "paper", "summary", "status"} <= set(row)
        assert row["name"].split(".")[0] == row["room"] and row["paper"]["title"] and row["summary"]
        assert row["status"] and set(row["status"]) <= known
    plain = tutelage(capfd, "methods").out
    assert all(row["name"] in plain for row in listed) and f"{len(listed)} methods" in plain
    chosen = tutelage(capfd, "methods", "top_k", "--room", "data", "--json").json()
    assert {row["name"] for row in chosen} >= {"data.select.top_k", "data.select.gumbel_top_k"}
    page = tutelage(capfd, "explain", "data.select.top_k").out
    assert "baseline: data.select.random" in page and "direction" in page
    assert tutelage(capfd, "explain", "data.select.top_k", "--json").json()["fields"]["direction"]
    told = tutelage(capfd, "explain", "preselect").out
    assert "(recipe)" in told and "tells good models from bad" in told and "signals.predictive_strength" in told
    told = tutelage(capfd, "explain", "specialise", "--json").json()
    assert told["baseline"] == "random" and told["measured"]["signals.similarity_tfidf"][0]["against"] == "random"
    assert "measured here" in tutelage(capfd, "explain", "signals.similarity_tfidf").out
    wrong = tutelage(capfd, "explain", "data.select.topk")
    assert wrong.code == 2 and "did you mean data.select.top_k" in wrong.err


def test_init_gives_a_recipe_that_runs(project, tmp_path, capfd):
    made = tutelage(capfd, "init", tmp_path / "new")
    recipe = tmp_path / "new" / "recipe.yaml"
    assert made.code == 0 and recipe.is_file() and "next:" in made.out
    missing = tutelage(capfd, "validate", recipe)
    assert missing.code == 2 and "the source 'documents' does not exist" in missing.err
    again = tutelage(capfd, "init", tmp_path / "new")
    assert again.code == 2 and "recipe already" in again.err
    (tmp_path / "new" / "documents").mkdir()
    for i, row in enumerate(documents(24)):
        (tmp_path / "new" / "documents" / f"{i}.txt").write_text(row["text"], encoding="utf-8")
    assert tutelage(capfd, "validate", recipe).code == 0
    done = tutelage(
        capfd,
        "run",
        recipe,
        "-w",
        tmp_path / "new",
        "--limit",
        20,
        "--set",
        f"models.base.load={project / 'base'}",
    )
    assert done.code == 0, done.err
    assert "trained against base (held_out)" in done.out


def test_validate_and_plan(here, capfd):
    assert "recipe.yaml: valid; 7 steps, 0 arms, 1 sources" in tutelage(capfd, "validate", "recipe.yaml").out
    valid = tutelage(capfd, "validate", "recipe.yaml", "--set", "trained.learning_rate=2e-4", "--json").json()
    trained = next(step for step in valid["recipe"]["steps"] if step["name"] == "trained")
    assert valid["valid"] and trained["learning_rate"] == 2e-4
    plan = tutelage(capfd, "plan", "recipe.yaml")
    assert plan.out.count("in the store") == 8 and "about 0 s to go" in plan.out
    changed = tutelage(capfd, "plan", "recipe.yaml", "--set", "trained.learning_rate=2e-4", "--json").json()
    states = {step["name"]: step["cached"] for step in changed["steps"]}
    assert states["chosen"] is True and states["trained"] is False and states["held_out"] is None
    small = tutelage(capfd, "plan", "recipe.yaml", "--limit", 5, "--json").json()
    assert small["steps"][0]["cached"] is False
    seeded = tutelage(capfd, "plan", "recipe.yaml", "--seed", 5, "--json").json()
    assert {step["name"]: step["cached"] for step in seeded["steps"]}["chosen"] is not True


def test_run_with_every_option(here, capfd):
    before = len(Ledger(here).runs())
    dry = tutelage(capfd, "run", "recipe.yaml", "--dry-run", "--json")
    assert dry.code == 0 and dry.json()["status"] == "planned" and len(dry.json()["plan"]["steps"]) == 8
    assert "would run 8 steps" in tutelage(capfd, "run", "recipe.yaml", "--dry-run").out
    assert len(Ledger(here).runs()) == before, "a dry run leaves nothing"
    plain = tutelage(capfd, "run", "recipe.yaml")
    assert plain.out.startswith("held_out: bits_per_byte") and "tutelage report" in plain.out
    as_json = tutelage(capfd, "run", "recipe.yaml", "--json", "--set", "chosen.budget.rows=10", "--seed", 5)
    found = as_json.json()
    assert as_json.err == "" and found["status"] == "passed" and found["steps"]["trained"]["kind"] == "model"
    entry = Ledger(here).run(found["run_id"])
    assert entry["recipe"]["seed"] == 5
    rows = {step["step"]: step["facts"].get("rows") for step in entry["steps"]}
    assert rows["chosen"] == 10 and rows["docs"] == 60
    limited = tutelage(capfd, "run", "recipe.yaml", "--limit", 12, "--json").json()
    facts = {step["step"]: step["facts"] for step in Ledger(here).run(limited["run_id"])["steps"]}
    assert facts["docs"]["rows"] == 12 and Ledger(here).run(limited["run_id"])["options"]["limit"] == 12
    again = tutelage(capfd, "resume", limited["run_id"], "--json").json()
    assert again["run_id"] == limited["run_id"] and again["steps"] == limited["steps"]


def test_a_seed_changes_what_is_drawn_and_a_set_one_repeats_it(here, capfd):
    def drawn(seed):
        found = tutelage(capfd, "run", "recipe.yaml", "--seed", seed, "--json").json()
        return found["steps"]["chosen"]["path"], found["steps"]["trained"]["path"]

    assert drawn(1) == drawn(1)
    assert not set(drawn(1)) & set(drawn(2))


def test_inspect_takes_the_step_where_a_workspace_is_given_and_says_so(project, tmp_path, monkeypatch, capfd):
    """A folder and a step have one name: neither is taken in silence."""
    (tmp_path / "chosen").mkdir()
    (tmp_path / "chosen" / "a.txt").write_text("only one row here", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    path = tutelage(capfd, "inspect", "chosen", "--json")
    assert path.json()["rows"] == 1 and path.err == "", "there is no run here"
    step = tutelage(capfd, "inspect", "chosen", "-w", project, "--json")
    assert step.json()["rows"] == 20
    assert step.err == f"chosen: showing the step of the run, not the path (which is {tmp_path / 'chosen'})\n"
    plain = tutelage(capfd, "inspect", "./chosen", "-w", project, "--json")
    assert plain.json()["rows"] == 1 and plain.err == ""
    shutil.copytree(project / ".tutelage", tmp_path / ".tutelage")
    both = tutelage(capfd, "inspect", "chosen", "--json")
    assert both.json()["rows"] == 1
    assert both.err == "chosen: showing the path, not the step of the run (which --workspace asks for)\n"
    assert tutelage(capfd, "inspect", "chosen", "-w", ".", "--json").json()["rows"] == 20


def test_inspect_a_file_a_step_and_a_row(here, capfd):
    shown = tutelage(capfd, "inspect", "chosen", "--rows", 2, "--json").json()
    assert shown["rows"] == 20 and len(shown["shown"]) == 2
    (reason,) = shown["dropped"]
    assert reason["rows"] > 0
    fate = tutelage(capfd, "inspect", "chosen", "--id", reason["example"])
    assert f"{reason['example']} was dropped" in fate.out
    tokens = tutelage(capfd, "inspect", "docs.jsonl", "--model", "base", "--rows", 1, "--json").json()["shown"][0]
    assert sum(len(text) > 0 for text, trained in tokens["pieces"] if trained) >= 1
    assert tokens["tokens"] == tokens["trained"] + 1, "the first token is not predicted"
    coloured = tutelage(capfd, "inspect", "docs.jsonl", "--model", "base", "--rows", 1)
    assert "not trained" in coloured.out and documents()[0]["text"] in coloured.out
    wrong = tutelage(capfd, "inspect", "chosn")
    assert wrong.code == 2 and "did you mean chosen" in wrong.err


def test_inspect_a_training_step(here, capfd):
    shown = tutelage(capfd, "inspect", "trained", "--rows", 2, "--json").json()
    rows = tutelage(capfd, "inspect", "chosen", "--rows", 20, "--json").json()["shown"]
    assert [entry["step"] for entry in shown["consumed"]] == [0, 1] and shown["optimiser_steps"] >= 4
    first = [name for entry in shown["consumed"] for name in entry["ids"]]
    assert len(set(first)) == len(first) > 2 and set(first) <= {row["id"] for row in rows}
    said = tutelage(capfd, "inspect", "trained").out.splitlines()
    assert f"{shown['optimiser_steps']} optimiser steps" in said[0] and len(said) == 4
    assert said[1] == "step 0: " + ", ".join(shown["consumed"][0]["ids"])


def test_compare_report_and_verdicts(here, capfd):
    before = len(Ledger(here).runs())
    assert "would run" in tutelage(capfd, "compare", "arms.yaml", "--dry-run").out
    assert len(Ledger(here).runs()) == before, "a dry run leaves nothing"
    done = tutelage(capfd, "compare", "arms.yaml", "--seeds", "0,1,2")
    assert done.code == 0, done.err
    assert done.out.startswith("declared before running") and "same against random" in done.out
    assert "smallest detectable" in done.out and "arms at equal tokens" in done.out
    as_json = tutelage(capfd, "compare", "arms.yaml", "--seeds", "0,1,2", "--json")
    assert as_json.json()["comparison"]["pairs"] and as_json.err == ""
    written = tutelage(capfd, "report", "--json").json()
    page = Path(written["report"]).read_text(encoding="utf-8")
    assert "same against random" in page and "Content-Security-Policy" in page
    other = tutelage(capfd, "report", "--out", "pages/one.html")
    assert other.code == 0 and (here / "pages" / "one.html").is_file()
    # Without arms in the recipe: against the baseline that the card of a step names.
    best = RECIPE.replace("data.select.random, from: sized,", "data.select.top_k, from: sized, column: n_tokens,")
    (here / "best.yaml").write_text(best, encoding="utf-8")
    short = tutelage(
        capfd, "compare", "best.yaml", "--baseline", "data.select.random", "--at", "equal_tokens", "--json",
        "--set", "compare.metric_step=held_out", "--limit", 20,
    )  # fmt: skip
    assert short.code == 0, short.out + short.err
    assert {"data.select.random", "best"} & {arm["name"] for arm in short.json()["comparison"]["arms"]}


def test_compare_results(tmp_path, capfd):
    shown = tutelage(capfd, "compare-results", "--example")
    assert shown.code == 0 and "n = 220 items" in shown.out
    found = tutelage(capfd, "compare-results", "--example", "--json").json()
    assert found["tasks"][0]["comparison"]["n_items"] == 220
    for name, shift in (("a", 1), ("b", 0)):
        write_rows(tmp_path / f"{name}.jsonl", [{"id": str(i), "score": (i + shift) % 3 / 2} for i in range(60)])
    own = tutelage(capfd, "compare-results", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "--json")
    assert own.code == 0 and own.json()["tasks"][0]["comparison"]["n_items"] == 60
    assert tutelage(capfd, "compare-results").code == 2


def test_export_and_chat(here, tmp_path, capfd, monkeypatch):
    trained = tutelage(capfd, "run", "recipe.yaml", "--json").json()["steps"]["trained"]["path"]
    made = tutelage(capfd, "export", Path(trained) / "model", tmp_path / "out", "--json")
    folder = Path(made.json()["written"])
    assert made.code == 0 and (folder / "model.safetensors").is_file() and (folder / "README.md").is_file()
    again = tutelage(capfd, "export", Path(trained) / "model", tmp_path / "out")
    assert again.code == 2 and "already there" in again.err
    bad = tutelage(capfd, "export", "base", tmp_path / "x", "--format", "onnx")
    assert bad.code == 2 and "onnx" in bad.err
    monkeypatch.setattr("sys.stdin", iter(["hello\n", "\n"]))
    said = []
    for model in (Path(trained) / "model", folder):
        # A stand-in for a pipe: lines, and no terminal.
        lines = type("Pipe", (), {"__iter__": lambda self: iter(["hello\n", "\n"]), "isatty": lambda self: False})
        monkeypatch.setattr("sys.stdin", lines())
        answer = tutelage(capfd, "chat", model, "--max-new-tokens", 4, "--device", "cpu")
        assert answer.code == 0, answer.err
        said.append(answer.out)
    assert said[0] == said[1] != "", "the exported model says the same"


def test_fetch_lists(capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path))
    assert "smollm2" in tutelage(capfd, "fetch", "--list").out
    assert {row["name"] for row in tutelage(capfd, "fetch", "--list", "--json").json()} >= {"smollm2", "minilm"}
    wrong = tutelage(capfd, "fetch", "smolm2")
    assert wrong.code == 2 and "did you mean smollm2" in wrong.err


def test_gc_keeps_the_newest_run(project, tmp_path, capfd):
    for name in ("docs.jsonl", "recipe.yaml"):
        shutil.copy(project / name, tmp_path / name)
    shutil.copytree(project / "base", tmp_path / "base")
    recipe = tmp_path / "recipe.yaml"
    assert tutelage(capfd, "run", recipe, "-w", tmp_path).code == 0
    last = tutelage(capfd, "run", recipe, "-w", tmp_path, "--set", "chosen.budget.rows=10", "--json").json()
    assert tutelage(capfd, "gc", "-w", tmp_path, "--json").json()["artifacts"] == 0
    removed = tutelage(capfd, "gc", "-w", tmp_path, "--keep-runs", 1, "--json").json()
    assert removed["artifacts"] == 3 and removed["bytes"] > 0, "the first run's rows, model and measurement"
    assert all(Path(step["path"]).is_dir() for step in last["steps"].values())
    assert "0 artifacts" in tutelage(capfd, "gc", "-w", tmp_path, "--keep-runs", 1).out


def test_ctrl_c_outside_a_run_is_130(capfd, monkeypatch):
    def stop(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("tutelage.core.discovery.cards", stop)
    answer = tutelage(capfd, "methods")
    assert answer.code == 130 and "interrupted" in answer.err and "Traceback" not in answer.err


def test_an_unexpected_failure_is_one_and_says_how_to_report_it(capfd, monkeypatch):
    def break_down(*_arguments, **_options):
        raise RuntimeError("unforeseen \x1b[31m")

    monkeypatch.setattr("tutelage.core.discovery.cards", break_down)
    answer = tutelage(capfd, "methods")
    assert answer.code == 1 and "RuntimeError: unforeseen" in answer.err and "--verbose" in answer.err
    assert "Traceback" not in answer.err and "\x1b" not in answer.err
    assert tutelage(capfd, "methods", "--json").json()["exit_code"] == 1
    assert "Traceback" in tutelage(capfd, "--verbose", "methods").err


def test_a_warning_is_told_without_the_place_in_the_source(capfd, monkeypatch):
    def warned(*_arguments, **_options):
        warnings.warn("ten rows are few \x1b[31m", stacklevel=1)
        return {}

    monkeypatch.setattr("tutelage.core.discovery.cards", warned)
    told = tutelage(capfd, "methods").err
    assert "  warning: ten rows are few" in told and ".py" not in told and "\x1b" not in told
    # As Python tells it, with its place.
    with pytest.warns(UserWarning, match="ten rows"):
        tutelage(capfd, "--verbose", "methods")


@pytest.mark.skipif(os.name == "nt", reason="sends a signal as Ctrl-C does")
def test_ctrl_c_in_training_then_resume_gives_the_same_model(project, tmp_path, capfd):
    """SIGINT to a real process: 130, how to go on, and after `resume` the bits of an uninterrupted run."""
    longer = ("--set", "trained.budget.tokens=6000", "--set", "models.base.dtype=float32")
    recipe = project / "recipe.yaml"
    whole = tutelage(capfd, "run", recipe, "-w", tmp_path / "whole", *longer, "--json").json()
    cut = tmp_path / "cut"
    # Ctrl-C comes at a moment that does not depend on how fast this machine is: the second checkpoint is there.
    process = subprocess.Popen(
        [sys.executable, "-c", START, "run", str(recipe), "-w", str(cut), *longer],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    deadline = time.monotonic() + 60
    while not list(cut.glob(".tutelage/checkpoints/*/step-0000000[2-9]/COMPLETE")) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said and "tutelage resume" in said
    entry = Ledger(cut).run()
    assert entry["status"] == "interrupted" and "trained" not in {step["step"] for step in entry["steps"]}
    done = tutelage(capfd, "resume", "-w", cut, "--json")
    assert done.code == 0 and done.json()["run_id"] == entry["run_id"]
    fits = []
    for found in (whole, done.json()):
        folder = Path(found["steps"]["trained"]["path"])
        fit = json.loads((folder / "fit.json").read_text(encoding="utf-8"))
        fits.append((fit["losses"], (folder / "model" / "model.safetensors").read_bytes(), fit["resumed_at"]))
    assert fits[0][:2] == fits[1][:2], "losses and weights are the same to the bit"
    assert fits[0][2] is None and fits[1][2] >= 2
    results = [
        json.loads((Path(f["steps"]["held_out"]["path"]) / "result.json").read_text())
        for f in (whole, done.json())
    ]
    assert results[0]["estimate"] == results[1]["estimate"]


def test_init_writes_a_recipe_for_a_classifier_from_labelled_texts(tmp_path, capfd):
    texts = tmp_path / "texts.csv"
    texts.write_text("text,label\none,a\ntwo,b\nthree,\n", encoding="utf-8")
    made = tutelage(capfd, "init", tmp_path, "--labels", "texts.csv")
    assert made.code == 0 and "for 2 classes" in made.out
    assert "--labels a,b" in (tmp_path / "recipe.yaml").read_text(encoding="utf-8")
    assert tutelage(capfd, "validate", tmp_path / "recipe.yaml").code == 0
    (tmp_path / "recipe.yaml").unlink()
    texts.write_text("text,label\none,a\ntwo,\n", encoding="utf-8")
    alone = tutelage(capfd, "init", tmp_path, "--labels", "texts.csv")
    assert alone.code == 2 and "all labelled texts have one class" in alone.err
    assert not (tmp_path / "recipe.yaml").exists()
