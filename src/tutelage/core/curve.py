"""Points of a curve, and what a forecast made from them says about itself.

A point is one measured run: `x` what was spent on it (rows, tokens, parameters), `y` what it reached, perhaps its
standard error, the learning-rate phase it was measured in and the run and training seed that it belongs to. Points
of one run are autocorrelated and say so (`single_run`); points of different phases are no curve at all, because a
falling learning rate lowers a loss as more data would.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import model_validator

from tutelage.core.errors import InputError
from tutelage.core.records import Record

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset

MIN_POINTS = 5
MIN_SPAN = 8.0
# Ratio of x between checkpoints of one run below which they say nearly the same.
SPACING = 1.3


class Curve(Record):
    """Points in order of x. `se` and `phase` are for all points or for none; `run` None: every point is a run."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    se: tuple[float, ...] | None = None
    phase: tuple[str, ...] | None = None
    run: tuple[str, ...] | None = None
    metric: str = "y"
    x_unit: str = "x"
    direction: Literal[1, -1] = 1

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not self.x or any(len(row) != len(self.x) for row in (self.y, self.se, self.phase, self.run) if row):
            raise InputError("no curve", expected="one x for every y", found=f"{len(self.x)} x, {len(self.y)} y")
        for number, (x, y) in enumerate(zip(self.x, self.y), start=1):
            if not (np.isfinite(x) and x > 0 and np.isfinite(y)):
                raise InputError(
                    "a point of a curve is not usable",
                    where=f"point {number}",
                    expected="a positive finite x and a finite y",
                    found=f"x = {x}, y = {y}",
                    remedy="leave this point out and say so, or measure it again",
                )
        if self.phase is not None and len(set(self.phase)) > 1:
            raise InputError(
                "points of different learning-rate phases are no curve",
                where=f"{self.metric} over {self.x_unit}",
                expected="points of one phase",
                found=", ".join(sorted(set(self.phase))[:5]),
                remedy="keep one phase, or measure decayed branches of every checkpoint",
            )
        order = np.argsort(self.x, kind="stable")
        if not np.array_equal(order, np.arange(len(order))):
            for name in ("x", "y", "se", "phase", "run"):
                values = getattr(self, name)
                if values is not None:
                    object.__setattr__(self, name, tuple(values[i] for i in order))
        return self

    @property
    def single_run(self) -> bool:
        """Whether all points are checkpoints of one run."""
        return self.run is not None and len(set(self.run)) == 1 and len(self.run) > 1

    @property
    def distinct(self) -> np.ndarray:
        """The different x, rising."""
        return np.unique(self.x)

    def at(self, x: float) -> float:
        """Mean of the points at one x."""
        return float(np.mean([y for one, y in zip(self.x, self.y) if one == x]))

    def where(self, keep: Sequence[bool] | np.ndarray) -> "Curve":
        """The points that are kept."""
        chosen = np.flatnonzero(np.asarray(keep))
        rows = {name: getattr(self, name) for name in ("x", "y", "se", "phase", "run")}
        kept = {name: None if row is None else tuple(row[i] for i in chosen) for name, row in rows.items()}
        return self.model_copy(update=kept)

    def until(self, x: float) -> "Curve":
        """The points up to x."""
        return self.where(np.asarray(self.x) <= x)

    def spaced(self, ratio: float = SPACING) -> "Curve":
        """Log-spaced points, kept from the largest x downwards; for checkpoints of one run."""
        kept: list[float] = []
        for x in self.distinct[::-1]:
            if not kept or x * ratio <= kept[-1]:
                kept.append(float(x))
        return self.where(np.isin(self.x, kept))

    def require(self, points: int = MIN_POINTS, span: float = MIN_SPAN) -> "Curve":
        """Itself; raises InputError for too few different x, or too narrow a span of them."""
        where = f"{self.metric} over {self.x_unit}"
        if len(self.distinct) < points:
            raise InputError(
                "too few points for a curve",
                where=where,
                expected=f"{points} different {self.x_unit}",
                found=f"{len(self.distinct)}: {', '.join(f'{x:g}' for x in self.distinct)}",
                remedy="measure at more sizes, doubling each time",
            )
        if self.distinct[-1] < span * self.distinct[0]:
            raise InputError(
                "the points span too little for a curve",
                where=where,
                expected=f"a largest {self.x_unit} at least {span:g} times the smallest",
                found=f"{self.distinct[0]:g} to {self.distinct[-1]:g}, "
                f"{self.distinct[-1] / self.distinct[0]:.3g} times",
                remedy="measure at smaller sizes too, doubling each time",
            )
        return self


