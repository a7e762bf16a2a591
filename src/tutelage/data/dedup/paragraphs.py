"""Delete paragraphs that stand earlier in the corpus; drop rows of which too little is left.

Every later occurrence of a line or paragraph (canonical form, in (id, position) order) is cut out, so the old text
of a row is what was kept plus what was removed, in order. Rows left with fewer than `min_words` words are dropped
with the numbers as the reason; the lower bound on piece length is ours. Departure: with `bloom` the filters only
find what may occur twice, and an exact comparison decides, so a false positive costs memory and never text.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.duplicates import Unit, repeated_spans
from tutelage.core.text.words import hash_words
from tutelage.data.dedup._shared import cut_repeats, raw_texts

CARD = {
    "name": "data.dedup.paragraphs",
    "paper": {
        "title": "Dolma: an Open Corpus of Three Trillion Tokens for Language Model Pretraining Research",
        "identifier": "arXiv:2402.00159",
    },
    "summary": "Deletes paragraphs that occur earlier in the corpus and drops rows left with too few words.",
    "reads": ["text"],
    "writes": ["text", "removed_characters"],
    "cost": "one hash per paragraph",
    "baseline": "data.dedup.exact",
    "headline": "removes boilerplate inside documents that whole-document deduplication keeps",
    "version": 1,
}


def count_words(texts: Sequence[str]) -> np.ndarray:
    """Words of every text, int64 [n]."""
    return np.diff(hash_words(list(texts)).bounds)


class Paragraphs(Transform):
    """`unit` "line" or "paragraph"; pieces under `min_characters` are never cut; rows that lose text and keep
    under `min_words` words are dropped. `bloom` (a false-positive rate such as 0.01) bounds memory: three passes,
    a few bits per piece, the same result."""

    unit: Unit = "line"
    min_characters: int = Field(default=30, ge=1)
    min_words: int = Field(default=50, ge=0)
    bloom: float | None = Field(default=None, gt=0, lt=1)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        dataset.require("text")
        spans = repeated_spans(partial(raw_texts, dataset), self.unit, self.min_characters, self.bloom)
        return cut_repeats(dataset, spans, count_words, self.min_words, "words", self.name)
