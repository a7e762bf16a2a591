"""The shards of a dataset: tables of the same rows side by side, in memory while small, in scratch files beyond.

A part is known by the hash of its contents, never by its file's name or bytes (Parquet bytes differ between
library versions).
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import blake3
import pyarrow as pa
import pyarrow.parquet as pq

from tutelage.core.errors import InputError, StoreError
from tutelage.core.scratch import scratch_path

BYTES_IN_MEMORY = 128 * 2**20
# The inner field of a list keeps its name, so that a round trip does not change a column's type.
PARQUET: dict[str, Any] = {"compression": "zstd", "use_compliant_nested_type": False, "write_page_checksum": True}


def hash_table(table: pa.Table) -> str:
    """Content hash of a table: column names, types and values in order (not chunking, not metadata)."""
    digest = blake3.blake3()
    for name in table.column_names:
        column = table.column(name)
        digest.update(f"{name}:{column.type};".encode())
        # One record batch with offsets starting at zero: equal values give equal bytes.
        array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        batch = pa.record_batch([array], names=["c"])
        with pa.PythonFile(_Hashed(digest), mode="w") as sink, pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
    return digest.hexdigest(length=16)


class _Hashed(io.RawIOBase):
    """A file that only hashes what is written to it."""

    def __init__(self, digest: Any) -> None:
        self._digest = digest

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return len(data)


@dataclass(frozen=True)
class Part:
    """The columns of one shard that came together: its base, or one sidecar."""

    columns: tuple[str, ...]
    source: Path | pa.Table
    hash: str

    def read(self, columns: Sequence[str]) -> pa.Table:
        """These of its columns."""
        if isinstance(self.source, pa.Table):
            return self.source.select(list(columns))
        try:
            found = pq.read_table(
                self.source, columns=list(columns), partitioning=None, page_checksum_verification=True
            )
            return found.select(list(columns))
        except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
            raise _unreadable(self.source, error) from None


@dataclass(frozen=True)
class Shard:
    """Rows that lie together, in parts side by side."""

    rows: int
    parts: tuple[Part, ...]

    def read(self, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
        """These columns of the dataset's `schema`, its parts joined."""
        found: dict[str, pa.ChunkedArray] = {}
        for part in self.parts:
            wanted = [name for name in part.columns if name in columns]
            if wanted:
                table = part.read(wanted)
                found.update((name, table.column(name)) for name in wanted)
        # A column that this shard lacks (its rows never had it) reads as nulls of the dataset's type.
        arrays = []
        for name in columns:
            kind = schema.field(name).type
            column = found.get(name)
            if column is None:
                column = pa.chunked_array([pa.nulls(self.rows, kind)])
            try:
                if len(column) != self.rows:
                    raise ValueError(f"{len(column)} rows of {self.rows}")
                # A cast to the same type is not only idle: of lists of nulls alone it makes a broken array.
                arrays.append(column if column.type == kind else column.cast(kind))
            except (pa.ArrowException, ValueError, TypeError) as error:
                raise _unreadable(self._source_of(name), error) from None
        return pa.table(arrays, names=list(columns))

    def _source_of(self, column: str) -> object:
        return next((part.source for part in self.parts if column in part.columns), "dataset")


def _unreadable(source: object, error: Exception) -> InputError:
    return InputError(
        "a shard cannot be read",
        where=source if isinstance(source, Path) else "a shard in memory",
        expected="the columns and rows that the dataset says",
        found=str(error).splitlines()[0] if str(error) else type(error).__name__,
        remedy="the file is truncated or damaged; make the dataset again",
    )


def make_part(table: pa.Table, held: int) -> Part:
    """The table as a part: in memory, or in a scratch file once `held` bytes, its own included, are too many."""
    digest = hash_table(table)
    columns = tuple(table.column_names)
    if held <= BYTES_IN_MEMORY:
        return Part(columns, table, digest)
    path = scratch_path(".parquet")
    try:
        pq.write_table(table, path, **PARQUET)
    except OSError as error:
        raise StoreError(
            "scratch data could not be written",
            where=path,
            found=str(error),
            remedy="free space, or point TUTELAGE_SCRATCH at a larger disk",
        ) from None
    return Part(columns, path, digest)


def without(part: Part, names: Sequence[str]) -> Part:
    """The part without replaced columns, which stay in its file but are no longer read."""
    kept = tuple(column for column in part.columns if column not in names)
    if kept == part.columns:
        return part
    return replace(part, columns=kept, hash=hash_table(part.read(kept)) if kept else "")
