"""The ledger: read by anyone at any time, and never silent about what it cannot do."""

import sqlite3
import threading

import pytest

from tutelage.core.errors import InputError, StoreError
from tutelage.runs import Ledger

MUTATIONS = [
    ("src/tutelage/runs/ledger.py", "CREATE INDEX IF NOT EXISTS results_by_run ON results (run_id);\n", ""),
    ("src/tutelage/runs/ledger.py", "_json(recipe)\n", "_json(recipe, sort_keys=True)\n"),
    ("src/tutelage/runs/ledger.py", "if recorded is not None and recorded != _sum(found.values()):", "if False:"),
    ("src/tutelage/runs/ledger.py", 'if found != "ok":', "if False:"),
    ("src/tutelage/runs/ledger.py", "BEGIN IMMEDIATE;{_SCHEMA}COMMIT;", "{_SCHEMA}"),
    (
        "src/tutelage/runs/ledger.py",
        'db.execute("INSERT OR IGNORE INTO needed VALUES (?,?)", (run_id, key))',
        "pass",
    ),
]
STEP = {
    "step": "a",
    "method": "m",
    "kind": "Task",
    "key": "k",
    "content": "c",
    "cached": False,
    "as_if": {"seconds": 1.0},
    "paid": {},
}


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path)
    made.start("one", {"name": "x"}, {"folder": "."}, {}, {"python": "3"})
    return made


def test_start_again_keeps_the_start_and_drops_what_is_redone(ledger):
    ledger.step("one", STEP)
    started = ledger.run("one")["started"]
    ledger.finish("one", "interrupted", {"what": "stopped"})
    assert ledger.run("one")["error"] == {"what": "stopped"}
    ledger.start("one", {"name": "x"}, {"folder": "."}, {}, {})
    found = ledger.run("one")
    assert found["started"] == started and found["steps"] == [] and found["status"] == "running"


def test_latest_and_beginnings_of_ids(ledger):
    ledger.start("other", {"name": "y"}, {}, {}, {})
    assert ledger.run()["run_id"] == "other"
    assert ledger.run("on")["run_id"] == "one"
    ledger.start("one-more", {"name": "z"}, {}, {}, {})
    assert ledger.run("one")["name"] == "x", "a whole id wins over a beginning"
    with pytest.raises(InputError, match="several"):
        ledger.run("o")
    with pytest.raises(InputError, match="no run"):
        ledger.run("zzz")
    assert [run["run_id"] for run in ledger.runs()] == ["one-more", "other", "one"]


def test_history_is_what_was_computed(ledger):
    ledger.step("one", {**STEP, "seconds": 2.0, "rows_in": 4})
    ledger.step("one", {**STEP, "seconds": 0.1, "cached": True})
    assert [(entry["seconds"], entry["rows_in"], entry["as_if"]) for entry in ledger.history("m")] == [
        (2.0, 4, {"seconds": 1.0})
    ]
    assert ledger.history("unknown") == []


def test_keys_of_runs_with_what_they_need(ledger):
    ledger.step("one", {**STEP, "facts": {"needs": ["up"]}})
    ledger.start("two", {"name": "x"}, {}, {}, {})
    ledger.step("two", {**STEP, "key": "other"})
    assert ledger.keys() == {"k", "up", "other"}
    assert ledger.keys(["one"]) == {"k", "up"}


def test_readers_and_a_writer_at_the_same_time(ledger):
    problems = []

    def read():
        try:
            for _ in range(30):
                Ledger(ledger.workspace).run("one")
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(30):
        ledger.step("one", {**STEP, "key": str(number)})
    for thread in threads:
        thread.join()
    assert problems == [] and len(ledger.run("one")["steps"]) == 30


def test_no_ledger_and_a_broken_one(tmp_path):
    with pytest.raises(InputError, match="no ledger"):
        Ledger(tmp_path).run()
    assert not (tmp_path / ".tutelage").exists(), "reading creates nothing"
    file = Ledger(tmp_path).file
    file.parent.mkdir()
    file.write_bytes(b"this is not a database, and long enough to be looked at" * 10)
    with pytest.raises(StoreError, match="ledger"):
        Ledger(tmp_path).run()
    with pytest.raises(StoreError, match="ledger"):
        Ledger(tmp_path).start("a", {"name": "x"}, {}, {}, {})


def test_a_recipe_comes_back_in_its_order(ledger):
    """A split fills the parts in the order they are named: what is resumed must be what was started."""
    parts = {"train": 0.7, "held_out": 0.3}
    ledger.start("two", {"name": "x", "steps": [{"parts": parts}]}, {}, {}, {})
    assert list(ledger.run("two")["recipe"]["steps"][0]["parts"]) == ["train", "held_out"]
    ledger.start("three", {"steps": [{"parts": parts}], "name": "x"}, {}, {}, {})
    assert ledger.run("two")["recipe_hash"] == ledger.run("three")["recipe_hash"]


