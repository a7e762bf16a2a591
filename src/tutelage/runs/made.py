"""Find what a run made, by the name of its step: `STEP`, or `STEP@ARM` of a comparison.

A recipe names it as `run:RECIPE/STEP@ARM` (or the id of a run in the place of the recipe's name), for a kept
checkpoint with its share of the budget behind: `run:specialise/trained@similarity:0.5`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.core.errors import InputError, suggest
from tutelage.core.store import Artifact, Store
from tutelage.runs import payload
from tutelage.runs.ledger import FINISHED, Ledger
from tutelage.runs.paths import STATE

PREFIX = "run:"
MODELS, ROWS = ("Adapter", "Trainer"), ("Scorer", "Transform", "Reader")


def made_model(name: str, workspace: Path, run_id: str = "latest") -> tuple[Path, dict[str, Any]] | None:
    """(the model's folder, the ledger's entry) of step `STEP`, or `STEP@ARM` of a comparison; None where the
    workspace has no run at all.

    The last round counts, and of several seeds the first. Raises InputError for a step or arm that made no model,
    for several arms when none is named, and for a model that was cleared away.
    """
    ledger = Ledger(workspace)
    if not (ledger.file.exists() and ledger.runs()):
        return None
    artifact, entry = _made(name, workspace, run_id, MODELS, "model")
    return artifact.path / payload.MODEL, entry


def made_path(reference: str, workspace: Path, kind: str) -> Path:
    """The folder of the model or dataset (`kind`) that `run:...` means; raises InputError when it is not there."""
    run, _, step = reference.removeprefix(PREFIX).partition("/")
    step, _, share = step.partition(":")
    run_id = _newest(run, workspace, reference)
    if kind == "dataset":
        artifact, _ = _made(step, workspace, run_id, ROWS, "dataset")
        return artifact.path / payload.DATASET
    artifact, _ = _made(step, workspace, run_id, MODELS, "model")
    return _kept(artifact, share, reference) if share else artifact.path / payload.MODEL


def _newest(name: str, workspace: Path, reference: str) -> str:
    """The id of the newest finished run of recipe `name`, or of the run whose id begins so."""
    ledger = Ledger(workspace)
    runs = ledger.runs() if ledger.file.exists() else []
    found = [run for run in runs if run["name"] == name and run["status"] in FINISHED]
    found = found or [run for run in runs if name and run["run_id"].startswith(name)]
    if not found:
        names = sorted({run["name"] for run in runs if run["status"] in FINISHED})
        raise InputError(
            f"no run of {name!r} has finished in this workspace",
            where=f"{workspace}, for {reference}",
            expected="run:RECIPE/STEP of a recipe that ran here",
            found=", ".join(names) or "no finished run",
            remedy="run that recipe with this --workspace first, or name a file or folder instead",
        )
    return str(found[0]["run_id"])


def _kept(artifact: Artifact, share: str, reference: str) -> Path:
    kept = (payload.load_fit(artifact.path) or {}).get("kept") or {}
    found = next((folder for at, folder in kept.items() if _same(at, share)), None)
    if found is None or not Path(found).is_dir():
        raise InputError(
            "this checkpoint was not kept",
            where=reference,
            expected="one of " + ", ".join(kept) if kept else "a training with keep_checkpoints",
            found=share if found is None else "a folder that was cleared away",
            remedy="name a kept share, or leave it out for the finished model",
        )
    from tutelage.training._checkpoint import check_kept

    check_kept(Path(found))
    return Path(found)


def _same(at: str, share: str) -> bool:
    try:
        return float(at) == float(share)
    except ValueError:
        return False


def _made(
    name: str, workspace: Path, run_id: str, kinds: Sequence[str], what: str
) -> tuple[Artifact, dict[str, Any]]:
    step, _, arm = name.partition("@")
    made = [entry for entry in Ledger(workspace).run(run_id)["steps"] if entry["kind"] in kinds]
    # What a search tried out is no result.
    made = [entry for entry in made if not str(entry["arm"]).endswith("(search)")]
    found = [entry for entry in made if entry["step"] == step]
    if not found:
        names = sorted({entry["step"] for entry in made})
        raise InputError(
            f"no step of the run made such a {what}",
            where=f"{workspace}, run {run_id}",
            expected="one of " + ", ".join(names) if names else f"a run that made a {what}",
            found=step,
            remedy=suggest(step, names) if names else "run a recipe that makes one",
        )
    arms = sorted({str(entry["arm"]) for entry in found if entry["arm"] is not None})
    if arms and (arm or len(arms) > 1):
        if arm not in arms:
            raise InputError(
                f"the step made a {what} in several arms" if not arm else f"the step made no {what} in this arm",
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
            f"the {what} is not in the store any more",
            where=f"{workspace}, step {name}",
            expected="an artifact as the run left it",
            found="none",
            remedy="run the recipe again; what is there is not made twice",
        )
    artifact.verify()
    return artifact, entry
