"""Columns of finished shards, kept while a scorer works: an interrupted step scores only the shards that are left.

One Arrow file for each shard, behind the hash of its bytes, written whole or not at all, with the ids it belongs
to and what it cost; a file that is damaged or of other rows is made again.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import blake3
import pyarrow as pa

from tutelage.core.meter import Meter
from tutelage.core.method import Inputs
from tutelage.core.records import Cost

Columns = Mapping[str, Any]
_HASH = 64  # bytes of the hash; Arrow's buffers stay aligned behind it


class KeptShards:
    """Shards by number below `folder`; costs are read from, and for shards taken over added to, the meters of
    `inputs` (the caller's own, and those of the models in it)."""

    def __init__(self, folder: Path, inputs: Inputs) -> None:
        self.folder = folder
        values = [item for value in inputs.values() for item in (value if isinstance(value, list) else [value])]
        meters = {id(item.meter): item.meter for item in values if isinstance(getattr(item, "meter", None), Meter)}
        own = inputs.get("meter")
        self.own = own if isinstance(own, Meter) else Meter()
        self.meters = [self.own, *(meter for meter in meters.values() if meter is not self.own)]

    def columns(self, number: int, shard: pa.Table, score: Callable[[pa.Table], Columns]) -> Columns:
        """The columns of a shard: from its file, or scored, written and then taken from what was written."""
        file = self.folder / f"shard-{number:06}.arrow"
        rows = hashlib.blake2b("\n".join(shard.column("id").to_pylist()).encode(), digest_size=16).hexdigest()
        found = _read(file, rows)
        if found is not None:
            self.own.add_cost(Cost(**json.loads(found.schema.metadata[b"cost"])))
            return {name: found.column(name) for name in found.column_names}
        before = [meter.cost for meter in self.meters]
        made = score(shard)
        cost = sum((meter.since(then) for meter, then in zip(self.meters, before)), Cost())
        _write(file, made, {b"rows": rows.encode(), b"cost": cost.model_dump_json().encode()})
        return made


def _read(file: Path, rows: str) -> pa.Table | None:
    with contextlib.suppress(OSError, pa.ArrowInvalid, KeyError):
        content = memoryview(file.read_bytes())
        if bytes(content[:_HASH]) != _digest(content[_HASH:]):
            return None
        table = pa.ipc.open_file(pa.BufferReader(pa.py_buffer(content[_HASH:]))).read_all()
        if table.schema.metadata[b"rows"].decode() == rows:
            return table
    return None


def _write(file: Path, columns: Columns, metadata: dict[bytes, bytes]) -> None:
    from tutelage.core.dataset import as_array

    table = pa.table({name: as_array(values, name) for name, values in columns.items()})
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema.with_metadata(metadata)) as writer:
        writer.write_table(table.replace_schema_metadata(metadata))
    content = sink.getvalue()
    with part.open("wb") as out:
        out.write(_digest(content))
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    part.replace(file)


def _digest(content: Any) -> bytes:
    return blake3.blake3(content).hexdigest().encode()
