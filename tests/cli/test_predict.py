"""`tutelage predict`: files, pipes, thresholds, and the models of runs."""

import csv
import io
import json

import pytest

from toy.labelled import labelled
from tutelage.cli.main import run
from tutelage.core.discovery import build

pytest.importorskip("torch")

MUTATIONS = [
    ("src/tutelage/cli/predict.py", "sure < model.threshold", "sure > model.threshold"),
    ("src/tutelage/runs/made.py", 'e["seed"] is not None and e["seed"]', '-(e["seed"] or 0)'),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = build("adapters.tfidf_classifier").convert({}, labelled(12), {})
    ready = build("adapters.calibrate", {"precision": 0.8, "confidence": 0.8}).convert({"base": made}, None, {})
    assert ready.threshold is not None
    return ready.save(tmp_path_factory.mktemp("model") / "classifier")


def call(*arguments):
    with pytest.raises(SystemExit) as ended:
        run([str(argument) for argument in arguments])
    return ended.value.code


def test_a_pipe_of_lines_and_json(folder, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO('cat dog horse\n\n{"text": "saw nail drill", "n": 7}\nzzz\n'))
    assert call("predict", folder) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["predicted"] for row in rows] == ["animals", "tools", None], "of unknown words nothing is said"
    assert rows[1]["n"] == 7 and sum(rows[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert "3 texts, 1 left unanswered" in err
    monkeypatch.setattr("sys.stdin", io.StringIO("zzz\n"))
    assert call("predict", folder, "--threshold", "0") == 0
    assert json.loads(capsys.readouterr().out)["predicted"] in ("animals", "tools")


def test_a_file_in_a_file_out(folder, tmp_path, capsys):
    source = tmp_path / "texts.csv"
    source.write_text("id,text,note\n1,cat and dog,x\n2,saw and nail,y\n", encoding="utf-8")
    assert call("predict", folder, source, "--out", tmp_path / "out.csv") == 0
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["predicted"] for row in rows] == ["animals", "tools"]
    assert [(row["text"], row["note"]) for row in rows] == [("cat and dog", "x"), ("saw and nail", "y")]
    assert float(rows[0]["p_animals"]) + float(rows[0]["p_tools"]) == pytest.approx(1, abs=1e-5)
    assert call("predict", folder, source, "--column", "note") == 0
    by_note = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["text"], row["note"], row["predicted"]) for row in by_note] == [
        ("cat and dog", "x", None),
        ("saw and nail", "y", None),
    ]
    assert call("predict", folder, source, "--column", "nota") == 2
    assert "did you mean note?" in capsys.readouterr().err


def test_what_is_wrong_is_said(folder, tmp_path, capsys, monkeypatch):
    assert call("predict", folder, "-o", tmp_path / "out.xlsx") == 2
    assert "this kind of file is not written" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO('{"text": 3}\n'))
    assert call("predict", folder) == 2
    assert "line 1, field text" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("{broken\n"))
    assert call("predict", folder) == 2
    assert "no JSON object" in capsys.readouterr().err


def test_a_model_of_a_run_is_named_by_its_step(tmp_path, capsys, monkeypatch):
    build("data.write.jsonl").write(labelled(6), str(tmp_path / "rows.jsonl"))
    build("data.write.jsonl").write(labelled(6, seed=1), str(tmp_path / "test.jsonl"))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: heads\nsources: {rows: {path: rows.jsonl}, test: {path: test.jsonl}}\nsteps:\n"
        "  - {name: some, use: data.select.random, from: rows, budget: {rows: 8}}\n"
        "  - {name: head, use: adapters.tfidf_classifier, from: some}\n"
        "  - {name: accuracy, use: evaluation.classification, model: head, from: test}\n"
        "arms: {plain: {}, strong: {head: {C: 50.0}}}\n"
        "compare: {baseline: plain, metric_step: accuracy, at: none, seeds: [4, 5]}\n",
        encoding="utf-8",
    )
    assert call("run", recipe, "--workspace", tmp_path) == 0
    capsys.readouterr()
    for name, told in (("head@strong", "arm strong, seed 4"), ("head@plain", "arm plain, seed 4")):
        monkeypatch.setattr("sys.stdin", io.StringIO("cat\n"))
        assert call("predict", name, "--workspace", tmp_path) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["predicted"] == "animals" and told in err and "not calibrated" in err
    assert call("predict", "head", "--workspace", tmp_path) == 2
    assert "head@plain, head@strong" in capsys.readouterr().err
    assert call("predict", "haed", "--workspace", tmp_path) == 2
    assert "did you mean head" in capsys.readouterr().err
