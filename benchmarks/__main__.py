"""Run the benchmarks and commit-ready results: `python -m benchmarks [name ...]` (or `make bench`).

Every `bench_*.py` has `bench() -> dict`; its dictionary is written to `results/<name>.json` with the machine and
the share of processor time that other processes took meanwhile. A benchmark that cannot run raises `Skip` with the
reason; one that fails is told, and the others go on.
"""

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.skip import Skip
from tutelage.runs.environment import environment

FOLDER = Path(__file__).resolve().parent
# How fast we are comes first; sweeps of hours, which go on where they were cut off, come after all others.
FIRST = tuple("scoring training generation embedding evaluation text ekfac growth curate streaming".split())
LAST = ("labels", "choosing")
BUSY = 0.1  # cores that others may use before a timing is called disturbed


def cpu_seconds() -> tuple[float, float] | None:
    """(all processes, this one and its children) in processor seconds, where the system tells (Linux)."""
    try:
        fields = [float(x) for x in Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]]
    except OSError:
        return None
    busy = sum(fields[:3]) + sum(fields[5:8])
    own = os.times()
    return busy / os.sysconf("SC_CLK_TCK"), own.user + own.system + own.children_user + own.children_system


def run(name: str) -> dict[str, Any]:
    """One benchmark with its surroundings."""
    module = importlib.import_module(f"benchmarks.bench_{name}")
    before, start = cpu_seconds(), time.time()
    result = module.bench()
    seconds = time.time() - start
    after = cpu_seconds()
    others = None
    if before and after:
        others = round(max(0.0, (after[0] - before[0]) - (after[1] - before[1])) / seconds, 2)
    return {
        "benchmark": name,
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(seconds, 1),
        "cores_used_by_others": others,
        "disturbed": others is not None and others > BUSY,
        "environment": environment(),
        **result,
    }


def _turn(name: str) -> tuple[bool, int, str]:
    place = FIRST.index(name) if name in FIRST else len(FIRST)
    return name in LAST, LAST.index(name) if name in LAST else place, name


def main() -> int:
    known = sorted((file.stem.removeprefix("bench_") for file in FOLDER.glob("bench_*.py")), key=_turn)
    asked = sys.argv[1:] or known
    unknown = [name for name in asked if name not in known]
    if unknown:
        print(f"unknown benchmark {unknown[0]}; there are: {', '.join(known)}")
        return 2
    failed = []
    for name in asked:
        try:
            result = run(name)
        except Skip as reason:
            print(f"{name}: skipped, {reason}", flush=True)
            continue
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        file = FOLDER / "results" / f"{name}.json"
        file.write_text(json.dumps(result, indent=1, default=str) + "\n", encoding="utf-8")
        print(f"{name}: {result['seconds']} s, wrote {file.relative_to(FOLDER.parent)}", flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
