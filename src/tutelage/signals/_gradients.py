"""What the gradient signals share: rows encoded as training encodes them, and reasons for those that cannot be."""

from typing import Any

import numpy as np
import pyarrow as pa

from tutelage.core.errors import InputError
from tutelage.core.text.rows import string_column

TEXT_COLUMNS = ("text", "prompt", "completion")


def documents(shard: pa.Table, model: Any, max_length: int) -> tuple[list[Any], list[int], list[str | None]]:
    """(encoded documents, the row of each, a reason per row that has none or was cut)."""
    from tutelage.models.encode import encode_row

    names = shard.column_names
    if not {"messages", "text"} & set(names) and not {"prompt", "completion"} <= set(names):
        raise InputError(
            "the rows have nothing to train on",
            expected="a column text, or messages, or prompt with completion",
            found=", ".join(names),
            remedy="rename the column, or read the data with a reader (`data.read.*`)",
        )
    for name in TEXT_COLUMNS:
        if name in names:
            string_column(shard, name)
    encoded, owners = [], []
    flags: list[str | None] = [None] * len(shard)
    for number, row in enumerate(shard.to_pylist()):
        try:
            document = encode_row(row, model, min(max_length, model.max_length))
        except InputError as error:
            flags[number] = error.what
            continue
        if document.cut:
            flags[number] = f"cut to {len(document)} tokens"
        encoded.append(document)
        owners.append(number)
    return encoded, owners, flags


def require_finite(values: Any, shard: pa.Table, row: int) -> None:
    """Raise InputError naming the row when a number of its gradient is not finite."""
    if not np.isfinite(values).all():
        raise InputError(
            "a gradient is not finite",
            where=f"row {shard.column('id')[row].as_py()}",
            expected="finite numbers",
            found="NaN or infinity",
            remedy="the weights are broken (check the training loss), or the precision is too low",
        )
