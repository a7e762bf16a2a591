"""What choosing among finished runs shares: regret by group, its bootstrap over groups, the `Result` of a choice.

A group is what was decided about at once (a cohort of runs, the checkpoints of one run); regret is the best final
score in it minus that of what was kept, in the units of the score, 0 when the best was kept.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tutelage.core.errors import InputError
from tutelage.core.items import ItemLog
from tutelage.core.method import Forecaster
from tutelage.core.records import Interval, Result
from tutelage.forecasting._shared import LEVEL, task_name

DRAWS = 2000


def bounds(regrets: np.ndarray, seed: int, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of the mean over groups [g], groups resampled."""
    draws = np.random.default_rng(seed).integers(0, len(regrets), (DRAWS, len(regrets)))
    low, high = np.quantile(regrets[draws].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def numbers(rows: Sequence[Mapping[str, Any]], name: str, *, empty: bool = False) -> np.ndarray:
    """One column of rows as floats; nulls become NaN where `empty` allows them. Raises InputError otherwise."""
    values = [row.get(name) for row in rows]
    for row, value in zip(rows, values):
        known = isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
        if not known and not (empty and value is None):
            raise InputError(
                "a row lacks a number",
                where=f"row {row['id']}, column {name!r}",
                expected="a finite number" + (", or null where it is not known" if empty else ""),
                found=repr(value),
            )
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def choice_result(
    method: Forecaster,
    metric: str,
    regrets: Mapping[str, float],
    *,
    told: Sequence[str],
    tables: Sequence[Mapping[str, Any]],
    extra: Mapping[str, float],
    system: Mapping[str, Any],
    seed: int,
    advise_only: str | None,
) -> Result:
    """Mean regret of the chosen rule over finished groups, each an item; `advise_only` says why there is no
    interval."""
    values = np.array(list(regrets.values()))
    name = task_name(method)
    rows = [{"item_key": key, "score": float(value), "system_id": name} for key, value in regrets.items()]
    direction: Literal[-1] = -1
    log = ItemLog.from_rows(rows, {"task": name, "metric": metric, "direction": direction, "unit": ""})
    interval = None
    if advise_only is None:
        low, high = bounds(values, seed)
        interval = Interval(
            lo=low, hi=high, level=LEVEL, method="percentile bootstrap over groups", covers="clusters"
        )
    return Result(
        task=name,
        metric=metric,
        direction=direction,
        estimate=float(values.mean()),
        interval=interval,
        no_interval=advise_only,
        n_items=len(values),
        n_clusters=len(values),
        system={"name": f"{len(values)} finished", "told": list(told), "tables": list(tables), **system},
        extra=dict(extra),
    ).with_items(log)
