"""The whole curating recipe on the text of this Python installation: megabytes per second and peak memory.

Runs in a process of its own, so that its peak is that of the recipe alone. Speed is bytes of source text over the
seconds of all steps, reading and writing included.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "curate.yaml"
PROGRAM = """
import json, sys
from pathlib import Path
from tutelage.runs import load_recipe, run
workspace = Path(sys.argv[2])
run(load_recipe(sys.argv[1]), workspace)
try:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
except OSError:
    peak = None
print(json.dumps({"peak_bytes": peak}))
"""


def bench() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(RECIPE), folder], capture_output=True, text=True, check=True
        )
        seconds = time.perf_counter() - start
        card = json.loads((Path(folder) / "card" / "card.json").read_text(encoding="utf-8"))
        source = _source_bytes(Path(folder))
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "recipe": RECIPE.name,
        "source_bytes": source,
        "source_rows": card["stages"][0]["rows_kept"],
        "corpus_bytes": card["bytes"],
        "corpus_rows": card["rows"],
        "wall_seconds": round(seconds, 2),
        "megabytes_per_second": round(source / 1e6 / seconds, 2),
        "peak_bytes": found["peak_bytes"] or card["cost"]["peak_bytes"],
        "steps": [
            {
                "step": stage["name"],
                "method": stage["method"],
                "rows_in": stage["rows_in"],
                "rows_kept": stage["rows_kept"],
                "seconds": round(stage["seconds"], 2),
                "peak_bytes": stage["peak_bytes"],
            }
            for stage in card["stages"]
        ],
    }


def _source_bytes(workspace: Path) -> int:
    """Bytes of the texts that the pool held."""
    import pyarrow.compute as pc

    from tutelage.core.dataset import Dataset
    from tutelage.core.store import Store
    from tutelage.runs.ledger import Ledger
    from tutelage.runs.payload import DATASET

    steps = Ledger(workspace).run("latest")["steps"]
    key = next(step["key"] for step in steps if step["step"] == "pool")
    artifact = Store(workspace / ".tutelage" / "store").get(key)
    assert artifact is not None
    pool = Dataset.open(artifact.path / DATASET)
    return sum(pc.sum(pc.binary_length(shard.column("text"))).as_py() for shard in pool.shards(["text"]))
