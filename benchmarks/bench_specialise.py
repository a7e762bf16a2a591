"""The main recipe as a measurement: verdicts against random text at equal total compute, kept as data."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.skip import Skip

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "specialise.yaml"
# Which method an arm stands for: the one whose output decides what is trained on.
METHODS = {"similarity": "signals.similarity_tfidf", "perplexity": "signals.token_loss"}


def bench() -> dict[str, Any]:
    from tutelage.core.errors import ModelError
    from tutelage.models.fetch import packaged
    from tutelage.runs import load_recipe, run

    try:
        packaged("smollm2")
    except ModelError:
        raise Skip("the model is not there: tutelage fetch smollm2") from None
    with tempfile.TemporaryDirectory() as folder:
        table = run(load_recipe(RECIPE), folder).comparison
    assert table is not None
    return {"recipe": RECIPE.name, **summary(table)}


def summary(table: dict[str, Any], methods: Mapping[str, str] = METHODS) -> dict[str, Any]:
    """Arms and verdicts, small enough to commit; `methods` says which method an arm stands for."""
    arms = {
        arm["name"]: {
            "estimate": arm["results"][table["metric_step"]]["estimate"],
            "per_seed": arm["results"][table["metric_step"]]["per_seed"],
            "also": {step: m["estimate"] for step, m in arm["results"].items() if step != table["metric_step"]},
            "flops": [c["forward_flops"] + c["backward_flops"] for c in arm["cost"]],
            "seconds": [round(c["seconds"], 1) for c in arm["cost"]],
            "tuned": arm["tuned"],
        }
        for arm in table["arms"]
        if not arm["failed"]
    }
    comparisons = [
        {
            "method": methods.get(pair["a"], pair["a"]),
            "arm": pair["a"],
            "against": pair["b"],
            "step": pair["step"],
            "primary": pair["primary"],
            "difference": pair["comparison"]["estimate"],
            "interval": pair["verdict"]["interval"],
            "adjusted_p": pair["verdict"]["adjusted_p"],
            "smallest_detectable": pair["comparison"]["mde"],
            "verdict": pair["verdict"]["outcome"],
            "seeds": pair["comparison"]["n_seeds"],
            "cost_ratio": pair["cost"]["ratio"] if pair["cost"] else None,
        }
        for pair in table["pairs"]
    ]
    return {"metric": table["metric_step"], "arms": arms, "comparisons": comparisons}
