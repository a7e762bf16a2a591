"""The store: complete or nothing, one computation per key, and collected without harm."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tutelage.core.errors import StoreError
from tutelage.core.store import MARKER, DamagedArtifact, Store

MUTATIONS = [
    (
        "src/tutelage/core/store.py",
        "        if artifact.key not in self._sound:\n            artifact.verify()",
        "        if True:",
    ),
    ("src/tutelage/core/store.py", 'if marker.get("hash") not in (None, _marker_hash(marker)):', "if False:"),
    ("src/tutelage/core/store.py", "building.replace(final)", "shutil.copytree(building, final)"),
    (
        "src/tutelage/core/store.py",
        "                shutil.rmtree(leftover, ignore_errors=True)\n            building.mkdir",
        "                pass\n            building.mkdir",
    ),
    ("src/tutelage/core/store.py", "            _sync_file(file)\n", ""),
    ("src/tutelage/core/store.py", "                _sync_folder(final.parent)\n", ""),
]
KEY = "ab" * 16
OTHER = "cd" * 16


def write_text(text):
    def write(folder: Path):
        (folder / "sub").mkdir()
        (folder / "sub" / "data.txt").write_text(text, encoding="utf-8")
        (folder / "empty").write_bytes(b"")
        return {"said": text}

    return write


def test_put_then_get(tmp_path):
    store = Store(tmp_path / "store")
    made = store.put(KEY, write_text("hello"), kind="files", meta={"a": 1})
    assert made.path == tmp_path / "store" / "ab" / KEY
    assert store.get(KEY) == made
    assert made.meta == {"a": 1, "said": "hello"}
    assert sorted(made.files) == ["empty", "sub/data.txt"]
    assert made.bytes == 5
    made.verify()
    assert store.get(OTHER) is None
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


def test_a_second_put_computes_nothing(tmp_path):
    store = Store(tmp_path)
    first = store.put(KEY, write_text("one"), kind="files")
    assert store.put(KEY, write_text("two"), kind="files") == first


def test_a_failure_leaves_nothing(tmp_path):
    store = Store(tmp_path)

    def fails(folder):
        (folder / "half").write_text("x")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.put(KEY, fails, kind="files")
    assert store.get(KEY) is None
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_folder_without_a_whole_marker_is_no_artifact(tmp_path):
    store = Store(tmp_path)
    made = store.put(KEY, write_text("hello"), kind="files")
    marker = (made.path / MARKER).read_text()
    for broken in ("", marker[: len(marker) // 2], json.dumps({"format": 99})):
        (made.path / MARKER).write_text(broken)
        assert store.get(KEY) is None
    again = store.put(KEY, write_text("again"), kind="files")
    assert (again.path / "sub" / "data.txt").read_text() == "again"


def test_a_missing_or_short_file_is_no_artifact_and_a_changed_one_is_found_by_verify(tmp_path):
    store = Store(tmp_path)
    made = store.put(KEY, write_text("hello"), kind="files")
    (made.path / "sub" / "data.txt").write_text("jello")
    with pytest.raises(StoreError, match="damaged"):
        store.get(KEY).verify()
    (made.path / "sub" / "data.txt").write_text("hell")
    assert store.get(KEY) is None


def test_what_another_process_wrote_is_read_through_once(tmp_path, monkeypatch):
    made = Store(tmp_path).put(KEY, write_text("hello"), kind="files")
    store = Store(tmp_path)
    assert store.sound(store.get(KEY)) == made
    (made.path / "sub" / "data.txt").write_text("jello")
    assert store.sound(store.get(KEY)) == made, "once is enough"
    with pytest.raises(DamagedArtifact, match="damaged") as error:
        Store(tmp_path).sound(made)
    assert error.value.key == KEY and "data.txt" in str(error.value.where) and str(made.path) in error.value.remedy
    store.discard(KEY)
    store.discard(KEY)
    assert store.get(KEY) is None and not made.path.exists()
    again = store.put(KEY, write_text("again"), kind="files")
    assert store.sound(again).meta == {"said": "again"}


def test_a_marker_that_says_something_else_is_no_marker(tmp_path):
    """What a step cost and gave is in the marker alone."""
    store = Store(tmp_path)
    made = store.put(KEY, write_text("hello"), kind="files", meta={"cost": 125.0})
    marker = made.path / MARKER
    text = marker.read_text()
    marker.write_text(text.replace("125.0", "925.0"))
    assert store.get(KEY) is None
    plain = json.loads(text)
    del plain["hash"]
    marker.write_text(json.dumps(plain))
    assert store.get(KEY) == made, "markers of earlier versions have no hash"


def test_everything_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Files and marker are flushed, then renamed, then the folder that holds the new name is flushed."""
    seen = []
    sync, replace = os.fsync, Path.replace

    def noted(descriptor):
        seen.append(os.fstat(descriptor).st_ino)
        sync(descriptor)

    def renamed(self, target):
        seen.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Path, "replace", renamed)
    made = Store(tmp_path).put(KEY, write_text("hello"), kind="files")
    before = {(made.path / name).stat().st_ino for name in (*made.files, MARKER)}
    assert before <= set(seen[: seen.index("rename")])
    if os.name != "nt":
        assert made.path.parent.stat().st_ino in seen[seen.index("rename") :]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_full_and_read_only_disks_are_one_clear_error(tmp_path, code):
    def full(folder):
        raise OSError(code, os.strerror(code))

    with pytest.raises(StoreError, match="could not be written") as error:
        Store(tmp_path).put(KEY, full, kind="files")
    assert error.value.remedy and error.value.exit_code == 2
    assert Store(tmp_path).get(KEY) is None


