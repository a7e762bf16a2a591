"""What became of one row: which steps kept it, scored it, dropped it and why, and where it was trained on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from tutelage.core import discovery
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.records import Record
from tutelage.core.store import Store
from tutelage.runs import payload
from tutelage.runs.consumed import LOG, consumed_steps

# Rows of a document that are named one by one; the others are counted.
NAMED = 5


class Event(Record):
    """One step's word on the row or on rows made from it (`rows` of them, the first in `ids`). `details`: their
    scores, the reasons why they are gone, or the optimiser steps that they were trained in. `arms`: where the step
    ran; empty for all."""

    step: str
    method: str
    arms: tuple[str, ...]
    outcome: Literal["kept", "scored", "made into", "dropped", "trained on"]
    rows: int
    ids: tuple[str, ...]
    details: tuple[str, ...] = ()


def fate(run: dict[str, Any], store: Store, row_id: str) -> list[Event]:
    """The events of row `row_id` in the order of the run's steps; raises InputError for a row it never had.

    For a document its chunks are followed too; for a chunk, what happened to its document before.
    """
    artifacts: dict[str, dict[str, Any]] = {}
    arms: dict[str, list[str]] = {}
    for step in run["steps"]:
        artifacts.setdefault(step["key"], step)
        if step["arm"]:
            arms.setdefault(step["key"], []).append(step["arm"])
    opened: list[tuple[dict[str, Any], Dataset | Path]] = []
    for key, step in artifacts.items():
        artifact = store.whole(key)
        if artifact is not None and artifact.kind == "dataset":
            opened.append((step, payload.load_dataset(artifact.path)))
        elif artifact is not None and step["kind"] == "Trainer":
            opened.append((step, artifact.path / LOG))
    above = _documents(opened, row_id)
    own = {row_id}
    events: list[Event] = []
    for step, made in opened:
        facts = {"step": step["step"], "method": step["method"]}
        facts["arms"] = tuple(dict.fromkeys(name.removesuffix(" (search)") for name in arms.get(step["key"], ())))
        if not isinstance(made, Dataset):
            seen = _trained(made, own)
            if seen:
                details = [f"{name}: optimiser step {', '.join(map(str, steps))}" for name, steps in seen.items()]
                events.append(_event(facts, "trained on", list(seen), details))
        else:
            events += _of_rows(facts, step["kind"], made, own, above)
    if not events:
        raise InputError(
            f"the run has no row {row_id!r}",
            where=run["run_id"],
            expected="the id of a row, as `tutelage inspect STEP` and the report show it",
            found=row_id,
            remedy="look for it with `tutelage search WORDS --corpus STEP`",
        )
    return events


def _of_rows(facts: dict[str, Any], kind: str, dataset: Dataset, own: set[str], above: set[str]) -> list[Event]:
    events = []
    made = []
    if "source_id" in dataset.column_names:
        children = dataset.column("id").filter(pc.is_in(dataset.column("source_id"), pa.array(sorted(own))))
        made = [name for name in children.to_pylist() if name not in own]
        own |= set(made)
    here = pc.is_in(dataset.column("id"), pa.array(sorted(own | above)))
    places = pc.indices_nonzero(here.combine_chunks()).to_pylist()
    kept = dataset.column("id").filter(here).to_pylist()
    if made:
        events.append(_event(facts, "made into", made))
    elif kind == "Scorer" and kept:
        rows = dataset.take(places[:NAMED]).to_pylist()
        written = [name for name in discovery.find(facts["method"]).writes if name in dataset.column_names]
        details = [
            f"{row['id']}: "
            + ", ".join(f"{name} {_short(row[name])}" for name in written if row[name] is not None)
            for row in rows
            if written
        ]
        events.append(_event(facts, "scored", kept, details))
    elif kept:
        events.append(_event(facts, "kept", kept))
    gone = dataset.dropped
    gone = gone.filter(pc.is_in(gone.column("id"), pa.array(sorted(own | above))))
    if gone.num_rows:
        cut = dataset.report.get("last_score_taken")
        more = "" if cut is None else f" (the last one taken has {_short(cut)})"
        rows = gone.slice(0, NAMED).to_pylist()
        details = [f"{row['id']}: {row['reason']}{more}" for row in rows]
        events.append(_event(facts, "dropped", gone.column("id").to_pylist(), details))
    return events


def _documents(opened: Sequence[tuple[dict[str, Any], Dataset | Path]], row_id: str) -> set[str]:
    """The rows that `row_id` was made from, and those that these were made from."""
    above: set[str] = set()
    for _, made in reversed(opened):
        if isinstance(made, Dataset) and "source_id" in made.column_names:
            here = pc.is_in(made.column("id"), pa.array(sorted({row_id} | above)))
            above |= set(made.column("source_id").filter(here).to_pylist()) - {None, row_id}
    return above


def _trained(log: Path, own: set[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    if log.is_file():
        for number, ids in consumed_steps(log):
            for name in ids:
                if name in own:
                    found.setdefault(name, []).append(number)
    return found


def _event(facts: dict[str, Any], outcome: Any, ids: Sequence[str], details: Sequence[str] = ()) -> Event:
    return Event(**facts, outcome=outcome, rows=len(ids), ids=tuple(ids[:NAMED]), details=tuple(details[:NAMED]))


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
