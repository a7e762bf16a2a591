"""JSON Lines: every line is one object, every key of it a column; also gzip and Zstandard by suffix.

The file is read line by line, so its size does not matter. A file that is one JSON array of objects is read the
same way. The types of a column may not change between rows, numbers are finite, ids are unique; whatever
breaks this is named with its line. A byte-order mark of UTF-8 has no effect.
"""

from pathlib import Path

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Reader
from tutelage.data.read._files import existing
from tutelage.data.read._json import records
from tutelage.data.read._rows import OnError, Rows, rename_row

CARD = {
    "name": "data.read.jsonl",
    "paper": {"title": "Common practice"},
    "summary": "Reads JSON Lines files, plain or compressed with gzip or Zstandard.",
    "writes": ["text"],
    "needs": [],
    "cost": "one pass over the file, memory bounded",
    "baseline": None,
    "headline": "One clear error with file, line and remedy for each bad line.",
    "version": 1,
}


class Jsonl(Reader):
    """`columns` renames columns (from -> to); `limit` stops after so many rows; `on_error` chooses between
    stopping at the first bad line and putting bad lines into quarantine."""

    columns: dict[str, str] = Field(default_factory=dict)
    limit: int | None = Field(default=None, ge=1)
    on_error: OnError = "raise"

    def read(self, path: str | None = None) -> Dataset:
        """All records of the file at `path`."""
        file = existing(path, self.name)
        rows = Rows(self.name, file.parent, self.on_error, self.limit)
        self.read_into(file, file.name, rows)
        return rows.finish()

    def read_into(self, file: Path, name: str, rows: Rows) -> None:
        """Add the records of one file, called `name` in messages, to `rows`."""
        rows.files += 1
        for place, record in records(file, name, rows):
            try:
                row = rename_row(record, self.columns)
            except InputError as error:
                rows.bad(error, name, place, str(record))
                continue
            rows.add(row, name, place)
            if rows.full:
                return
