"""Keep the rows for which one column has a wanted value.

With `equals` or `one_of` a row stays if its value is (one of) the given; without either, a true/false column
keeps its true rows and any other column its non-null rows. `negate` turns the choice round.
"""

import numpy as np
import pyarrow as pa
from pydantic import model_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, suggest
from tutelage.core.method import Inputs, Transform

CARD = {
    "name": "data.filter.where",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Keeps rows where a column equals a value, is one of a list, is true, or is not null.",
    "reads": ["{column}"],
    "cost": "one comparison per row",
    "baseline": None,
    "headline": "every drop carries the value that caused it",
    "version": 1,
}

Value = bool | int | float | str


class Where(Transform):
    """`column`; at most one of `equals` and `one_of`; `negate` keeps the others."""

    column: str | None = None
    equals: Value | None = None
    one_of: list[Value] | None = None
    negate: bool = False

    @model_validator(mode="after")
    def _one_question(self) -> "Where":
        if self.equals is not None and self.one_of is not None:
            raise ValueError("give equals or one_of, not both")
        return self

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        if self.column is None:
            raise ConfigError(
                f"{self.name} needs a column", where="column", expected=", ".join(dataset.column_names)
            )
        kind = dataset.column(self.column).type
        values = dataset.column(self.column).to_pylist()
        wanted = self.one_of if self.one_of is not None else None if self.equals is None else [self.equals]
        if wanted is None:
            truth = pa.types.is_boolean(kind)
            mask = np.array([v is True if truth else v is not None for v in values], dtype=bool)
        else:
            self._check(wanted, values, kind)
            mask = np.array([v is not None and v in wanted for v in values], dtype=bool)
        if self.negate:
            mask = ~mask
        reasons = {i: f"where: {self.column} is {values[i]!r}" for i in np.flatnonzero(~mask).tolist()}
        report = {"method": self.name, "rows_in": len(mask), "rows_kept": int(mask.sum()), "column": self.column}
        return dataset.keep(mask, reasons, report)

    def _check(self, wanted: list[Value], values: list[object], kind: pa.DataType) -> None:
        """A value of another type, or one that no row has, is a slip: it would keep (or drop) nothing."""
        fits = {
            "bool": pa.types.is_boolean(kind),
            "int": pa.types.is_integer(kind) or pa.types.is_floating(kind),
            "float": pa.types.is_integer(kind) or pa.types.is_floating(kind),
            "str": pa.types.is_string(kind) or pa.types.is_large_string(kind),
        }
        for value in wanted:
            if not fits[type(value).__name__] and not pa.types.is_null(kind):
                raise ConfigError(
                    f"column {self.column!r} is never {value!r}",
                    where="equals" if self.one_of is None else "one_of",
                    expected=f"a value of type {kind}",
                    found=f"{type(value).__name__} {value!r}",
                )
        present = {v for v in values if v is not None}
        if values and fits["str"] and not present & set(wanted):
            raise InputError(
                f"no row has {self.column} = {wanted!r}",
                where=self.column,
                remedy=suggest(str(wanted[0]), [str(v) for v in present]),
            )
