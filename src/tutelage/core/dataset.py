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
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tutelage.core import json_text
from tutelage.core.errors import InputError, StoreError, suggest
from tutelage.core.shards import PARQUET, Part, Shard, hash_table, make_part, without

MANIFEST = "manifest.json"
FORMAT = 1
DROPPED_SCHEMA = pa.schema([("id", pa.string()), ("reason", pa.string())])
QUARANTINE_SCHEMA = pa.schema([("where", pa.string()), ("reason", pa.string()), ("raw", pa.string())])


class Dataset:
    """Rows with stable string ids in column `id`. Make one with `from_rows`, `open`, a reader or a transform."""

    def __init__(
        self,
        shards: Sequence[Shard],
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
        from tutelage.core.dataset_builder import DatasetBuilder

        builder = DatasetBuilder()
        for row in rows:
            builder.add(row)
        return builder.finish(report)

    @classmethod
    def from_table(cls, table: pa.Table) -> "Dataset":
        """A dataset of an Arrow table, which may lack `id`."""
        from tutelage.core.dataset_builder import DatasetBuilder

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
            manifest = json_text.loads(file.read_bytes())
            schema = pa.ipc.read_schema(pa.BufferReader(bytes.fromhex(manifest["schema"])))
            shards = [
                Shard(
                    shard["rows"],
                    tuple(
                        Part(tuple(p["columns"]), _inside(folder, p["file"]), p["hash"]) for p in shard["parts"]
                    ),
                )
                for shard in manifest["shards"]
            ]
            found = cls(
                shards,
                schema,
                _read_beside(folder / "dropped.parquet", DROPPED_SCHEMA),
                _read_beside(folder / "quarantined.parquet", QUARANTINE_SCHEMA),
                manifest["report"],
            )
            # What the manifest says of itself: a shard that is gone from the list is missed.
            known = found.hash == manifest["hash"] and found.num_rows == manifest["rows"]
            known &= "id" in schema.names and all(any("id" in p.columns for p in s.parts) for s in shards)
            sizes = [stored["bytes"] for entry in manifest["shards"] for stored in entry["parts"]]
        except _BROKEN as error:
            raise _damaged(file, f"{type(error).__name__}: {error}") from None
        if not known:
            raise _damaged(file, "shards that the hash in the manifest is not of")
        found.path = folder
        for shard in shards:
            for part in shard.parts:
                assert isinstance(part.source, Path)
                expected = sizes.pop(0)
                size = _size(part.source)
                if size != expected:
                    raise InputError(
                        "a shard is damaged",
                        where=part.source,
                        expected=f"{expected} bytes",
                        found="no file" if size < 0 else f"{size} bytes",
                        remedy="make the dataset again",
                    )
                if verify and hash_table(part.read(part.columns)) != part.hash:
                    raise InputError(
                        "a shard's contents changed",
                        where=part.source,
                        expected=f"contents with the hash {part.hash}",
                        found="others",
                        remedy="make the dataset again",
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
        parts: list[Part] = []
        schemas: list[pa.Schema] = []
        spilled = 0
        for shard, values in zip(self._shards, columns, strict=True):
            arrays = {key: as_array(value, key) for key, value in values.items()}
            for key, array in arrays.items():
                if len(array) != shard.rows:
                    raise ValueError(f"sidecar {name!r}: {key!r} has {len(array)} values for {shard.rows} rows")
            table = pa.table(arrays)
            schemas.append(table.schema)
            spilled += table.nbytes
            parts.append(make_part(table, spilled))
        added = pa.unify_schemas(schemas, promote_options="permissive") if schemas else pa.schema([])
        kept = [field for field in self.schema if field.name not in added.names]
        shards = []
        for shard, part in zip(self._shards, parts):
            old = [without(p, added.names) for p in shard.parts]
            shards.append(Shard(shard.rows, (*(p for p in old if p.columns), part)))
        return Dataset(shards, pa.schema([*kept, *added]), report=self.report)

    def drop_columns(self, *names: str) -> "Dataset":
        """The same rows without the columns `names`."""
        self.require(*names)
        kept = [name for name in self.schema.names if name not in names]
        from tutelage.core.dataset_builder import DatasetBuilder

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
        shards: list[Shard] = []
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
                shards.append(Shard(table.num_rows, (make_part(table, held),)))
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

    def _save_shard(self, building: Path, number: int, shard: Shard) -> dict[str, Any]:
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


def as_array(values: Any, name: str) -> pa.Array | pa.ChunkedArray:
    """A column's values as Arrow stores them; raises ValueError for what it cannot store."""
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, np.ndarray) and values.ndim == 2:
        flat = pa.array(np.ascontiguousarray(values).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"column {name!r} cannot be stored: {error}") from None


# Whatever a manifest that somebody else wrote makes its reader raise.
_BROKEN = (KeyError, IndexError, ValueError, TypeError, AttributeError, OSError, OverflowError, pa.ArrowException)


def _size(file: Path) -> int:
    """Bytes; -1 for what is not there."""
    try:
        return file.stat().st_size
    except OSError:
        return -1


def _damaged(file: Path, found: str) -> InputError:
    return InputError(
        "a dataset folder is damaged",
        where=file,
        expected="a manifest and tables as they were saved",
        found=found,
        remedy="make the dataset again",
    )


def _read_beside(file: Path, schema: pa.Schema) -> pa.Table:
    return pq.read_table(file, partitioning=None).cast(schema)


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            "a manifest names a file outside its folder",
            where=folder / MANIFEST,
            expected="files below the folder",
            found=name,
            remedy="make the dataset again; do not use this one if you do not know who wrote it",
        )
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
