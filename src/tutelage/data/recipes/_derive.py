"""What every document recipe does alike: derived rows with their source, and a reason for rows that gave none."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import InputError

CARRIED = ("source", "kind", "package", "label", "title")


def derive(
    dataset: Dataset,
    column: str,
    carry: Iterable[str],
    make: Callable[[str, dict[str, Any]], "Iterator[dict[str, Any]] | str"],
) -> Dataset:
    """New rows made of each row's text by `make`, which gives rows or the reason why there are none.

    A derived row has the id `<source id>#<number>`, `source_id`, `group` (that of the source row, else the
    source row itself: rows of one source stay together) and the carried columns that the dataset has.
    """
    dataset.require(column)
    carried = [name for name in carry if name in dataset.column_names and name != column]
    wanted = ["id", column, *carried] + (["group"] if "group" in dataset.column_names else [])
    builder = DatasetBuilder()
    for row in dataset.rows(list(dict.fromkeys(wanted))):
        text = row[column]
        made = make(checked_text(text, column, row["id"]), row) if text is not None else "no text"
        if isinstance(made, str):
            builder.drop(row["id"], made)
            continue
        base = {"source_id": row["id"], "group": row.get("group") or row["id"]}
        kept = {name: row[name] for name in carried}
        number = 0
        for number, fields in enumerate(made, start=1):
            builder.add({"id": f"{row['id']}#{number}", **fields, **base, **kept})
        if not number:
            builder.drop(row["id"], "nothing to make a row of")
    return builder.finish()


def checked_text(value: Any, column: str, identifier: str) -> str:
    """`value` as a string; raises InputError naming the row."""
    if not isinstance(value, str):
        raise InputError(
            f"column {column!r} is not text",
            where=f"row {identifier}",
            expected="text",
            found=f"{type(value).__name__}: {value!r}",
            remedy="name the column that holds the text in the field `column`",
        )
    return value
