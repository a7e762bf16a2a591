"""How much of each row are lines that stand earlier in the corpus.

A line counts as repeated when its canonical form (NFC, lower case, white space collapsed) occurs in a row of lower
id, or further up in the same row; short lines (`min_characters`) are common for good reasons and never count.
Shares are by lines and by characters; rows without lines have share 0.
"""

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.duplicates import pieces, repeated_spans
from tutelage.core.text.rows import text_rows, texts

CARD = {
    "name": "signals.line_duplicates",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Share of each row's lines and characters that repeat lines found earlier in the corpus.",
    "reads": ["text"],
    "writes": ["repeated_lines", "repeated_line_share", "repeated_line_characters"],
    "cost": "one hash per line",
    "baseline": "signals.exact_duplicates",
    "headline": "finds boilerplate: licences, headers, navigation",
    "version": 1,
}


class LineDuplicates(Scorer):
    """Lines shorter than `min_characters` are left out of account."""

    min_characters: int = Field(default=30, ge=1)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        found = repeated_spans(lambda: text_rows(dataset), "line", self.min_characters)
        lengths = {identifier: sum(end - start for start, end in spans) for identifier, spans in found.items()}
        return {"lines": {i: len(spans) for i, spans in found.items()}, "characters": lengths}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, np.ndarray]:
        ids, rows = shard.column("id").to_pylist(), texts(shard)
        repeated = np.array([state["lines"].get(i, 0) for i in ids], dtype=np.int64)
        characters = np.array([state["characters"].get(i, 0) for i in ids], dtype=np.float64)
        lines = np.array([len(pieces(text, "line")) for text in rows])
        lengths = np.array([len(text) for text in rows])
        return {
            "repeated_lines": repeated,
            "repeated_line_share": repeated / np.maximum(lines, 1),
            "repeated_line_characters": characters / np.maximum(lengths, 1),
        }
