"""A classifier from forty labels: asking for what it is unsure of against asking at random, at equal labels."""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.bench_specialise import summary
from benchmarks.skip import Skip

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "few-label-classifier.yaml"
METHODS = {"margin": "data.select.uncertain"}


def bench(folder: str | None = None) -> dict[str, Any]:
    """The recipe in a fresh workspace, or in `folder`, where finished steps are taken from the store."""
    from tutelage.core.errors import ModelError
    from tutelage.models.fetch import packaged
    from tutelage.report.plots import round_curves
    from tutelage.runs import load_recipe, run
    from tutelage.runs.ledger import Ledger

    try:
        for name in ("minilm", "smollm2", "bbc"):
            packaged(name)
    except ModelError as error:
        raise Skip(f"{error.what}: {error.remedy}") from None
    with tempfile.TemporaryDirectory() as fresh:
        done = run(load_recipe(RECIPE), folder or fresh)
        recorded = Ledger(folder or fresh).run(done.run_id)
    assert done.comparison is not None
    curves = {
        metric: {line.label: [round(value, 4) for value in line.y] for line in lines}
        for metric, lines in round_curves(recorded).items()
    }
    return {"recipe": RECIPE.name, "rounds": curves, **summary(done.comparison, METHODS)}
