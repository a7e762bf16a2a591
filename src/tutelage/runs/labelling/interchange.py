"""Answers in the files of other tools: Label Studio's JSON (tasks with annotations) and Argilla's records.

Neither format has a place for a name that the other side does not know: Label Studio refuses an unknown e-mail
address, Argilla an id that is no UUID. So annotators' names are written where both leave them alone (`meta` of a
task, a key of its own in a record), and read from there, else from who completed the annotation.
"""

import json
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tutelage.core import json_text
from tutelage.core.errors import InputError, StoreError
from tutelage.core.labelling.journal import Answers, Event, text_mark
from tutelage.core.labelling.queue import Item, Queue, settled, voters
from tutelage.core.labels import GOLD
from tutelage.runs.labelling.session import plausible_seconds

LABEL_STUDIO, ARGILLA = "label-studio", "argilla"
QUESTION = "label"
# Names become UUIDs in this space of names.
_SPACE = uuid.UUID("7d9a4f0e-3c52-5b0b-9a47-5a1f6f3f2c11")
_OWN = "tutelage"
Given = Mapping[str, Mapping[str, Event]]


class Imported:
    """One answer of a file: `label` None is a skip."""

    def __init__(self, item: Item, annotator: str, label: str | None, seconds: Any, at: Any, where: str) -> None:
        self.item, self.annotator, self.label, self.where = item, annotator, label, where
        self.seconds = plausible_seconds(seconds)
        self.at = at if isinstance(at, str) else ""


# -- writing ------------------------------------------------------------------------------------------------------


def label_studio(queue: Queue, given: Given) -> list[dict[str, Any]]:
    """Tasks with their annotations, for Label Studio's import; skips are cancelled annotations."""
    tasks, number = [], 0
    for place, item in enumerate(queue.items, 1):
        annotations, names = [], {}
        for name, event in given.get(item.id, {}).items():
            number += 1
            names[str(number)] = name
            annotations.append(
                {
                    "id": number,
                    "result": [] if event.label is None else [_choice(f"a{number}", event.label)],
                    "was_cancelled": event.label is None,
                    "ground_truth": False,
                    "lead_time": event.seconds,
                    "created_at": event.at,
                }
            )
        predictions = []
        if item.suggested is not None:
            predictions = [{"model_version": "suggested", "result": [_choice(f"p{place}", item.suggested)]}]
        tasks.append(
            {
                "id": place,
                "data": {"id": item.id, "text": item.text},
                "meta": {"annotators": names},
                "annotations": annotations,
                "predictions": predictions,
            }
        )
    return tasks


def _choice(identifier: str, label: str) -> dict[str, Any]:
    value = {"choices": [label]}
    return {"id": identifier, "from_name": QUESTION, "to_name": "text", "type": "choices", "value": value}


def argilla(queue: Queue, given: Given) -> list[dict[str, Any]]:
    """Records as Argilla's own JSON export has them, with one label question."""
    records = []
    for item in queue.items:
        answers = given.get(item.id, {})
        suggested = {"value": item.suggested, "score": None, "agent": None}
        responses = [
            {"value": event.label, "user_id": _user(name)} for name, event in answers.items() if event.label
        ]
        records.append(
            {
                "id": item.id,
                "fields": {"text": item.text},
                "metadata": {},
                "suggestions": {QUESTION: suggested} if item.suggested is not None else {},
                "responses": {QUESTION: responses} if responses else {},
                "vectors": {},
                "_server_id": None,
                _OWN: {
                    "annotators": {_user(name): name for name in answers},
                    "skipped": [_user(name) for name, event in answers.items() if event.label is None],
                    "seconds": {_user(name): event.seconds for name, event in answers.items()},
                },
            }
        )
    return records


def _user(name: str) -> str:
    try:
        return str(uuid.UUID(name))
    except ValueError:
        return str(uuid.uuid5(_SPACE, name))


