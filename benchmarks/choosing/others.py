"""The same runs held against further baselines: repeated random sampling, and the least and most surprising rows.

A recipe compares every arm with its baseline and its placebo. Here the item logs of a finished run are compared
again, arm by arm, all pairs of a bed one exploratory family (Benjamini-Hochberg, q = .10).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.choosing.statements import STEP
from benchmarks.skip import Skip

OTHERS = ("repeated_random", "perplexity_low", "perplexity_high")
CONTROLS = {"base", "placebo", "oracle", "random", *OTHERS}


def others(work: Path, bed: str, told: Mapping[str, Any], methods: Mapping[str, str]) -> list[dict[str, Any]]:
    """Comparisons of the arms of `told` (a bed's committed result) with `OTHERS`, from the run that made it."""
    from tutelage.core.stats.compare import compare
    from tutelage.core.stats.families import judge_family

    logs = _logs(work, bed, told)
    pairs = [(arm, other) for other in OTHERS for arm in told["arms"] if arm in logs and arm not in CONTROLS]
    found = {f"{a} - {b}": compare(logs[a], logs[b], direction=-1) for a, b in pairs}
    verdicts = judge_family(found, primary=[])
    rows = []
    for (a, b), (name, one) in zip(pairs, found.items()):
        interval = verdicts[name].interval
        rows.append(
            {
                "bed": f"choosing/others, {bed}",
                "method": methods.get(a, a),
                "arm": a,
                "against": b,
                "step": STEP,
                "primary": False,
                "difference": one.estimate,
                "interval": interval.model_dump() if interval else None,
                "adjusted_p": verdicts[name].adjusted_p,
                "smallest_detectable": one.mde,
                "verdict": verdicts[name].outcome,
                "seeds": one.n_seeds,
                "cost_ratio": float(np.mean(told["arms"][a]["flops"]) / np.mean(told["arms"][b]["flops"])),
            }
        )
    return rows


def _logs(work: Path, bed: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """Arm -> item log over its seeds, of the newest run with the figures of `told`."""
    from tutelage.core.items import ItemLog
    from tutelage.core.store import Store
    from tutelage.runs import payload
    from tutelage.runs.ledger import Ledger

    ledger, store = Ledger(work), Store(work / ".tutelage" / "store")
    for run in ledger.runs():
        if run["name"] != bed or run["status"] != "passed":
            continue
        made: dict[str, dict[int, Any]] = {}
        for entry in ledger.run(run["run_id"])["results"]:
            if entry["step"] == STEP and entry["seed"] is not None and not str(entry["arm"]).endswith("(search)"):
                made.setdefault(str(entry["arm"]), {})[entry["seed"]] = entry
        if not all(
            _same(made.get(arm, {}), one["per_seed"]) for arm, one in told["arms"].items() if arm != "base"
        ):
            continue
        logs = {}
        for arm, seeds in made.items():
            rows: list[dict[str, Any]] = []
            for seed, entry in seeds.items():
                artifact = store.get(entry["key"])
                items = payload.load_result(artifact.path).items if artifact else None
                if items is None:
                    raise Skip(f"the items of {bed}, {arm} are not in the store any more")
                rows += [{**row, "train_seed": seed, "system_id": arm} for row in items.table.to_pylist()]
            logs[arm] = ItemLog.from_rows(rows)
        return logs
    raise Skip(f"the run behind the figures of {bed} is not in the workspace")


def _same(made: Mapping[int, Any], per_seed: list[float]) -> bool:
    return [round(made[seed]["result"]["estimate"], 9) for seed in sorted(made)] == [round(x, 9) for x in per_seed]
