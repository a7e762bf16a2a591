"""Scratch folders: removed at the end of a process, and by the next one where a kill left them."""

import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from tutelage.core.scratch import IN_USE, PREFIX, remove_abandoned

MUTATIONS = [
    ("src/tutelage/core/scratch.py", "    lock.acquire()\n", "    lock.acquire(); lock.release()\n"),
    ("src/tutelage/core/scratch.py", "        remove_abandoned(parent)\n", ""),
    ("src/tutelage/core/scratch.py", "folder.is_symlink() or ", ""),
    ("src/tutelage/core/scratch.py", " or not lock.is_file()", ""),
    ("src/tutelage/core/scratch.py", "atexit.register(shutil.rmtree, _root, ignore_errors=True)", "pass"),
]
PROGRAM = """
import sys
from tutelage.core.scratch import scratch_path
path = scratch_path(".bin")
path.write_bytes(b"x" * 1000)
print(path.parent, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def process(tmp_path, monkeypatch):
    """Starts a process that uses scratch room until its input ends: (process, its folder)."""
    monkeypatch.setenv("TUTELAGE_SCRATCH", str(tmp_path))
    started = []

    def start():
        child = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(child)
        return child, Path(child.stdout.readline().strip())

    yield start
    for child in started:
        child.kill()
        child.communicate()


def test_a_killed_process_leaves_its_folder_to_the_next_one(process):
    killed, left = process()
    living, kept = process()
    killed.kill()
    killed.wait()
    assert left.is_dir() and len(list(left.iterdir())) == 2
    last, own = process()
    assert not left.exists() and kept.is_dir() and own.is_dir()
    last.communicate("")
    living.communicate("")
    assert not own.exists() and not kept.exists()


def test_only_our_own_abandoned_folders_are_removed(tmp_path):
    left, held, bare, foreign = (tmp_path / f"{PREFIX}{name}" for name in ("left", "held", "bare", "linked"))
    for folder in (left, held, bare, tmp_path / "other"):
        folder.mkdir()
        (folder / "data").write_text("x")
    for folder in (left, held, tmp_path / "other"):
        (folder / IN_USE).touch()
    foreign.symlink_to(tmp_path / "other")
    with FileLock(held / IN_USE):
        assert remove_abandoned(tmp_path) == [left]
    assert not left.exists()
    assert all((folder / "data").exists() for folder in (held, bare, tmp_path / "other"))
