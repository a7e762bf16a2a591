"""The stages of curation hold a part of the text in memory, however long the file; no row gets lost on the way."""

import importlib.util
from pathlib import Path

import pytest

STREAM = Path(__file__).resolve().parents[2] / "benchmarks" / "text" / "stream.py"
SMALL, LARGE = 8_000_000, 48_000_000  # bytes
# An allocator that gives back at once what is freed: else the peak counts what it happened to keep, up to 25 MB.
FRUGAL = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1", "MALLOC_TRIM_THRESHOLD_": "65536"}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the peak of a process")
def test_peak_memory_does_not_follow_the_size_of_the_file(tmp_path, monkeypatch):
    for name, value in FRUGAL.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("stream", STREAM)
    stream = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stream)
    peaks = []
    for size in (SMALL, LARGE):
        planted = stream.generate(tmp_path / "a.jsonl", size)
        found = stream.process(tmp_path / "a.jsonl", limit=1 << 20)
        peaks.append(found["peak_bytes"])
        dropped = {stage["stage"]: stage["rows_dropped"] for stage in found["stages"]}
        assert found["rows"] == planted["rows"] - sum(dropped.values())
        assert dropped["data.dedup.exact"] >= planted["exact_copies"]
        assert dropped["data.dedup.near"] > 0.9 * planted["near_copies"]
        assert dropped["data.filter.where"] > 0.9 * planted["planted"]
    assert peaks[1] - peaks[0] < (LARGE - SMALL) / 2
