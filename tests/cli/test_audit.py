"""`tutelage audit`: what applies, what is left out and why, the recipe, the trust report, exit code 3."""

import json

import pytest
import yaml

from tutelage.cli.main import run as cli
from tutelage.core.errors import ConfigError, InputError
from tutelage.models.toy import tiny_causal_lm
from tutelage.runs import load_recipe
from tutelage.runs.audit import Case, Rows, compose, source_name

MUTATIONS = [
    ("src/tutelage/runs/audit.py", "if not case.before:", "if case.before:"),
    ("src/tutelage/runs/audit.py", "if not rows.planted:", "if rows.planted:"),
    (
        "src/tutelage/runs/audit.py",
        'not self.choices and self.has("prompt", "answer")',
        'self.has("prompt", "answer")',
    ),
    ("src/tutelage/cli/audit.py", "raise typer.Exit(result.exit_code)", "raise typer.Exit(0)"),
    ("src/tutelage/report/trust.py", 'if not gate["passed"]]', 'if gate["passed"]]'),
    (
        "src/tutelage/report/trust.py",
        'for audit, why in run["recipe"]',
        'for audit, why in {} or {}  # run["recipe"]',
    ),
]
QUESTIONS = [
    {
        "prompt": f"Question {n}: what comes after {n}?\nAnswer:",
        "choices": [str(n + 1), f"not {n}", "none", "all"],
        "answer": 1,
        "question_id": f"q{n // 2}",
        "cluster": f"q{n // 2}",
    }
    for n in range(24)
]
TEXTS = [
    {"text": f"The number {n} is followed by {n + 1}, which is followed by {n + 2} and then {n + 3}."}
    for n in range(12)
]
UNSEEN = [{"text": f"Unseen row {n}: nobody wrote this about {n * 37} before today, I think."} for n in range(12)]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    texts = [row["prompt"] for row in QUESTIONS] + [row["text"] for row in TEXTS]
    for name, seed in (("after", 0), ("before", 1)):
        tiny_causal_lm("llama", texts, layers=1, width=16, seed=seed).save(folder / name)
    return folder


def audit(capsys, *arguments):
    with pytest.raises(SystemExit) as left:
        cli(["audit", *(str(a) for a in arguments)])
    out = capsys.readouterr()
    return left.value.code, out.out, out.err


# -- what applies -----------------------------------------------------------------------------------------


def uses(case):
    steps, left_out = compose(case)
    return {step["name"]: step["use"] for step in steps}, left_out


def test_questions_with_choices_are_measured_calibrated_and_turned_round():
    rows = Rows("exam", frozenset({"prompt", "choices", "answer"}))
    found, left_out = uses(Case("causal", (rows,)))
    assert found == {
        "exam_after": "evaluation.multiple_choice",
        "instructions_after": "evaluation.instruction_following",
        "exam_calibration": "evaluation.calibration",
        "exam_order": "evaluation.option_bias",
        "exam_seen": "evaluation.guided_completion",
    }
    assert "--before" in left_out["forgetting"]
    assert "--trained-on" in left_out["memorisation"]
    assert "question_id" in left_out["semantic consistency"]
    assert "--control" in left_out["proof of contamination"]
    assert "--curve" in left_out["forecast of more data"]


def test_what_is_given_besides_brings_its_audits():
    rows = Rows("exam", frozenset({"prompt", "choices", "answer", "question_id"}))
    trained = Rows("trained_on", frozenset({"text"}), "canaries")
    control = Rows("control", frozenset({"text"}))
    found, left_out = uses(Case("causal", (rows,), True, trained, control, 800.0))
    assert left_out == {}
    assert found["changes"] == "evaluation.transfer_matrix"
    assert found["exam_loyalty"] == "evaluation.loyalty"
    assert found["exam_consistency"] == "evaluation.semantic_consistency"
    assert found["planted"] == found["planted_before"] == "evaluation.exposure"
    assert found["extraction"] == "evaluation.extraction"
    assert found["forecast"] == "forecasting.learning_curve"
    traps = Rows("trained_on", frozenset({"text"}), "traps")
    assert uses(Case("causal", (rows,), trained_on=traps))[0]["planted"] == "evaluation.membership"
    plain = Rows("trained_on", frozenset({"text"}))
    assert "planted canaries" in uses(Case("causal", (rows,), trained_on=plain))[1]