class BackTest(Record):
    """How a forecast fared on points it had not seen, at one extrapolation ratio (a power of two).

    Errors are medians of |predicted - measured| / |measured| over `points` held-out points; `skill` is 1 - error /
    error of the better naive forecast; `coverage` the share of held-out points inside their own 95 % interval.
    """

    ratio: float
    points: int
    error: float
    last: float
    line: float
    skill: float
    coverage: float | None = None


class Forecast(Record):
    """What a forecast says and how far it can be trusted; `shown` is what a reader may quote.

    `status` is `skill` (it beat both naive forecasts at this ratio), `no skill`, `not tested` (no held-out point
    at this ratio) or `forced`.
    """

    metric: str
    x_unit: str
    at: float
    ratio: float
    form: str
    formula: str
    parameters: dict[str, float]
    value: float
    interval: tuple[float, float] | None
    last: float
    line: float
    shown: float
    status: Literal["skill", "no skill", "not tested", "forced"]
    tested: tuple[BackTest, ...] = ()
    points: tuple[tuple[float, float], ...] = ()
    drawn: tuple[tuple[float, float], ...] = ()
    notes: tuple[str, ...] = ()


def curve_of(
    points: "Dataset",
    *,
    x: str = "x",
    y: str = "y",
    direction: Literal[1, -1] | None = None,
    several: bool = False,
) -> Curve:
    """The curve in columns `x` and `y` of a table of points, with `se`, `phase`, `run` where it has them.

    `direction` None: from the column `direction`, else +1. Raises InputError for values that are no curve, for two
    points of one x, run and seed (unless there may be `several`), and for a column `se` or `phase` that only some
    points have.
    """
    points.require(x, y)
    names = points.column_names
    rows = list(points.rows([n for n in dict.fromkeys(("id", x, y, *_OPTIONAL)) if n in names]))
    if not rows:
        raise InputError("no curve", expected="rows of measured points", found="none")
    seen: dict[tuple[object, ...], str] = {}
    for row in rows:
        for name in (x, y):
            if not isinstance(row[name], int | float) or isinstance(row[name], bool):
                raise InputError(
                    "a point of a curve is not usable",
                    where=f"row {row['id']}, column {name!r}",
                    expected="a number",
                    found=repr(row[name]),
                    remedy="leave this point out and say so, or measure it again",
                )
        key = (row[x], row.get("run"), row.get("seed"))
        if not several and row.get("seed") is not None and seen.setdefault(key, row["id"]) != row["id"]:
            raise InputError(
                "the same point is there twice",
                where=f"rows {seen[key]} and {row['id']}",
                expected=f"one row for each {x}, run and seed",
                found=f"{x} = {row[x]}, run {row.get('run')}, seed {row.get('seed')}",
                remedy="keep one of them",
            )
    told = {row["direction"] for row in rows if row.get("direction") is not None}
    if direction is None and len(told) > 1:
        raise InputError("points of different directions are no curve", where="direction", found=sorted(told))
    return Curve(
        x=tuple(float(row[x]) for row in rows),
        y=tuple(float(row[y]) for row in rows),
        se=_whole(rows, "se", float),
        phase=_whole(rows, "phase", str),
        run=_whole(rows, "run", str),
        metric=next((row["metric"] for row in rows if row.get("metric")), y),
        x_unit=next((row["x_unit"] for row in rows if row.get("x_unit")), x),
        direction=direction or (1 if not told or told == {1} else -1),
    )


_OPTIONAL = ("se", "phase", "run", "seed", "metric", "x_unit", "direction")


def _whole(rows: Sequence[dict], name: str, kind: type) -> tuple | None:
    values = [row.get(name) for row in rows]
    lacking = [row["id"] for row, value in zip(rows, values) if value is None]
    if len(lacking) == len(rows):
        return None
    if lacking:
        raise InputError(
            f"some points have a {name!r} and others have none",
            where=f"row {lacking[0]}",
            expected=f"a {name} for every point, or for none",
            found=f"{len(lacking)} of {len(rows)} without",
        )
    return tuple(kind(value) for value in values)
