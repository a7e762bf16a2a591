"""Delete runs of three sentences that stand earlier in the corpus; drop rows of which too little is left.

Every window of `sentences` consecutive sentences (canonical form, in (id, position) order) that was seen before
is cut out, overlapping windows as one, so the old text of a row is what was kept plus what was removed, in order.
Rows that lose text and keep fewer than `min_sentences` sentences are dropped. Windows are those of the uncut
texts, so one that only arises where a cut closed up is not looked for. Sentences end by rule (see
`core.text.sentences`).
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.duplicates import repeated_spans
from tutelage.core.text.sentences import sentence_spans, sentence_windows
from tutelage.data.dedup._shared import cut_repeats, raw_texts

CARD = {
    "name": "data.dedup.sentence_spans",
    "paper": {
        "title": "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
        "identifier": "arXiv:1910.10683",
    },
    "summary": "Deletes three-sentence spans that occur earlier in the corpus and drops rows left with too few.",
    "reads": ["text"],
    "writes": ["text", "removed_characters"],
    "cost": "one hash per sentence",
    "baseline": "data.dedup.exact",
    "headline": "C4's deduplication: finds repeats that cross or share lines; cuts into running text",
    "version": 1,
}


def count_sentences(texts: Sequence[str]) -> np.ndarray:
    """Sentences of every text, int64 [n]."""
    return np.array([len(sentence_spans(text)) for text in texts], dtype=np.int64)


class SentenceSpans(Transform):
    """`sentences` in a window; rows that lose text and keep under `min_sentences` are dropped; `min_characters`
    protects windows of short sentences; `bloom` bounds memory as in `data.dedup.paragraphs`."""

    sentences: int = Field(default=3, ge=1)
    min_sentences: int = Field(default=3, ge=0)
    min_characters: int = Field(default=1, ge=1)
    bloom: float | None = Field(default=None, gt=0, lt=1)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        dataset.require("text")
        split = partial(sentence_windows, count=self.sentences)
        spans = repeated_spans(partial(raw_texts, dataset), split, self.min_characters, self.bloom)
        return cut_repeats(dataset, spans, count_sentences, self.min_sentences, "sentences", self.name)
