"""The page of a real small comparison says what the ledger says: verdicts, arms, costs, rows, samples."""

import json
from collections import Counter
from html.parser import HTMLParser

import pytest

from toy.labelled import labelled
from tutelage.core.errors import InputError, TutelageError
from tutelage.core.store import Store
from tutelage.models.toy import tiny_causal_lm
from tutelage.report.build import build_view
from tutelage.report.plots import item_differences, learning_curves, loss_curves, round_curves
from tutelage.report.render import render
from tutelage.report.tables import training_rows
from tutelage.runs import Recipe, run
from tutelage.runs.ledger import Ledger
from tutelage.runs.payload import load_fit
from tutelage.training.objectives.sft import Sft

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    rows = [
        {
            "id": f"d{i}",
            "text": " ".join(WORDS[(i * 3 + j * j) % 8] for j in range(12)) + f" {i}",
            "n_tokens": 20,
            "kind": "a" if i % 5 else "b",
            "group": f"g{i % 6}",
            "score": float(i % 7),
        }
        for i in range(40)
    ]
    for name, chosen in (("pool", rows[:30]), ("held", rows[30:])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    tiny_causal_lm(texts=[row["text"] for row in rows]).save(folder / "model")
    recipe = Recipe(
        name="small",
        sources={"pool": {"path": "pool.jsonl"}, "held": {"path": "held.jsonl"}},
        models={"base": {"load": "model"}},
        steps=[
            {"name": "clean", "use": "data.filter.where", "from": "pool", "column": "kind", "equals": "a"},
            {"name": "chosen", "use": "data.select.random", "from": "clean", "budget": {"rows": 8}},
            {"name": "trained", "use": "training.fit", "model": "base", "from": "chosen", "step_tokens": 64},
            {"name": "loss", "use": "evaluation.bits_per_byte", "from": "held", "model": "trained"},
            {
                "name": "follows",
                "use": "evaluation.instruction_following",
                "model": "trained",
                "max_new_tokens": 3,
            },
        ],
        arms={
            "base": {"loss": {"model": "base"}, "follows": {"model": "base"}},
            "random": {},
            "scored": {
                "chosen": {
                    "use": "data.select.top_k",
                    "column": "score",
                    "direction": "higher",
                    "budget": {"rows": 8},
                },
                "trained": {
                    "evaluators": {"held": {"use": "evaluation.bits_per_byte", "from": "held"}},
                    "evaluate_at": [0.25, 0.5, 1.0],
                },
            },
        },
        compare={
            "baseline": "random",
            "metric_step": "loss",
            "also": ["follows"],
            "at": "equal_tokens",
            "budget": {"tokens": 256},
            "seeds": [0, 1, 2],
        },
        gates=[{"name": "no harm", "step": "loss", "arm": "scored", "against": "base", "no_harm": 100.0}],
    ).placed(folder)
    run(recipe, folder)
    return folder


def test_every_declared_pair_arm_and_gate_is_on_the_page(workspace):
    ledger = Ledger(workspace).run("latest")
    page = render(build_view(workspace))
    for pair in ledger["comparison"]["pairs"]:
        assert f"{pair['a']} against {pair['b']}" in page
        assert f"{pair['comparison']['estimate']:+.4f}" in page
        assert pair["verdict"]["outcome"] in page
    for arm in ledger["comparison"]["arms"]:
        assert f"{arm['results']['loss']['estimate']:.4f}" in page
    assert ledger["declared"]["hash"] in page
    assert "Gate no harm [scored]: passed" in page
    assert "What clean removed" in page and "6 of 30 rows" in page
    assert "tutelage chat .tutelage/store" in page
    assert str(workspace) not in page, "a report is shown to others: no path of this machine"


def test_differences_are_those_of_the_verdict(workspace):
    table = Ledger(workspace).run("latest")["comparison"]
    pair = next(p for p in table["pairs"] if p["primary"] and p["step"] == "loss")
    store = Store(workspace / ".tutelage" / "store")
    differences = item_differences(table, pair, store)
    assert len(differences) == pair["comparison"]["n_items"] == 10
    # All held-out texts have nearly equal lengths, so the plain mean is near the ratio estimate, and signs agree.
    assert sum(differences) / 10 == pytest.approx(pair["comparison"]["estimate"], abs=0.02)


def test_one_loss_curve_for_each_trained_arm(workspace):
    ledger = Ledger(workspace).run("latest")
    curves = loss_curves(ledger, Store(workspace / ".tutelage" / "store"))
    assert sorted(curve.label for curve in curves) == ["random", "scored"]
    assert all(len(curve.x) == len(curve.y) > 1 and list(curve.x) == sorted(curve.x) for curve in curves)


def test_a_learning_curve_where_training_was_measured_on_the_way(workspace):
    ledger = Ledger(workspace).run("latest")
    store = Store(workspace / ".tutelage" / "store")
    found = learning_curves(ledger, store)
    assert list(found) == ["held/bits_per_byte"]
    (curve,) = found["held/bits_per_byte"]
    step = next(s for s in ledger["steps"] if s["arm"] == "scored" and s["step"] == "trained")
    history = load_fit(store.get(step["key"]).path)["history"]
    assert curve.label == "scored" and curve.x == [entry["tokens"] for entry in history]
    assert curve.y == [entry["held/bits_per_byte"] for entry in history] and len(curve.y) == 3
    assert "While training: held/bits_per_byte" in render(build_view(workspace))


def test_samples_of_the_same_prompt_stand_together(workspace):
    view = build_view(workspace)
    assert view.samples
    for _, answers in view.samples:
        assert [answer.title.split(":")[0] for answer in answers] == ["base", "random", "scored"]


def test_rows_cut_and_dropped_in_training_are_counted_for_each_arm(tmp_path, monkeypatch):
    """Of four pairs one answer is cut, and one gives the objective nothing; another arm has whole ones."""
    encode = Sft.encode
    monkeypatch.setattr(
        Sft, "encode", lambda self, row, *rest: [] if row["id"] == "void" else encode(self, row, *rest)
    )
    word = "alpha beta gamma delta "
    pairs = [
        {"id": "whole", "prompt": "say", "completion": "alpha"},
        {"id": "also", "prompt": "say", "completion": "beta"},
        {"id": "cut", "prompt": "say", "completion": word * 20},
        {"id": "void", "prompt": "say", "completion": "gamma"},
    ]
    for name, rows in (("pairs", pairs), ("short", pairs[:2]), ("held", [{"text": "alpha beta", "id": "h"}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tiny_causal_lm(texts=[word]).save(tmp_path / "model")
    fit = {"use": "training.fit", "model": "base", "objective": {"use": "training.objectives.sft"}}
    recipe = Recipe(
        name="cuts",
        sources={name: {"path": f"{name}.jsonl"} for name in ("pairs", "short", "held")},
        models={"base": {"load": "model"}},
        steps=[
            {"name": "trained", **fit, "from": "pairs", "max_length": 24, "step_tokens": 16},
            {"name": "loss", "use": "evaluation.bits_per_byte", "from": "held", "model": "trained"},
        ],
        arms={"long": {}, "short": {"trained": {"from": "short"}}},
        compare={
            "baseline": "short",
            "at": "equal_tokens",
            "budget": {"tokens": 96},
            "seeds": [0, 1],
        },
    ).placed(tmp_path)
    run(recipe, tmp_path)
    (table,) = training_rows(Ledger(tmp_path).run())
    fits = {"long": Counter(), "short": Counter()}
    for step in Ledger(tmp_path).run()["steps"]:
        if step["kind"] == "Trainer":
            artifact = Store(tmp_path / ".tutelage" / "store").get(step["key"])
            fits[step["arm"]].update({key: n for key, n in load_fit(artifact.path).items() if "rows" in key})
    found = {row[0]: row[1:] for row in table.rows}
    page = render(build_view(tmp_path))
    assert "Rows in training" in page
    for arm, fit in fits.items():
        cut, left_out, trained = fit["truncated_rows"], fit["dropped_rows"], fit["rows"]
        assert found[arm][:2] == [2, trained]
        if arm == "short":
            assert (cut, left_out) == (0, 0) and found[arm][2:] == ["0", "0"]
            continue
        assert cut > 0 and left_out > 0
        assert f"<td>{cut} ({100 * cut / trained:.1f}%)</td>" in page
        assert f"<td>{left_out} ({100 * left_out / (trained + left_out):.1f}%)</td>" in page


def test_labels_that_are_doubted_are_told_with_what_they_were_judged_to_be(tmp_path):
    rows = list(labelled(20, noise=0.2).rows())
    rows[4]["label"] = "tools"
    unlabelled = {"id": "open", "text": "cat and dog", "label": None}
    written = "".join(json.dumps(row) + "\n" for row in [*rows, unlabelled])
    (tmp_path / "rows.jsonl").write_text(written, encoding="utf-8")
    recipe = Recipe(
        name="doubts",
        sources={"rows": {"path": "rows.jsonl"}},
        steps=[{"name": "checked", "use": "signals.label_errors", "from": "rows", "least_confidence": 0.5}],
    )
    run(recipe.placed(tmp_path), tmp_path)
    titles, examples = zip(*build_view(tmp_path).examples)
    assert titles == ("Labels to look at again (1 of 40 labelled rows)",)
    (told,) = examples[0]
    assert told.title == rows[4]["id"] and told.body == rows[4]["text"]
    assert told.reason.startswith("label tools; judged animals (0.") and told.reason.endswith("in 1 of 1 checks")


PAYLOAD = (
    "pwn5d1f\"'><script>alert(1)</script><img src=x onerror=alert(1)></pre><svg onload=alert(1)>"
    "{{ 7777*9 }}\x1b[2J"
)


def renamed(value, texts):
    """The value with `PAYLOAD` behind every text of `texts`, wherever it stands, names of keys included."""
    if isinstance(value, dict):
        return {renamed(key, texts): renamed(item, texts) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, texts) for item in value]
    return value + PAYLOAD if isinstance(value, str) and value in texts else value


def texts_of(value):
    if isinstance(value, dict):
        return {text for item in value.values() for text in texts_of(item)}
    if isinstance(value, list):
        return {text for item in value for text in texts_of(item)}
    return {value} if isinstance(value, str) else set()


class Tags(HTMLParser):
    """Every element with its attributes."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_no_text_of_the_ledger_becomes_an_element_or_attribute(workspace, monkeypatch):
    """Every text that the ledger holds, renamed wherever it stands: names, reasons, errors, versions, units."""
    plain = Tags()
    plain.feed(render(build_view(workspace)))
    elements = {(tag, tuple(sorted(attributes))) for tag, attributes in plain.found}
    run = {**Ledger(workspace).run(), "error": None}
    failed = {**run, "comparison": None, "error": {"what": "it broke", "where": "here", "found": "that"}}
    shown = unread = 0
    for found in (run, failed):
        texts = sorted(texts_of(found))
        groups = [texts[start : start + 12] for start in range(0, len(texts), 12)]
        while groups:
            group = groups.pop()
            monkeypatch.setattr(Ledger, "run", lambda self, run_id, g=group, f=found: renamed(f, set(g)))
            try:
                page = render(build_view(workspace))
            except (KeyError, ValueError, TypeError, AttributeError, TutelageError):
                # A name that is looked up in files or code: nothing is shown then.
                unread += len(group) == 1
                groups += [[one] for one in group] if len(group) > 1 else []
                continue
            shown += PAYLOAD[:7] in page
            tags = Tags()
            tags.feed(page)
            shapes = {(tag, tuple(sorted(attributes))) for tag, attributes in tags.found}
            assert shapes <= elements, group
            assert not [tag for tag, attributes in tags.found if PAYLOAD[:7] in str(attributes)], group
            assert "\x1b" not in page and "69993" not in page
            assert "default-src 'none'; style-src 'sha256-" in page
    assert shown > 20 and unread < 60, "most texts are shown, and none of them acts"


def test_an_unknown_run_is_named(workspace, tmp_path):
    with pytest.raises(InputError, match="there is no run 'nonsense'"):
        build_view(workspace, "nonsense")
    with pytest.raises(InputError, match="no ledger"):
        build_view(tmp_path)


MUTATIONS = [
    ("src/tutelage/report/examples.py", 'if row["label_suspect"] is None:', "if False:"),
    ("src/tutelage/report/tables.py", "    found += training_rows(run)\n", ""),
    ("src/tutelage/report/tables.py", "part(dropped, trained + dropped)", "part(dropped, trained)"),
    ("src/tutelage/report/plots.py", "if len(rounds) > 1:", "if True:"),
    ("src/tutelage/runs/compute.py", '("rows", "truncated_rows", "dropped_rows")', '("rows", "truncated_rows")'),
]


def test_rounds_are_means_over_seeds_one_line_per_arm():
    def entry(arm, seed, number, estimate):
        return {
            "arm": arm,
            "seed": seed,
            "round": number,
            "step": "acc",
            "result": {"metric": "accuracy", "estimate": estimate},
        }

    results = [entry("a", 0, 0, 0.5), entry("a", 1, 0, 0.7), entry("a", 0, 1, 0.8), entry("a", 1, 1, 0.9)]
    results += [entry("once", 0, 0, 0.3), entry("a (search)", 0, 0, 0.0), entry("a (search)", 0, 1, 0.0)]
    found = round_curves({"results": results})
    assert list(found) == ["acc accuracy"]
    (line,) = found["acc accuracy"]
    assert (line.label, line.x) == ("a", [1.0, 2.0]) and line.y == pytest.approx([0.6, 0.85])
