"""Spans of texts replaced at their exact places."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tutelage.core.errors import InputError

REMOVED = "removed_characters"
# (start, end, what stands there instead), in code points.
Piece = tuple[int, int, str]


def spans_of(shard: pa.Table, columns: Mapping[str, str]) -> list[list[Piece]]:
    """For every row the spans of all columns, sorted; overlapping ones are one, replaced as the first is."""
    found: list[list[Piece]] = [[] for _ in range(shard.num_rows)]
    for name, instead in columns.items():
        kind = shard.schema.field(name).type
        if pa.types.is_null(kind):
            continue
        if not pa.types.is_list(kind) or not _is_span(kind.value_type):
            raise InputError(
                f"column {name!r} does not hold spans",
                where=name,
                expected="a list of {start, end} per row",
                found=str(kind),
                remedy="name a column that a span signal wrote (signals.paragraph_duplicates)",
            )
        for pieces, spans in zip(found, shard.column(name).to_pylist(), strict=True):
            pieces += [(span["start"], span["end"], instead) for span in spans or ()]
    return [_joined(pieces) for pieces in found]


def replaced(text: str, pieces: Sequence[Piece], identifier: str) -> str:
    """`text` with every piece replaced; raises InputError naming the row when a piece lies outside of it."""
    kept, at = [], 0
    for start, end, instead in pieces:
        if not 0 <= start <= end <= len(text):
            raise InputError(
                "a span does not fit its text",
                where=f"row {identifier}",
                expected=f"0 <= start <= end <= {len(text)}",
                found=f"{start} to {end}",
                remedy="the text was changed after the spans were found; find them again",
            )
        kept += [text[at:start], instead]
        at = end
    return "".join([*kept, text[at:]])


def tokens_after(table: pa.Table, before: Sequence[str], after: Sequence[str]) -> pa.Table:
    """The table with `n_tokens`, where it has them, in proportion to the characters left, and marked estimated."""
    if "n_tokens" not in table.column_names:
        return table
    old = np.array([len(text) for text in before])
    new = np.array([len(text) for text in after])
    changed = np.array([a is not b for a, b in zip(before, after, strict=True)], dtype=bool)
    tokens = table.column("n_tokens").cast(pa.float64()).to_numpy()
    scaled = np.where(changed, np.ceil(tokens * new / np.maximum(old, 1)), tokens).astype(np.int64)
    table = table.set_column(table.schema.get_field_index("n_tokens"), "n_tokens", pa.array(scaled))
    if "n_tokens_estimated" in table.column_names:
        place = table.schema.get_field_index("n_tokens_estimated")
        marked = pc.or_(table.column(place), pa.array(changed))
        table = table.set_column(place, "n_tokens_estimated", marked)
    return table


def _is_span(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {"start", "end"} <= {field.name for field in kind}


def _joined(pieces: list[Piece]) -> list[Piece]:
    joined: list[Piece] = []
    for start, end, instead in sorted(pieces, key=lambda piece: piece[:2]):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]), joined[-1][2])
        else:
            joined.append((start, end, instead))
    return joined
