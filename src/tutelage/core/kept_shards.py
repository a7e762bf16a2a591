"""Columns of what is scored, kept while a scorer works: an interrupted step scores only what is left.

One Arrow file for each shard, or piece of one, behind the hash of its bytes, written whole or not at all, with the
ids it belongs to and what it cost; a file that is damaged or of other rows is made again.
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

from tutelage.core.dataset import as_array
from tutelage.core.meter import Meter
from tutelage.core.method import Inputs
from tutelage.core.records import Cost

Columns = Mapping[str, Any]
_HASH = 64  # bytes of the hash; Arrow's buffers stay aligned behind it


def meters_of_models(inputs: Inputs) -> list[Meter]:
    """The meters of the models among the inputs, each once."""
    values = [item for value in inputs.values() for item in (value if isinstance(value, list) else [value])]
    meters = [item.meter for item in values if isinstance(getattr(item, "meter", None), Meter)]
    return list({id(meter): meter for meter in meters}.values())


class KeptShards:
    """Shards by number below `folder`; costs are read from, and for shards taken over added to, the meters of
    `inputs` (the caller's own, and those of the models in it)."""

    def __init__(self, folder: Path, inputs: Inputs) -> None:
        self.folder = folder
        own = inputs.get("meter")
        self.own = own if isinstance(own, Meter) else Meter()
        self.meters = [self.own, *(meter for meter in meters_of_models(inputs) if meter is not self.own)]

    def columns(self, number: int, piece: int, shard: pa.Table, score: Callable[[pa.Table], Columns]) -> Columns:
        """The columns of a piece of a shard: from its file, or scored and written."""
        file = self.folder / f"shard-{number:06}-{piece:03}.arrow"
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


def as_table(columns: Columns) -> pa.Table:
    """What a scorer gave, as it is stored."""
    return pa.table({name: as_array(values, name) for name, values in columns.items()})


def _write(file: Path, columns: Columns, metadata: dict[bytes, bytes]) -> None:
    table = as_table(columns)
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
