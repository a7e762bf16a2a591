"""The cells of a transfer matrix: results of stages on probes as aligned scores, resampled together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tutelage.core.errors import ComparisonError, ConfigError, InputError
from tutelage.core.items import ItemLog
from tutelage.core.records import Result
from tutelage.core.stats.clusters import ClusterDesign, cluster_design
from tutelage.core.stats.intervals import resamples
from tutelage.core.text.duplicates import shared_ids
from tutelage.core.text.rows import text_rows
from tutelage.evaluation._logs import listed, log_of

if TYPE_CHECKING:
    from tutelage.evaluation.transfer_matrix import TransferMatrix


@dataclass(frozen=True)
class Column:
    """One probe: the logs of the base and of every stage (None: not measured), their scores turned so that larger
    is better, `good` [stages + 1, n] (NaN rows: not measured), `weight` [stages + 1, n], and who shares a
    cluster. `own` is the number of the stage that trained on the probe's domain, None where none did."""

    name: str
    direction: Literal[1, -1]
    unit: str
    keys: list[str]
    logs: list[ItemLog | None]
    good: np.ndarray
    weight: np.ndarray
    clusters: np.ndarray
    design: ClusterDesign
    own: int | None

    def values(self, items: np.ndarray | slice = slice(None)) -> np.ndarray:
        """[stages + 1] the probe's value after each stage over these items."""
        weight = self.weight[:, items]
        return (self.good[:, items] * weight).sum(axis=1) / weight.sum(axis=1)

    def drawn(self, draws: int, seed: int) -> np.ndarray:
        """[draws, stages + 1] values over resamples, each the same for all stages."""
        return np.array([self.values(items) for items in resamples(self.design, draws, seed)])


def read_columns(task: "TransferMatrix", before: Any, after: Any) -> tuple[list[Column], list[str]]:
    """(one column for each probe, names of the stages)."""
    base, rest = listed(before), listed(after)
    probes = list(task.probes) or [f"probe {number + 1}" for number in range(len(base))]
    if len(probes) != len(base):
        raise _uneven("probes", len(probes), f"{len(base)} results in inputs.before, one for each probe")
    count = len(task.stages) or (len(rest) + len(task.not_measured)) // len(probes)
    stages = list(task.stages) or [f"stage {number + 1}" for number in range(count)]
    unknown = [cell for cell in task.not_measured if cell[0] not in stages or cell[1] not in probes]
    if unknown:
        raise _uneven("not_measured", unknown[0], f"a stage of {stages} and a probe of {probes}")
    wanted = [(s, p) for s in stages for p in probes if (s, p) not in task.not_measured]
    if not stages or len(wanted) != len(rest):
        raise _uneven(
            "stages",
            f"{len(rest)} results in inputs.after",
            f"{len(wanted)}: every probe after every stage, stage by stage, less what is in not_measured",
        )
    cells = dict(zip(wanted, rest))
    return [
        _column(name, result, [cells.get((stage, name)) for stage in stages], stages)
        for name, result in zip(probes, base)
    ], stages


def _uneven(field: str, found: Any, expected: str) -> ConfigError:
    return ConfigError("the matrix has another shape", where=field, expected=expected, found=found)


def _column(name: str, base: Any, cells: Sequence[Any], stages: Sequence[str]) -> Column:
    given = [base, *cells]
    places = [f"probe {name}, {place}" for place in ("before", *(f"after {stage}" for stage in stages))]
    logs = [None if one is None else log_of(one, place) for one, place in zip(given, places)]
    facts = {(one.metric, one.direction, one.unit) for one in given if isinstance(one, Result)}
    if len(facts) != 1:
        raise ComparisonError(
            "a probe was measured in two ways",
            where=f"probe {name}",
            expected="one metric for all stages; bits per byte where tokenizers differ",
            found=", ".join(sorted(metric for metric, _, _ in facts)) or "no result",
        )
    _, direction, unit = facts.pop()
    first = logs[0]
    assert first is not None
    keys = first.matrix().keys
    good = np.full((len(logs), len(keys)), np.nan)
    weight, clusters = np.ones_like(good), first.matrix().clusters
    for number, (log, place) in enumerate(zip(logs, places)):
        if log is None:
            continue
        matrix = log.matrix()
        at = {key: i for i, key in enumerate(matrix.keys)}
        if at.keys() != set(keys):
            lacking = [key for key in keys if key not in at] or [key for key in at if key not in set(keys)]
            raise ComparisonError(
                "a probe was measured on different items",
                where=f"{place}, first keys: {', '.join(lacking[:3])}",
                expected=f"the {len(keys)} items of the base",
                found=f"{len(at)} items, {len(at.keys() & set(keys))} of them shared",
                remedy="evaluate every stage on the same rows",
            )
        order = [at[key] for key in keys]
        good[number] = direction * matrix.scores.mean(axis=0)[order]
        if matrix.weights is not None:
            weight[number] = matrix.weights.mean(axis=0)[order]
    own = stages.index(name) + 1 if name in stages else None
    design = cluster_design(clusters, len(keys))
    return Column(name, direction, unit, keys, logs, good, weight, clusters, design, own)


def refuse_leaks(task: "TransferMatrix", trained_on: Any, probe_rows: Any) -> None:
    """Raise InputError where a probe's text is among what a stage was trained on."""
    for number, probe in enumerate(listed(probe_rows)):
        for stage, rows in enumerate(listed(trained_on)):
            shared = shared_ids(text_rows(probe), text_rows(rows))
            if shared:
                names = [names[i] if i < len(names) else i + 1 for names, i in _named(task, number, stage)]
                raise InputError(
                    "a probe shares documents with what a stage was trained on",
                    where=f"probe {names[0]}, stage {names[1]}",
                    expected="texts that no stage has seen",
                    found=f"{len(shared)} of {len(probe)}, first {', '.join(shared[:3])}",
                    remedy="split first, or take them out of training with data.filter.decontaminate",
                )


def _named(task: "TransferMatrix", probe: int, stage: int) -> list[tuple[tuple[str, ...], int]]:
    return [(task.probes, probe), (task.stages, stage)]
