"""Forgetting and transfer read off the columns of a transfer matrix, with intervals over resampled documents."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tutelage.core.errors import ConfigError
from tutelage.core.stats.compare import compare
from tutelage.core.stats.intervals import bootstrap_interval
from tutelage.evaluation._cells import Column
from tutelage.evaluation._logs import log_of

# (column, stage a, stage b): what stage a is better by than stage b.
Term = tuple[Column, int, int]


class Contrasts:
    """Differences between stages of the same columns, resampled together."""

    def __init__(self, columns: Sequence[Column], draws: int, seed: int) -> None:
        self._point = {column.name: column.values()[None] for column in columns}
        self._drawn = {column.name: column.drawn(draws, seed) for column in columns}
        self._seed = seed

    def forgotten(self, column: Column) -> dict[str, float]:
        """Forgetting of one probe three ways; nothing where a stage that it needs was not measured."""
        start, name = column.own or 0, column.name
        if np.isnan(self._point[name][0, start:]).any() or column.design.n_clusters < 2:
            return {}
        point, drawn = (
            values[name][:, start:].max(axis=1) - values[name][:, -1] for values in (self._point, self._drawn)
        )
        found = _bounded(f"forgetting[{name}]", point, drawn)
        last = len(column.logs) - 1
        if start < last:
            found |= self._mean(f"since_own_stage[{name}]", [(column, last, start)])
        return found | {f"forgetting_halves[{name}]": _halves(column, start, self._seed)}

    def transfers(self, columns: Sequence[Column], separate: Mapping[int, float]) -> dict[str, float]:
        """Backward and forward transfer and chain benefit, `separate` being each own column's gain over separate
        adaptation; nothing where the domains' own probes have different units."""
        own = {column.own: column for column in columns if column.own is not None}
        if len({column.unit for column in own.values()}) != 1:
            return {}
        last = len(columns[0].logs) - 1
        found = self._mean("backward_transfer", [(c, last, s) for s, c in own.items() if s < last])
        found |= self._mean("forward_transfer", [(c, s - 1, 0) for s, c in own.items() if s > 1])
        gains = [gain for stage, gain in separate.items() if stage in own]
        return found | ({"chain_benefit": float(np.mean(gains))} if gains else {})

    def _mean(self, name: str, terms: Sequence[Term]) -> dict[str, float]:
        """The mean of several terms; none where a cell is missing."""
        if not terms or any(c.design.n_clusters < 2 for c, _, _ in terms):
            return {}
        point, drawn = (
            np.mean([values[c.name][:, a] - values[c.name][:, b] for c, a, b in terms], axis=0)
            for values in (self._point, self._drawn)
        )
        return _bounded(name, point, drawn)


def separate_gains(columns: Sequence[Column], stages: Sequence[str], separate: Sequence[Any]) -> dict[int, float]:
    """Number of a stage -> what its own probe is better by after it than after separate adaptation."""
    if separate and len(separate) != len(stages):
        raise ConfigError(
            "each stage has one separate adaptation",
            where="inputs.separate",
            expected=f"{len(stages)} results, in the order of stages",
            found=len(separate),
        )
    own = {column.own: column for column in columns}
    found = {}
    for number, alone in enumerate(separate, 1):
        log = own[number].logs[number] if number in own else None
        if log is not None:
            direction = own[number].direction
            found[number] = compare(log, log_of(alone, "inputs.separate"), direction=direction).estimate
    return found


def _bounded(name: str, point: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    if not np.isfinite(point).all():
        return {}
    interval = bootstrap_interval(drawn, 0.95, True)
    return {name: float(point[0]), f"{name}_lo": interval.lo, f"{name}_hi": interval.hi}


def _halves(column: Column, start: int, seed: int) -> float:
    """Forgetting since the stage that is best on one half of the clusters, measured on the other; both ways."""
    members = column.design.members()
    order = np.random.default_rng(seed).permutation(len(members))
    halves = [np.concatenate([members[c] for c in part]) for part in np.array_split(order, 2)]
    found = []
    for choose, measure in (halves, halves[::-1]):
        values = column.values(measure)
        found.append(values[start + int(column.values(choose)[start:].argmax())] - values[-1])
    return float(np.mean(found))
