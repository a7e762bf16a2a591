"""core.labelling.journal: what was saved is there after any kill, what was cut off was never saved, one writer."""

import errno
import json
import os

import pytest

from tutelage.core.errors import InputError, StoreError
from tutelage.core.labelling import journal as module
from tutelage.core.labelling.journal import Journal, read_answers, text_mark

MUTATIONS = [
    ("src/tutelage/core/labelling/journal.py", "os.ftruncate(self._handle, good)", "pass"),
    ("src/tutelage/core/labelling/journal.py", "os.ftruncate(self._handle, before)", "pass"),
    (
        "src/tutelage/core/labelling/journal.py",
        "            os.fsync(self._handle)\n        except OSError",
        "        except OSError",
    ),
    ("src/tutelage/core/labelling/journal.py", "self._lock.acquire(timeout=0)", "pass"),
    ("src/tutelage/core/labelling/journal.py", "number == last and _cut_off(line, error)", "number == last"),
    ("src/tutelage/core/labelling/journal.py", "self._of_item[gone.id][gone.annotator].remove(gone)", "pass"),
    ("src/tutelage/core/labelling/journal.py", "if not ended:", "if ended:"),
]


def given(item, label, annotator="ann", **facts):
    return {"event": "answer", "id": item, "annotator": annotator, "label": label, **facts}


@pytest.fixture
def file(tmp_path):
    with Journal(tmp_path / "answers.jsonl") as journal:
        journal.append(given("a", "x", seconds=1.25, text=text_mark("A")))
        journal.append(given("b", "y"))
    return tmp_path / "answers.jsonl"


def labels(file, annotator="ann"):
    answers = read_answers(file)
    return {item: answers.given(item, annotator).label for item in answers.items()}


def test_lines_are_events_in_order(file):
    first, second = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert (first["seq"], first["event"], first["id"], first["label"], first["seconds"]) == (
        1,
        "answer",
        "a",
        "x",
        1.25,
    )
    assert first["at"].startswith("20") and first["at"].endswith("+00:00") and second["seq"] == 2
    assert labels(file) == {"a": "x", "b": "y"}
    assert read_answers(file.with_name("none.jsonl")).items() == []


def test_undo_to_any_depth_restores_what_was_before(file):
    with Journal(file) as journal:
        journal.append(given("a", "z"))
        journal.append({"event": "skip", "id": "b", "annotator": "ann"})
        journal.append(given("a", "q", "bob"))
        for expected in [("z", "y"), ("x", "y"), ("x", None), (None, None)]:
            last = journal.answers.standing("ann")[-1]
            journal.append({"event": "undo", "id": last.id, "annotator": "ann", "undoes": last.seq})
            found = [journal.answers.given(item, "ann") for item in "ab"]
            assert tuple(event and event.label for event in found) == expected
        assert journal.answers.standing("ann") == [] and journal.answers.annotators == ["bob"]
    assert labels(file, "bob") == {"a": "q"}
    assert len(file.read_text(encoding="utf-8").splitlines()) == 9, "an undo is a further line"


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_line_that_was_cut_off_is_removed_and_the_rest_stays(file, cut):
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"seq":3,"event":"answer","id":"c","annotator":"ann","label":"x"}'[:cut])
    assert labels(file) == {"a": "x", "b": "y"}, "a reader passes over it"
    with Journal(file) as journal:
        assert journal.torn == cut and file.read_bytes() == whole
        journal.append(given("c", "x"))
    assert labels(file) == {"a": "x", "b": "y", "c": "x"}


def test_zeros_of_a_system_that_went_down_are_removed(file):
    whole = file.read_bytes()
    file.write_bytes(whole + b"\0" * 30 + b'"label":"x"}\n')
    with Journal(file) as journal:
        assert journal.torn == 43
    assert file.read_bytes() == whole


def test_a_whole_line_without_its_end_counts(file):
    file.write_bytes(file.read_bytes()[:-1])
    with Journal(file) as journal:
        assert journal.torn == 0
        journal.append(given("c", "x"))
    assert labels(file) == {"a": "x", "b": "y", "c": "x"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("text,label\n", 1),
        ('{"text": "one row of something else"}\n', 1),
        ('{"seq":1,"event":"answer","id":"a","annotator":"n","label":"x"}\n{"seq":2,"ev\n{"seq":3}\n', 2),
        ('{"seq":2,"event":"answer","id":"a","annotator":"n","label":"x"}\n', 1),
        ('{"seq":1,"event":"undo","id":"a","annotator":"n","undoes":1}\n', 1),
        ('{"seq":1,"event":"answer","id":"a","annotator":"n"}\n', 1),
        ('{"seq":1,"event":"answer","id":"a","annotator":"n","label":"x","more":1}\n', 1),
    ],
)
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, text, line):
    file = tmp_path / "rows.jsonl"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="line of the answers is broken") as caught:
        Journal(file)
    assert caught.value.where.endswith(f"rows.jsonl, line {line}")
    assert file.read_text(encoding="utf-8") == text
    file.unlink()
    Journal(file).close()  # the lock was given back


def test_a_second_writer_is_refused(file):
    with Journal(file), pytest.raises(StoreError, match="another process is writing these answers") as caught:
        Journal(file.parent / "." / file.name)
    assert "--out" in caught.value.remedy
    Journal(file).close()


def test_it_is_on_the_disk_before_it_is_told(file, monkeypatch):
    flushed = []
    monkeypatch.setattr(module.os, "fsync", lambda handle: flushed.append(os.fstat(handle).st_size))
    with Journal(file) as journal:
        flushed.clear()
        journal.append(given("c", "x"))
        assert flushed == [file.stat().st_size]


@pytest.mark.parametrize("failure", ["write", "part", "fsync"])
def test_a_full_disk_leaves_the_file_as_it_was(file, monkeypatch, failure):
    before = file.read_bytes()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(*_):
        raise full

    real = os.write
    with Journal(file) as journal:
        with monkeypatch.context() as patch:
            if failure == "part":
                patch.setattr(module.os, "write", lambda handle, line: real(handle, line[:10]))
            else:
                patch.setattr(module.os, failure, fail)
            with pytest.raises(StoreError, match="could not be written"):
                journal.append(given("c", "x"))
        assert file.read_bytes() == before and journal.answers.given("c", "ann") is None
        assert journal.append(given("c", "x")).seq == 3
    assert labels(file) == {"a": "x", "b": "y", "c": "x"}


def test_a_closed_journal_writes_nothing(file):
    with Journal(file) as journal:
        pass
    before = file.read_bytes()
    with pytest.raises(StoreError, match="could not be written"):
        journal.append(given("c", "x"))
    assert file.read_bytes() == before


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="could not be written"):
        Journal(tmp_path / "file" / "answers.jsonl")
