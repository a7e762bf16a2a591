"""Ask people for labels: the run stops, they answer on the page of `tutelage label`, the run goes on.

The rows without a label become a queue folder `labelling/<name>` in the workspace; its name is the hash of their
ids and texts in order and of the classes, so the same question finds its answers again. While fewer than
`annotators` people have answered or skipped some row, the step waits and nothing is stored. Then a row gets the
label that most of its annotators gave: argmax_c #{a: label_a = c}. A tie, or a row that all skipped, is dropped
with that reason. What was answered is part of the step's cache key: answers that are changed later give a new
result, never the stored one.
"""

import os
import shlex
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, WaitingForPerson
from tutelage.core.fingerprint import digest
from tutelage.core.labelling.journal import Event
from tutelage.core.labelling.queue import Item, Queue, answer_files, gathered, settled, voters
from tutelage.core.labels import GOLD, LabelSpace
from tutelage.core.method import Inputs, Transform
from tutelage.data.label._shared import Columns, rewritten, values

CARD = {
    "name": "data.label.ask",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Asks people for the labels of rows without one; the run waits until they have answered.",
    "reads": ["text", "label?", "suggested?"],
    "writes": ["label", "label_source", "annotator"],
    "inputs": {
        "labels?": "rows with the classes: label, description, aliases",
        "asked?": "the rows whose labels are asked for, by id; without it all rows without a label",
    },
    "cost": "one label for each row and annotator",
    "baseline": None,
    "headline": "answers are never asked for twice, and never used after they were changed",
    "version": 1,
}
FOLDER = "labelling"
Given = Mapping[str, Mapping[str, Event]]


class Ask(Transform):
    """The classes come from the input `labels`, else from the field `labels`. `annotators` people answer each row;
    `guidelines` (Markdown) is what the page tells them."""

    labels: tuple[str, ...] = ()
    annotators: int = Field(default=1, ge=1)
    guidelines: str = ""

    def outside(self, dataset: Dataset, inputs: Inputs) -> str:
        """Hash of who answered what."""
        queue, folder = self._question(dataset, inputs)
        given = gathered(answer_files(folder))
        facts = {i.id: {who: event.label for who, event in given.get(i.id, {}).items()} for i in queue.items}
        return digest(facts)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """Raises WaitingForPerson while answers are missing, InputError for a label outside the classes."""
        queue, folder = self._question(dataset, inputs)
        given = gathered(answer_files(folder)) if queue.items else {}
        for item, answers in given.items():
            for name, event in answers.items():
                if event.label is not None:
                    queue.space.index(event.label, f"{folder}, item {item}, annotator {name}")
        self._wait(queue, folder, given)
        found = {item.id: settled(given[item.id]) for item in queue.items}

        def change(shard: pa.Table) -> Columns:
            labels, sources = values(shard, "label"), values(shard, "label_source")
            annotators = values(shard, "annotator")
            for number, identifier in enumerate(values(shard, "id")):
                if identifier in found:
                    labels[number], sources[number] = found[identifier][0], GOLD
                    annotators[number] = ", ".join(voters(given[identifier]))
                elif labels[number]:
                    sources[number] = sources[number] or GOLD
            return {"label": labels, "label_source": sources, "annotator": annotators}

        ids = dataset.ids()
        keep = np.array([found.get(identifier, ("", ""))[0] is not None for identifier in ids], dtype=bool)
        builder = rewritten(dataset.keep(keep, ""), change)
        for identifier, kept in zip(ids, keep):
            if not kept:
                builder.drop(identifier, f"ask: {found[identifier][1]}")
        by_class = Counter(label for label, _ in found.values() if label is not None)
        count = sum(len(voters(given[item.id])) for item in queue.items)
        if "meter" in inputs:
            inputs["meter"].add(labels=count)
        people = {name for item in queue.items for name in given[item.id]}
        report = {"method": self.name, "queue": folder.name, "labels_given": count, "annotators": sorted(people)}
        return builder.finish({**report, "by_class": dict(sorted(by_class.items()))})

    def _question(self, dataset: Dataset, inputs: Inputs) -> tuple[Queue, Path]:
        dataset.require("text")
        space = self._space(inputs)
        asked = set(inputs["asked"].ids()) if inputs.get("asked") is not None else None
        items, known = [], set[str]()
        columns = [c for c in ("id", "text", "label", "suggested") if c in dataset.column_names]
        for row in dataset.rows(columns):
            where = f"row {row['id']}, field "
            known.add(row["id"])
            # A CSV file has no nulls: an empty label is none.
            if row.get("label"):
                space.index(row["label"], where + "label")
            elif asked is None or row["id"] in asked:
                if not (row["text"] or "").strip():
                    raise InputError("a row has no text to label", where=where + "text", expected="text")
                suggested = row.get("suggested") or None
                if suggested is not None:
                    space.index(suggested, where + "suggested")
                items.append(Item(row["id"], row["text"], suggested))
        foreign = sorted((asked or set()) - known)
        if foreign:
            raise InputError(
                "a row that is asked about is not here", where=f"row {foreign[0]}", expected="its text"
            )
        queue = Queue(tuple(items), space, self.guidelines)
        return queue, Path(inputs.get("workspace", ".")) / FOLDER / queue.mark

    def _space(self, inputs: Inputs) -> LabelSpace:
        given = inputs.get("labels")
        if (given is None) == (not self.labels):
            raise ConfigError(
                f"{self.name} needs the classes" + (" once" if self.labels else ""),
                where="labels",
                expected="the input labels (rows with label, description, aliases) or the field labels",
                found="both" if self.labels else "neither",
            )
        return LabelSpace(self.labels) if given is None else LabelSpace.from_schema(given)

    def _wait(self, queue: Queue, folder: Path, given: Given) -> None:
        lacking = [item for item in queue.items if len(given.get(item.id, ())) < self.annotators]
        if not lacking:
            return
        queue.write(folder)
        counts = Counter(name for item in queue.items for name in given.get(item.id, ()))
        people = "an annotator" if self.annotators == 1 else f"{self.annotators} annotators"
        raise WaitingForPerson(
            f"{len(lacking)} of {len(queue.items)} rows wait for an answer",
            where=folder,
            expected=f"every row answered or skipped by {people}",
            found=", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "no answers yet",
            remedy=f"tutelage label {_quoted(folder)}" + (" --annotator NAME" if self.annotators > 1 else ""),
        )


def _quoted(folder: Path) -> str:
    return subprocess.list2cmdline([str(folder)]) if os.name == "nt" else shlex.quote(str(folder))
