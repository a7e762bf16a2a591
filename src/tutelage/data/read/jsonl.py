"""JSON Lines: every line is one object, every key of it a column; also gzip and Zstandard by suffix.

The file is read line by line, so its size does not matter. A file that is one JSON array of objects is read the
same way. The types of a column may not change between rows, numbers are finite, ids are unique; whatever
breaks this is named with its line. A byte-order mark of UTF-8 has no effect.
"""

from typing import Any

import pyarrow as pa
from pydantic import Field

from tutelage.core.method import Reader
from tutelage.data.read._reader import RecordReader
from tutelage.data.read._rows import Rows, rename_row

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


class Jsonl(RecordReader, Reader):
    """`columns` renames columns (from -> to); `limit` stops after so many rows; `on_error` chooses between
    stopping at the first bad line and putting bad lines into quarantine."""

    columns: dict[str, str] = Field(default_factory=dict)

    def row(self, record: dict[str, Any]) -> dict[str, Any]:
        return rename_row(record, self.columns)

    def take(self, table: pa.Table, name: str, rows: Rows) -> bool:
        return not self.columns and rows.add_texts(table, name)
