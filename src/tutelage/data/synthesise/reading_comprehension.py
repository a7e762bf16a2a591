"""Turn each passage into a reading comprehension text: the passage, then questions about it with their answers.

text = passage + blank line + "Question: q_1\\nAnswer: a_1" + ..., the tasks in an order drawn by seed. With a
writer `tasks` kinds are drawn from `bank` per passage and the writer answers (and asks, where the kind has no
fixed question); without one, rules mine definitions, facts, reasons, contrasts and titles. Taking off
everything from `passage_end` on gives the passage back, byte for byte. Every passage stays, also one without a
task. The mixture with general instructions is data.mix's business; training reads all tokens.
"""

from typing import Any

import numpy as np
from pydantic import Field, field_validator

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import suggest
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.core.text.hashing import hash64
from tutelage.data.synthesise._gates import Funnel, GateSettings
from tutelage.data.synthesise._tasks import BANK, Task, mine, parse_pair, refused
from tutelage.data.synthesise._writer import Request, Writing, material

CARD = {
    "name": "data.synthesise.reading_comprehension",
    "paper": {"title": "Adapting Large Language Models to Domains via Reading Comprehension",
              "identifier": "arXiv:2309.09530"},
    "summary": "Appends questions with answers to each passage, by a writer or by rules.",
    "reads": ["text"],
    "writes": ["text", "passage_end", "n_tasks", "task_kinds"],
    "inputs": {
        "writer?": "the model that asks and answers; without it, rules do",
        "protected?": "evaluation rows that no task may repeat",
    },
    "cost": "one answer per task; rules: one pass over the text",
    "baseline": "data.recipes.text_chunks",
    "headline": "knowledge of a field without losing the habit of answering; raw text often has the lower loss",
    "version": 1,
}  # fmt: skip


def render(passage: str, tasks: list[Task]) -> str:
    """The passage and its tasks."""
    return "\n\n".join([passage, *(f"Question: {task.question}\nAnswer: {task.answer}" for task in tasks)])


def draw(bank: tuple[str, ...], count: int, seed: int, identifier: str) -> list[str]:
    """`count` different kinds of tasks for a passage."""
    return [str(k) for k in _rng(seed, identifier).permutation(list(bank))[:count]]


def _rng(seed: int, identifier: str) -> np.random.Generator:
    return np.random.default_rng(hash64(seed, identifier) % 2**63)


class ReadingComprehension(Transform):
    """`tasks` per passage (the most that rules append), kinds out of `bank` for a writer; at most `rouge_l` like
    another of the passage. `budget` in tokens and `max_calls` end the writing: later passages stay as they are."""

    tasks: int = Field(default=2, ge=1, le=20)
    bank: tuple[str, ...] = Field(default=("question_answer", "infer", "summarise", "paraphrase"), min_length=1)
    rouge_l: float = Field(default=0.7, gt=0, le=1)
    max_new_tokens: int = Field(default=96, ge=1)
    temperature: float = Field(default=0.7, ge=0)
    budget: Budget | None = None
    max_calls: int | None = Field(default=None, ge=1)
    column: str = "text"
    seed: int = Field(default=0, ge=0)

    @field_validator("bank")
    @classmethod
    def _known(cls, bank: tuple[str, ...]) -> tuple[str, ...]:
        for kind in bank:
            if kind not in BANK:
                raise ValueError(f"a kind of task ({', '.join(BANK)}); {suggest(kind, BANK)}")
        return bank

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """The same rows with tasks behind their text; rows without text are dropped."""
        dataset.require(self.column)
        writing = inputs.get("writer") and Writing(inputs, self)
        funnel = Funnel(GateSettings(rouge_l=self.rouge_l), inputs.get("protected"))
        builder = DatasetBuilder()
        rows = []
        for row in dataset.rows():
            if isinstance(row[self.column], str) and row[self.column].strip():
                rows.append(row)
            else:
                builder.drop(row["id"], "no text")
        offered = self._written(rows, writing) if writing else self._mined(rows)
        done = 0
        for row, found in zip(rows, offered):
            passage, kept = row.pop(self.column), []
            funnel.forget()
            for number, (task, problem) in enumerate(found):
                if task is not None:
                    problem = refused(task, passage, bool(writing) and BANK[task.kind].extractive)
                text = None if task is None or problem else f"{task.question}\n{task.answer}"
                if not funnel.offer(f"{row['id']}/{number}", text, problem) and task is not None:
                    kept.append(task)
            kept = kept[: self.tasks]
            kept = [kept[i] for i in _rng(self.seed, f"{row['id']}/order").permutation(len(kept))]
            done += bool(kept)
            kinds: dict[str, Any] = {"n_tasks": len(kept), "task_kinds": [task.kind for task in kept]}
            builder.add({**row, self.column: render(passage, kept), "passage_end": len(passage), **kinds})
        facts = writing.report() if writing else {"writer": None}
        return builder.finish({"method": self.name, **funnel.report(), **facts, "passages_with_tasks": done})

    def _mined(self, rows: list[dict[str, Any]]) -> list[list[tuple[Task | None, str]]]:
        return [[(task, "") for task in mine(row[self.column], str(row.get("title") or ""))] for row in rows]

    def _written(self, rows: list[dict[str, Any]], writing: Writing) -> list[list[tuple[Task | None, str]]]:
        requests, places = [], []
        found: list[list[tuple[Task | None, str]]] = [[] for _ in rows]
        for place, row in enumerate(rows):
            document = material(row[self.column], writing.writer)
            for kind in draw(self.bank, self.tasks, self.seed, row["id"]):
                problem = writing.too_long(document + BANK[kind].told)
                if problem:
                    found[place].append((None, problem.replace(":", ",")))
                    continue
                requests.append(Request(f"{row['id']}/{kind}", document + BANK[kind].told))
                places.append((place, kind))
        for (place, kind), answer in zip(places, writing.ask(requests)):
            if answer.problem == "budget":
                continue
            found[place].append((_task(kind, answer.text), answer.problem))
        return found


def _task(kind: str, text: str | None) -> Task | None:
    asked = BANK[kind].question
    if text is None:
        return None
    if asked is not None:
        return Task(kind, asked, text)
    pair = parse_pair(text)
    return Task(kind, *pair) if pair else None
