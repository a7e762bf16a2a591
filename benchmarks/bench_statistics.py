"""Do the tests and intervals keep what they promise? Simulated draws, and real reruns of a small model.

Promised of comparing a method with itself, two-sided 5 % level: false "better" 2.1 to 2.9 %, the 95 % interval
covers in 94.2 to 95.8 %, and what is stated as the smallest detectable effect is found in 77 to 83 % of draws.
Every row says which of these it keeps; `misses` lists the rows that do not, and they are part of the result.

    SECTIONS=real python -m benchmarks statistics     # one section, the others stay as they were

Real reruns (some twenty minutes of one core, once) lie in `TUTELAGE_BENCH_WORK` or `benchmarks/.work`.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WORK = Path(os.environ.get("TUTELAGE_BENCH_WORK", HERE / ".work")) / "statistics"


def comparisons() -> Iterator[dict[str, Any]]:
    from benchmarks.proof import simulated

    for rows in (
        simulated.two_way_rows,
        simulated.one_run_rows,
        simulated.mcnemar_rows,
        simulated.bootstrap_rows,
        simulated.family_rows,
    ):
        yield from rows()


def intervals() -> Iterator[dict[str, Any]]:
    from benchmarks.proof import covered

    yield from covered.rows()


def pooling() -> Iterator[dict[str, Any]]:
    from benchmarks.proof import pooling as pooled

    yield from pooled.rows()


def real() -> Iterator[dict[str, Any]]:
    import torch

    from benchmarks.proof import real as measured
    from benchmarks.proof.reruns import reruns

    torch.set_num_threads(1)
    found = reruns(WORK / "reruns")
    yield {"test": "the reruns", **measured.described(found)}
    yield from measured.rows(found)


SECTIONS: dict[str, Callable[[], Iterator[dict[str, Any]]]] = {
    "tests": comparisons,
    "intervals": intervals,
    "pooling": pooling,
    "real": real,
}


def bench() -> dict[str, Any]:
    from benchmarks.proof import draws

    asked = [name for name in os.environ.get("SECTIONS", ",".join(SECTIONS)).split(",") if name]
    found: dict[str, Any] = {
        "draws": draws.DRAWS,
        "promised": {"false_better": draws.BETTER, "coverage": draws.COVERAGE, "power": draws.POWER},
    }
    for name, make in SECTIONS.items():
        # A section is kept when it is done: another process may be at the next one.
        file = WORK / f"{name}.json"
        if name in asked:
            WORK.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps([judged(row) for row in make()]), encoding="utf-8")
        if file.exists():
            found[name] = [judged(row) for row in json.loads(file.read_text(encoding="utf-8"))]
    return {**found, "summary": {name: summary(found[name]) for name in SECTIONS if name in found}}


def judged(row: dict[str, Any]) -> dict[str, Any]:
    from benchmarks.proof.draws import kept

    rounded = {name: round(value, 5) if isinstance(value, float) else value for name, value in row.items()}
    keeps = kept(row)
    if "at_most" in row:
        keeps["at_most"] = row.get("false_claim", row.get("false_discovery", 1.0)) <= row["at_most"]
    if "coverage_at_least" in row:
        keeps["coverage_at_least"] = row["coverage_at_least"] >= 0.95
    return {**rounded, "keeps": keeps}


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many rows keep each promise, and those that do not, by name."""
    counts: dict[str, str] = {}
    for promise in sorted({name for row in rows for name in row["keeps"]}):
        said = [row["keeps"][promise] for row in rows if promise in row["keeps"]]
        counts[promise] = f"{sum(said)} of {len(said)}"
    named = ("test", "scores", "metric", "against", "method", "seeds", "items", "share", "spread")
    misses = [
        {**{name: row[name] for name in named if name in row}, **{name: row.get(name) for name in broken}}
        for row in rows
        if (broken := [name for name, held in row["keeps"].items() if not held])
    ]
    return {"kept": counts, "misses": misses}
