"""Sides that are measured in processes of their own, so that peaks of memory and warm caches are theirs alone."""

import json
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ("seconds", "processor_seconds", "tokens_per_second", "tokens_per_processor_second", "peak_mb")


def child(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
    """The last line that a process prints, read as JSON; `environment` comes on top of ours."""
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=True,
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
    )
    return json.loads(done.stdout.splitlines()[-1])


def collected(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median and values over the repetitions of one side."""
    found = {}
    for name in MEASURED:
        values = [round(run[name], 2) for run in runs]
        found[name] = {"median": round(statistics.median(values), 2), "values": values}
    return found


def peak_mb() -> float:
    """Largest resident size of this process so far, in MB (10^6 bytes)."""
    import torch

    from tutelage.training._progress import peak_bytes

    return peak_bytes(torch.device("cpu")) / 1e6
