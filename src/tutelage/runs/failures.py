"""Trainings of a comparison that broke down, remembered beside the results they did not give.

In a comparison a failure is a finding: it costs what it cost, and meets the same end when it is made again. It is
kept under a key of its own, so that a later run replays it; removing unused artifacts (`tutelage gc`) forgets it.
"""

from tutelage.core.errors import TrainingError
from tutelage.core.fingerprint import digest
from tutelage.core.records import Cost
from tutelage.core.store import Store


def remember(store: Store, key: str, error: TrainingError) -> None:
    """Keep `error` as what becomes of the step `key`, unless another try may end better."""
    if not error.repeats:
        return
    facts = {name: None if value is None else str(value) for name, value in _facts(error).items()}
    meta = {"what": error.what, "facts": facts, "cost": error.cost.model_dump() if error.cost else None}
    store.put(_key(key), lambda folder: None, kind="failure", meta=meta)


def recall(store: Store, key: str) -> TrainingError | None:
    """The error that the step `key` ended with, or None."""
    found = store.get(_key(key))
    if found is None:
        return None
    cost = found.meta["cost"]
    return TrainingError(
        found.meta["what"], **found.meta["facts"], repeats=True, cost=None if cost is None else Cost(**cost)
    )


def _facts(error: TrainingError) -> dict[str, object]:
    return {"where": error.where, "expected": error.expected, "found": error.found, "remedy": error.remedy}


def _key(key: str) -> str:
    return digest(["failure", key])
