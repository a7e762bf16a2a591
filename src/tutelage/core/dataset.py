"""`Dataset`: an ordered, immutable set of Parquet shards with stable row ids and sidecar columns.

A dataset on disk is a folder: `manifest.json`, `shards/00000.parquet`, one folder per sidecar below
`sidecars/`, and the tables of dropped and quarantined rows. Small datasets live in memory, large ones are
spilled shard by shard, so no operation here but `column` and `numpy` holds more than one shard at a time.
The hash covers contents, never file names or file bytes (Parquet bytes differ between library versions).
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tutelage.core.errors import InputError, StoreError, suggest
from tutelage.core.scratch import scratch_path

MANIFEST = "manifest.json"
FORMAT = 1
ROWS_PER_SHARD = 50_000
BYTES_PER_SHARD = 64 * 2**20
BYTES_IN_MEMORY = 128 * 2**20
# The inner field of a list keeps its name, so that a round trip does not change a column's type.
PARQUET: dict[str, Any] = {"compression": "zstd", "use_compliant_nested_type": False}
DROPPED_SCHEMA = pa.schema([("id", pa.string()), ("reason", pa.string())])
QUARANTINE_SCHEMA = pa.schema([("where", pa.string()), ("reason", pa.string()), ("raw", pa.string())])


def hash_table(table: pa.Table) -> str:
    """Content hash of a table: column names, types and values in order (not chunking, not metadata)."""
    digest = blake3.blake3()
    for name in table.column_names:
        column = table.column(name)
        digest.update(f"{name}:{column.type};".encode())
        # One record batch with offsets starting at zero: equal values give equal bytes.
        sink = pa.BufferOutputStream()
        array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
        batch = pa.record_batch([array], names=["c"])
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        digest.update(memoryview(sink.getvalue()))
    return digest.hexdigest(length=16)


@dataclass(frozen=True)
class _Part:
    """The columns of one shard that came together: its base, or one sidecar."""

    columns: tuple[str, ...]
    source: Path | pa.Table
    hash: str

    def read(self, columns: Sequence[str]) -> pa.Table:
        if isinstance(self.source, pa.Table):
            return self.source.select(list(columns))
        try:
            return pq.read_table(self.source, columns=list(columns), partitioning=None)
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                "a shard cannot be read",
                where=self.source,
                found=str(error).splitlines()[0],
                remedy="the file is truncated or damaged; make the dataset again",
            ) from None


@dataclass(frozen=True)
class _Shard:
    rows: int
    parts: tuple[_Part, ...]

    def read(self, columns: Sequence[str], schema: pa.Schema) -> pa.Table:
        found: dict[str, pa.ChunkedArray] = {}
        for part in self.parts:
            wanted = [name for name in part.columns if name in columns]
            if wanted:
                table = part.read(wanted)
                found.update((name, table.column(name)) for name in wanted)
        # A column that this shard lacks (its rows never had it) reads as nulls of the dataset's type.
        arrays = [
            found[name].cast(schema.field(name).type)
            if name in found
            else pa.chunked_array([pa.nulls(self.rows, schema.field(name).type)])
            for name in columns
        ]
        return pa.table(arrays, names=list(columns))


class Dataset:
    """Rows with stable string ids in column `id`. Make one with `from_rows`, `open`, a reader or a transform."""

    def __init__(
        self,
        shards: Sequence[_Shard],
        schema: pa.Schema,
        dropped: pa.Table | None = None,
        quarantined: pa.Table | None = None,
        report: Mapping[str, Any] | None = None,
    ) -> None:
        self._shards = tuple(shards)
        self.schema = schema
        self.dropped = DROPPED_SCHEMA.empty_table() if dropped is None else dropped
        self.quarantined = QUARANTINE_SCHEMA.empty_table() if quarantined is None else quarantined
        self.report: dict[str, Any] = dict(report or {})
        self.path: Path | None = None

    # -- making one ---------------------------------------------------------------------------------------

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], report: Mapping[str, Any] | None = None) -> "Dataset":
        """A dataset of `rows`; a row without `id` gets one from its contents."""
        builder = DatasetBuilder()
        for row in rows:
            builder.add(row)
        return builder.finish(report)

    @classmethod
    def from_table(cls, table: pa.Table) -> "Dataset":
        """A dataset of an Arrow table, which may lack `id`."""
        builder = DatasetBuilder()
        builder.add_table(table)
        return builder.finish()

    @classmethod
    def open(cls, path: str | os.PathLike[str], verify: bool = False) -> "Dataset":
        """Open a saved dataset; `verify` reads everything once and compares the hashes."""
        folder = Path(path)
        file = folder / MANIFEST
        if not file.is_file():
            raise InputError(
                "not a dataset folder",
                where=folder,
                expected=f"a file {MANIFEST}",
                found="none",
                remedy="read raw files with a reader (`data.read.*`), or pass the folder that `save` wrote",
            )
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            schema = pa.ipc.read_schema(pa.BufferReader(bytes.fromhex(manifest["schema"])))
            shards = [
                _Shard(
                    shard["rows"],
                    tuple(
                        _Part(tuple(p["columns"]), _inside(folder, p["file"]), p["hash"]) for p in shard["parts"]
                    ),
                )
                for shard in manifest["shards"]
            ]
            found = cls(
                shards,
                schema,
                pq.read_table(folder / "dropped.parquet"),
                pq.read_table(folder / "quarantined.parquet"),
                manifest["report"],
            )
        except (KeyError, ValueError, OSError) as error:
            raise InputError(
                "a dataset folder is damaged",
                where=file,
                found=f"{type(error).__name__}: {error}",
                remedy="make the dataset again",
            ) from None
        found.path = folder
        for entry, shard in zip(manifest["shards"], shards):
            for stored, part in zip(entry["parts"], shard.parts):
                assert isinstance(part.source, Path)
                size = part.source.stat().st_size if part.source.exists() else -1
                if size != stored["bytes"]:
                    raise InputError(
                        "a shard is damaged",
                        where=part.source,
                        expected=f"{stored['bytes']} bytes",
                        found="no file" if size < 0 else f"{size} bytes",
                        remedy="make the dataset again",
                    )
                if verify and hash_table(part.read(part.columns)) != part.hash:
                    raise InputError(
                        "a shard's contents changed", where=part.source, remedy="make the dataset again"
                    )
        return found

    # -- looking at it ------------------------------------------------------------------------------------

    @property
    def hash(self) -> str:
        """Content hash: equal rows, ids and columns in equal shards give equal hashes."""
        digest = blake3.blake3()
        for shard in self._shards:
            digest.update(json.dumps([shard.rows, [part.hash for part in shard.parts]]).encode())
        return digest.hexdigest(length=16)

    @property
    def num_rows(self) -> int:
        return sum(shard.rows for shard in self._shards)

    def __len__(self) -> int:
        return self.num_rows

    def __repr__(self) -> str:
        return f"Dataset({self.num_rows} rows, columns {', '.join(self.column_names)})"

    @property
    def column_names(self) -> list[str]:
        return self.schema.names

    @property
    def num_shards(self) -> int:
        return len(self._shards)

    def require(self, *columns: str) -> None:
        """Raise InputError when a column is missing, with a suggestion."""
        for name in columns:
            if name not in self.schema.names:
                raise InputError(
                    f"there is no column {name!r}",
                    where=self.path or "dataset",
                    expected=name,
                    found=", ".join(self.schema.names),
                    remedy=suggest(name, self.schema.names),
                )

    def shards(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The shards in order, sidecars joined; `columns` limits what is read (give `id` too if you need it)."""
        names = list(columns) if columns is not None else self.schema.names
        self.require(*names)
        for shard in self._shards:
            yield shard.read(names, self.schema)

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows as dicts, in order."""
        for table in self.shards(columns):
            for batch in table.to_batches(max_chunksize=1024):
                yield from batch.to_pylist()

    def column(self, name: str) -> pa.ChunkedArray:
        """One whole column."""
        self.require(name)
        chunks = [chunk for table in self.shards([name]) for chunk in table.column(0).chunks]
        return pa.chunked_array(chunks, type=self.schema.field(name).type)

    def numpy(self, name: str) -> np.ndarray:
        """One numeric or boolean column as an array; nulls become NaN."""
        column = self.column(name)
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise InputError(f"column {name!r} is not numeric", where=name, expected="numbers", found=str(kind))
        if column.null_count:
            column = column.cast(pa.float64())
        return column.to_numpy()

    def ids(self) -> list[str]:
        return self.column("id").to_pylist()

    def take(self, indices: Sequence[int] | np.ndarray) -> pa.Table:
        """The rows at `indices`, in that order."""
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= self.num_rows):
            raise IndexError(f"row index out of range for {self.num_rows} rows")
        starts = np.cumsum([0] + [shard.rows for shard in self._shards])
        owner = np.searchsorted(starts, wanted, side="right") - 1
        tables, places = [], []
        for number in np.unique(owner):
            places.append(np.flatnonzero(owner == number))
            table = self._shards[number].read(self.schema.names, self.schema)
            tables.append(table.take(pa.array(wanted[places[-1]] - starts[number])))
        if not tables:
            return self.schema.empty_table()
        order = np.argsort(np.concatenate(places), kind="stable")
        return pa.concat_tables(tables).take(pa.array(order))

    # -- deriving others ----------------------------------------------------------------------------------

    def with_columns(self, name: str, columns: Iterable[Mapping[str, Any]]) -> "Dataset":
        """The same rows with new columns as sidecar `name`: one mapping column -> values per shard, in order.

        A column that exists already is replaced.
        """
        parts: list[_Part] = []
        schemas: list[pa.Schema] = []
        spilled = 0
        for shard, values in zip(self._shards, columns, strict=True):
            arrays = {key: _array(value, key) for key, value in values.items()}
            for key, array in arrays.items():
                if len(array) != shard.rows:
                    raise ValueError(f"sidecar {name!r}: {key!r} has {len(array)} values for {shard.rows} rows")
            table = pa.table(arrays)
            schemas.append(table.schema)
            spilled += table.nbytes
            parts.append(_make_part(table, spill=spilled > BYTES_IN_MEMORY))
        added = pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])
        kept = [field for field in self.schema if field.name not in added.names]
        shards = []
        for shard, part in zip(self._shards, parts):
            old = [_without(p, added.names) for p in shard.parts]
            shards.append(_Shard(shard.rows, (*(p for p in old if p.columns), part)))
        return Dataset(shards, pa.schema([*kept, *added]), report=self.report)

    def drop_columns(self, *names: str) -> "Dataset":
        """The same rows without the columns `names`."""
        self.require(*names)
        kept = [name for name in self.schema.names if name not in names]
        builder = DatasetBuilder()
        for table in self.shards(kept):
            builder.add_table(table)
        return builder.finish(self.report)

    def keep(
        self,
        mask: np.ndarray,
        reasons: Mapping[int, str] | str,
        report: Mapping[str, Any] | None = None,
    ) -> "Dataset":
        """Rows where `mask` is true; the others are listed in `dropped` with their reason (by row index)."""
        if mask.shape != (self.num_rows,) or mask.dtype != np.bool_:
            raise ValueError(f"mask must be bool of shape ({self.num_rows},), not {mask.dtype} {mask.shape}")
        shards: list[_Shard] = []
        dropped = [DROPPED_SCHEMA.empty_table()]
        start = held = 0
        for shard in self._shards:
            part = mask[start : start + shard.rows]
            if part.all():
                shards.append(shard)
            else:
                ids = shard.read(["id"], self.schema).column("id").filter(pa.array(~part))
                gone = (start + np.flatnonzero(~part)).tolist()
                why = [reasons if isinstance(reasons, str) else reasons[index] for index in gone]
                dropped.append(pa.table([ids, why], schema=DROPPED_SCHEMA))
            if part.any() and not part.all():
                table = shard.read(self.schema.names, self.schema).filter(pa.array(part))
                held += table.nbytes
                shards.append(_Shard(table.num_rows, (_make_part(table, spill=held > BYTES_IN_MEMORY),)))
            start += shard.rows
        return Dataset(shards, self.schema, pa.concat_tables(dropped).combine_chunks(), report=report)

    # -- saving -------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> "Dataset":
        """Write to the new folder `path`, completely or not at all, and open it from there."""
        folder = Path(path)
        if folder.exists():
            raise StoreError("a dataset is never overwritten", where=folder, remedy="choose a new folder")
        building = folder.with_name(f"{folder.name}.{os.getpid()}.tmp")
        try:
            (building / "shards").mkdir(parents=True)
            entries = [self._save_shard(building, number, shard) for number, shard in enumerate(self._shards)]
            pq.write_table(self.dropped, building / "dropped.parquet", **PARQUET)
            pq.write_table(self.quarantined, building / "quarantined.parquet", **PARQUET)
            manifest = {
                "format": FORMAT,
                "hash": self.hash,
                "rows": self.num_rows,
                "columns": {field.name: str(field.type) for field in self.schema},
                "schema": self.schema.serialize().to_pybytes().hex(),
                "shards": entries,
                "report": self.report,
            }
            with (building / MANIFEST).open("w", encoding="utf-8") as out:
                json.dump(manifest, out, indent=1)
                out.flush()
                os.fsync(out.fileno())
            building.rename(folder)
        except OSError as error:
            shutil.rmtree(building, ignore_errors=True)
            raise StoreError(
                "a dataset could not be written",
                where=folder,
                found=str(error),
                remedy="free space or choose a folder that can be written",
            ) from None
        return Dataset.open(folder)

    def _save_shard(self, building: Path, number: int, shard: _Shard) -> dict[str, Any]:
        parts = []
        for place, part in enumerate(shard.parts):
            file = f"shards/{number:05d}.{place}.parquet" if place else f"shards/{number:05d}.parquet"
            target = building / file
            if isinstance(part.source, pa.Table):
                pq.write_table(part.source.select(list(part.columns)), target, **PARQUET)
            else:
                _link_or_copy(part.source, target)
            parts.append(
                {"columns": list(part.columns), "file": file, "hash": part.hash, "bytes": target.stat().st_size}
            )
        return {"rows": shard.rows, "parts": parts}


class DatasetBuilder:
    """Collects rows into shards, in memory while small and spilled to disk beyond that.

    Ids must be unique; a row without one gets a hash of its contents, with an occurrence number from the second
    identical row on.
    """

    def __init__(self, rows_per_shard: int = ROWS_PER_SHARD) -> None:
        self._limit = rows_per_shard
        self._rows: list[dict[str, Any]] = []
        self._pending = 0
        self._shards: list[_Shard] = []
        self._schemas: list[pa.Schema] = []
        self._bytes = 0
        self._seen: set[int] = set()
        self._content: dict[int, int] = {}
        self._dropped: list[tuple[str, str]] = []
        self._quarantined: list[tuple[str, str, str]] = []

    def add(self, row: Mapping[str, Any]) -> str:
        """Add one row; returns its id."""
        identifier = self._identify(row)
        self._rows.append({"id": identifier, **{key: value for key, value in row.items() if key != "id"}})
        self._pending += sum(len(v) for v in row.values() if isinstance(v, str)) + 64
        if len(self._rows) >= self._limit or self._pending >= BYTES_PER_SHARD:
            self._flush()
        return identifier

    def add_table(self, table: pa.Table) -> None:
        """Add many rows at once."""
        if table.num_rows == 0:
            if not self._schemas and "id" in table.column_names:
                self._schemas.append(table.schema)
            return
        if "id" not in table.column_names:
            for row in table.to_pylist():
                self.add(row)
            return
        self._flush()
        if table.schema.field("id").type != pa.string():
            table = table.set_column(
                table.schema.get_field_index("id"), "id", table.column("id").cast(pa.string())
            )
        for value in table.column("id").to_pylist():
            self._check_id(value)
        self._add_shard(table)

    def drop(self, source_id: str, reason: str) -> None:
        """Record that a source row is gone, and why."""
        self._dropped.append((source_id, reason))

    def quarantine(self, where: str, reason: str, raw: str = "") -> None:
        """Record input that could not become a row at all; `raw` is its start, for a person to look at."""
        self._quarantined.append((where, reason, raw[:2000]))

    def finish(self, report: Mapping[str, Any] | None = None) -> Dataset:
        """The dataset; the builder must not be used afterwards."""
        self._flush()
        try:
            schema = pa.unify_schemas(
                self._schemas or [pa.schema([("id", pa.string())])], promote_options="permissive"
            )
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(
                "a column changes its type between rows",
                found=str(error).splitlines()[0],
                remedy="give every row of the column one type",
            ) from None
        dropped = pa.table(
            {"id": [d[0] for d in self._dropped], "reason": [d[1] for d in self._dropped]}, schema=DROPPED_SCHEMA
        )
        columns = zip(*self._quarantined) if self._quarantined else ((), (), ())
        quarantined = pa.table(dict(zip(QUARANTINE_SCHEMA.names, map(list, columns))), schema=QUARANTINE_SCHEMA)
        return Dataset(self._shards, schema, dropped, quarantined, report)

    def _identify(self, row: Mapping[str, Any]) -> str:
        if row.get("id") is not None:
            identifier = str(row["id"])
            self._check_id(identifier)
            return identifier
        text = json.dumps(
            {k: v for k, v in row.items() if k != "id"}, sort_keys=True, ensure_ascii=False, default=str
        )
        digest = blake3.blake3(text.encode("utf-8", "surrogatepass")).hexdigest(length=8)
        number = int(digest, 16)
        occurrence = self._content.get(number, 0)
        self._content[number] = occurrence + 1
        identifier = digest if occurrence == 0 else f"{digest}-{occurrence}"
        self._check_id(identifier)
        return identifier

    def _check_id(self, identifier: str | None) -> None:
        if not identifier:
            raise InputError("a row has no id", expected="a non-empty id", found=repr(identifier))
        number = int.from_bytes(blake3.blake3(identifier.encode()).digest(length=8), "little")
        if number in self._seen:
            raise InputError(
                "two rows have the same id",
                where=f"id {identifier}",
                expected="unique ids",
                remedy="make the ids unique, or leave the column out to have ids made from the contents",
            )
        self._seen.add(number)

    def _flush(self) -> None:
        if not self._rows:
            return
        rows, self._rows, self._pending = self._rows, [], 0
        self._add_shard(_table_of(rows))

    def _add_shard(self, table: pa.Table) -> None:
        self._schemas.append(table.schema)
        self._bytes += table.nbytes
        self._shards.append(_Shard(table.num_rows, (_make_part(table, spill=self._bytes > BYTES_IN_MEMORY),)))


def _table_of(rows: list[dict[str, Any]]) -> pa.Table:
    names = list(dict.fromkeys(key for row in rows for key in row))
    arrays = []
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            arrays.append(pa.array(values))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
            raise _mixed(name, values, rows) from None
    return pa.table(arrays, names=names)


def _mixed(name: str, values: list[Any], rows: list[dict[str, Any]]) -> InputError:
    present = [(type(value), row) for value, row in zip(values, rows) if value is not None]
    first = present[0][0]
    odd_type, odd_row = next(((t, row) for t, row in present if t is not first), (first, present[0][1]))
    return InputError(
        f"column {name!r} mixes types",
        where=f"row {odd_row['id']}",
        expected=first.__name__,
        found=f"{odd_type.__name__}: {odd_row[name]!r}",
        remedy="give every row of the column one type",
    )


def _array(values: Any, name: str) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"column {name!r} cannot be stored: {error}") from None


def _make_part(table: pa.Table, spill: bool) -> _Part:
    digest = hash_table(table)
    columns = tuple(table.column_names)
    if not spill:
        return _Part(columns, table, digest)
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
    return _Part(columns, path, digest)


def _without(part: _Part, names: Sequence[str]) -> _Part:
    """The part without replaced columns, which stay in its file but are no longer read."""
    kept = tuple(column for column in part.columns if column not in names)
    if kept == part.columns:
        return part
    return replace(part, columns=kept, hash=hash_table(part.read(kept)) if kept else "")


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError("a manifest names a file outside its folder", where=folder / MANIFEST, found=name)
    return path


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def embedding_matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A list column of equal lengths as a float32 matrix [rows, d]."""
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) != 1 or lengths[0] is None:
        raise InputError("embeddings must have one length and no nulls", found=f"lengths {lengths[:5]}")
    flat = pa.concat_arrays([chunk.flatten() for chunk in column.chunks])
    return flat.to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, lengths[0])
