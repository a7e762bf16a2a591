"""One annotator's session over a queue: what the page shows and does, in plain values.

Every change goes through the journal first and is told afterwards. The order is that of the queue; what other
annotators answered is not shown.
"""

import statistics
import threading
from collections.abc import Mapping
from typing import Any

from tutelage.core.errors import InputError
from tutelage.core.labelling.journal import Event, Journal, text_mark
from tutelage.core.labelling.queue import Queue

# Keys of the classes; the missing letters have a meaning of their own on the page.
KEYS = "123456789" + "abcdefhijklmnopqrtvwxyz"
# An item that was open for longer tells nothing about the work it took.
LONGEST = 24 * 3600.0


class Session:
    """`batch` items are shown at a time; `suggestions` shows what a machine would say."""

    def __init__(
        self, queue: Queue, journal: Journal, annotator: str, *, batch: int = 1, suggestions: bool = False
    ) -> None:
        self.queue = queue
        self.annotator = annotator
        self.batch = batch
        self.suggestions = suggestions
        self._journal = journal
        self._lock = threading.Lock()
        self.strange = queue.check(journal.answers, journal.file)

    def state(self) -> dict[str, Any]:
        """Classes, guidelines and how far the annotator is; `next` is the first item without an answer."""
        with self._lock:
            return {
                "annotator": self.annotator,
                "classes": [
                    {**label.model_dump(mode="json"), "key": KEYS[place] if place < len(KEYS) else None}
                    for place, label in enumerate(self.queue.space.labels)
                ],
                "guidelines": self.queue.guidelines,
                "batch": self.batch,
                **self._progress(-1),
            }

    def items(self, start: int, count: int) -> list[dict[str, Any]]:
        """`count` items from place `start` (from 0) on, with this annotator's answers."""
        with self._lock:
            return [self._shown(place) for place in range(start, min(start + count, len(self.queue.items)))]

    def answer(self, item: str, label: str, seconds: Any = None, key: str = "") -> dict[str, Any]:
        """Save a label; the item as it is now, and the progress with the next open item after it."""
        self.queue.space.index(label, f"item {item}")
        return self._given({"event": "answer", "id": item, "label": label}, seconds, key)

    def skip(self, item: str, seconds: Any = None, key: str = "") -> dict[str, Any]:
        """Pass over an item; it counts as seen, and can still be answered."""
        return self._given({"event": "skip", "id": item}, seconds, key)

    def undo(self, key: str = "") -> dict[str, Any]:
        """Take back the annotator's last answer or skip, however far back this has gone already."""
        with self._lock:
            done = self._repeated(key, "undo")
            if done is None:
                last = next(self._undoable(), None)
                if last is None:
                    raise InputError("there is nothing to undo", where=f"annotator {self.annotator}")
                facts = {"event": "undo", "id": last.id, "annotator": self.annotator, "undoes": last.seq}
                done = self._journal.append({**facts, "key": key})
            place = self.queue.places[done.id]
            return {"item": self._shown(place), **self._progress(place)}

    def summary(self) -> dict[str, Any]:
        """Counts for the end of a session; `seconds` is the median time of an answer."""
        with self._lock:
            events = list(self._undoable())
            times = [event.seconds for event in events if event.event == "answer" and event.seconds is not None]
            progress = self._progress(-1)
            return {
                "annotator": self.annotator,
                "answers": str(self._journal.file),
                **{name: progress[name] for name in ("total", "answered", "skipped")},
                "seconds": round(statistics.median(times), 2) if times else None,
            }

    def _given(self, facts: Mapping[str, Any], seconds: Any, key: str) -> dict[str, Any]:
        with self._lock:
            place = self.queue.places.get(facts["id"])
            if place is None:
                raise InputError("there is no such item in the queue", where="id", found=repr(facts["id"]))
            if self._repeated(key, facts["event"]) is None:
                self._journal.append(
                    {
                        **facts,
                        "annotator": self.annotator,
                        "seconds": plausible_seconds(seconds),
                        "text": text_mark(self.queue.items[place].text),
                        "key": key,
                    }
                )
            return {"item": self._shown(place), **self._progress(place)}

    def _repeated(self, key: str, event: str) -> Event | None:
        """The event that this request made already: the page asks again when no reply reached it."""
        found = self._journal.answers.keys.get(key) if key else None
        return found if found is not None and (found.annotator, found.event) == (self.annotator, event) else None

    def _undoable(self) -> Any:
        standing = self._journal.answers.standing(self.annotator)
        return (event for event in reversed(standing) if event.id in self.queue.places)

    def _shown(self, place: int) -> dict[str, Any]:
        item = self.queue.items[place]
        given = self._journal.answers.given(item.id, self.annotator)
        return {
            "place": place,
            "id": item.id,
            "text": item.text,
            "label": given.label if given else None,
            "skipped": given is not None and given.event == "skip",
            **({"suggested": item.suggested} if self.suggestions else {}),
        }

    def _progress(self, after: int) -> dict[str, Any]:
        given = [self._journal.answers.given(item.id, self.annotator) for item in self.queue.items]
        open_places = [place for place, event in enumerate(given) if event is None]
        later = next((place for place in open_places if place > after), None)
        return {
            "total": len(given),
            "answered": sum(event is not None and event.event == "answer" for event in given),
            "skipped": sum(event is not None and event.event == "skip" for event in given),
            "first_skipped": next((i for i, e in enumerate(given) if e is not None and e.event == "skip"), None),
            # Items that were passed over with the arrows come last.
            "next": open_places[0] if later is None and open_places else later,
            "undo": sum(1 for _ in self._undoable()),
            "events": self._journal.answers.count,
        }


def plausible_seconds(given: Any) -> float | None:
    """The time that a page told, where it can be one."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        return None
    return round(given, 3) if 0 <= given <= LONGEST else None
