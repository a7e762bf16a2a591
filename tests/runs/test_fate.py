"""`tutelage why` follows a document through a real run: into chunks, to a score, a reason, an optimiser step."""

import json

import pytest

from tutelage.core.errors import InputError
from tutelage.core.store import Store
from tutelage.models.toy import tiny_causal_lm
from tutelage.runs import Recipe, run
from tutelage.runs.fate import fate
from tutelage.runs.ledger import Ledger

MUTATIONS = [
    ("src/tutelage/runs/fate.py", "own |= set(made)", "pass"),
    ("src/tutelage/runs/fate.py", 'dataset.report.get("last_score_taken")', "None"),
    ("src/tutelage/runs/fate.py", "sorted(own | above)))\n    places", "sorted(own)))\n    places"),
]
LONG = "Alpha beta gamma delta. " * 12 + "\n\n" + "Epsilon zeta eta theta. " * 12


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fate")
    rows = [{"id": "long", "text": LONG}, {"id": "copy", "text": LONG}]
    rows += [{"id": f"short{i}", "text": f"One of a few short rows, number {i}."} for i in range(4)]
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tiny_causal_lm(texts=[LONG]).save(folder / "model")
    top = {"use": "data.select.top_k", "column": "n_characters", "direction": "higher", "budget": {"rows": 2}}
    recipe = Recipe(
        name="fate",
        sources={"pool": {"path": "pool.jsonl"}},
        models={"base": {"load": "model"}},
        steps=[
            {"name": "unique", "use": "data.dedup.exact", "from": "pool"},
            {"name": "chunks", "use": "data.recipes.text_chunks", "from": "unique", "characters": 300},
            {"name": "sized", "use": "signals.length", "from": "chunks"},
            {"name": "chosen", "from": "sized", **top},
            {"name": "trained", "use": "training.fit", "model": "base", "from": "chosen", "step_tokens": 64},
        ],
    )
    run(recipe.placed(folder), folder)
    return folder


def events(workspace, row_id):
    return fate(Ledger(workspace).run("latest"), Store(workspace / ".tutelage" / "store"), row_id)


def told(workspace, row_id):
    return [(event.step, event.outcome, event.rows) for event in events(workspace, row_id)]


def test_a_document_is_followed_into_its_chunks_and_the_training(workspace):
    kept = min("copy", "long")
    assert told(workspace, kept) == [
        ("pool", "kept", 1),
        ("unique", "kept", 1),
        ("chunks", "made into", 2),
        ("sized", "scored", 2),
        ("chosen", "kept", 2),
        ("trained", "trained on", 2),
    ]
    last = events(workspace, kept)[-1]
    assert set(last.ids) == {f"{kept}#1", f"{kept}#2"} and "optimiser step 0" in last.details[0]


def test_a_dropped_row_says_where_and_why(workspace):
    copy = events(workspace, max("copy", "long"))
    assert [(e.step, e.outcome) for e in copy] == [("pool", "kept"), ("unique", "dropped")]
    assert copy[-1].details == ("long: duplicate of copy",)
    short = events(workspace, "short0")[-1]
    assert (short.step, short.outcome) == ("chosen", "dropped")
    size = {e.step: e for e in events(workspace, "copy")}["chosen"].ids
    assert "n_characters" in short.details[0] and "the last one taken has" in short.details[0] and len(size) == 2


def test_a_chunk_also_shows_what_happened_to_its_document(workspace):
    found = told(workspace, "copy#2")
    assert found[:3] == [("pool", "kept", 1), ("unique", "kept", 1), ("chunks", "kept", 1)]
    assert found[-1] == ("trained", "trained on", 1)


def test_a_row_that_never_was_is_an_error(workspace):
    with pytest.raises(InputError, match="no row 'nobody'") as error:
        events(workspace, "nobody")
    assert "tutelage search" in str(error.value)


def test_the_command_line_tells_it(workspace, capsys):
    from tutelage.cli.main import run as cli

    with pytest.raises(SystemExit) as done:
        cli(["why", "short0", "--workspace", str(workspace)])
    printed = capsys.readouterr().out
    assert done.value.code in (0, None) and "chosen: dropped" in printed and "not selected" in printed
    with pytest.raises(SystemExit):
        cli(["why", "short0", "--workspace", str(workspace), "--json"])
    assert json.loads(capsys.readouterr().out)["events"][-1]["outcome"] == "dropped"
