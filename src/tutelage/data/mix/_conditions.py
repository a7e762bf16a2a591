"""Conditions on columns, read shard by shard, and the words in which a dropped row hears of them."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import model_validator

from tutelage.core.errors import InputError
from tutelage.core.records import Record

Value = bool | int | float | str


class Condition(Record):
    """All that is given must hold: `min` and `max` (inclusive), `equals`, `one_of`, `present`. A value that is
    missing (null or NaN) meets `present: false` alone."""

    min: float | None = None
    max: float | None = None
    equals: Value | None = None
    one_of: list[Value] | None = None
    present: bool | None = None

    @model_validator(mode="after")
    def _something(self) -> "Condition":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if not given:
            raise ValueError("give at least one of min, max, equals, one_of, present")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be larger than max")
        return self

    @property
    def words(self) -> str:
        """`at least 50 and at most 100`."""
        parts = [f"at least {self.min:g}"] if self.min is not None else []
        parts += [f"at most {self.max:g}"] if self.max is not None else []
        parts += [shown(self.equals)] if self.equals is not None else []
        parts += ["one of " + ", ".join(map(shown, self.one_of))] if self.one_of is not None else []
        parts += ["a value" if self.present else "no value"] if self.present is not None else []
        return " and ".join(parts)

    def met(self, column: pa.ChunkedArray, name: str) -> np.ndarray:
        """Which values of the column meet it, bool [n]; raises InputError for bounds on what is no number."""
        missing = pc.is_null(column, nan_is_null=pa.types.is_floating(column.type)).to_numpy()
        if self.present is False:
            return missing
        found = ~missing
        if self.min is not None or self.max is not None:
            values = _numbers(column, name)
            with np.errstate(invalid="ignore"):
                found &= values >= (-np.inf if self.min is None else self.min)
                found &= values <= (np.inf if self.max is None else self.max)
        wanted = [*([] if self.equals is None else [self.equals]), *(self.one_of or [])]
        if wanted:
            _check_type(wanted, column.type, name)
            values = column.to_pylist()
            if self.equals is not None:
                found &= np.array([value == self.equals for value in values], dtype=bool)
            if self.one_of is not None:
                found &= np.array([value in self.one_of for value in values], dtype=bool)
        return found


def shown(value: Any) -> str:
    """A value in a reason: short, numbers to six digits."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "missing"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = repr(value)
    return text if len(text) <= 120 else text[:120] + "..."


def _numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        if pa.types.is_null(kind):
            return np.full(len(column), np.nan)
        raise InputError(f"column {name!r} is not numeric", where=name, expected="numbers", found=str(kind))
    return column.cast(pa.float64()).to_numpy()


def _check_type(wanted: list[Value], kind: pa.DataType, name: str) -> None:
    """A value of another type than the column's is a slip: no row could ever have it."""
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    fits = {
        bool: pa.types.is_boolean(kind),
        int: number,
        float: number,
        str: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    }
    for value in wanted:
        if not fits[type(value)] and not pa.types.is_null(kind):
            raise InputError(
                f"column {name!r} is never {value!r}",
                where=name,
                expected=f"a value of type {kind}",
                found=f"{type(value).__name__} {value!r}",
                remedy="write the value as the column holds it",
            )
