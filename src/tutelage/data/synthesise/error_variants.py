"""Write new rows like those that the current model answers wrongly: data grows where the model fails.

W = rows whose `column` says wrong. For each w the writer sees the row with its answer and one worked example of
the form, and writes a similar row; on odd attempts it also sees the variants already kept and is asked for
different ones. A variant is refused above ROUGE-L 0.95 to W, to `existing` rows or to another variant;
`variants` per row within `attempts`. Synthetic rows are never expanded, so that the loop cannot drift; no W, no
calls. The loop itself (train from the base, find W, grow) is a recipe's `repeat`. Departure: the number of
attempts has an end.
"""

from typing import Any

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.core.text.rows import ANSWERS, QUESTIONS
from tutelage.data.synthesise._gates import Funnel, GateSettings
from tutelage.data.synthesise._tasks import PAIR, parse_pair
from tutelage.data.synthesise._writer import Request, Writing, carried, derived_id, material

CARD = {
    "name": "data.synthesise.error_variants",
    "paper": {
        "title": "LLM2LLM: Boosting LLMs with Novel Iterative Data Enhancement",
        "identifier": "arXiv:2403.15042",
    },
    "summary": "Writes variants of the rows that a model answered wrongly.",
    "reads": ["{column}", "prompt?", "completion?", "text?", "label?", "label_source?"],
    "writes": ["prompt?", "completion?", "text?", "label?", "source_id", "group", "label_source"],
    "inputs": {
        "writer": "the model that writes the variants",
        "existing?": "rows of earlier rounds, which no variant may repeat",
        "protected?": "evaluation rows that no variant may repeat",
    },
    "needs": [],
    "cost": "variants answers per wrong row, at most attempts",
    "baseline": "data.select.random",
    "headline": "the paper: 24 to 53 points over plain fine-tuning with few rows and a large writer",
    "version": 1,
}
_EXAMPLE = "Question: A shelf holds 12 books and 5 are taken away. How many stay?\nAnswer: 7"
_EXAMPLE_TEXT = "Text: The second day was no better, and we left early."


class Row:
    """A wrong row: its question (or text), its answer (or label), the columns it has them in."""

    def __init__(self, row: dict[str, Any]) -> None:
        self.row = row
        self.kept: list[str] = []
        self.labelled = row.get("text") is not None and row.get("label") is not None
        names = ("text", "label") if self.labelled else (_first(row, QUESTIONS), _first(row, ANSWERS))
        self.question, self.answer = names
        if not all(isinstance(row.get(name), str) and row[name].strip() for name in names):
            raise InputError(
                "a row has no question and answer to vary",
                where=f"row {row['id']}",
                expected="text and label, or a question (prompt) and its answer (completion), both as text",
                found=", ".join(name for name, value in row.items() if value is not None),
            )

    def request(self, attempt: int, writer: Any) -> Request:
        """What the writer is asked in one attempt."""
        if self.labelled:
            shown = material(self.row["text"], writer, "text")
            told = (
                f"It is an example of: {self.row['label']}.\nWrite another text that is also {self.row['label']}"
            )
            form = f"Answer in this form and nothing else, for example:\n{_EXAMPLE_TEXT}"
        else:
            shown = material(
                f"Question: {self.row[self.question]}\nAnswer: {self.row[self.answer]}", writer, "item"
            )
            told = "Write a similar item with its right answer"
            form = f"{PAIR}\nFor example:\n{_EXAMPLE}"
        if attempt % 2 and self.kept:
            shown += material("\n".join(self.kept), writer, "list")
            told += ", different from the first one and from all in the list"
        return Request(f"{self.row['id']}/{attempt}", f"{shown}{told}. {form}")

    def read(self, text: str) -> tuple[str, str] | None:
        """(question, answer) that the writer gave, or None."""
        if not self.labelled:
            pair = parse_pair(text)
            # An answer keeps the space that stands before the one of its seed.
            answer = self.row[self.answer]
            return pair and (pair[0], answer[: len(answer) - len(answer.lstrip())] + pair[1])
        words = text.removeprefix("Text:").strip().split("\n")[0].strip()
        return (words, self.row["label"]) if words else None


