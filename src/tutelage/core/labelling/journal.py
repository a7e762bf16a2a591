"""The journal of answers: one JSON object per line, only ever appended to, each flushed to the disk before anybody
is told that it is saved.

A line is an event: an annotator gave an item a label (`answer`), passed over it (`skip`), or took an earlier event
back (`undo`, which names it in `undoes`). An annotator's answer to an item is the last of these events that was
not taken back, so an answer is corrected by another one and nothing is ever lost. A last line that was cut off, by
a kill or a full disk, was never told as saved: readers pass over it and the next writer removes it. Any other
broken line is an error.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import blake3
from filelock import FileLock, Timeout
from pydantic import Field

from tutelage.core import json_text
from tutelage.core.errors import InputError, StoreError
from tutelage.core.records import Record

# How a line begins: `seq` is the first field.
_START = b'{"seq":'


class Event(Record):
    """One line. `seconds` is how long the annotator looked at the item, `text` the fingerprint of the text that
    was shown, `key` the request that it answers (a repeated request is one event), `source` where it came from."""

    seq: int = Field(ge=1)
    event: Literal["answer", "skip", "undo"]
    id: str
    annotator: str
    label: str | None = None
    seconds: float | None = Field(default=None, ge=0)
    at: str = ""
    text: str = ""
    key: str = ""
    source: str = ""
    undoes: int | None = None


class Answers:
    """What the events of a journal come to."""

    def __init__(self) -> None:
        self.count = 0
        self.keys: dict[str, Event] = {}
        self._standing: dict[str, list[Event]] = {}
        self._of_item: dict[str, dict[str, list[Event]]] = {}

    def add(self, event: Event) -> None:
        """Take in the next event; raises InputError when it does not follow from the ones before."""
        if event.seq != self.count + 1 or (event.event == "answer") != (event.label is not None):
            raise InputError("an event is out of place", expected=f"event {self.count + 1}", found=event.seq)
        if event.event == "undo":
            self._take_back(event)
        else:
            self._standing.setdefault(event.annotator, []).append(event)
            self._of_item.setdefault(event.id, {}).setdefault(event.annotator, []).append(event)
        self.count = event.seq
        if event.key:
            self.keys[event.key] = event

    def _take_back(self, event: Event) -> None:
        standing = self._standing.get(event.annotator, [])
        # The last one, nearly always: searched from the end.
        place = next((i for i in range(len(standing) - 1, -1, -1) if standing[i].seq == event.undoes), None)
        if place is None or standing[place].id != event.id:
            raise InputError(
                "an undo takes back what is not there",
                expected="the number of an answer or skip of the same annotator and item",
                found=event.undoes,
            )
        gone = standing.pop(place)
        self._of_item[gone.id][gone.annotator].remove(gone)

    @property
    def annotators(self) -> list[str]:
        """Who answered or passed over anything, in the order of their first events."""
        return [name for name, events in self._standing.items() if events]

    def standing(self, annotator: str) -> Sequence[Event]:
        """The annotator's answers and skips that were not taken back, in order; an undo takes the last one."""
        return self._standing.get(annotator, ())

    def given(self, item: str, annotator: str) -> Event | None:
        """The annotator's answer to (or skip of) an item."""
        events = self._of_item.get(item, {}).get(annotator)
        return events[-1] if events else None

    def of_item(self, item: str) -> dict[str, Event]:
        """Annotator -> answer or skip of one item."""
        return {name: events[-1] for name, events in self._of_item.get(item, {}).items() if events}

    def items(self) -> list[str]:
        """Ids of the items with an answer or skip, in the order of their first events."""
        return [item for item in self._of_item if self.of_item(item)]


def text_mark(text: str) -> str:
    """A short fingerprint of an item's text, by which an answer knows what was shown."""
    return blake3.blake3(text.encode("utf-8", "surrogatepass")).hexdigest(length=8)


def read_answers(file: Path) -> Answers:
    """The answers in `file`; a missing file has none. It may be written to meanwhile."""
    return _read(file)[0]