def test_a_root_that_is_a_file_is_one_clear_error(tmp_path):
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(StoreError):
        Store(tmp_path / "store").put(KEY, write_text("x"), kind="files")


def test_two_threads_with_one_key_compute_once(tmp_path):
    calls = []

    def slow(folder):
        calls.append(1)
        time.sleep(0.2)
        (folder / "x").write_text("x")

    stores = [Store(tmp_path), Store(tmp_path)]
    threads = [threading.Thread(target=s.put, args=(KEY, slow), kwargs={"kind": "files"}) for s in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [1]


def test_a_killed_writer_leaves_no_artifact_and_gc_sweeps_up(tmp_path):
    program = (
        "import os, sys, signal\nfrom pathlib import Path\nfrom tutelage.core.store import Store\n"
        "def write(folder):\n    (folder / 'big').write_bytes(b'x' * 1000)\n    os._exit(9)\n"
        f"Store(sys.argv[1]).put('{KEY}', write, kind='files')\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == 9
    store = Store(tmp_path)
    assert store.get(KEY) is None
    assert len(list((tmp_path / "tmp").iterdir())) == 1
    store.put(OTHER, write_text("x"), kind="files")
    assert len(list((tmp_path / "tmp").iterdir())) == 1, "another key's is left alone"
    assert store.gc({OTHER}) == {"artifacts": 0, "leftovers": 1, "bytes": 1000}
    assert list((tmp_path / "tmp").iterdir()) == []
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 9
    store.put(KEY, write_text("x"), kind="files")
    assert list((tmp_path / "tmp").iterdir()) == [], "who makes it again sweeps up first"


def test_gc_keeps_what_is_wanted_and_what_is_being_written(tmp_path):
    store = Store(tmp_path)
    for key in (KEY, OTHER):
        store.put(key, write_text("hello"), kind="files")
    with store.lock(OTHER):
        assert Store(tmp_path).gc({KEY})["artifacts"] == 0
    assert store.gc({KEY})["artifacts"] == 1
    assert store.get(KEY) is not None and store.get(OTHER) is None