def _first(row: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((name for name in names if isinstance(row.get(name), str)), names[0])


def is_wrong(value: Any, answer: str | None = None) -> bool | None:
    """Whether a correctness says wrong: false, a number below one half, or a text other than its answer; None
    when it says nothing."""
    if value is None or value != value:
        return None
    return value.strip() != (answer or "").strip() if isinstance(value, str) else float(value) < 0.5


class ErrorVariants(Transform):
    """`column` says whether a row was answered rightly (`correct` of signals.answered), or what was answered
    (`predicted` of signals.class_probabilities); `variants` per wrong row in at most `attempts`; `budget` (rows,
    tokens written) and `max_calls` end the job."""

    column: str = "correct"
    variants: int = Field(default=4, ge=1)
    attempts: int = Field(default=10, ge=1)
    rouge_l: float = Field(default=0.95, gt=0, le=1)
    max_new_tokens: int = Field(default=128, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    budget: Budget | None = None
    max_calls: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """The new rows alone; every source row without one is dropped, and why."""
        dataset.require(self.column)
        writing = Writing(inputs, self)
        funnel = Funnel(GateSettings(rouge_l=self.rouge_l), inputs.get("protected"))
        builder = DatasetBuilder()
        wrong: list[Row] = []
        for row in dataset.rows():
            answer = row.get("label") if row.get("label") is not None else row.get(_first(row, ANSWERS))
            found = is_wrong(row[self.column], answer)
            if row.get("label_source") == "synthetic":
                builder.drop(row["id"], "synthetic rows are not expanded")
            elif found is None:
                builder.drop(row["id"], f"{self.column} says nothing")
            elif not found:
                builder.drop(row["id"], "answered rightly")
            else:
                wrong.append(Row(row))
        funnel.know((one.row["id"], one.row[one.question]) for one in wrong)
        if inputs.get("existing") is not None:
            funnel.know(_questions(inputs["existing"]))
        for attempt in range(self.attempts):
            open_rows = [one for one in wrong if len(one.kept) < self.variants]
            if not open_rows or writing.out_of(len(funnel.accepted)):
                break
            asked = [one.request(attempt, writing.writer) for one in open_rows]
            fits = [not writing.too_long(request.prompt) for request in asked]
            answers = iter(writing.ask([request for request, fit in zip(asked, fits) if fit], structured=True))
            for one, fit in zip(open_rows, fits):
                answer = next(answers) if fit else None
                if answer is None or answer.problem == "budget" or writing.out_of(len(funnel.accepted)) == "rows":
                    continue
                pair = one.read(answer.text) if answer.text else None
                identifier = derived_id(one.row["id"], pair[0] if pair else "")
                if not funnel.offer(identifier, pair and pair[0], answer.problem) and pair:
                    one.kept.append(pair[0])
                    made = {one.question: pair[0], one.answer: pair[1], "label_source": "synthetic"}
                    builder.add({"id": identifier, **made, **carried(one.row)})
        for one in wrong:
            if not one.kept:
                builder.drop(
                    one.row["id"],
                    f"the budget of {writing.stopped} was spent" if writing.stopped else "no_new_rows",
                )
        status = "" if funnel.accepted else ("no_new_rows" if wrong else "nothing_wrong")
        facts = {"wrong_rows": len(wrong), "status": status}
        return builder.finish({"method": self.name, **facts, **funnel.report(), **writing.report()})


def _questions(dataset: Dataset) -> Any:
    for row in dataset.rows():
        question = row["text"] if isinstance(row.get("text"), str) else row.get(_first(row, QUESTIONS))
        if isinstance(question, str):
            yield row["id"], question
