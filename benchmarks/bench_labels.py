"""Labels: what machines, rules and few people give, measured on real sets. One section for each question.

`SECTIONS=label_models python -m benchmarks labels` measures one section and keeps the others as they were.
"""

import importlib
import json
import os
from pathlib import Path
from typing import Any

# Section -> the module of `benchmarks.labels` with a function of that name.
SECTIONS = ("label_models", "dsl", "label_errors", "few_labels")
RESULTS = Path(__file__).resolve().parent / "results" / "labels.json"


def bench() -> dict[str, Any]:
    asked = [name for name in os.environ.get("SECTIONS", ",".join(SECTIONS)).split(",") if name]
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    kept = {name: before[name] for name in SECTIONS if name in before and name not in asked}
    for name in asked:
        kept[name] = getattr(importlib.import_module(f"benchmarks.labels.{name}"), name)()
    # What a section holds against a baseline stands with the others of all benchmarks.
    return {**kept, "comparisons": [row for name in kept for row in kept[name].get("comparisons", [])]}
