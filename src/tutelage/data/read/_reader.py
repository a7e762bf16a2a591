"""What readers of one kind share: the fields, `read`, and the loop over records.

A table reader reads one file; a record reader is one whose file holds JSON records, each turned into a row; a tree
reader makes rows of the files of a folder, one by one.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Reader
from tutelage.data.read._files import existing, walk
from tutelage.data.read._json import records
from tutelage.data.read._rows import OnError, Rows


class TableReader(Reader):
    """`limit` stops after so many rows; `on_error` chooses between stopping at the first bad row and putting bad
    rows into quarantine."""

    limit: int | None = Field(default=None, ge=1)
    on_error: OnError = "raise"

    def read(self, path: str | None = None) -> Dataset:
        """All rows of the file at `path`."""
        file = existing(path, self.name)
        rows = Rows(self.name, file.parent, self.on_error, self.limit)
        self.read_into(file, file.name, rows)
        return rows.finish()

    def read_into(self, file: Path, name: str, rows: Rows) -> None:
        """Add the rows of one file, called `name` in messages, to `rows`."""
        rows.files += 1
        try:
            self.fill(file, name, rows)
        except InputError as error:
            # An error that names its place was meant to stop the run.
            if error.where is not None:
                raise
            rows.bad(error, name)

    def fill(self, file: Path, name: str, rows: Rows) -> None:
        """Add the file's rows; an InputError without a place speaks of the file as a whole."""
        raise NotImplementedError


class RecordReader(TableReader):
    """A file of JSON records: JSON Lines or one array, plain or compressed."""

    def fill(self, file: Path, name: str, rows: Rows) -> None:
        for place, record in records(file, name, rows, lambda table: self.take(table, name, rows)):
            try:
                row = self.row(record)
            except InputError as error:
                rows.bad(error, name, place, str(record))
                continue
            rows.add(row, name, place)
            if rows.full:
                return

    def row(self, record: dict[str, Any]) -> dict[str, Any]:
        """The row of a record; raises InputError for one that has none."""
        raise NotImplementedError

    def take(self, table: pa.Table, name: str, rows: Rows) -> bool:
        """Add records that are all text at once, where `row` would not change them; False if that cannot be."""
        return False


class TreeReader(Reader):
    """All files of a kind below a folder, in the order of their names, or one file."""

    limit: int | None = Field(default=None, ge=1)
    on_error: OnError = "quarantine"

    def read(self, path: str | None = None) -> Dataset:
        """The rows of the folder at `path`, or of the one file there."""
        root = existing(path, self.name)
        rows = Rows(self.name, root if root.is_dir() else root.parent, self.on_error, self.limit)
        for file, name in walk(root, rows) if root.is_dir() else [(root, root.name)]:
            if self.takes(file, root):
                self.read_into(file, name, rows)
            else:
                rows.ignore(f"suffix {file.suffix.lower() or 'none'}")
            if rows.full:
                break
        return rows.finish()

    def takes(self, file: Path, root: Path) -> bool:
        """Whether the file, found below `root` (or `root` itself), is of this reader's kind."""
        raise NotImplementedError

    def read_into(self, file: Path, name: str, rows: Rows) -> None:
        """Add the rows of one file, called `name` in messages, to `rows`."""
        raise NotImplementedError