def labelled_rows(queue: Queue, given: Given, labelled: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows to train on: those that had a label, and those that a majority of the annotators gave one."""
    rows = [dict(row) for row in labelled]
    for item in queue.items:
        answers = given.get(item.id, {})
        label, _ = settled(answers) if answers else (None, "")
        if label is not None:
            facts = {"label": label, "label_source": GOLD, "annotator": ", ".join(voters(answers))}
            rows.append({"id": item.id, "text": item.text, **facts})
    return rows


def write_json(value: Any, file: Path, lines: bool = False) -> None:
    """Write a new file of JSON, or of one object per line."""
    if file.exists():
        raise StoreError("a file is never overwritten", where=file, remedy="choose a new name")
    text = (
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in value)
        if lines
        else json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise StoreError("a file could not be written", where=file, found=error.strerror or str(error)) from None


# -- reading ------------------------------------------------------------------------------------------------------


def read_file(file: Path) -> tuple[str, list[Item], list[Imported]]:
    """(format, items, answers) of a file of Label Studio or Argilla; raises InputError naming the record."""
    records = _records(file)
    kinds = {_kind(record, f"{file}, record {number}") for number, record in enumerate(records, 1)}
    if len(kinds) != 1:
        raise InputError(
            "a file holds no records" if not kinds else "a file mixes the records of two tools",
            where=file,
            expected="tasks of Label Studio, or records of Argilla",
        )
    kind = kinds.pop()
    read = _label_studio_task if kind == LABEL_STUDIO else _argilla_record
    items, answers = [], []
    for number, record in enumerate(records, 1):
        where = f"{file}, record {number}"
        try:
            item, found = read(record, where)
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"a record is not as {kind} writes it", where=where, found=f"{type(error).__name__}: {error}"
            ) from None
        items.append(item)
        answers += found
    twice = [name for name, count in Counter(item.id for item in items).items() if count > 1]
    if twice:
        raise InputError("two records have one id", where=file, expected="unique ids", found=twice[0])
    return kind, items, answers


def new_events(answers: Sequence[Imported], queue: Queue, known: Answers, source: str) -> list[dict[str, Any]]:
    """The answers as events for a journal that holds `known`; those that it has already are left out.

    Raises InputError for an item that is not in the queue, a label outside the classes, or an answer that differs
    from one that the same annotator gave the item before.
    """
    by_text: dict[str, str | None] = {}
    for asked in queue.items:
        by_text[asked.text] = None if asked.text in by_text else asked.id
    new: list[dict[str, Any]] = []
    seen: dict[tuple[str, str], str | None] = {}
    for one in answers:
        where = f"{one.where} (item {one.item.id})"
        place = queue.places.get(one.item.id)
        same = place is not None and queue.items[place].text == one.item.text
        item = one.item.id if same else by_text.get(one.item.text)
        if item is None:
            raise InputError(
                "an answer is for an item that is not in the queue",
                where=where,
                expected="the id and text of an item, or a text that one item has",
                found=repr(one.item.text[:60]),
                remedy="give the queue that was exported, or import into a folder that does not exist yet",
            )
        if one.label is not None:
            queue.space.index(one.label, where)
        _check_conflict(one, item, known, seen, where)
        if (item, one.annotator) in seen or known.given(item, one.annotator) is not None:
            continue
        seen[item, one.annotator] = one.label
        facts = {"event": "answer", "label": one.label} if one.label is not None else {"event": "skip"}
        new.append(
            {
                **facts,
                "id": item,
                "annotator": one.annotator,
                "seconds": one.seconds,
                "text": text_mark(one.item.text),
                "source": source,
                **({"at": one.at} if one.at else {}),
            }
        )
    return new


def _check_conflict(
    one: Imported, item: str, answers: Answers, seen: Mapping[tuple[str, str], str | None], where: str
) -> None:
    given = answers.given(item, one.annotator)
    earlier = seen.get((item, one.annotator), given.label if given else one.label)
    if earlier != one.label:
        raise InputError(
            "an annotator gave one item two labels",
            where=f"{where}, annotator {one.annotator}",
            expected=repr(earlier) if earlier is not None else "a skip, as before",
            found=repr(one.label) if one.label is not None else "a skip",
            remedy="correct the file, or undo the earlier answer",
        )


def _records(file: Path) -> list[Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        found = getattr(error, "strerror", None) or "bytes that are not UTF-8"
        raise InputError("a file cannot be read", where=file, expected="a JSON file", found=found) from None
    try:
        found = json_text.loads(text)
        return found if isinstance(found, list) else [found]
    except ValueError:
        pass
    records = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                records.append(json_text.loads(line))
            except ValueError:
                raise InputError(
                    "a file is not JSON",
                    where=f"{file}, line {number}",
                    expected="one JSON array, or one object per line",
                    found=line[:80],
                ) from None
    return records


def _kind(record: Any, where: str) -> str:
    if isinstance(record, dict) and isinstance(record.get("data"), dict):
        return LABEL_STUDIO
    if isinstance(record, dict) and isinstance(record.get("fields"), dict):
        return ARGILLA
    raise InputError(
        "a record is neither Label Studio's nor Argilla's",
        where=where,
        expected="an object with data and annotations, or with fields and responses",
        found=", ".join(record) if isinstance(record, dict) else type(record).__name__,
        remedy="export as JSON (not JSON-MIN or CSV); from Argilla with records.to_json",
    )


def _text_of(fields: Mapping[str, Any], where: str) -> str:
    texts = {name: value for name, value in fields.items() if isinstance(value, str) and name != "id"}
    if "text" in texts:
        return texts["text"]
    if len(texts) != 1:
        raise InputError(
            "nobody says which field is the text",
            where=where,
            expected="a field `text`, or one field of text",
            found=", ".join(fields) or "no field",
            remedy="rename the field to `text`",
        )
    return next(iter(texts.values()))


def _label_studio_task(task: Mapping[str, Any], where: str) -> tuple[Item, list[Imported]]:
    data = task["data"]
    item = Item(str(data.get("id", task.get("id", where.rpartition(" ")[2]))), _text_of(data, where))
    suggested = next((_chosen(p, where) for p in task.get("predictions") or [] if isinstance(p, dict)), None)
    item = Item(item.id, item.text, suggested)
    names = (task.get("meta") or {}).get("annotators") or {}
    found = []
    for annotation in task.get("annotations") or task.get("completions") or []:
        label = None if annotation.get("was_cancelled") else _chosen(annotation, where)
        if label is None and not annotation.get("was_cancelled"):
            continue
        keys = (str(annotation.get("import_id")), str(annotation.get("id")))
        name = next((names[key] for key in keys if key in names), None) or _completed_by(annotation)
        seconds, at = annotation.get("lead_time"), annotation.get("created_at")
        found.append(Imported(item, str(name), label, seconds, at, where))
    return item, found


def _chosen(annotation: Mapping[str, Any], where: str) -> str | None:
    """The one choice of an annotation; None where it has no choices at all."""
    results = [part for part in annotation.get("result") or [] if part.get("type") == "choices"]
    named = [part for part in results if part.get("from_name") == QUESTION] or results
    if len({part.get("from_name") for part in named}) > 1:
        raise InputError(
            "an annotation answers several questions",
            where=where,
            expected=f"one, or one that is called {QUESTION}",
            found=", ".join(sorted(str(part.get("from_name")) for part in named)),
        )
    choices = [choice for part in named for choice in (part.get("value") or {}).get("choices") or []]
    if len(choices) > 1:
        raise InputError("an annotation has several labels", where=where, expected="one", found=choices)
    return _one_label(choices[0], where) if choices else None


def _completed_by(annotation: Mapping[str, Any]) -> str:
    who = annotation.get("completed_by")
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return "unknown" if who is None else str(who)


def _argilla_record(record: Mapping[str, Any], where: str) -> tuple[Item, list[Imported]]:
    suggestion = (
        (record.get("suggestions") or {}).get(QUESTION) if isinstance(record.get("suggestions"), dict) else None
    )
    suggested = suggestion.get("value") if isinstance(suggestion, dict) else None
    identifier = record.get("id") or record.get("external_id") or where.rpartition(" ")[2]
    suggested = suggested if isinstance(suggested, str) else None
    item = Item(str(identifier), _text_of(record["fields"], where), suggested)
    own = record.get(_OWN) or {}
    names, seconds = own.get("annotators") or {}, own.get("seconds") or {}
    found = []
    for user, label in [*_responses(record, where), *((user, None) for user in own.get("skipped") or [])]:
        found.append(Imported(item, str(names.get(user, user)), label, seconds.get(user), "", where))
    return item, found


def _responses(record: Mapping[str, Any], where: str) -> Iterator[tuple[str, str | None]]:
    """(user, label or None for a discarded record) of both shapes: by question (exports of the library) and by
    user (the server's)."""
    responses = record.get("responses") or {}
    if isinstance(responses, dict):
        for question, given in responses.items():
            if question != QUESTION and len(responses) > 1:
                continue
            for response in given:
                yield str(response.get("user_id")), _one_label(response.get("value"), where)
        return
    for response in responses:
        values = response.get("values") or {}
        status = response.get("status", "submitted")
        if status == "discarded":
            yield str(response.get("user_id")), None
        elif status == "submitted" and values:
            value = values.get(QUESTION) or (next(iter(values.values())) if len(values) == 1 else {})
            yield str(response.get("user_id")), _one_label(value.get("value"), where)


def _one_label(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise InputError("a response is not one label", where=where, expected="the name of a class", found=value)
    return value
