"""Continuation pairs: the first words of a text as the prompt, the words that follow as the completion.

With words w_1 .. w_n: prompt = text up to the end of w_p (p = `prompt_words`), completion = text from there to
the end of w_(p+c) (c = `completion_words`), so prompt + completion is a prefix of the text, white space included.
A text that has fewer than p + `min_completion_words` words is dropped.
"""

import re
from typing import Any

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.method import Inputs, Transform
from tutelage.data.recipes._derive import checked_text

CARD = {
    "name": "data.recipes.continuation",
    "paper": {"title": "Common practice"},
    "summary": "Turns texts into prompt and completion: the first words and those that follow.",
    "reads": ["{column}"],
    "writes": ["prompt", "completion"],
    "needs": [],
    "cost": "one pass over the text",
    "baseline": None,
    "headline": "Prompted generation and memorisation audits from any text.",
    "version": 1,
}
_WORD = re.compile(r"\S+")


def continuation(text: str, prompt_words: int, completion_words: int) -> tuple[str, str, int]:
    """(prompt, completion, words in the completion); together the two are a prefix of `text`."""
    ends = []
    for match in _WORD.finditer(text):
        ends.append(match.end())
        if len(ends) == prompt_words + completion_words:
            break
    if len(ends) <= prompt_words:
        return text, "", 0
    cut = ends[prompt_words - 1]
    return text[:cut], text[cut : ends[-1]], len(ends) - prompt_words


class Continuation(Transform):
    """Numbers of words; rows keep their ids and their other columns, `column` is replaced by the pair."""

    prompt_words: int = Field(default=50, ge=1)
    completion_words: int = Field(default=100, ge=1)
    min_completion_words: int = Field(default=20, ge=1)
    column: str = "text"

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """One pair per row; rows that are too short are dropped."""
        dataset.require(self.column)
        needed = min(self.min_completion_words, self.completion_words)
        builder = DatasetBuilder()
        for row in dataset.rows():
            text = row.pop(self.column)
            fields: dict[str, Any] = dict(row)
            prompt, completion, count = continuation(
                checked_text(text or "", self.column, row["id"]), self.prompt_words, self.completion_words
            )
            if count < needed:
                builder.drop(row["id"], f"fewer than {self.prompt_words + needed} words")
                continue
            builder.add({**fields, "prompt": prompt, "completion": completion})
        return builder.finish()
