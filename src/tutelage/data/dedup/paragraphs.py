"""Delete paragraphs that stand earlier in the corpus; drop rows of which too little is left.

Every later occurrence of a line or paragraph (canonical form, in (id, position) order) is cut out, so the old text
of a row is what was kept plus what was removed, in order. Rows left with fewer than `min_words` words are dropped
with the numbers as the reason; the lower bound on piece length is ours.
"""

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset, DatasetBuilder
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.duplicates import Unit, cut, repeated_spans
from tutelage.core.text.rows import string_column
from tutelage.core.text.words import hash_words

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


class Paragraphs(Transform):
    """`unit` "line" or "paragraph"; pieces under `min_characters` are never cut; rows that lose text and keep
    under `min_words` words are dropped."""

    unit: Unit = "line"
    min_characters: int = Field(default=30, ge=1)
    min_words: int = Field(default=50, ge=0)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        dataset.require("text")
        rows = (
            (i, t)
            for shard in dataset.shards(["id", "text"])
            for i, t in zip(shard.column("id").to_pylist(), string_column(shard, "text").to_pylist())
        )
        spans = repeated_spans(rows, self.unit, self.min_characters)
        builder = DatasetBuilder()
        removed = cut_rows = 0
        for shard in dataset.shards():
            ids = shard.column("id").to_pylist()
            before = string_column(shard, "text").to_pylist()
            after = [cut(text, spans.get(i, [])) for i, text in zip(ids, before)]
            lost = np.array([len(b) - len(a) for b, a in zip(before, after)], dtype=np.int64)
            words = np.diff(hash_words(after).bounds)
            keep = (lost == 0) | (words >= self.min_words)
            removed += int(lost.sum())
            cut_rows += int((lost > 0).sum())
            for row in np.flatnonzero(~keep).tolist():
                builder.drop(ids[row], f"{words[row]} words left after {lost[row]} repeated characters were cut")
            place = shard.schema.get_field_index("text")
            table = shard.set_column(place, "text", pa.array(after, shard.schema.field(place).type))
            if "removed_characters" in table.column_names:
                raise InputError(
                    "the rows were cut before",
                    where="removed_characters",
                    expected="rows that still have their whole text",
                    remedy="apply data.dedup.paragraphs once, or drop the column removed_characters",
                )
            builder.add_table(table.append_column("removed_characters", pa.array(lost)).filter(pa.array(keep)))
        report = {
            "method": self.name,
            "rows_in": dataset.num_rows,
            "rows_cut": cut_rows,
            "characters_cut": removed,
        }
        return builder.finish(report)
