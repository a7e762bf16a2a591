"""What a person is to label, from files: rows of any format that has a reader, and a schema of classes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.labelling.queue import GUIDELINES, Item, Queue, is_queue
from tutelage.core.labels import LabelSpace
from tutelage.data.read.auto import Auto


def read_queue(path: Path, labels: str | None, guidelines: Path | None) -> tuple[Queue, list[dict[str, Any]]]:
    """The queue at `path` (a queue folder, or rows), and its rows that have a label already and are not asked.

    `labels` is a file of classes or a list with commas; a queue folder has its own.
    """
    told = read_guidelines(guidelines) if guidelines else None
    if is_queue(path):
        if labels is not None:
            raise ConfigError(
                "a queue folder has its classes",
                where="--labels",
                expected=f"no --labels; they are in {path}",
                found=labels,
                remedy="leave --labels out",
            )
        queue = Queue.open(path)
        return (queue if told is None else replace(queue, guidelines=told)), []
    if labels is None:
        raise ConfigError(
            "nobody says what the classes are",
            where="--labels",
            expected="a file with a column label, or names between commas",
            found="nothing",
            remedy="for example --labels spam,ham",
        )
    space = read_labels(labels)
    rows = list(_read(path).rows())
    labelled = [row for row in rows if row.get("label")]
    for row in labelled:
        space.index(row["label"], f"{path}, row {row['id']}, field label")
    return Queue(items_of([row for row in rows if not row.get("label")], space, path), space, told or ""), labelled


def read_labels(given: str) -> LabelSpace:
    """The classes of a file with columns label, description and aliases, or of names between commas."""
    file = Path(given)
    if file.exists():
        return LabelSpace.from_schema(_read(file))
    if "," not in given or file.suffix:
        raise ConfigError(
            "there is no such file of classes",
            where="--labels",
            expected="a file with a column label, or names between commas",
            found=given,
            remedy="check the path",
        )
    return LabelSpace([name.strip() for name in given.split(",")])


def read_guidelines(file: Path) -> str:
    """The text of a guidelines file."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or "bytes that are not UTF-8"
        raise InputError(
            "the guidelines cannot be read", where=file, expected=f"a text file like {GUIDELINES}", found=found
        ) from None


def items_of(rows: Sequence[dict[str, Any]], space: LabelSpace, where: object) -> tuple[Item, ...]:
    """The rows as items; raises InputError naming the row that has no text or a suggestion outside the classes."""
    items = []
    for row in rows:
        place = f"{where}, row {row['id']}"
        if not isinstance(row.get("text"), str) or not row["text"].strip():
            raise InputError(
                "a row has no text to label",
                where=f"{place}, field text",
                expected="text",
                found=repr(row.get("text")),
                remedy="remove the row, or name the column of the texts `text`",
            )
        suggested = row.get("suggested") or None
        if suggested is not None:
            space.index(suggested, f"{place}, field suggested")
        items.append(Item(row["id"], row["text"], suggested))
    return tuple(items)


def _read(path: Path) -> Dataset:
    return Auto(on_error="raise").read(str(path))