def test_a_changed_entry_is_named_and_the_rest_survives(ledger):
    ledger.start("two", {"name": "y"}, {}, {}, {})
    ledger.step("two", STEP)
    ledger.result("two", {**STEP, "result": {"estimate": 0.75}})
    ledger.finish("two", "passed")
    assert ledger.run("two")["results"][0]["result"] == {"estimate": 0.75}
    with sqlite3.connect(ledger.file) as db:
        db.execute("UPDATE results SET result = replace(result, '0.75', '0.95')")
    with pytest.raises(StoreError, match="entry of the ledger is damaged") as error:
        ledger.run("two")
    assert "run two" in error.value.where and "run the recipe again" in error.value.remedy
    assert ledger.run("one")["name"] == "x"


@pytest.mark.parametrize("table", ["steps", "results", "comparisons", "gates"])
def test_an_entry_that_slips_out_of_its_run_is_missed(ledger, table):
    """A changed bit of a run's id makes an entry nobody's; the others would be read as if they were all."""
    ledger.start("elsewhere", {"name": "x"}, {}, {}, {})
    ledger.step("elsewhere", STEP)
    ledger.result("elsewhere", {**STEP, "result": {"estimate": 0.75}})
    ledger.comparison("elsewhere", {"rows": []})
    ledger.gate("elsewhere", 0, {"met": True})
    ledger.finish("elsewhere", "passed")
    with sqlite3.connect(ledger.file) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    content = bytearray(ledger.file.read_bytes())
    content[content.index(b"elsewhere", (page - 1) * size, page * size)] ^= 1
    ledger.file.write_bytes(content)
    with pytest.raises(StoreError, match="ledger"):
        Ledger(ledger.workspace).run("elsewhere")


def test_a_page_that_does_not_fit_the_others_is_found(ledger):
    """The index says which entries a run has: one that lost an entry would hide it."""
    for _ in range(3):
        ledger.step("one", STEP)
    with sqlite3.connect(ledger.file) as db:
        db.execute("PRAGMA writable_schema = ON")
        page = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_steps_1'").fetchone()[
            0
        ]
        other = db.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_gates_1'"
        ).fetchone()[0]
        size = db.execute("PRAGMA page_size").fetchone()[0]
    db.close()
    content = bytearray(ledger.file.read_bytes())
    content[(page - 1) * size : page * size] = content[(other - 1) * size : other * size]
    ledger.file.write_bytes(bytes(content))
    with pytest.raises(StoreError, match="cannot be read") as error:
        Ledger(ledger.workspace).run("one")
    assert "run the recipe again" in error.value.remedy


def test_tables_are_there_all_or_none(tmp_path, monkeypatch):
    """A process killed while it makes the ledger leaves one in which nothing is recorded."""
    made = Ledger(tmp_path)
    seen = []

    class Killed(Exception):
        pass

    def connect(*given, **options):
        db = real(*given, **options)
        seen.append(db)
        db.set_authorizer(refuse)
        return db

    def refuse(action, first, *_):
        return (
            sqlite3.SQLITE_DENY
            if action == sqlite3.SQLITE_CREATE_TABLE and first == "steps"
            else sqlite3.SQLITE_OK
        )

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(StoreError):
        made.start("one", {"name": "x"}, {}, {}, {})
    monkeypatch.setattr(sqlite3, "connect", real)
    assert seen and Ledger(tmp_path).runs() == [] and Ledger(tmp_path).keys() == set()
    with pytest.raises(InputError, match="no run has been recorded"):
        Ledger(tmp_path).run()
    made.start("one", {"name": "x"}, {}, {}, {})
    assert made.run()["run_id"] == "one"


def test_a_ledger_from_before_entries_had_hashes_goes_on(ledger):
    ledger.step("one", STEP)
    with sqlite3.connect(ledger.file) as db:
        for table in ("runs", "steps", "results", "declarations", "comparisons", "gates"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN check_sum")
        db.execute("DROP TABLE needed")
    again = Ledger(ledger.workspace)
    assert again.run("one")["steps"][0]["key"] == "k" and again.keys() == {"k"}
    again.step("one", {**STEP, "key": "l"})
    again.finish("one", "passed")
    assert [step["key"] for step in again.run("one")["steps"]] == ["k", "l"] and again.run()["status"] == "passed"


def test_what_a_run_made_stays_needed_while_it_is_resumed(ledger):
    ledger.step("one", {**STEP, "facts": {"needs": ["up"]}})
    ledger.start("one", {"name": "x"}, {}, {}, {})
    assert ledger.run("one")["steps"] == [] and ledger.keys() == ledger.keys(["one"]) == {"k", "up"}
    ledger.step("one", {**STEP, "key": "now"})
    ledger.finish("one", "interrupted")
    assert ledger.keys() == {"k", "up", "now"}
    ledger.start("one", {"name": "x"}, {}, {}, {})
    ledger.step("one", {**STEP, "key": "now"})
    ledger.finish("one", "passed")
    assert ledger.keys() == {"now"}
