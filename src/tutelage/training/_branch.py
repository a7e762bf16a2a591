"""A decayed copy of a run that is still in its stable phase.

A schedule is a pure function of (seen, total). A run that has seen n units at a constant rate, continued to n + d
with a decay over the last d, is the wsd run with horizon n + d from its start; so one stable run serves every
horizon at the price of its decay.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.core.errors import ConfigError, StoreError
from tutelage.core.records import Budget
from tutelage.training import _checkpoint as checkpoints
from tutelage.training._copy import trainable_copy
from tutelage.training._records import Fit as FitRecord
from tutelage.training.schedules.constant import Constant
from tutelage.training.schedules.wsd import Shape, Wsd
from tutelage.training.trainer import fit

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.training.fit import Fit

CONSUMED = "consumed.jsonl"


def branch_decay(
    step: "Fit",
    model: Any,
    dataset: "Dataset",
    checkpoint: Path,
    folder: Path,
    decay: Budget,
    shape: Shape,
    final: float,
) -> tuple[Any, FitRecord]:
    """See `training.fit.Fit.branch_decay`."""
    if not checkpoints.is_complete(checkpoint):
        raise StoreError(
            "a checkpoint is missing or not whole",
            where=checkpoint,
            expected="a step-... folder with its marker and intact files",
            remedy="choose another of the same run",
        )
    if checkpoint.resolve().parent == folder.resolve():
        raise ConfigError(
            "a branch needs a folder of its own",
            where=folder,
            remedy="name one beside the run's checkpoint folder",
        )
    state = checkpoints.load(checkpoint)
    counters = state["counters"]
    seen, more = _amounts(step, counters, decay)
    _require_stable(step, seen, dataset.num_rows)
    identity = f"{state['identity']}/decay {decay.model_dump_json(exclude_none=True)} {shape} {final:g}"
    if checkpoints.newest(folder) is None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(checkpoint.parent / CONSUMED, folder / CONSUMED)
        # What a run has measured and kept on its way to another end is not the branch's.
        fresh = {**counters, "evaluated": 0, "kept": 0, "ended": False}
        branched = {**state, "identity": identity, "counters": fresh, "history": [], "kept": {}}
        checkpoints.save(folder, counters["step"], branched)
    unit = "tokens" if decay.tokens is not None else "rows"
    copy = trainable_copy(model, step.top_layers)
    record = fit(
        copy,
        dataset,
        sampler=step.sampler,  # type: ignore[arg-type]
        objective=step.objective,  # type: ignore[arg-type]
        schedule=Wsd(warmup=0, decay=more, final=final, shape=shape),
        update_rule=step.update_rule,  # type: ignore[arg-type]
        budget=Budget(**{unit: seen + more}),
        settings=step.settings(),
        seed=int(step.seed),
        checkpoint_dir=folder,
        identity=identity,
    )
    return copy, record


def _amounts(step: "Fit", counters: dict[str, Any], decay: Budget) -> tuple[int, int]:
    """(seen, decay) in the unit of `decay`, which must be that of the run."""
    units = ("rows",) if step.budget is None else ("tokens", "rows")
    for unit in units:
        more = getattr(decay, unit)
        run = 1 if step.budget is None else getattr(step.budget, unit)
        if run is not None and more is not None and decay == Budget(**{unit: more}):
            return int(counters[unit]), int(more)
    raise ConfigError(
        "a decay is given in the unit of the run's budget",
        where="decay",
        expected="tokens or rows, as the run",
        found=decay.model_dump(exclude_none=True),
    )


def _require_stable(step: "Fit", seen: int, rows: int) -> None:
    schedule = step.schedule
    budget = step.budget
    total = float(rows if budget is None else budget.tokens or budget.rows or 0)
    if isinstance(schedule, Constant | Wsd) and schedule.multiplier(float(seen), total) == 1.0:
        return
    raise ConfigError(
        "a run can be branched from its stable phase only",
        where="schedule",
        expected="a constant or wsd schedule, after its warm-up and before its decay",
        found=f"{getattr(schedule, 'name', schedule)} after {seen:,} of {total:,.0f}",
        remedy="choose an earlier checkpoint, or train with training.schedules.wsd or constant",
    )
