"""Where each row repeats paragraphs that stand earlier in the corpus, as spans.

Pieces are lines (`unit: line`, as in Dolma) or runs of lines between blank ones (`unit: paragraph`). Every later
occurrence, in (id, position) order, becomes a span [start, end) in code points; pieces shorter than
`min_characters` in canonical form never do. `data.dedup.paragraphs` deletes such spans.
"""

from functools import partial

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.duplicates import Unit, repeated_spans
from tutelage.core.text.rows import text_rows, texts

CARD = {
    "name": "signals.paragraph_duplicates",
    "paper": {
        "title": "Dolma: an Open Corpus of Three Trillion Tokens for Language Model Pretraining Research",
        "identifier": "arXiv:2402.00159",
    },
    "summary": "Spans of each row that repeat paragraphs found earlier in the corpus.",
    "reads": ["text"],
    "writes": ["duplicate_spans", "duplicate_span_share"],
    "cost": "one hash per paragraph",
    "baseline": "signals.exact_duplicates",
    "headline": "finds what whole-document deduplication cannot see",
    "version": 1,
}

SPANS = pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64())]))


class ParagraphDuplicates(Scorer):
    """`unit` "line" or "paragraph"; `min_characters` protects short pieces; `bloom` bounds memory as in
    `data.dedup.paragraphs`."""

    unit: Unit = "line"
    min_characters: int = Field(default=30, ge=1)
    bloom: float | None = Field(default=None, gt=0, lt=1)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        rows = partial(text_rows, dataset)
        return {"spans": repeated_spans(rows, self.unit, self.min_characters, self.bloom)}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, object]:
        found = [state["spans"].get(identifier, []) for identifier in shard.column("id").to_pylist()]
        lengths = np.array([len(text) for text in texts(shard)])
        covered = np.array([sum(end - start for start, end in spans) for spans in found], dtype=np.float64)
        values = [[{"start": start, "end": end} for start, end in spans] for spans in found]
        return {
            "duplicate_spans": pa.array(values, SPANS),
            "duplicate_span_share": covered / np.maximum(lengths, 1),
        }
