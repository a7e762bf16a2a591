"""The queue: items to label in a fixed order, the classes, and what the annotators are told; as a folder of files.

A queue folder holds `queue.jsonl` (id, text, suggested), `labels.jsonl` (label, description, aliases),
`guidelines.md` and the journals `answers*.jsonl`, one for every process that writes at the same time. Its name
comes from what is asked, so the same question finds its answers again.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blake3

from tutelage.core import json_text
from tutelage.core.errors import InputError, StoreError
from tutelage.core.labelling.journal import Answers, Event, read_answers, text_mark
from tutelage.core.labels import Label, LabelSpace

ITEMS, LABELS, GUIDELINES, ANSWERS = "queue.jsonl", "labels.jsonl", "guidelines.md", "answers.jsonl"


@dataclass(frozen=True)
class Item:
    """One text to label; `suggested` is what a machine would say."""

    id: str
    text: str
    suggested: str | None = None


@dataclass(frozen=True)
class Queue:
    """Items in the order in which they are asked, and the classes."""

    items: tuple[Item, ...]
    space: LabelSpace
    guidelines: str = ""
    folder: Path | None = None
    places: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "places", {item.id: place for place, item in enumerate(self.items)})

    @property
    def mark(self) -> str:
        """12 hex digits of what is asked: ids and texts in their order, and the names of the classes."""
        asked = [[item.id, text_mark(item.text)] for item in self.items]
        return blake3.blake3(json.dumps([asked, self.space.names]).encode()).hexdigest(length=6)

    def write(self, folder: Path) -> "Queue":
        """Write the queue's files below `folder`; answers that are there are left alone."""
        rows = [
            {"id": item.id, "text": item.text, **({"suggested": item.suggested} if item.suggested else {})}
            for item in self.items
        ]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _replace(folder / LABELS, _lines({"label": one.name, **_told(one)} for one in self.space.labels))
            if self.guidelines:
                _replace(folder / GUIDELINES, self.guidelines.rstrip("\n") + "\n")
            # Last: a folder with items is whole.
            _replace(folder / ITEMS, _lines(rows))
        except OSError as error:
            raise StoreError(
                "a queue could not be written",
                where=folder,
                found=error.strerror or str(error),
                remedy="free space or choose a folder that can be written",
            ) from None
        return Queue(self.items, self.space, self.guidelines, folder)

    @classmethod
    def open(cls, folder: Path) -> "Queue":
        """The queue of a folder; raises InputError naming the line that is broken."""
        guidelines = folder / GUIDELINES
        items = [
            Item(row["id"], row["text"], row.get("suggested")) for row in _read_rows(folder / ITEMS, "id", "text")
        ]
        labels = [_label(row, folder / LABELS) for row in _read_rows(folder / LABELS, "label")]
        told = _read_text(guidelines) if guidelines.is_file() else ""
        return cls(tuple(items), LabelSpace(labels), told, folder)

    def check(self, answers: Answers, where: object) -> int:
        """Raise InputError when an answer's label is not a class or its item's text was another one; returns how
        many answered items are not of this queue."""
        strange = 0
        for item in answers.items():
            place = self.places.get(item)
            if place is None:
                strange += 1
                continue
            for name, event in answers.of_item(item).items():
                if event.label is not None:
                    self.space.index(event.label, f"{where}, item {item}, annotator {name}")
                if event.text and event.text != text_mark(self.items[place].text):
                    raise InputError(
                        "an item was answered for another text",
                        where=f"{where}, item {item}",
                        expected="the text that the annotator saw",
                        found=self.items[place].text[:80],
                        remedy="use a new file of answers, or give changed texts new ids",
                    )
        return strange


def is_queue(folder: Path) -> bool:
    """Whether `folder` is a queue folder."""
    return (folder / ITEMS).is_file() and (folder / LABELS).is_file()


def answer_files(folder: Path) -> list[Path]:
    """The journals of a queue folder, by name."""
    return sorted(folder.glob("answers*.jsonl"))


def gathered(files: Iterable[Path]) -> dict[str, dict[str, Event]]:
    """Item -> annotator -> answer or skip over several journals; raises InputError when one annotator answered an
    item in two of them, and not in the same way."""
    found: dict[str, dict[str, Event]] = {}
    for file in files:
        answers = read_answers(file)
        for item in answers.items():
            for name, event in answers.of_item(item).items():
                earlier = found.setdefault(item, {}).setdefault(name, event)
                if earlier.label != event.label:
                    raise InputError(
                        "an annotator gave one item two labels in two files",
                        where=f"{file}, item {item}, annotator {name}",
                        expected=repr(earlier.label),
                        found=repr(event.label),
                        remedy="keep one of the files, or undo one of the answers",
                    )
    return found


def settled(given: Mapping[str, Event]) -> tuple[str | None, str]:
    """(label, "") by the majority of the annotators who gave one, or (None, why there is none)."""
    votes = Counter(event.label for event in given.values() if event.label is not None)
    if not votes:
        return None, "skipped by " + ", ".join(sorted(given))
    (label, most), *others = votes.most_common()
    if others and others[0][1] == most:
        return None, "annotators disagree: " + ", ".join(f"{name} {n}" for name, n in sorted(votes.items()))
    return label, ""


def voters(given: Mapping[str, Event]) -> list[str]:
    """The annotators who gave a label, by name."""
    return sorted(name for name, event in given.items() if event.label is not None)


def _told(label: Label) -> dict[str, Any]:
    told: dict[str, Any] = {"description": label.description} if label.description else {}
    return told | ({"aliases": list(label.aliases)} if label.aliases else {})


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _replace(file: Path, text: str) -> None:
    """Write a file as a whole or not at all."""
    building = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with building.open("w", encoding="utf-8", newline="\n") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        building.replace(file)
    finally:
        building.unlink(missing_ok=True)


def _label(row: Mapping[str, Any], file: Path) -> Label:
    try:
        return Label(
            name=row["label"], description=row.get("description", ""), aliases=tuple(row.get("aliases", ()))
        )
    except (TypeError, ValueError) as error:
        raise InputError(
            "a class of a queue is not valid",
            where=f"{file}, label {row['label']!r}",
            expected="a name, a description and aliases, all of them text",
            found=str(error).splitlines()[0],
            remedy="make the queue again: run the recipe, or restore the file",
        ) from None


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "a file of a queue cannot be read", where=file, expected="UTF-8 text", found=str(error)
        ) from None


def _read_rows(file: Path, *needed: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    seen: set[str] = set()
    # Not `splitlines`: a text may hold other line ends than the file's.
    lines: Sequence[str] = _read_text(file).removesuffix("\n").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            row = json_text.loads(line)
            broken = not isinstance(row, dict) or any(not isinstance(row.get(key), str) for key in needed)
        except ValueError:
            broken = True
        if broken or row[needed[0]] in seen:
            raise InputError(
                "a line of a queue is broken",
                where=f"{file}, line {number}",
                expected=f"an object with {' and '.join(needed)}, {needed[0]} once only",
                found=line[:80],
                remedy="make the queue again: run the recipe, or restore the file",
            )
        seen.add(row[needed[0]])
        rows.append(row)
    return rows
