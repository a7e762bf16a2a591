"""What audits of memorisation share: which rows are asked about, and texts cut into a beginning and what
follows."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tutelage.core.errors import InputError
from tutelage.core.text.hashing import uniform
from tutelage.core.text.rows import texts

if TYPE_CHECKING:
    import pyarrow as pa

    from tutelage.core.dataset import Dataset


class Pieces(NamedTuple):
    """A beginning and what follows it; `before` and `after` joined are a stretch of the text."""

    before: str
    after: str


def sample(dataset: "Dataset", count: int | None, seed: int) -> "pa.Table":
    """`count` rows (None: all) drawn by hash of their ids, in the dataset's order."""
    order = np.argsort(uniform(seed, dataset.ids()), kind="stable")[:count]
    return dataset.take(sorted(order.tolist()))


def row_texts(table: "pa.Table") -> list[str]:
    """The text of every row; a question with options is the question and its options, line by line."""
    if "text" not in table.column_names and {"prompt", "choices"} <= set(table.column_names):
        return ["\n".join([row["prompt"] or "", *(row["choices"] or ())]) for row in table.to_pylist()]
    return texts(table)


def first_tokens(text: str, model: Any, limit: int) -> str:
    """The first words of `text` that together have at most `limit` tokens, at least one word."""
    found = re.findall(r"\s*\S+", text)
    size = kept = 0
    for ids in model.tokenize(found):
        size += len(ids)
        if kept and size > limit:
            break
        kept += 1
    return "".join(found[:kept])


def first_words(text: str, count: int) -> str:
    """The first `count` words with the white space before them."""
    return "".join(re.findall(r"\s*\S+", text)[:count])


def as_words(text: str, count: int | None = None) -> str:
    """The text with its white space collapsed, cut after `count` words."""
    return " ".join(text.split()[:count])


def copies_of(row: Mapping[str, Any], column: str) -> str | None:
    """How often a row was in the training data, as the label of a group of rows; None where nobody says."""
    value = row.get(column)
    return None if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)


def refuse_shared(rows: "pa.Table", control: "pa.Table", where: str) -> None:
    """Raise InputError when a row that was never seen is among those that may have been."""
    shared = set(row_texts(rows)) & set(row_texts(control))
    if shared:
        raise InputError(
            "a control row is among the rows that it is the control of",
            where=f"{where}: control",
            expected="rows that the model cannot have seen",
            found=sorted(shared)[0][:80],
        )
