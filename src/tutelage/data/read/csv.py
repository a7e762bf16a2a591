"""Comma-separated values (RFC 4180), the first line naming the columns; other separators, gzip and Zstandard too.

Cells are text. A column becomes numbers when all its cells among the first 1,000 rows are plain numbers (no
leading zero, at most 18 digits) and booleans when all are `true` or `false`; the usual text columns and those
that `types` calls text stay text. A later cell that does not fit the column's type is a named error, never a
silent change. An empty cell is null in a column of numbers and empty text in a column of text: CSV cannot tell
null from empty. Labels are names, also when they are written as numbers, and an empty one is none: null.
"""

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tutelage.core.errors import InputError, suggest
from tutelage.core.method import Reader
from tutelage.data.read._files import (
    decode,
    empty_file,
    largest_record,
    lines,
    open_binary,
    plain_suffix,
    too_large,
)
from tutelage.data.read._reader import TableReader
from tutelage.data.read._rows import Rows, check_rename
from tutelage.data.read._types import not_finite

CARD = {
    "name": "data.read.csv",
    "paper": {"title": "RFC 4180: Common Format and MIME Type for CSV Files", "identifier": "rfc:4180"},
    "summary": "Reads CSV and TSV files with a header line, plain or compressed.",
    "writes": ["text"],
    "needs": [],
    "cost": "one pass over the file, memory bounded",
    "baseline": None,
    "headline": "Ragged rows, broken quotes and changing types are named with their line.",
    "version": 1,
}

CellType = Literal["text", "number", "boolean"]
SAMPLE = 1000
ALWAYS_TEXT = {"id", "text", "prompt", "completion", "chosen", "rejected", "source", "source_id", "group"}
# A row without a label has no class, not the class with the empty name.
LABELS = {"label", "label_source", "gold"}
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")
_NOT_FINITE = {"nan", "inf", "infinity"}
# The largest cell; the csv module's own limit of 128 KiB is too small for documents.
_LARGEST_CELL = 2**31 - 1


def cell_type(cells: list[str]) -> CellType:
    """The type that a column's sample of cells shows."""
    present = [cell for cell in cells if cell]
    if present and all(cell in ("true", "false") for cell in present):
        return "boolean"
    numbers = sum(_NUMBER.fullmatch(cell) is not None for cell in present)
    finite_missing = sum(cell.lstrip("+-").lower() in _NOT_FINITE for cell in present)
    return "number" if numbers and numbers + finite_missing == len(present) else "text"


def convert(cell: str, kind: CellType, column: str) -> Any:
    """One cell as its type; raises InputError when it does not fit."""
    if kind == "text":
        return cell
    if not cell:
        return None
    if kind == "boolean" and cell in ("true", "false"):
        return cell == "true"
    if kind == "number":
        if _INTEGER.fullmatch(cell):
            return int(cell)
        if _NUMBER.fullmatch(cell):
            return float(cell)
        if cell.lstrip("+-").lower() in _NOT_FINITE:
            raise not_finite(column, cell)
    raise InputError(
        f"column {column!r} mixes types",
        expected=f"{kind}, as in the rows before",
        found=repr(cell[:80]),
        remedy=f"correct the cell, or set types: {{{column}: text}}",
    )


class Csv(TableReader, Reader):
    """`delimiter` None means a comma, or a tab for .tsv; `types` fixes the type of columns (by their new
    names); `columns` renames columns (from -> to)."""

    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    types: dict[str, CellType] = Field(default_factory=dict)
    columns: dict[str, str] = Field(default_factory=dict)

    def fill(self, file: Path, name: str, rows: Rows) -> None:
        before = csv.field_size_limit(_LARGEST_CELL)
        try:
            self._read(file, name, rows)
        finally:
            csv.field_size_limit(before)

    def _read(self, file: Path, name: str, rows: Rows) -> None:
        with open_binary(file) as stream:
            records = self._records(stream, file, name, rows)
            header = self._header(next(records, None))
            sample = list(islice(records, SAMPLE))
            kinds: list[CellType] = [
                self.types.get(column)
                or ("text" if column in ALWAYS_TEXT | LABELS else cell_type([cells[place] for _, cells in sample]))
                for place, column in enumerate(header)
            ]
            labels = LABELS & set(header)
            for source in (sample, records):
                for line, cells in source:
                    try:
                        row = {c: convert(cell, k, c) for c, k, cell in zip(header, kinds, cells)}
                        row |= {c: row[c] or None for c in labels}
                    except InputError as error:
                        rows.bad(error, name, f"line {line}", ",".join(cells))
                        continue
                    rows.add(row, name, f"line {line}")
                    if rows.full:
                        return

    def _header(self, first: tuple[int, list[str]] | None) -> list[str]:
        if first is None:
            raise empty_file()
        header = first[1]
        if any(not column.strip() for column in header) or len(set(header)) != len(header):
            raise InputError(
                "a header line must name every column once",
                expected="different, non-empty column names",
                found=", ".join(header),
                remedy="name the columns in the first line",
            )
        if len(header) == 1 and self.delimiter is None and re.search(r"[;\t|]", header[0]):
            raise InputError(
                "a header line has one column, with other separators in its name",
                expected="columns separated by commas",
                found=header[0],
                remedy="set delimiter to the separator of the file",
            )
        check_rename(header, self.columns)
        renamed = [self.columns.get(column, column) for column in header]
        for column in self.types:
            if column not in renamed:
                raise InputError(
                    f"there is no column {column!r}",
                    expected=column,
                    found=", ".join(renamed),
                    remedy="in the field `types`: " + suggest(column, renamed),
                )
        return renamed

    def _records(self, stream: Any, file: Path, name: str, rows: Rows) -> Iterator[tuple[int, list[str]]]:
        """(line, cells) of each record as long as the header; the others are bad."""
        wrong: list[InputError] = []
        largest, size = largest_record(file), 0

        def decoded() -> Iterator[str]:
            nonlocal size
            for _, line in lines(stream, largest):
                size += len(line)
                if size > largest:
                    raise too_large(largest)
                try:
                    yield decode(line)
                except InputError as error:
                    # The record that this line belongs to is known only when the csv module has finished it.
                    wrong.append(error)
                    yield line.decode("utf-8", "replace")

        delimiter = self.delimiter or ("\t" if plain_suffix(file) == ".tsv" else ",")
        reader = csv.reader(decoded(), delimiter=delimiter, strict=True)
        width = 0
        while True:
            line, size = reader.line_num + 1, 0
            try:
                cells = next(reader)
            except StopIteration:
                return
            except InputError as error:
                if not width:
                    raise
                # The rows before a broken end count.
                rows.bad(error, name)
                return
            except csv.Error as error:
                rows.bad(_broken(error), name, f"line {line}")
                continue
            if cells and width and len(cells) != width:
                wrong.append(_ragged(cells, width))
            if wrong:
                rows.bad(wrong[0], name, f"line {line}", ",".join(cells))
                wrong.clear()
            elif cells:
                width = width or len(cells)
                yield line, cells


def _ragged(cells: list[str], width: int) -> InputError:
    return InputError(
        "a row has another number of cells than the header",
        expected=f"{width} cells",
        found=f"{len(cells)}: {','.join(cells)[:80]!r}",
        remedy="quote cells that contain the separator, or correct the row",
    )


def _broken(error: csv.Error) -> InputError:
    return InputError(
        "a row is not valid CSV",
        expected="cells with line ends, quotes or separators in double quotes, and quotes doubled",
        found=str(error),
        remedy="write the file with a CSV library; an open quote swallows the lines after it",
    )
