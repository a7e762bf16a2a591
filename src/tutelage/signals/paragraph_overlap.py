"""Which rows contain whole lines or paragraphs of evaluation items: decontamination with a Bloom filter.

The pieces of the evaluation items (canonical form, at least `min_characters`) go into a Bloom filter that is then
only read. A piece of a row that the filter holds becomes a span [start, end) in code points; `leaked_share` is the
share of the row's characters inside spans, and the row is `leaked` if it has any. Every leaked piece is found; a
piece that is not in the evaluation is taken for one with probability `false_positives`. Memory is
-ln(p) / (ln 2)^2 bits per evaluation piece, whatever the size of the corpus.
"""

from functools import partial

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.bloom import BloomFilter
from tutelage.core.text.duplicates import Unit, piece_filter, pieces_in
from tutelage.core.text.rows import text_rows, texts

CARD = {
    "name": "signals.paragraph_overlap",
    "paper": {
        "title": "Dolma: an Open Corpus of Three Trillion Tokens for Language Model Pretraining Research",
        "identifier": "arXiv:2402.00159",
    },
    "summary": "Marks rows that contain whole lines or paragraphs of the evaluation items, by a Bloom filter.",
    "reads": ["text"],
    "writes": ["leaked", "leaked_spans", "leaked_share"],
    "inputs": {"evaluation": "the items that must not occur in the rows"},
    "cost": "one hash per piece",
    "baseline": "signals.ngram_overlap",
    "headline": "bounded memory for large evaluation sets; misses leaks shorter than a line",
    "version": 1,
}

SPANS = pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64())]))


class ParagraphOverlap(Scorer):
    """`unit` "line" or "paragraph"; pieces under `min_characters` are not looked for; `false_positives` is the
    probability that a piece which is in no evaluation item is marked."""

    unit: Unit = "line"
    min_characters: int = Field(default=30, ge=1)
    false_positives: float = Field(default=1e-6, gt=0, lt=1)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        evaluation: Dataset = inputs["evaluation"]
        held = piece_filter(partial(text_rows, evaluation), self.unit, self.min_characters, self.false_positives)
        if not held.bits.any():
            raise InputError(
                "the evaluation items give no piece to look for",
                where="inputs.evaluation",
                expected=f"at least one {self.unit} of {self.min_characters} characters or more",
                found=f"{evaluation.num_rows} items",
                remedy="lower min_characters, or use signals.ngram_overlap for short items",
            )
        facts = {"capacity": held.capacity, "bytes": len(held.bits), "false_positives": self.false_positives}
        return {"bits": held.bits, "capacity": held.capacity, "report": facts}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, object]:
        held = BloomFilter(int(state["capacity"]), self.false_positives, state["bits"])
        rows = texts(shard)
        found = [pieces_in(text, self.unit, self.min_characters, held) for text in rows]
        inside = np.array([sum(end - start for start, end in spans) for spans in found], dtype=np.float64)
        values = [[{"start": start, "end": end} for start, end in spans] for spans in found]
        return {
            "leaked": np.array([bool(spans) for spans in found], dtype=bool),
            "leaked_spans": pa.array(values, SPANS),
            "leaked_share": inside / np.maximum([len(text) for text in rows], 1),
        }
