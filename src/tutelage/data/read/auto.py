"""Any file or folder: the format is found out from the name and the first bytes, and its reader reads it.

A file goes to the reader of its format (JSON records with `conversations` or `messages` are chats, those with
`instruction` and `output` Alpaca). A folder saved by Hugging Face datasets or by tutelage is one dataset. Any
other folder is read file by file into one dataset: documents keep their relative path as id and source, rows
of tables get the file's path as `source` and must have a column that can be trained on or scored.
"""

import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import MANIFEST, Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Reader
from tutelage.data.read._files import existing, open_binary, plain_suffix, walk
from tutelage.data.read._reader import TableReader, TreeReader
from tutelage.data.read._rows import OnError, Rows
from tutelage.data.read.alpaca import Alpaca
from tutelage.data.read.chats import Chats
from tutelage.data.read.csv import Csv
from tutelage.data.read.documents import SUFFIXES, Documents
from tutelage.data.read.hf_dataset import HfDataset
from tutelage.data.read.jsonl import Jsonl
from tutelage.data.read.parquet import Parquet
from tutelage.data.read.python_source import PythonSource
from tutelage.data.read.text import KINDS, Text

CARD = {
    "name": "data.read.auto",
    "paper": {"title": "Common practice"},
    "summary": "Reads any supported file or folder; mixed folders become one dataset of documents and rows.",
    "writes": ["text"],
    "needs": [],
    "cost": "that of the readers it chooses",
    "baseline": None,
    "headline": "Point it at a pile of mixed files; what it left out or could not read is counted.",
    "version": 1,
}
FileReader = TableReader | TreeReader
_USABLE = {"text", "messages", "prompt", "chosen", "conversations"}
_HEAD = 4096


def reader_of(file: Path) -> FileReader | None:
    """The reader for one file, by suffix, else by its first bytes; None for what none of them reads."""
    suffix = plain_suffix(file)
    if suffix in (".jsonl", ".ndjson", ".json"):
        return _json_reader(file)
    if suffix in (".csv", ".tsv"):
        return Csv()
    if suffix == ".parquet":
        return Parquet()
    if suffix == ".py":
        return PythonSource()
    if suffix in SUFFIXES:
        return Documents()
    if suffix in KINDS:
        return Text()
    if suffix:
        return None
    head = _head(file)
    if head.startswith(b"PAR1"):
        return Parquet()
    if head.lstrip().startswith((b'{"', b"[{")):
        return _json_reader(file)
    return None if b"\0" in head else Text()


def _head(file: Path) -> bytes:
    try:
        with open_binary(file) as stream:
            return stream.read(_HEAD)
    except (EOFError, OSError, zlib.error):
        # The reader itself meets the same error and names it.
        return b""


def _json_reader(file: Path) -> FileReader:
    # The keys of the first record decide; the reader then checks every record.
    head = _head(file)
    if b'"conversations"' in head or b'"messages"' in head:
        return Chats()
    if b'"instruction"' in head and b'"output"' in head:
        return Alpaca()
    return Jsonl()


class _FolderRows(Rows):
    """Rows of many files: those of tables get the file's name as `source` and need a usable column."""

    def add(self, row: Mapping[str, Any], name: str, place: str = "") -> None:
        if not _USABLE & row.keys():
            if not self.kept_of(name):
                # Nothing of this file is usable so far: leave it as a whole, not row by row.
                raise _not_usable(list(row))
            self.bad(_not_usable(list(row)), name, place, str(dict(row)))
            return
        super().add(row if row.get("source") else {**row, "source": name}, name, place)

    def add_table(self, table: pa.Table, name: str, first: int) -> None:
        if not _USABLE & set(table.column_names):
            raise _not_usable(table.column_names)
        if "source" not in table.column_names:
            table = table.append_column("source", pa.array([name] * table.num_rows, pa.string()))
        super().add_table(table, name, first)


def _not_usable(found: list[str]) -> InputError:
    return InputError(
        "a table has no column to train on or score",
        expected="one of " + ", ".join(sorted(_USABLE)),
        found=", ".join(found),
        remedy="read it alone with its reader, and rename its column with the field `columns`",
    )


class Auto(Reader):
    """`on_error` None keeps each reader's own: stop for a single table, quarantine for a folder."""

    limit: int | None = Field(default=None, ge=1)
    on_error: OnError | None = None

    def read(self, path: str | None = None) -> Dataset:
        """Everything at `path`."""
        root = existing(path, self.name)
        if root.is_dir():
            return self._read_folder(root)
        reader = reader_of(root)
        if reader is None:
            raise InputError(
                "no reader knows this file",
                where=root,
                expected="JSONL, CSV, Parquet, text, Markdown, HTML, PDF, DOCX or Python",
                found=f"suffix {root.suffix or 'none'}",
                remedy="convert it, rename it to its real suffix, or name the reader (data.read.*)",
            )
        return self._like(reader).read(str(root))

    def _like(self, reader: FileReader) -> FileReader:
        return type(reader)(limit=self.limit, on_error=self.on_error or reader.on_error)

    def _read_folder(self, root: Path) -> Dataset:
        if (root / "dataset_dict.json").is_file() or (root / "state.json").is_file():
            return HfDataset(limit=self.limit, on_error=self.on_error or "raise").read(str(root))
        if (root / MANIFEST).is_file():
            saved = Dataset.open(root)
            if self.limit is None or self.limit >= saved.num_rows:
                return saved
            return Dataset.from_table(saved.take(range(self.limit)))
        rows = _FolderRows(self.name, root, self.on_error or "quarantine", self.limit, mixed=True)
        used: Counter[str] = Counter()
        for file, name in walk(root, rows):
            if rows.full:
                break
            reader = reader_of(file)
            if reader is None:
                rows.ignore(f"suffix {file.suffix.lower() or 'none'}")
                continue
            try:
                reader.read_into(file, name, rows)
            except InputError as error:
                if error.where is not None:
                    raise
                rows.bad(error, name)
            used[reader.name] += 1
        return rows.finish({"readers": dict(sorted(used.items()))})
