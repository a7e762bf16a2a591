"""The text of a row, whatever its columns: `text`, `prompt` with `completion` or `chosen`, or `messages`.

Every method that looks at text reads it here, so that all mean the same by it.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from tutelage.core.errors import InputError

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset

ANSWERS = ("completion", "response", "answer", "chosen")
QUESTIONS = ("prompt", "question", "instruction")


def pair_columns(schema: pa.Schema) -> tuple[str, str] | None:
    """(question column, answer column) when the rows are pairs of strings, else None; `text` wins over pairs."""
    if "text" in schema.names:
        return None
    strings = {f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)}
    question = next((name for name in QUESTIONS if name in strings), None)
    answer = next((name for name in ANSWERS if name in strings), None)
    return (question, answer) if question and answer else None


def string_column(shard: pa.Table, name: str) -> pa.LargeStringArray:
    """A column as one Arrow array of strings, nulls as ""; another type is an error that names a row."""
    column = shard.column(name)
    if pa.types.is_null(column.type):
        return pa.array([""] * len(column), pa.large_string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InputError(
            f"column {name!r} does not hold text",
            where=f"row {shard.column('id')[0].as_py()}" if "id" in shard.column_names and len(shard) else name,
            expected="strings",
            found=str(column.type),
            remedy="name the column that holds the text",
        )
    column = column.cast(pa.large_string())
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], pa.large_string())
    return array.fill_null("") if array.null_count else array


def text_array(shard: pa.Table) -> pa.LargeStringArray:
    """The text of every row of a shard; pairs and messages are joined by line breaks."""
    names = shard.column_names
    if "text" in names:
        return string_column(shard, "text")
    pair = pair_columns(shard.schema)
    if pair:
        between = pa.scalar("\n", pa.large_string())
        return pc.binary_join_element_wise(*(string_column(shard, name) for name in pair), between)
    if "messages" in names:
        joined = ["\n".join(m["content"] or "" for m in row or ()) for row in shard.column("messages").to_pylist()]
        return pa.array(joined, pa.large_string())
    raise InputError(
        "the rows have no text",
        expected="a column text, or messages, or prompt with completion",
        found=", ".join(names),
        remedy="rename the column, or read the data with a reader (`data.read.*`)",
    )


def text_rows(dataset: "Dataset") -> Iterator[tuple[str, str]]:
    """(id, text) of every row of a dataset, in order."""
    for shard in dataset.shards():
        yield from zip(shard.column("id").to_pylist(), texts(shard))


def texts(shard: pa.Table) -> list[str]:
    """`text_array` as Python strings."""
    return text_array(shard).to_pylist()
