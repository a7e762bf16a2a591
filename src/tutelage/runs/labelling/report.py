"""What a file of answers says about the annotators: how much each did, how far they agree, where they do not."""

import itertools
import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.core.errors import InputError
from tutelage.core.labelling.journal import Event
from tutelage.core.labelling.queue import Queue, answer_files, gathered, is_queue
from tutelage.core.stats.agreement import cohen_kappa, krippendorff_alpha, raw_agreement

Given = Mapping[str, Mapping[str, Event]]


def report(path: Path) -> dict[str, Any]:
    """The report about a file of answers, or about all files of a queue folder; the latter knows the texts."""
    queue = Queue.open(path) if is_queue(path) else None
    files = answer_files(path) if path.is_dir() else [path]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None or not files:
        raise InputError(
            "there are no answers yet" if files == [] and queue else "there is no such file of answers",
            where=path,
            expected="a file that `tutelage label` writes, or a queue folder with one",
            remedy="check the path, or label first",
        )
    given = gathered(files)
    texts = {} if queue is None else {item.id: item.text for item in queue.items}
    return {"items": len(given), "asked": None if queue is None else len(queue.items), **_about(given, texts)}


def _about(given: Given, texts: Mapping[str, str]) -> dict[str, Any]:
    names = sorted({name for answers in given.values() for name in answers})
    labels = {item: _labels(answers) for item, answers in given.items()}
    several = {item: found for item, found in labels.items() if len(found) > 1}
    return {
        "annotators": [_annotator(name, given) for name in names],
        "labels": dict(Counter(label for found in labels.values() for label in found.values()).most_common()),
        "answered_by_several": len(several),
        "pairs": [_pair(first, second, labels) for first, second in itertools.combinations(names, 2)],
        "alpha": krippendorff_alpha([list(found.values()) for found in several.values()]),
        "disagreements": [
            {"id": item, "labels": found, **({"text": texts[item][:200]} if item in texts else {})}
            for item, found in several.items()
            if len(set(found.values())) > 1
        ],
    }


def _labels(answers: Mapping[str, Event]) -> dict[str, str]:
    return {name: event.label for name, event in sorted(answers.items()) if event.label is not None}


def _annotator(name: str, given: Given) -> dict[str, Any]:
    events = [answers[name] for answers in given.values() if name in answers]
    times = [event.seconds for event in events if event.label is not None and event.seconds is not None]
    return {
        "annotator": name,
        "answered": sum(event.label is not None for event in events),
        "skipped": sum(event.label is None for event in events),
        "seconds": round(statistics.median(times), 2) if times else None,
    }


def _pair(first: str, second: str, labels: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    both = [(found[first], found[second]) for found in labels.values() if first in found and second in found]
    one, other = [a for a, _ in both], [b for _, b in both]
    return {
        "annotators": [first, second],
        "items": len(both),
        "agreement": raw_agreement(one, other),
        "kappa": cohen_kappa(one, other),
    }
