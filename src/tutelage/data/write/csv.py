"""CSV after RFC 4180: a header line, lines end with CR LF, cells quoted where they must be; also .gz and .zst.

Numbers are written so that they read back exactly, booleans as `true` and `false`. CSV has no null: null is an
empty cell, which reads back as null in a column of numbers and as empty text in a column of text. Lists and
objects have no CSV form and are a named error.

A spreadsheet computes text that begins like a formula (= + - @, also behind a tab or a carriage return). Programs
need the text as it is; for people who open the file in a spreadsheet, `for_spreadsheets` puts an apostrophe before
it.
"""

import csv
import io
from typing import Any

import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Writer
from tutelage.data.write._atomic import new_file, new_target

CARD = {
    "name": "data.write.csv",
    "paper": {"title": "RFC 4180: Common Format and MIME Type for CSV Files", "identifier": "rfc:4180"},
    "summary": "Writes rows as CSV (or TSV by suffix) with a header line.",
    "reads": ["id"],
    "needs": [],
    "cost": "one pass over the rows, memory bounded",
    "baseline": None,
    "headline": "Opens in every spreadsheet; text with quotes and line ends survives.",
    "version": 1,
}


# Excel takes the full-width forms too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


class Csv(Writer):
    """`columns` None writes all columns; `id` is always written. A path ending in .tsv gets tabs. With
    `for_spreadsheets` text that looks like a formula is shown, not computed, and does not read back as it was."""

    columns: tuple[str, ...] | None = None
    for_spreadsheets: bool = False

    def write(self, dataset: Dataset, path: str) -> list[str]:
        """Write all rows to the new file `path`."""
        target = new_target(path, self.name)
        names = list(dict.fromkeys(["id", *(self.columns if self.columns is not None else dataset.column_names)]))
        dataset.require(*names)
        for name in names:
            _check_type(name, dataset.schema.field(name).type)
        delimiter = "\t" if ".tsv" in target.suffixes[-2:] else ","
        with new_file(target) as out:
            out.write(_line(names, delimiter))
            for row in dataset.rows(names):
                out.write(_line([self._shown(row[name]) for name in names], delimiter))
        return [str(target)]

    def _shown(self, value: Any) -> str:
        cell = _cell(value)
        formula = isinstance(value, str) and cell.startswith(_FORMULA)
        return f"'{cell}" if formula and self.for_spreadsheets else cell


def _line(cells: list[str], delimiter: str) -> bytes:
    text = io.StringIO(newline="")
    # A single empty cell must be quoted, or the line would be blank; csv does that.
    csv.writer(text, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check_type(name: str, kind: pa.DataType) -> None:
    simple = (pa.types.is_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    if not any(is_kind(kind) for is_kind in simple):
        raise InputError(
            f"column {name!r} has no CSV form",
            where=name,
            expected="text, numbers or booleans",
            found=str(kind),
            remedy="write JSON Lines or Parquet, or leave the column out with the field `columns`",
        )
