"""The ledger: read by anyone at any time, and never silent about what it cannot do."""

import threading

import pytest

from tutelage.core.errors import InputError, StoreError
from tutelage.runs import Ledger

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
