"""JSON Lines: one object per row with all columns, UTF-8; compressed when the path ends in .gz or .zst.

What `data.read.jsonl` reads back is the same rows with the same ids. Nulls are written as null. Values that JSON
lacks (bytes, dates, NaN) are a named error: Parquet holds them.
"""

import json

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Writer
from tutelage.data.write._atomic import new_file, new_target

CARD = {
    "name": "data.write.jsonl",
    "paper": {"title": "Common practice"},
    "summary": "Writes rows as JSON Lines, plain or compressed, for any other trainer.",
    "reads": ["id"],
    "needs": [],
    "cost": "one pass over the rows, memory bounded",
    "baseline": None,
    "headline": "What is read back equals what was written; a file is complete or not there.",
    "version": 1,
}


class Jsonl(Writer):
    """`columns` None writes all columns; `id` is always written."""

    columns: tuple[str, ...] | None = None

    def write(self, dataset: Dataset, path: str) -> list[str]:
        """Write all rows to the new file `path`."""
        target = new_target(path, self.name)
        names = None if self.columns is None else list(dict.fromkeys(["id", *self.columns]))
        if names is not None:
            dataset.require(*names)
        with new_file(target) as out:
            for row in dataset.rows(names):
                out.write(to_line(row))
        return [str(target)]


def to_line(row: dict[str, object]) -> bytes:
    """One row as a line of JSON; raises InputError naming row and column when a value has no JSON form."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError):
        for column, value in row.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError):
                raise InputError(
                    f"column {column!r} holds a value that JSON lacks",
                    where=f"row {row['id']}",
                    expected="text, finite numbers, booleans, null, lists and objects of these",
                    found=f"{type(value).__name__}: {value!r}"[:120],
                    remedy="write Parquet (data.write.parquet), or leave the column out with the field `columns`",
                ) from None
        raise
