"""A full disk and a place that cannot be written: one clear error with the path and what to do, nothing partial,
and the same end once there is room."""

import errno
import json
import os
import random
import sys
from pathlib import Path

import pytest

from toy.fault_bed import complete, difference, outcome
from toy.fault_child import Fault
from toy.small_disk import fill_up

MUTATIONS = [
    ("src/tutelage/runs/ledger.py", "if os.access(self.file.parent, os.W_OK):", "if True:"),
]
PHASES = ("data stages", "checkpoints", "models", "kept copies", "kept shards", "exports", "results and markers")


def told_well(code: int, text: str, workspace: Path) -> None:
    """An error that a person can do something about, and no defect of ours."""
    assert code == 2, text
    block = text[text.index("error: ") :]
    assert str(workspace) in block or ".scratch" in block, block
    assert "  do: " in block and "defect" not in text and "Traceback" not in text, text


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_write_that_fails_anywhere(bed, undisturbed, pytestconfig, record_property, code):
    """From one write on, drawn in every phase, nothing can be written any more; then everything can."""
    kills, seed = pytestconfig.getoption("--kills"), pytestconfig.getoption("--fault-seed")
    draw = random.Random(seed + code)
    _, moments, expected = undisturbed("plain")
    turns = max(1, kills // 5)
    for turn in range(turns):
        phase = PHASES[(turn + (code == errno.EROFS) * 3) % len(PHASES)]
        count = sum(moment[0] == phase for moment in moments)
        fault = Fault(phase, draw.randrange(count), code=code, lasting=True)
        workspace = bed.workspace()
        ended = bed.play(workspace, bed.run("plain"), ["report"], fault=fault)
        # Clearing up is not needed for the result: where only that fails, the run is good.
        if ended.code != 0:
            told_well(ended.code, ended.err, workspace)
        keys, _ = complete(workspace)
        ended = bed.play(workspace, ["resume"], ["report"])
        if ended.code == 2 and "no run" in ended.err:
            ended = bed.play(workspace, bed.run("plain"), ["report"])
        assert ended.code == 0, f"seed {seed}, {fault}: {ended.err}"
        assert keys <= complete(workspace)[0]
        changed = difference(outcome(workspace), expected)
        assert not changed, f"seed {seed}, {fault}: {changed[:5]}"
    record_property(errno.errorcode[code], turns)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="limits of a process are those of POSIX")
def test_files_that_may_not_grow(bed, undisturbed, pytestconfig, record_property):
    """Whatever writes, in Python or not, meets a limit to the size of a file, as it would meet a quota."""
    _, _, expected = undisturbed("plain")
    # What the child says on its standard error is a file too.
    sizes = (1_000, 2_000, 4_000, 8_000, 12_000, 20_000, 50_000, 70_000)
    chosen = sizes if pytestconfig.getoption("--kills") >= len(sizes) * 2 else sizes[2:3]
    for size in chosen:
        workspace = bed.workspace()
        ended = bed.play(workspace, bed.run("plain"), ["report"], fault=Fault(sizes=size))
        told_well(ended.code, ended.err, workspace)
        complete(workspace)
        ended = bed.play(workspace, bed.run("plain"), ["report"])
        assert ended.code == 0, f"{size}: {ended.err}"
        assert not difference(outcome(workspace), expected), size
    record_property("limits", len(chosen))


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a disk")
def test_a_small_disk_that_fills_up_and_is_read_only_in_the_end(bed, undisturbed, pytestconfig, record_property):
    _, _, expected = undisturbed("plain")
    sizes = ["60k", "120k", "200k", "260k", "320k", "380k", "440k", "500k", "600k", "50m"]
    chosen = sizes if pytestconfig.getoption("--kills") >= len(sizes) else [sizes[4], sizes[-1]]
    workspace = bed.workspace()
    file = Path(f"{workspace}.json")
    given = (str(workspace), str(file), str(bed.folder / "plain.yaml"), chosen)
    child = bed.context.Process(target=fill_up, args=given)
    child.start()
    child.join(300)
    told = json.loads(file.read_text(encoding="utf-8"))
    if told is None:
        pytest.skip("this user may not mount a disk")
    *full, (ended, text), (code, again), (refused, where), (read, _) = told
    assert full[0][0] == 2
    for failed, error in full:
        if failed:  # what was done on the smaller disk is not done again
            told_well(failed, error, workspace)
            # SQLite says "disk I/O error" where it cannot enlarge the file that it maps.
            assert any(words in error for words in ("o space left", "full", "disk I/O error")), error
    assert ended == 0, text
    told_well(code, again, workspace)
    told_well(refused, where, workspace)
    assert read == 0, "a report of a run in a read-only place, written elsewhere"
    changed = difference(outcome(Path(f"{workspace}.kept")), {**expected, "view": None})
    assert [text for text in changed if not text.startswith("/view")] == []
    record_property("sizes", len(chosen))
