"""The same targets, steered by the coverage of our code, where atheris is installed (it is no dependency).

    python -m venv other && other/bin/pip install atheris
    PYTHONPATH=src:tests:.venv/lib/python3.11/site-packages \\
        other/bin/python -m fuzz.coverage_guided data.read.jsonl -max_total_time=600

Atheris takes apart our modules while they are imported, so that it sees which branches a case took; a case is made
of its bytes by the same changes as in `engine`. Findings are written into the corpus, and the search goes on.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["tutelage"]):
    from fuzz import engine, targets


class Consumed:
    """Choices that follow from the bytes that atheris invents."""

    def __init__(self, data: bytes) -> None:
        self._provider = atheris.FuzzedDataProvider(data)

    def below(self, count: int) -> int:
        return self._provider.ConsumeIntInRange(0, count - 1)


def main() -> None:
    name = sys.argv.pop(1)
    base = Path(tempfile.mkdtemp(prefix="fuzz-"))
    (base / "scratch").mkdir()
    os.environ["TUTELAGE_SCRATCH"] = os.environ["TMPDIR"] = str(base / "scratch")
    os.environ["TUTELAGE_CACHE"] = str(base / "scratch" / "cache")
    with atheris.instrument_imports(include=["tutelage"]):
        # Also what is imported late.
        target = targets.target(name)
        engine.unchanged(target, base)
    report = engine.Report(name)
    began = told = time.monotonic()

    def one(data: bytes) -> None:
        nonlocal told
        known = set(report.found)
        engine.look(target, engine.make_case(Consumed(data), target), base, report)
        for kind in set(report.found) - known:
            case, detail = report.found[kind]
            print(f"{kind}\n  kept as {engine.keep(target, case)}\n{detail}", file=sys.stderr, flush=True)
        if time.monotonic() - told > 10:
            told = time.monotonic()
            report.seconds = told - began
            print(report.line(), flush=True)

    # A case is some dozen choices from the start: short inputs are all the same.
    atheris.Setup([*sys.argv, "-len_control=0", "-max_len=256"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
