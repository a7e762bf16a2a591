"""Find a model that a run made, by the name of its step."""

from pathlib import Path
from typing import Any

from tutelage.core.errors import InputError, suggest
from tutelage.core.store import Store
from tutelage.runs import payload
from tutelage.runs.ledger import Ledger
from tutelage.runs.paths import STATE


def made_model(name: str, workspace: Path, run_id: str = "latest") -> tuple[Path, dict[str, Any]] | None:
    """(the model's folder, the ledger's entry) of step `STEP`, or `STEP@ARM` of a comparison; None where the
    workspace has no run at all.

    The last round counts, and of several seeds the first. Raises InputError for a step or arm that made no model,
    for several arms when none is named, and for a model that was cleared away.
    """
    ledger = Ledger(workspace)
    if not (ledger.file.exists() and ledger.runs()):
        return None
    step, _, arm = name.partition("@")
    made = [entry for entry in ledger.run(run_id)["steps"] if entry["kind"] in ("Adapter", "Trainer")]
    # What a search tried out is no result.
    made = [entry for entry in made if not str(entry["arm"]).endswith("(search)")]
    found = [entry for entry in made if entry["step"] == step]
    if not found:
        names = sorted({entry["step"] for entry in made})
        raise InputError(
            "no step of the run made such a model",
            where=f"{workspace}, run {run_id}",
            expected="one of " + ", ".join(names) if names else "a run that made a model",
            found=step,
            remedy=suggest(step, names) if names else "run a recipe that trains one",
        )
    arms = sorted({str(entry["arm"]) for entry in found if entry["arm"] is not None})
    if arms and (arm or len(arms) > 1):
        if arm not in arms:
            raise InputError(
                "the step made a model in several arms" if not arm else "the step made no model in this arm",
                where=f"{workspace}, run {run_id}, step {step}",
                expected=", ".join(f"{step}@{one}" for one in arms),
                found=name,
                remedy="name one of them",
            )
        found = [entry for entry in found if entry["arm"] == arm]
    entry = min(found, key=lambda e: (e["seed"] is not None and e["seed"], -(e["round"] or 0)))
    artifact = Store(workspace / STATE / "store").get(entry["key"])
    if artifact is None:
        raise InputError(
            "the model is not in the store any more",
            where=f"{workspace}, step {name}",
            expected="an artifact as the run left it",
            found="none",
            remedy="run the recipe again; what is there is not made twice",
        )
    return artifact.path / payload.MODEL, entry
