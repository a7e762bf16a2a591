"""Where readers put what they read: rows, rows that are bad, files that are out of scope; and the counts.

Every reader fills one `Rows`, so the error policy is the same everywhere: `raise` stops at the first bad thing
with its file, line and remedy; `quarantine` records it and goes on. In = kept + quarantined, or the run stops.
"""

import itertools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import BYTES_PER_SHARD, ROWS_PER_SHARD, DatasetBuilder
from tutelage.core.errors import InputError, StoreError, suggest
from tutelage.data.read._tables import beyond_python, joined, not_finite_rows, not_utf8, plain_types
from tutelage.data.read._types import ColumnTypes, not_finite

OnError = Literal["raise", "quarantine"]


class Rows:
    """Collects the rows of one `read` call. `folder` is what relative names are relative to; `mixed` says that
    rows and Arrow tables may come together."""

    def __init__(
        self, reader: str, folder: Path, on_error: OnError, limit: int | None, mixed: bool = False
    ) -> None:
        self.reader = reader
        self.folder = folder
        self.on_error = on_error
        self.kept = 0
        self.files = 0
        self._limit = limit
        self._mixed = mixed
        self._builder = DatasetBuilder()
        self._types = ColumnTypes()
        self._reasons: Counter[str] = Counter()
        self._ignored: Counter[str] = Counter()
        self._kept_of: Counter[str] = Counter()
        self._bad_rows = 0
        self._tables: list[pa.Table] = []
        self._schema: pa.Schema | None = None
        self._waiting = 0
        self._ids: set[str] = set()

    @property
    def full(self) -> bool:
        """Whether `limit` rows were kept: the reader stops."""
        return self._limit is not None and self.kept >= self._limit

    def add(self, row: Mapping[str, Any], name: str, place: str = "") -> None:
        """Keep one row of unknown origin (checked), or treat it as bad."""
        try:
            identifier = row.get("id")
            if isinstance(identifier, int) and not isinstance(identifier, bool):
                row = {**row, "id": str(identifier)}
            elif identifier is not None and not isinstance(identifier, str):
                raise InputError(
                    "an id is neither text nor a whole number",
                    expected="text or a whole number",
                    found=f"{type(identifier).__name__}: {identifier!r}",
                    remedy="give the row a text id, or leave the column out to have ids made from the contents",
                )
            if not any(value is not None for value in row.values()):
                raise InputError("a row is empty", expected="at least one column with a value", found=dict(row))
            self._flush()
            added = self._builder.add(self._types.check(row))
        except InputError as error:
            self.bad(error, name, place, raw=str(dict(row)))
        else:
            self.kept += 1
            self._kept_of[name] += 1
            if self._mixed:
                self._ids.add(added)

    def kept_of(self, name: str) -> int:
        """How many rows of the file `name` were kept so far."""
        return self._kept_of[name]

    def add_document(self, row: Mapping[str, str]) -> None:
        """Keep one row of strings that the reader made itself and that are known to be valid."""
        self._builder.add(row)
        self.kept += 1

    def add_texts(self, table: pa.Table, name: str) -> bool:
        """Keep rows whose columns are all text and valid, as `add` would one by one; False, and none kept, where
        that cannot be done."""
        if self._limit is not None:
            table = table.slice(0, self._limit - self.kept)
        if self._mixed or not self._types.check_texts(table.column_names):
            return False
        self._flush()
        if not self._builder.add_texts(table):
            return False
        self.kept += table.num_rows
        self._kept_of[name] += table.num_rows
        return True

    def add_table(self, table: pa.Table, name: str, first: int) -> None:
        """Keep the rows of an Arrow table whose first row is row number `first` (from 1) of file `name`."""
        numbers = np.arange(first, first + table.num_rows)
        # First of all: nothing else may look at values that are not valid.
        table, numbers = self._without(not_utf8(table), table, numbers, name)
        table = plain_types(table)
        schema = joined(self._schema, table.schema)
        table, numbers = self._without(beyond_python(table), table, numbers, name)
        good = np.ones(table.num_rows, dtype=bool)
        for field in table.schema:
            if pa.types.is_floating(field.type):
                for index in not_finite_rows(table.column(field.name)):
                    if good[index]:
                        good[index] = False
                        value = table.column(field.name)[index].as_py()
                        self.bad(not_finite(field.name, value), name, f"row {numbers[index]}", str(value))
        if "id" in table.column_names:
            self._check_ids(table, good, name, numbers)
        table = table.filter(pa.array(good))
        if self._limit is not None:
            table = table.slice(0, self._limit - self.kept)
        self.kept += table.num_rows
        self._schema = schema
        self._tables.append(table)
        self._waiting += table.num_rows
        if self._waiting >= ROWS_PER_SHARD or sum(t.nbytes for t in self._tables) >= BYTES_PER_SHARD:
            self._flush()

    def _without(
        self, wrong: Mapping[int, InputError], table: pa.Table, numbers: np.ndarray, name: str
    ) -> tuple[pa.Table, np.ndarray]:
        """The table, and the numbers of its rows, without those that are wrong; these are bad."""
        for index, error in wrong.items():
            self.bad(error, name, f"row {numbers[index]}")
        if not wrong:
            return table, numbers
        kept = np.delete(np.arange(table.num_rows), list(wrong))
        return table.take(pa.array(kept)), numbers[kept]

    def _check_ids(self, table: pa.Table, good: np.ndarray, name: str, numbers: np.ndarray) -> None:
        for index, identifier in enumerate(table.column("id").to_pylist()):
            if not good[index]:
                continue
            if not identifier:
                error = InputError("a row has no id", expected="a non-empty id", found=repr(identifier))
            elif identifier in self._ids:
                error = duplicate_id(identifier)
            else:
                self._ids.add(identifier)
                continue
            good[index] = False
            self.bad(error, name, f"row {numbers[index]}", str(identifier))

    def _flush(self) -> None:
        tables, self._tables, self._waiting = self._tables, [], 0
        # Where one file has ids and the next has none, its rows get ids of their own instead of none.
        for _, alike in itertools.groupby(tables, lambda table: "id" in table.column_names):
            try:
                self._builder.add_table(pa.concat_tables(list(alike), promote_options="permissive"))
            except pa.ArrowInvalid as error:
                # Types that go together, and a value that the wider one cannot hold.
                raise InputError(
                    "a column changes its type",
                    where=self.folder,
                    expected="numbers that one type can hold",
                    found=str(error).splitlines()[0],
                    remedy="give the column one type in all files",
                ) from None

    def bad(self, error: InputError, name: str, place: str = "", raw: str = "") -> None:
        """A row or file that cannot be kept: raise with its place, or put it into quarantine."""
        # The builder's own errors say in `where` which id it was.
        found = error.where if error.found is None else error.found
        if self.on_error == "raise":
            where = self.folder / name if name else self.folder
            raise InputError(
                error.what,
                where=f"{where}, {place}" if place else where,
                expected=error.expected,
                found=found,
                remedy=error.remedy,
            ) from None
        facts = error.what if found is None else f"{error.what}; found {found}"
        # Lone surrogates cannot be stored; they are what some of these rows are here for.
        facts, raw = (text.encode("utf-8", "backslashreplace").decode() for text in (facts, raw))
        self._builder.quarantine(f"{name}, {place}" if place else name, facts, raw)
        self._reasons[error.what] += 1
        self._bad_rows += 1

    def ignore(self, reason: str) -> None:
        """Count a file that the configuration leaves out (not an error, and not among the rows in)."""
        self._ignored[reason] += 1

    def finish(self, extra: Mapping[str, Any] | None = None) -> Dataset:
        """The dataset with its report; a source without any row at all is an error."""
        self._flush()
        if self.kept + self._bad_rows == 0:
            raise InputError(
                "there is nothing to read",
                where=self.folder,
                expected="at least one row",
                found=", ".join(f"{n} left out ({why})" for why, n in self._ignored.most_common(5)) or "none",
                remedy="check the path, and the reader's fields that choose files",
            )
        report = {
            "reader": self.reader,
            "files": self.files,
            "in": self.kept + self._bad_rows,
            "kept": self.kept,
            "quarantined": self._bad_rows,
            "reasons": dict(self._reasons),
            "ignored": dict(sorted(self._ignored.items())),
            **(extra or {}),
        }
        try:
            dataset = self._builder.finish(report)
        except InputError as error:
            # The builder knows rows, not where they came from.
            raise InputError(
                error.what,
                where=error.where or self.folder,
                expected=error.expected or "one type for each column",
                found=error.found,
                remedy=error.remedy,
            ) from None
        if dataset.num_rows != self.kept or dataset.quarantined.num_rows != self._bad_rows:
            raise StoreError(
                f"{self.reader} does not account for every row",
                expected=f"{self.kept} kept and {self._bad_rows} in quarantine",
                found=f"{dataset.num_rows} and {dataset.quarantined.num_rows}",
                remedy="this is a defect of the reader; report it",
            )
        return dataset


def duplicate_id(identifier: str) -> InputError:
    """The error for an id that an earlier row has."""
    return InputError(
        "two rows have the same id",
        expected="unique ids",
        found=identifier,
        remedy="make the ids unique, or leave the column out to have ids made from the contents",
    )


def rename_row(row: dict[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The row with its columns renamed (from -> to); a column that is not there is an error."""
    if not columns:
        return row
    check_rename(list(row), columns)
    return {columns.get(name, name): value for name, value in row.items()}


def check_rename(names: list[str], columns: Mapping[str, str]) -> None:
    """Raise InputError when `columns` names a column that is missing or makes two columns one."""
    for old in columns:
        if old not in names:
            raise InputError(
                f"there is no column {old!r}",
                expected=old,
                found=", ".join(names) or "no columns",
                remedy="in the field `columns`: " + suggest(old, names) if names else None,
            )
    new = [columns.get(name, name) for name in names]
    twice = sorted({name for name in new if new.count(name) > 1})
    if twice:
        raise InputError(
            f"two columns would be called {twice[0]!r}",
            expected="one column of each name",
            found=", ".join(new),
            remedy="rename the other one too, in the field `columns`",
        )
