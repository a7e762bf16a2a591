"""Keywords as the prompt, the chunk as the completion: what a reader of an index would ask for.

The keywords of chunk d are its `keywords` words w of highest tf(w, d) ln((1 + N) / (1 + df(w))) over the N
rows, words of at least three letters, ties in order of first occurrence; prompt = template with {keywords}
replaced by them, joined with commas, completion = the chunk. Words that all rows hold weigh next to nothing, so
stop words need no list.
"""

import math
import re
from collections import Counter

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.method import Inputs, Transform
from tutelage.data.recipes._derive import checked_text

CARD = {
    "name": "data.recipes.keyword_prompt",
    "paper": {
        "title": "Fine Tuning LLM for Enterprise: Practical Guidelines and Recommendations",
        "identifier": "arXiv:2404.10779",
    },
    "summary": "Turns chunks into prompt and completion: their strongest keywords, then the chunk.",
    "reads": ["{column}"],
    "writes": ["prompt", "completion"],
    "needs": [],
    "cost": "two passes over the text",
    "baseline": "data.recipes.continuation",
    "headline": "Rows for keyword-like prompts, without a model; serves that style of prompt and no other.",
    "version": 1,
}
_WORD = re.compile(r"[^\W\d_]{3,}")


def keywords(text: str, frequency: Counter[str], rows: int, most: int) -> list[str]:
    """The words of highest tf-idf; `frequency` is the number of rows that hold a word (lower case)."""
    counts = Counter(word.lower() for word in _WORD.findall(text))
    weights = {word: count * math.log((1 + rows) / (1 + frequency[word])) for word, count in counts.items()}
    return sorted(weights, key=lambda word: -weights[word])[:most]


class KeywordPrompt(Transform):
    """`keywords` per chunk; `template` asks with {keywords}; rows keep their ids and other columns."""

    keywords: int = Field(default=5, ge=1)
    template: str = Field(default="Write about: {keywords}", pattern=r"\{keywords\}")
    column: str = "text"

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """One pair per row; rows without a word are dropped."""
        dataset.require(self.column)
        frequency: Counter[str] = Counter()
        for row in dataset.rows(["id", self.column]):
            text = checked_text(row[self.column] or "", self.column, row["id"])
            frequency.update({word.lower() for word in _WORD.findall(text)})
        builder = DatasetBuilder()
        for row in dataset.rows():
            text = row.pop(self.column) or ""
            found = keywords(text, frequency, dataset.num_rows, self.keywords)
            if not found:
                builder.drop(row["id"], "no word to ask with")
                continue
            prompt = self.template.replace("{keywords}", ", ".join(found))
            builder.add({**row, "prompt": prompt, "completion": text})
        return builder.finish()
