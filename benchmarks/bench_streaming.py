"""Reading, exact and near deduplication, rules and decontamination of a file larger than memory may be.

A generated file of JSON Lines (BENCH_STREAMING_GIGABYTES, 5) with exact and near copies and planted contamination
goes through the stages in a process of its own. Its peak memory may be `LIMIT` at most, and in = kept + dropped
holds for every stage, or there is no result. The disk must hold the file four times.
"""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.skip import Skip
from benchmarks.text.stream import generate, process

GIGABYTES = float(os.environ.get("BENCH_STREAMING_GIGABYTES", "5"))
LIMIT = 2 * 10**9  # bytes


def bench() -> dict[str, Any]:
    size = int(GIGABYTES * 1e9)
    if not Path("/proc/self/status").exists():
        raise Skip("only Linux tells the peak of a process")
    with tempfile.TemporaryDirectory() as folder:
        if shutil.disk_usage(folder).free < 4 * size:
            raise Skip(f"{4 * GIGABYTES:g} GB of disk are needed for {GIGABYTES:g} GB of text")
        file = Path(folder) / "corpus.jsonl"
        planted = generate(file, size)
        before, start = os.times(), time.perf_counter()
        found = process(file)
        seconds, after = time.perf_counter() - start, os.times()
        written = file.stat().st_size
    if found["peak_bytes"] > LIMIT:
        raise RuntimeError(f"peak memory {found['peak_bytes']} bytes, allowed {LIMIT}: {found['stages']}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return {
        "bytes": written,
        "planted": planted,
        "limit_bytes": LIMIT,
        "wall_seconds": round(seconds, 1),
        "processor_seconds": round(used, 1),
        "megabytes_per_processor_second": round(written / 1e6 / used, 2),
        **found,
    }
