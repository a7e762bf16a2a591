"""compare-results: the bundled example, lm-eval folders, plain JSONL, saved logs, and what can go wrong."""

import json
import math

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from tutelage.cli.compare_results import compare_results_command
from tutelage.core.errors import ComparisonError, ConfigError, InputError
from tutelage.core.items import ItemLog
from tutelage.core.results_import import direction_of, import_results
from tutelage.runs.compare_results import EXAMPLE, compare_results

MUTATIONS = [
    (
        "src/tutelage/core/results_import.py",
        "-log_likelihood / (ROLLING[metric] * count)",
        "-log_likelihood / count",
    ),
    (
        "src/tutelage/core/results_import.py",
        'for name in ("doc_hash", "target_hash")',
        'for name in ("doc_id", "target_hash")',
    ),
    ("src/tutelage/runs/compare_results.py", "direction=direction, intersect", "direction=1, intersect"),
    ("src/tutelage/runs/compare_results.py", "primary=list(comparisons)", "primary=[]"),
]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def cli(*arguments):
    app = typer.Typer()
    app.command()(compare_results_command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def harness(folder, scores, *, order=None, task="toy", prompt="p", metric="acc", better=True, extra=None):
    """A folder as lm-eval writes it: one document per score, in any order."""
    rows = []
    for doc_id, i in enumerate(order or range(len(scores))):
        rows.append(
            {
                "doc_id": doc_id,
                "doc": {"question": f"q{i}", "meta": {"topic": f"t{i // 5}"}},
                "target": str(i),
                "arguments": {},
                "resps": [["x"]],
                "filtered_resps": ["[invalid]" if i == 0 else "x"],
                "filter": "none",
                "metrics": [metric],
                "doc_hash": f"d{i % 40}",
                "prompt_hash": f"{prompt}{i}",
                "target_hash": f"t{i}",
                metric: scores[i],
                **(extra or {}),
            }
        )
    write(folder / "model" / f"samples_{task}_2025-03-01T10-00-00.123456.jsonl", rows)
    results = {"results": {task: {f"{metric},none": 0.5}}, "higher_is_better": {task: {metric: better}}}
    (folder / "model" / "results_2025-03-01T10-00-00.123456.json").write_text(
        json.dumps(results), encoding="utf-8"
    )
    return folder


def test_the_bundled_example_reproduces_the_published_case():
    report = compare_results(EXAMPLE / "a.jsonl", EXAMPLE / "b.jsonl")
    (entry,) = report.tasks
    assert entry.comparison.n_items == 220
    assert round(entry.comparison.unpaired_p, 3) == 0.080
    assert round(entry.comparison.exact_p, 3) == 0.008
    assert round(entry.comparison.p, 4) == 0.0054
    assert entry.verdict.outcome == "better"
    assert entry.unpaired_reading == "no difference"


def test_command_line_prints_the_verdict_first():
    shown = cli("--example")
    assert shown.exit_code == 0
    assert shown.output.splitlines()[0].startswith("items (correct): A is better, of these runs only")
    for part in ("p = .080, no difference", "exact .008", "+8.2 points", "[+2.3, +13.9]", "8.1 points", "n = 220"):
        assert part in shown.output
    document = json.loads(cli("--example", "--json").stdout)
    assert document["tasks"][0]["verdict"]["outcome"] == "better"
    swapped = cli(EXAMPLE / "b.jsonl", EXAMPLE / "a.jsonl")
    assert "A is worse" in swapped.output


def test_lm_eval_folders_are_paired_by_content_not_by_row(tmp_path):
    rng = np.random.default_rng(0)
    a, b = (rng.random((2, 100)) < [[0.8], [0.5]]).astype(float)
    report = compare_results(
        harness(tmp_path / "a", a.tolist()),
        harness(tmp_path / "b", b.tolist(), order=rng.permutation(100).tolist()),
    )
    (entry,) = report.tasks
    components = entry.comparison.components
    assert (components["better"], components["worse"]) == (((a > b).sum()), ((b > a).sum()))
    assert (entry.task, entry.metric) == ("toy", "acc")
    assert entry.verdict.outcome == "better"
    assert report.notes == ()
    other_prompt = compare_results(tmp_path / "a", harness(tmp_path / "c", b.tolist(), prompt="other"))
    assert "same prompts" in other_prompt.notes[0]


def test_lm_eval_statuses_clusters_and_metric_direction(tmp_path):
    logs = import_results(harness(tmp_path / "a", [0.25, 0.5] * 20, metric="mse", better=False), "meta.topic")
    log = logs["toy", "mse"]
    assert log.metadata["direction"] == -1
    assert log.status_counts == {"ok": 39, "unparsed": 1}
    assert len(set(log.matrix().clusters)) == 8
    harness(tmp_path / "b", [0.5, 0.9] * 20, metric="mse", better=False)
    report = compare_results(tmp_path / "a", tmp_path / "b", cluster="meta.topic")
    assert report.tasks[0].comparison.estimate > 0
    assert report.tasks[0].comparison.n_clusters == 8
    with pytest.raises(InputError, match="no field 'chapter'"):
        import_results(tmp_path / "a", "chapter")


def test_rolling_likelihoods_become_ratios(tmp_path):
    counts = [100, 300, 50]
    pairs = [[-90.0, counts[0]], [-250.0, counts[1]], [-60.0, counts[2]]]
    log = import_results(harness(tmp_path / "a", pairs, metric="bits_per_byte", better=False))[
        "toy", "bits_per_byte"
    ]
    from tutelage.core.stats.intervals import summarise

    assert summarise(log).estimate == pytest.approx(400 / 450 / math.log(2))
    assert log.metadata["direction"] == -1


def test_several_tasks_are_one_family(tmp_path):
    rng = np.random.default_rng(1)
    for side, chance in (("a", 0.62), ("b", 0.5)):
        for task in ("one", "two", "three"):
            scores = (rng.random(150) < chance).astype(float).tolist()
            write(
                tmp_path / side / f"{task}.jsonl",
                [{"id": i, "acc": s, "acc_norm": s} for i, s in enumerate(scores)],
            )
    write(tmp_path / "a" / "only.jsonl", [{"id": 1, "acc": 1.0}])
    report = compare_results(tmp_path / "a", tmp_path / "b")
    assert [entry.task for entry in report.tasks] == ["one", "three", "two"]
    raw = sorted(entry.comparison.p for entry in report.tasks)
    adjusted = sorted(entry.verdict.adjusted_p for entry in report.tasks)
    assert adjusted[0] == pytest.approx(min(1.0, 3 * raw[0]))
    assert {entry.verdict.family for entry in report.tasks} == {"primary"}
    assert report.tasks[0].metric == "acc_norm"
    assert report.tasks[0].other_metrics == ("acc",)
    assert report.notes == ("only: only one side has it",)
    assert compare_results(tmp_path / "a", tmp_path / "b", metric="acc").tasks[0].metric == "acc"
    shown = cli(tmp_path / "a", tmp_path / "b")
    assert "after Holm over the tasks" in shown.output
    assert "98.33 % interval" in shown.output


def test_seed_folders_and_seed_columns_are_runs(tmp_path):
    rng = np.random.default_rng(2)
    for side, shift in (("a", 0.4), ("b", 0.0)):
        for seed in range(3):
            rows = [{"id": i, "score": shift + rng.normal(0, 0.5)} for i in range(60)]
            write(tmp_path / side / f"seed{seed}" / "task.jsonl", rows)
    entry = compare_results(tmp_path / "a", tmp_path / "b").tasks[0]
    assert (entry.comparison.n_seeds, entry.comparison.scope) == (3, "method")
    assert entry.verdict.text == "better"
    rows = [{"id": i, "seed": s, "score": rng.normal()} for s in range(4) for i in range(9)]
    assert import_results(write(tmp_path / "c.jsonl", rows))["items", "score"].seeds == (0, 1, 2, 3)


def test_saved_logs_margin_and_bits_per_byte(tmp_path):
    rng = np.random.default_rng(3)
    size = rng.integers(100, 900, 80).astype(float)
    base = rng.normal(1.0, 0.2, 80)
    for side, shift in (("a", -0.1), ("b", 0.0)):
        rows = [
            {"item_key": str(i), "score": base[i] + shift + rng.normal(0, 0.05), "weight": size[i]}
            for i in range(80)
        ]
        metadata = {"task": "held-out", "metric": "bits_per_byte", "direction": -1}
        ItemLog.from_rows(rows, metadata).save(tmp_path / f"{side}.parquet")
    report = compare_results(tmp_path / "a.parquet", tmp_path / "b.parquet", margin=0.05)
    (entry,) = report.tasks
    assert (entry.task, entry.metric, entry.comparison.metric_kind) == ("held-out", "bits_per_byte", "ratio")
    assert entry.verdict.outcome == "better"
    assert entry.verdict.planted_power > 0.8
    assert "positive: A is lower" in cli(tmp_path / "a.parquet", tmp_path / "b.parquet").output


def test_missing_items_are_refused_unless_intersected(tmp_path):
    rows = [{"id": i, "correct": i % 3 == 0} for i in range(50)]
    a, b = write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", rows[4:])
    with pytest.raises(ComparisonError, match="4 of 50 in A only"):
        compare_results(a, b)
    assert compare_results(a, b, intersect=True).tasks[0].comparison.n_items == 46
    assert "shared items only, 4 of A" in cli(a, b, "--intersect").output


def test_direction_by_name():
    names = ("bits_per_byte", "word_perplexity", "eval_loss", "wer", "brier_score", "rmse", "nll")
    assert all(direction_of(name) == -1 for name in names)
    assert all(direction_of(name) == 1 for name in ("acc", "exact_match", "f1", "mirror", "answer", "power"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b'{"id": 1, "score": 1}\n{"id": 2, "sc', "line 2"),
        (b'{"id": 1, "score": "\xff"}\n', "not UTF-8"),
        (b"[1, 2]\n", "not a JSON object"),
        (b'{"score": 1}\n', "row numbers cannot pair"),
        (b'{"id": 1, "answer": "x"}\n', "no column of scores"),
        (b'{"id": 1, "score": 1}\n{"id": 1, "score": 0}\n', "twice"),
        (b'{"id": 1, "score": 1}\n{"id": 2, "score": NaN}\n', "line 2"),
        (b'{"id": 1, "score": 1}\n{"id": 2, "score": "high"}\n', "not a finite number"),
        (b'{"id": 1, "score": 1}\n{"score": 0}\n', "lacks its id"),
    ],
)
def test_bad_files_name_their_place(tmp_path, content, said):
    path = tmp_path / "scores.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        import_results(path)
    assert "scores.jsonl" in str(caught.value) or said == "twice"


