"""New hostile files for every reader: seconds for each here, minutes with `--fuzz-seconds 600`.

Without the option the search starts from a fixed seed; with it from a random one, which is printed. What breaks
the promise of `engine` is made small and written into `corpus/`, where `test_corpus` replays it from then on.
"""

import dataclasses
import os
import random
import signal
import subprocess
import sys

import pytest

from fuzz import engine, targets

SHORT = 1.0


@pytest.mark.parametrize("name", targets.names())
def test_whatever_the_bytes(name, request, tmp_path, monkeypatch, record_property):
    seconds = request.config.getoption("--fuzz-seconds")
    target = available(name)
    own_places(tmp_path, monkeypatch)
    engine.unchanged(target, tmp_path)
    seed = 0 if seconds is None else random.SystemRandom().randrange(2**32)
    report = engine.search(target, seconds or SHORT, seed, tmp_path)
    if seconds is not None:
        record_property("fuzzed", f"{report.line()}, seed {seed}")
    told = [
        f"{kind}\n  kept as {engine.keep(target, case).relative_to(engine.CORPUS.parent)}\n{detail}"
        for kind, (case, detail) in report.found.items()
    ]
    assert not told, "\n\n".join(told)
    assert report.cases, "no case was run"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="what a process died of is tried again in a forked one")
def test_the_case_a_process_died_of_is_kept_and_one_that_it_survives_is_not(tmp_path, monkeypatch):
    own_places(tmp_path, monkeypatch)
    monkeypatch.setattr(engine, "RUNNING", tmp_path / "running")
    monkeypatch.setattr(engine, "CORPUS", tmp_path / "corpus")
    target = targets.target("data.read.jsonl")
    layout, files = next((name, one.files) for name, one in target.layouts.items() if "rows.jsonl" in one.files)
    case = engine.Case(layout, "rows.jsonl", files["rows.jsonl"])
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()

    def left_behind():
        folder = tmp_path / "running" / target.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{gone.pid}--{case.file}").write_bytes(case.data)

    left_behind()
    assert engine.search(target, 0.2, 0, tmp_path).cases
    assert not list((tmp_path / "corpus").rglob("*.case")), "somebody ended that process"
    left_behind()
    deadly = dataclasses.replace(target, run=lambda path: os.kill(os.getpid(), signal.SIGSEGV))
    with pytest.raises(AssertionError, match="a process died of this case"):
        engine.search(deadly, 0.2, 0, tmp_path)
    assert [file.name for file in (tmp_path / "corpus").rglob("*.case")] == [case.file]


def available(name):
    """The target, or a skip where what it needs is not installed, or it takes no path."""
    if name in ("checkpoint", "model", "adapter", "gguf", "lm-eval"):
        pytest.importorskip("torch")
    try:
        return targets.target(name)
    except KeyError:
        pytest.skip("this reader takes no path")


def own_places(tmp_path, monkeypatch):
    """Caches and scratch files below the test's own folder."""
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "scratch" / "cache"))
    monkeypatch.setenv("TUTELAGE_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
