"""What a run was trained on: the head of its log, and whether the log is what its sampler draws.

The log (`consumed.jsonl` of a training step) has one line per optimiser step with the ids of its rows, each once.
A shuffling loader, grouping by length or a wrong resumption would undo an order in silence; the log shows it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tutelage.core.dataset import Dataset
from tutelage.core.errors import TrainingError
from tutelage.core.method import Sampler

LOG = "consumed.jsonl"


@dataclass(frozen=True)
class OrderCheck:
    """Optimiser steps and draws of the sampler that were compared."""

    steps: int
    draws: int


def consumed_steps(log: str | Path) -> Iterator[tuple[int, list[str]]]:
    """(step, ids of its rows) line by line."""
    with Path(log).open(encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            yield int(entry["step"]), list(entry["ids"])


def head(log: str | Path, steps: int) -> list[tuple[int, list[str]]]:
    """The first `steps` steps of a log."""
    return list(islice(consumed_steps(log), steps))


def check_order(log: str | Path, dataset: Dataset, sampler: Sampler, seed: int) -> OrderCheck:
    """Compare a log with what `sampler` draws from the training rows under `seed`; TrainingError where they part.

    A row that is longer than the context may go on in the next step, a row drawn twice in a step is logged once,
    and a row of which nothing can be trained is not logged: these are no differences. For samplers that do not
    listen to losses.
    """
    ids, draws = dataset.ids(), sampler.start(dataset, seed)
    logged = {name for _, names in consumed_steps(log) for name in names}
    drawn, count, steps, last = ids[draws.next()], 0, 0, ""
    before: set[str] = set()
    for step, names in consumed_steps(log):
        here: set[str] = set()
        for place, name in enumerate(names):
            goes_on = place == 0 and name == last and drawn != name
            limit = count + 4 * len(ids)
            while drawn != name and not goes_on and count < limit:
                if drawn in logged and drawn not in before | here:
                    break
                drawn, count = ids[draws.next()], count + 1
            if drawn == name:
                drawn, count = ids[draws.next()], count + 1
            elif not goes_on:
                raise TrainingError(
                    "the rows were not consumed in the order of the sampler",
                    where=f"step {step}, row {place}",
                    expected=drawn,
                    found=name,
                    remedy="give the dataset, the sampler and the seed of this run; if they are, report it",
                )
            here.add(name)
            last = name
        before, steps = here, steps + 1
    return OrderCheck(steps, count)