def test_a_byte_order_mark_is_no_problem(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": 1, "score": 1}\n\n{"id": 2, "score": 0}\n')
    assert len(import_results(path)["items", "score"]) == 2


def test_bad_paths_and_options(tmp_path):
    with pytest.raises(InputError, match="no such results"):
        import_results(tmp_path / "nowhere")
    with pytest.raises(InputError, match="nothing to read"):
        import_results(tmp_path)
    with pytest.raises(InputError, match="unknown kind"):
        import_results(write(tmp_path / "x.csv", [{}]))
    a = write(tmp_path / "a.jsonl", [{"id": 1, "acc": 1}, {"id": 2, "acc": 0}])
    b = write(tmp_path / "b.jsonl", [{"id": 1, "loss": 1.5}, {"id": 2, "loss": 0.5}])
    with pytest.raises(ComparisonError, match="share no task"):
        compare_results(a, b)
    with pytest.raises(ComparisonError, match="did you mean acc"):
        compare_results(a, a, metric="accc")
    for arguments in ((), (a,), (a, b, "--example"), ("--example", "--margin", "-1")):
        assert isinstance(cli(*arguments).exception, ConfigError)


def test_control_characters_in_names_do_not_reach_the_terminal(tmp_path):
    rows = [{"id": i, "score": float(i % 2), "task": "evil\x1b[31m[red]"} for i in range(20)]
    shown = cli(write(tmp_path / "a.jsonl", rows), tmp_path / "a.jsonl")
    assert "\x1b" not in shown.output
    assert "[red]" in shown.output
