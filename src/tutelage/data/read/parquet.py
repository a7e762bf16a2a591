"""Parquet: the columns with their types, read batch by batch, so the file may be larger than memory.

Dictionary columns are decoded and ids that are whole numbers become text. Floating-point columns hold finite
numbers or null; a NaN is named with its row. A file whose end is missing has no row that can be trusted and is
an error as a whole; a damaged page keeps the rows before it under `on_error: quarantine`.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from tutelage.core.method import Reader
from tutelage.data.read._files import damaged, empty_file
from tutelage.data.read._reader import TableReader
from tutelage.data.read._rows import Rows, check_rename

CARD = {
    "name": "data.read.parquet",
    "paper": {"title": "Apache Parquet file format", "identifier": "https://parquet.apache.org/docs/file-format/"},
    "summary": "Reads Parquet files with their column types.",
    "writes": ["text"],
    "needs": [],
    "cost": "one pass over the file, memory bounded",
    "baseline": None,
    "headline": "Types survive; the fastest of the tabular formats.",
    "version": 1,
}
BATCH = 4096


class Parquet(TableReader, Reader):
    """`columns` renames columns (from -> to)."""

    columns: dict[str, str] = Field(default_factory=dict)

    def fill(self, file: Path, name: str, rows: Rows) -> None:
        first = 1
        try:
            if file.stat().st_size == 0:
                raise empty_file()
            with pq.ParquetFile(file) as source:
                names = source.schema_arrow.names
                check_rename(names, self.columns)
                if source.metadata.num_rows == 0:
                    raise empty_file()
                for batch in source.iter_batches(batch_size=BATCH):
                    table = pa.Table.from_batches([batch])
                    rows.add_table(table.rename_columns([self.columns.get(n, n) for n in names]), name, first)
                    first += batch.num_rows
                    if rows.full:
                        return
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            rows.bad(damaged(error), name, f"from row {first}" if first > 1 else "")