def _read(file: Path) -> tuple[Answers, int, bool]:
    """The answers, how many bytes of the file hold them (the rest is a line that was cut off), and whether these
    end with a line end."""
    answers, good = Answers(), 0
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return answers, 0, True
    except OSError as error:
        raise StoreError("the answers cannot be read", where=file, found=error.strerror or str(error)) from None
    lines = raw.split(b"\n")
    last = max((number for number, line in enumerate(lines) if line), default=-1)
    for number, line in enumerate(lines[: last + 1]):
        try:
            answers.add(Event(**json_text.loads(line.decode("utf-8"))))
        except (ValueError, TypeError, InputError) as error:
            if number == last and _cut_off(line, error):
                break
            raise InputError(
                "a line of the answers is broken",
                where=f"{file}, line {number + 1}",
                expected="one event, as `tutelage label` writes them",
                found=line.decode("utf-8", "replace")[:80],
                remedy="check the path; if it is right, restore the file, or cut it off before this line",
            ) from None
        good += len(line) + 1
    return answers, min(good, len(raw)), good <= len(raw)


def _cut_off(line: bytes, error: Exception) -> bool:
    """Whether a last line is the torn rest of one of ours; a file of something else is never taken for that."""
    if not isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return False
    # A system that went down may leave zeros where the data was not written yet.
    return line.startswith((_START, b"\0")) or _START.startswith(line)


class Journal:
    """The open journal of one process; a second process is refused. Use as a context manager.

    `torn` counts the bytes of a cut-off line that was removed when it was opened.
    """

    def __init__(self, file: Path) -> None:
        self.file = file.resolve()
        self._lock = FileLock(self.file.with_name(f".{self.file.name}.lock"))
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StoreError(
                "another process is writing these answers",
                where=self.file,
                expected="one process for a file of answers",
                found="a lock that is held",
                remedy="end the other `tutelage label`, or give this annotator another file with --out",
            ) from None
        except OSError as error:
            raise self._unwritable(error) from None
        try:
            self.answers, good, ended = _read(self.file)
            self._open(good, ended)
        except BaseException:
            self._lock.release()
            raise

    def _open(self, good: int, ended: bool) -> None:
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0)
            self._handle = os.open(self.file, flags, 0o644)
            size = os.fstat(self._handle).st_size
            self.torn = size - good
            if self.torn:
                os.ftruncate(self._handle, good)
            if not ended:
                os.write(self._handle, b"\n")
            os.fsync(self._handle)
            _sync_folder(self.file.parent)
        except OSError as error:
            raise self._unwritable(error) from None

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let others write it."""
        with suppress(OSError):
            os.close(self._handle)
        # The number may soon mean another file.
        self._handle = -1
        self._lock.release()

    def append(self, facts: Mapping[str, Any]) -> Event:
        """Write one event (its number is added, and its time where it has none) and flush it to the disk.

        Raises StoreError when it could not be written as a whole; the file is then as it was.
        """
        event = Event(seq=self.answers.count + 1, **{"at": _now(), **facts})
        line = event.model_dump_json(exclude_defaults=True).encode() + b"\n"
        before = None
        try:
            before = os.fstat(self._handle).st_size
            written = os.write(self._handle, line)
            if written != len(line):
                raise OSError(0, "the disk is full")
            os.fsync(self._handle)
        except OSError as error:
            if before is not None:
                with suppress(OSError):
                    os.ftruncate(self._handle, before)
            raise self._unwritable(error) from None
        self.answers.add(event)
        return event

    def _unwritable(self, error: OSError) -> StoreError:
        return StoreError(
            "an answer could not be written",
            where=self.file,
            expected="a file that can be written",
            found=error.strerror or str(error),
            remedy="free space or choose another file with --out; what was saved before is kept",
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _sync_folder(folder: Path) -> None:
    # A new file's name is in its folder, which has to reach the disk as well; Windows cannot open folders.
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
