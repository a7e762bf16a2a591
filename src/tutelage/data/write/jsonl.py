"""JSON Lines: one object per row with all columns, UTF-8; compressed when the path ends in .gz or .zst.

What `data.read.jsonl` reads back is the same rows with the same ids. Nulls are written as null. Values that JSON
lacks (bytes, dates, NaN) are a named error: Parquet holds them.
"""

import itertools
import json
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Writer
from tutelage.core.text.words import text_bytes
from tutelage.data.write._atomic import new_file, new_target

CARD = {
    "name": "data.write.jsonl",
    "paper": {"title": "Common practice"},
    "summary": "Writes rows as JSON Lines, plain or compressed, for any other trainer.",
    "reads": ["id"],
    "needs": [],
    "cost": "one pass over the rows, memory bounded",
    "baseline": None,
    "headline": "What is read back equals what was written; a file is complete or not there.",
    "version": 1,
}
_ROWS = 256  # rows turned into lines together: they stay in the second-level cache
# The backslash first, or it would escape the escapes.
_ESCAPES = ((b"\\", rb"\\"), (b'"', rb"\""), (b"\n", rb"\n"), (b"\t", rb"\t"), (b"\r", rb"\r"))
_KNOWN_CONTROLS = b"\n\t\r"
_MOST_COLUMNS = 8  # their marks, 0 to 8, are none of the known control characters


class Jsonl(Writer):
    """`columns` None writes all columns; `id` is always written."""

    columns: tuple[str, ...] | None = None

    def write(self, dataset: Dataset, path: str) -> list[str]:
        """Write all rows to the new file `path`."""
        target = new_target(path, self.name)
        names = None if self.columns is None else list(dict.fromkeys(["id", *self.columns]))
        if names is not None:
            dataset.require(*names)
        with new_file(target) as out:
            for shard in dataset.shards(names):
                for batch in shard.to_batches(max_chunksize=_ROWS):
                    lines = _text_lines(batch)
                    out.write(b"".join(map(to_line, batch.to_pylist())) if lines is None else lines)
        return [str(target)]


def _text_lines(batch: pa.RecordBatch) -> bytes | None:
    """What `to_line` gives for every row, at once, if all values are text without rare control characters.

    The values follow each other with such a character before each column and after each row. Escapes, and then
    what JSON has between the values, are put in by replacement.
    """
    names = batch.schema.names
    columns = [_plain(column) for column in batch.columns]
    if len(names) > _MOST_COLUMNS or None in columns:
        return None
    parts: list[Iterable[bytes]] = []
    between = {}
    for number, (name, values) in enumerate(zip(names, columns)):
        mark = bytes([number])
        before = '{"' if not number else '", "'
        between[mark] = f'{before}{json.dumps(name, ensure_ascii=False)[1:]}: "'.encode()
        parts += [itertools.repeat(mark), values or []]
    end = bytes([len(names)])
    lines = b"".join(itertools.chain.from_iterable(zip(*parts, itertools.repeat(end))))
    for plain, escape in (*_ESCAPES, *between.items(), (end, b'"}\n')):
        lines = lines.replace(plain, escape)
    return lines


def _plain(column: pa.Array) -> list[bytes] | None:
    """The strings of a column as bytes, if none is null or holds a control character besides breaks and tabs."""
    if not pa.types.is_string(column.type) or column.null_count:
        return None
    data, offsets = text_bytes(column)
    if np.count_nonzero(data < 32) != sum(np.count_nonzero(data == known) for known in _KNOWN_CONTROLS):
        return None
    whole = data.tobytes()
    return [whole[a:b] for a, b in itertools.pairwise(offsets.tolist())]


def to_line(row: dict[str, object]) -> bytes:
    """One row as a line of JSON; raises InputError naming row and column when a value has no JSON form."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError):
        for column, value in row.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError):
                raise InputError(
                    f"column {column!r} holds a value that JSON lacks",
                    where=f"row {row['id']}",
                    expected="text, finite numbers, booleans, null, lists and objects of these",
                    found=f"{type(value).__name__}: {value!r}"[:120],
                    remedy="write Parquet (data.write.parquet), or leave the column out with the field `columns`",
                ) from None
        raise
