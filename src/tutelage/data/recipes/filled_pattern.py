"""Texts in a pattern with the word of their class filled in: continued pretraining on the form of the task.

text' = pattern with {text} replaced by the text, then the word of the row's class, as adapters.verbaliser would
score it. Labels are gold or a model's own; a language model that goes on reading such texts (training.objectives.
causal_lm, every token learnt) is then tuned on the gold labels with training.objectives.verbaliser. Pattern and
words must be the same in all three places. A class with several words takes them in turn.
"""

from collections import Counter
from typing import Any

from pydantic import field_validator

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import InputError, suggest
from tutelage.core.method import Inputs, Transform
from tutelage.data.recipes._derive import checked_text

CARD = {
    "name": "data.recipes.filled_pattern",
    "paper": {
        "title": "Don't Stop Pretraining? Make Prompt-based Fine-tuning Powerful Learner",
        "identifier": "arXiv:2305.01711",
    },
    "summary": "Fills a classification pattern with each text and its label's word, for continued pretraining.",
    "reads": ["{column}", "label"],
    "writes": ["text"],
    "needs": [],
    "cost": "one pass over the text",
    "baseline": "training.objectives.verbaliser",
    "headline": "unlabelled task texts prepare a language model for few labels; compare with the texts alone",
    "version": 1,
}
SLOT = "{text}"


class FilledPattern(Transform):
    """`pattern` with one slot, {text}, ends where the word goes; `words`: class name -> its words (default: the
    names); `column` holds the text. Rows without a label are dropped."""

    pattern: str = "{text}\nTopic:"
    words: dict[str, tuple[str, ...]] | None = None
    column: str = "text"

    @field_validator("pattern")
    @classmethod
    def _one_slot(cls, value: str) -> str:
        if value.count(SLOT) != 1:
            raise ValueError(f"a pattern holds {SLOT} once; this one {value.count(SLOT)} times")
        return value

    @field_validator("words")
    @classmethod
    def _some_words(cls, value: dict[str, tuple[str, ...]] | None) -> dict[str, tuple[str, ...]] | None:
        empty = [name for name, words in (value or {}).items() if not words or not all(w.strip() for w in words)]
        if empty:
            raise ValueError(f"class {empty[0]!r} has no word")
        return value

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """The same rows with the filled pattern as `text`; raises InputError for a label without words."""
        from tutelage.models.prompt_classifier import split_pattern

        dataset.require(self.column)
        dataset.require("label")
        before, after, space = split_pattern(self.pattern)
        builder = DatasetBuilder()
        used: Counter[str] = Counter()
        for row in dataset.rows():
            text, label = row[self.column], row["label"]
            if text is None or label is None:
                builder.drop(row["id"], "no label" if label is None else "no text")
                continue
            words = self._words_of(label, row["id"])
            word = words[used[label] % len(words)].strip()
            used[label] += 1
            fields: dict[str, Any] = {k: v for k, v in row.items() if k != self.column}
            filled = before + checked_text(text, self.column, row["id"]) + after + space + word
            builder.add({**fields, "text": filled})
        return builder.finish({"by_class": dict(sorted(used.items()))})

    def _words_of(self, label: str, identifier: str) -> tuple[str, ...]:
        if self.words is None:
            return (label,)
        if label not in self.words:
            raise InputError(
                "a label has no words",
                where=f"row {identifier}, field label",
                expected="one of " + ", ".join(self.words),
                found=repr(label),
                remedy=suggest(label, self.words),
            )
        return self.words[label]
