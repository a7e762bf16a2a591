"""Training text made of documents, measured with the book closed: verdicts against the documents read repeatedly.

All arms train on equally many tokens. What a writer computes comes on top, so the arms that have one stand here
under their own names and count as no comparison of their method at equal cost; rules cost nothing: theirs counts.
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.bench_specialise import summary
from benchmarks.skip import Skip

RECIPE = Path(__file__).resolve().parent.parent / "recipes" / "knowledge-from-documents.yaml"
METHODS = {"reading_comprehension": "data.synthesise.reading_comprehension"}


def bench(folder: str | None = None) -> dict[str, Any]:
    """The recipe in a fresh workspace, or in `folder`, where finished steps are taken from the store."""
    from tutelage.core.errors import ModelError
    from tutelage.models.fetch import packaged
    from tutelage.runs import load_recipe, run
    from tutelage.runs.ledger import Ledger

    try:
        packaged("smollm2")
    except ModelError:
        raise Skip("the model is not there: tutelage fetch smollm2") from None
    with tempfile.TemporaryDirectory() as fresh:
        done = run(load_recipe(RECIPE), folder or fresh)
        steps = Ledger(folder or fresh).run(done.run_id)["steps"]
    assert done.comparison is not None
    return {"recipe": RECIPE.name, "written": written(steps), **summary(done.comparison, METHODS)}


def written(steps: list[dict[str, Any]]) -> dict[str, Any]:
    """What every step that makes text says about its funnel and its writer, and what it cost."""
    return {
        step["step"]: {**step["facts"]["report"], "rows": step["facts"]["rows"], "cost": step["as_if"]}
        for step in steps
        if step["method"].startswith("data.synthesise.")
    }
