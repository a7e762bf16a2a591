"""`DatasetBuilder`: rows, one by one or in tables, become a dataset without being held as a whole."""

import json
from collections.abc import Mapping
from typing import Any

import blake3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tutelage.core.dataset import DROPPED_SCHEMA, QUARANTINE_SCHEMA, Dataset
from tutelage.core.errors import InputError
from tutelage.core.shards import Shard, make_part

ROWS_PER_SHARD = 50_000
BYTES_PER_SHARD = 64 * 2**20
_ROW = 64  # bytes that a row counts for besides its text


class DatasetBuilder:
    """Collects rows into shards, in memory while small and spilled to disk beyond that.

    Ids must be unique; a row without one gets a hash of its contents, with an occurrence number from the second
    identical row on.
    """

    def __init__(self, rows_per_shard: int = ROWS_PER_SHARD) -> None:
        self._limit = rows_per_shard
        self._rows: list[dict[str, Any]] = []
        self._texts: list[pa.Table] = []
        self._held = 0
        self._pending = 0
        self._shards: list[Shard] = []
        self._schemas: list[pa.Schema] = []
        self._bytes = 0
        # Of ids only their hashes are held: 64 bits, and of this process alone.
        self._seen: set[int] = set()
        self._content: dict[int, int] = {}
        self._dropped: list[tuple[str, str]] = []
        self._quarantined: list[tuple[str, str, str]] = []

    def add(self, row: Mapping[str, Any]) -> str:
        """Add one row; returns its id."""
        identifier = self._identify(row)
        self._rows.append({"id": identifier, **{key: value for key, value in row.items() if key != "id"}})
        self._held += 1
        self._pending += sum(len(v) for v in row.values() if isinstance(v, str)) + _ROW
        if self._held >= self._limit or self._pending >= BYTES_PER_SHARD:
            self._flush()
        return identifier

    def add_texts(self, table: pa.Table) -> bool:
        """Add rows whose columns are all text, as `add` would one by one, into the same shards; False, and nothing
        added, where an id is missing or not unique."""
        ids = table.column("id").to_pylist()
        if not all(ids):
            return False
        numbers = list(map(hash, ids))
        fresh = set(numbers)
        if len(fresh) < len(numbers) or not self._seen.isdisjoint(fresh):
            return False
        self._seen |= fresh
        table = table.select(["id", *(name for name in table.column_names if name != "id")])
        sizes = np.full(len(ids), _ROW, dtype=np.int64)
        for column in table.columns:
            sizes += pc.fill_null(pc.utf8_length(column), 0).to_numpy()
        ends = np.cumsum(sizes)
        start = 0
        while start < len(ids):
            before = ends[start - 1] if start else 0
            full = int(np.searchsorted(ends, before + BYTES_PER_SHARD - self._pending)) + 1
            end = min(full, start + self._limit - self._held, len(ids))
            self._merge_rows()
            self._texts.append(table.slice(start, end - start))
            self._held += end - start
            self._pending += int(ends[end - 1] - before)
            if self._held >= self._limit or self._pending >= BYTES_PER_SHARD:
                self._flush()
            start = end
        return True

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
            for shard, own in zip(self._shards, self._schemas[-len(self._shards) :]):
                widened = [field.name for field in own if field.type != schema.field(field.name).type]
                # Read now: a value that the wider type cannot hold is an error here, not wherever it is used.
                shard.read(widened, schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError, InputError) as error:
            raise _changed(error) from None
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
        number = hash(identifier)
        if number in self._seen:
            raise InputError(
                "two rows have the same id",
                where=f"id {identifier}",
                expected="unique ids",
                remedy="make the ids unique, or leave the column out to have ids made from the contents",
            )
        self._seen.add(number)

    def _flush(self) -> None:
        self._merge_rows()
        texts, self._texts, self._held, self._pending = self._texts, [], 0, 0
        if texts:
            self._add_shard(texts[0] if len(texts) == 1 else _joined(texts))

    def _merge_rows(self) -> None:
        """Makes the rows a table, behind those that came before them."""
        if self._rows:
            rows, self._rows = self._rows, []
            self._texts.append(_table_of(rows))

    def _add_shard(self, table: pa.Table) -> None:
        self._schemas.append(table.schema)
        self._bytes += table.nbytes
        self._shards.append(Shard(table.num_rows, (make_part(table, self._bytes),)))


def _joined(tables: list[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise _changed(error) from None


def _changed(error: Exception) -> InputError:
    return InputError(
        "a column changes its type between rows",
        expected="values that one type can hold",
        found=error.found if isinstance(error, InputError) else str(error).splitlines()[0],
        remedy="give every row of the column one type",
    )


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