def test_text_answers_and_classifiers():
    text = Rows("books", frozenset({"text"}))
    asked = Rows("asked", frozenset({"prompt", "answer"}))
    found, _ = uses(Case("causal", (text, asked)))
    assert found["books_after"] == "evaluation.bits_per_byte"
    assert found["asked_after"] == "evaluation.exact_match"
    assert found["asked_uncertainty"] == "evaluation.sar"
    found, left_out = uses(Case("classifier", (Rows("news", frozenset({"text", "label"})),), True))
    assert set(found) == {"news_before", "news_after", "news_calibration"}
    assert "language models" in left_out["contamination"]


def test_nothing_applies():
    with pytest.raises(InputError, match="no audit applies") as caught:
        compose(Case("causal", (Rows("odd", frozenset({"id", "x"})),)))
    assert "odd: id, x" in str(caught.value)
    with pytest.raises(InputError, match="no audit applies"):
        compose(Case("classifier", (Rows("books", frozenset({"text"})),)))
    with pytest.raises(ConfigError, match="cannot be audited"):
        compose(Case("encoder", (Rows("books", frozenset({"text"})),)))


def test_names_of_sources():
    assert source_name("data/Exam set.v2.jsonl", []) == "exam_set"
    assert source_name("2024.csv", []) == "data_2024"
    assert source_name("exam.csv", ["exam"]) == "exam_2"


# -- as a user runs it ------------------------------------------------------------------------------------


def test_an_audit_from_the_command_line(models, tmp_path, capsys):
    exam, text = written(tmp_path / "exam.jsonl", QUESTIONS), written(tmp_path / "books.jsonl", TEXTS)
    gates = tmp_path / "gates.yaml"
    wanted = [
        {"name": "answers enough", "step": "exam_after", "at_least": 0.99},
        {"name": "forgets nothing", "step": "books_after", "against": "books_before", "no_harm": 10},
    ]
    gates.write_text(yaml.safe_dump(wanted), encoding="utf-8")
    space = tmp_path / "space"
    code, out, err = audit(
        capsys,
        models / "after", "--before", models / "before", "--data", exam, "--data", text, "--gates", gates,
        "--control", written(tmp_path / "unseen.jsonl", UNSEEN), "--workspace", space,
        "--set", "instructions_after.max_new_tokens=2", "--set", "instructions_before.max_new_tokens=2",
        "--set", "exam_seen.max_new_tokens=4", "--set", "books_seen.max_new_tokens=4",
    )  # fmt: skip
    assert code == 3
    assert "gate answers enough: FAILED" in out
    assert "gate forgets nothing: passed" in out
    assert "left out: memorisation: needs the rows it was trained on (--trained-on)" in err
    assert "\nleft_out:\n" in (space / "audit.yaml").read_text(encoding="utf-8")
    recipe = load_recipe(space / "audit.yaml", allow_outside=True)
    assert recipe.left_out["forecast of more data"]
    page = (space / "trust-report.html").read_text(encoding="utf-8")
    for said in (
        "what can be trusted?",
        "Not to be released as it is: 1 of 2 gates fail (answers enough)",
        "Do answers change with the order of the options?",
        "What did training destroy?",
        "memorisation: needs the rows it was trained on",
        "24 in 12 clusters",
        "one training run",
    ):
        assert said in page, said


def test_a_plan_runs_nothing(models, tmp_path, capsys):
    text = written(tmp_path / "books.jsonl", TEXTS)
    code, out, err = audit(capsys, models / "after", "--data", text, "--workspace", tmp_path, "--dry-run")
    assert code == 0
    assert "would run" in out
    assert "no gates" in err
    assert not (tmp_path / "trust-report.html").exists()
    code, out, _ = audit(capsys, models / "after", "--data", text, "-w", tmp_path, "--dry-run", "--json")
    assert json.loads(out)["left_out"]["forgetting"]


def test_what_an_audit_refuses(models, tmp_path, capsys):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("", encoding="utf-8")
    text = written(tmp_path / "books.jsonl", TEXTS)
    bad = tmp_path / "gates.yaml"
    bad.write_text("gates: 3\n", encoding="utf-8")
    for arguments, said in (
        ([models / "after"], "an audit needs rows"),
        ([models / "after", "--data", empty], "empty"),
        ([models / "after", "--data", tmp_path / "none.jsonl"], "does not exist"),
        ([models / "after", "--data", text, "--curve", text], "--curve and --at"),
        ([models / "after", "--data", text, "--gates", bad], "gates are a list"),
        (["run:demo/trained", "--data", text], "no run of 'demo' has finished"),
    ):
        code, _, err = audit(capsys, *arguments, "--workspace", tmp_path)
        assert code == 2, arguments
        assert said in err, arguments
