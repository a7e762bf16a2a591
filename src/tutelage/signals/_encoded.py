"""Rows as token ids for signals that look at gradients: what training would learn of each row."""

from typing import Any

import pyarrow as pa

from tutelage.core.errors import InputError
from tutelage.core.text.rows import texts


def encoded_rows(shard: pa.Table, model: Any, max_length: int) -> tuple[list[Any], list[str | None]]:
    """(`models.encode.Encoded` of every row or None, why there is none): a text whole, of a pair or a conversation
    the response after its prompt, cut to `max_length` tokens. Raises InputError for rows of another shape."""
    from tutelage.models.encode import encode_row

    if not {"messages", "completion"} & set(shard.column_names):
        texts(shard)  # names the columns that are missing
    documents: list[Any] = []
    flags: list[str | None] = []
    for row in shard.to_pylist():
        try:
            documents.append(encode_row(row, model, min(max_length, model.max_length)))
            flags.append(None)
        except InputError as error:
            documents.append(None)
            flags.append(error.what)
    return documents, flags


def encoded_set(table: pa.Table, model: Any, max_length: int, where: str) -> list[Any]:
    """The rows of a table that can be learnt from; raises InputError when there is none."""
    documents, flags = encoded_rows(table, model, max_length)
    kept = [document for document in documents if document is not None]
    if not kept:
        raise InputError(
            "no row can be learnt from",
            where=where,
            expected="rows with text, or with prompt and completion",
            found=flags[0] if flags else "no row",
        )
    return kept
