"""Say where a document comes from before its text, for part of the documents: context that is not trained on.

`context` = "<header>: <short source>", the source a web address's host without www, else the value as it is. The
objective training.objectives.context_lm puts it and a blank line before the text and masks its labels;
evaluation.bits_per_byte reads the same column, so that a right, wrong or invented source can be tried. Rows are
drawn by hash(seed, id) into the first phase until it holds `share` of the tokens: these are `conditioned`, the
rest stays plain, fresh text for the cool-down of data.mix.cooldown. Rows without metadata never have a context.
"""

import urllib.parse
import warnings

import numpy as np
from pydantic import Field, field_validator

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Transform
from tutelage.core.text.hashing import hash64_many
from tutelage.data.select._shared import row_sizes

CARD = {
    "name": "data.augment.metadata",
    "paper": {
        "title": "Metadata Conditioning Accelerates Language Model Pre-training",
        "identifier": "arXiv:2501.01956",
    },
    "summary": "Writes each document's source as untrained context, for a share of the documents.",
    "reads": ["{column}"],
    "writes": ["context", "conditioned"],
    "cost": "one pass; the context costs one or two per cent of the training tokens",
    "baseline": None,
    "headline": "the paper: 33% less data for the same result at 1.6 billion weights; needs the cool-down",
    "version": 1,
}
# A model told the label of a document does not learn to find it.
ANSWERS = ("label", "labels", "class", "target", "answer", "completion", "chosen")
MANY_MISSING = 0.1


def short_source(value: str) -> str:
    """The host of a web address without `www.`, else the value with its white space collapsed."""
    if "://" in value:
        host = urllib.parse.urlsplit(value.strip()).hostname
        return (host or value).removeprefix("www.")
    return " ".join(value.split())


class Metadata(Transform):
    """`column` holds the metadata, `header` says what it is; `share` of the tokens are conditioned on it."""

    column: str = "source"
    header: str = Field(default="URL", min_length=1)
    share: float = Field(default=0.9, ge=0, le=1)
    seed: int = Field(default=0, ge=0)

    @field_validator("column")
    @classmethod
    def _no_answer(cls, value: str) -> str:
        if value in ANSWERS:
            raise ValueError(f"a column that is no answer: text conditioned on {value!r} leaks it")
        return value

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        if dataset.num_rows == 0:
            raise InputError(f"{self.name}: there are no rows")
        found = ["" if v is None else short_source(str(v)) for v in dataset.column(self.column).to_pylist()]
        missing = sum(not value for value in found)
        if missing > MANY_MISSING * len(found):
            warnings.warn(f"{self.name}: {missing} of {len(found)} rows have no {self.column}", stacklevel=2)
        ids, tokens = dataset.ids(), np.maximum(row_sizes(dataset).tokens, 1)
        order = np.argsort(hash64_many(self.seed, ids), kind="stable")
        before = np.cumsum(tokens[order]) - tokens[order]
        conditioned = np.zeros(len(ids), dtype=bool)
        conditioned[order] = before < self.share * tokens.sum()
        builder = DatasetBuilder()
        for row, source, first in zip(dataset.rows(), found, conditioned.tolist()):
            context = f"{self.header}: {source}" if first and source else ""
            builder.add({**row, "context": context, "conditioned": first})
        return builder.finish(
            {
                "method": self.name,
                "rows_in": len(ids),
                "rows_conditioned": int(conditioned.sum()),
                "rows_without_metadata": missing,
                "share_of_tokens": float(tokens[conditioned].sum() / tokens.sum()),
            }
        )
