"""Local task files: rows of the form {prompt | messages, type, choices?, answer, cluster?, group?} by their type.

type `mc` = multiple choice, `gen` = generated answer by exact match, `ll` = bits per byte of the answer after
the prompt, `ppl` = bits per byte of the text, `pair` = of two choices, `answer` must be the likelier one. Each
is evaluated by the method for it (`evaluation.multiple_choice`, `exact_match`, `bits_per_byte`,
`minimal_pairs`), with equal items, numbers and task name.
"""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.evaluation._choices import gold_index
from tutelage.evaluation.bits_per_byte import BitsPerByte
from tutelage.evaluation.exact_match import ExactMatch
from tutelage.evaluation.minimal_pairs import MinimalPairs
from tutelage.evaluation.multiple_choice import MultipleChoice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.local_tasks",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Rows of a local task file, evaluated by what their column type says.",
    "reads": ["type"],
    "inputs": {"model": "the causal language model that is measured"},
    "needs": ["train"],
    "cost": "that of the method for the type",
    "baseline": None,
    "headline": "one file format for all kinds of items",
    "version": 1,
}

TYPES = ("mc", "gen", "ll", "ppl", "pair")


class LocalTasks(Task):
    """One dataset holds items of one type. `metric` and `ties` are those of multiple choice; `match`, `extract`,
    `max_new_tokens` and `stop` those of generated answers; `window` that of bits per byte."""

    metric: Literal["acc", "acc_norm", "acc_bytes", "acc_mutual_info"] = "acc"
    ties: Literal["split", "first"] = "split"
    match: Literal["exact", "numeric"] = "exact"
    extract: str | None = None
    max_new_tokens: int = Field(default=64, ge=1)
    stop: tuple[str, ...] = ()
    window: int = Field(default=1024, ge=2)
    chat: bool = False

    def task(self, kind: str) -> Task:
        """The method that evaluates items of type `kind`."""
        if kind == "mc":
            return MultipleChoice(metric=self.metric, ties=self.ties, chat=self.chat)
        if kind == "gen":
            return ExactMatch(
                answer=self.match,
                extract=self.extract,
                max_new_tokens=self.max_new_tokens,
                stop=self.stop,
                chat=self.chat,
            )
        return MinimalPairs() if kind == "pair" else BitsPerByte(window=self.window)

    def evaluate(self, model: Any, dataset: Dataset, inputs: Inputs) -> "Result":
        """The result of the method for the type; raises InputError for an unknown type and for mixed types."""
        dataset.require("type")
        kinds = sorted({str(value) for value in dataset.column("type").unique().to_pylist()})
        if len(kinds) != 1 or kinds[0] not in TYPES:
            raise InputError(
                "the items are of several types" if len(kinds) > 1 else "the items' type is not known",
                where="column type",
                expected="one of " + ", ".join(TYPES),
                found=", ".join(kinds) or "no rows",
                remedy="filter the rows by type and evaluate each type in a step of its own",
            )
        return self.task(kinds[0]).evaluate(model, _columns(dataset, kinds[0]), inputs)

    def score(self, example: "Mapping[str, Any]", output: str) -> float | None:
        """Exact match for items of type `gen`; other types have no output to score."""
        return self.task("gen").score(example, output) if example.get("type", "gen") == "gen" else None


def _columns(dataset: Dataset, kind: str) -> Dataset:
    """The same rows under the column names that the method for `kind` reads."""
    if kind in ("mc", "gen"):
        return dataset
    rows = []
    for row in dataset.rows():
        kept = {name: row.get(name) for name in ("id", "cluster", "group") if row.get(name) is not None}
        if kind == "ppl":
            kept["text"] = row.get("text") or row.get("prompt")
        elif kind == "ll":
            kept |= {"prompt": row.get("prompt"), "completion": row.get("answer")}
        else:
            gold = gold_index(row.get("answer"), row.get("choices") or [], f"row {row['id']}")
            others = [choice for index, choice in enumerate(row["choices"]) if index != gold]
            if len(others) != 1:
                raise InputError(
                    "a pair has two choices", where=f"row {row['id']}", expected=2, found=len(row["choices"])
                )
            kept |= {"prompt": row.get("prompt") or "", "good": row["choices"][gold], "bad": others[0]}
        rows.append(kept)
    return Dataset.from_rows(rows)
