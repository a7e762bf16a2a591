"""Arrow tables as rows are stored: plain types, one name for each column, values that Python can hold."""

import numpy as np
import pyarrow as pa

from tutelage.core.errors import InputError
from tutelage.core.json_text import MOST_LEVELS
from tutelage.data.read._types import too_deep


def plain_types(table: pa.Table) -> pa.Table:
    """The table with dictionaries decoded and all spellings of text as `string`; a number id becomes text.

    Raises InputError for a column that cannot be stored.
    """
    for index, field in enumerate(table.schema):
        kind = field.type
        if _levels(kind) > MOST_LEVELS:
            raise too_deep(field.name)
        target = kind
        if pa.types.is_dictionary(kind):
            target = kind.value_type
        if pa.types.is_large_string(target) or target == pa.string_view():
            target = pa.string()
        if target in (pa.binary_view(), pa.large_binary()):
            target = pa.binary()
        if pa.types.is_struct(target) and target.num_fields == 0:
            # Arrow has no empty object that Parquet can store.
            table = table.set_column(index, field.name, pa.nulls(table.num_rows))
            continue
        if field.name == "id" and pa.types.is_integer(kind):
            target = pa.string()
        if field.name == "id" and target != pa.string():
            raise InputError(
                "the column 'id' is neither text nor whole numbers",
                expected="text or whole numbers",
                found=str(kind)[:80],
                remedy="rename the column, in the field `columns`",
            )
        if not _storable(target):
            raise InputError(
                f"column {field.name!r} has a type that cannot be stored",
                expected="text, numbers, booleans, dates, and lists and objects of them",
                found=str(kind)[:80],
                remedy="convert the column where it was made, for example to text",
            )
        if target != kind:
            table = table.set_column(index, field.name, table.column(index).cast(target))
    return table.replace_schema_metadata(None)


def joined(known: pa.Schema | None, found: pa.Schema) -> pa.Schema:
    """The schema that holds both; raises InputError where a column changes its type."""
    if known is None:
        return found
    try:
        return pa.unify_schemas([known, found], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InputError(
            "a column changes its type",
            expected="the types of the rows before",
            found=str(error).splitlines()[0][:200],
            remedy="give the column one type in all files",
        ) from None


def not_utf8(table: pa.Table) -> dict[int, InputError]:
    """Row -> why its text cannot be read: Arrow does not look at the bytes of a file's text."""
    try:
        table.validate(full=True)
        return {}
    except pa.ArrowInvalid:
        wrong: dict[int, InputError] = {}
        for index in range(table.num_rows):
            try:
                table.slice(index, 1).combine_chunks().validate(full=True)
            except pa.ArrowInvalid as error:
                wrong[index] = InputError(
                    "text is not valid UTF-8",
                    expected="UTF-8",
                    found=str(error).splitlines()[0][:200],
                    remedy="convert the column to UTF-8 where it was made, or copy the file again",
                )
        return wrong


def beyond_python(table: pa.Table) -> dict[int, InputError]:
    """Row -> why its date or time cannot be held: Python's years are 1 to 9999, its times to the microsecond."""
    wrong: dict[int, InputError] = {}
    for field in table.schema:
        if not _any(field.type, pa.types.is_temporal):
            continue
        column = table.column(field.name)
        try:
            column.to_pylist()
        except (OverflowError, ValueError):
            for index in range(table.num_rows):
                try:
                    column[index].as_py()
                except (OverflowError, ValueError) as error:
                    wrong.setdefault(index, _no_date(field.name, error))
    return wrong


def not_finite_rows(column: pa.ChunkedArray) -> np.ndarray:
    """Indices of NaN and infinities in a column of floating-point numbers."""
    import pyarrow.compute as pc

    return np.flatnonzero(pc.invert(pc.fill_null(pc.is_finite(column), True)).to_numpy())


def _no_date(name: str, error: Exception) -> InputError:
    return InputError(
        f"column {name!r} holds a date or time that cannot be represented",
        expected="years 1 to 9999, to the microsecond",
        found=str(error)[:100],
        remedy="correct the value, or write the column as text",
    )


def _parts(kind: pa.DataType) -> list[pa.DataType]:
    if pa.types.is_dictionary(kind):
        return [kind.value_type]
    return [kind.field(number).type for number in range(kind.num_fields)] if pa.types.is_nested(kind) else []


def _levels(kind: pa.DataType) -> int:
    return 1 + max(map(_levels, _parts(kind)), default=0)


def _any(kind: pa.DataType, holds: object) -> bool:
    return bool(holds(kind)) or any(_any(part, holds) for part in _parts(kind))  # type: ignore[operator]


def _unstorable(kind: pa.DataType) -> bool:
    """What Parquet does not take, or what is no value."""
    types = pa.types
    empty = types.is_struct(kind) and kind.num_fields == 0
    return empty or types.is_interval(kind) or types.is_union(kind) or types.is_run_end_encoded(kind)


def _storable(kind: pa.DataType) -> bool:
    return not _any(kind, _unstorable)
