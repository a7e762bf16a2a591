"""Weak labels from words and regular expressions: every source votes for a class of a row, or abstains.

A source gives entries for one class or for several. An entry is a word or a phrase, found as whole words, or
`re:` and a regular expression, found anywhere. vote_ij = the class with the most entries of source j that occur
in text i; null (abstain) where none occurs or two classes have equally many. Patterns run in an automaton whose
time is linear in the length of the text, so none can hang; it has no look-around and no back-references.
"""

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError
from tutelage.core.labels import LabelSpace
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.rows import text_array

CARD = {
    "name": "signals.pattern_votes",
    "paper": {
        "title": "Data Programming: Creating Large Training Sets, Quickly",
        "identifier": "arXiv:1605.07723",
    },
    "summary": "Votes of weak sources, given as words and regular expressions per class, for every row.",
    "reads": ["text"],
    "writes": ["votes", "vote_sources"],
    "inputs": {"labels?": "rows with the classes: label, description, aliases"},
    "cost": "one pass over the bytes for every entry",
    "baseline": "signals.constant",
    "headline": "an hour of rules labels any number of rows; each rule errs in its own way: combine several",
    "version": 1,
}

REGEX = "re:"
_OTHER = r"[^\p{L}\p{M}\p{N}_]"


def expression(entry: str) -> str:
    """The regular expression of an entry: what follows `re:`, or a phrase between other characters."""
    if entry.startswith(REGEX):
        return entry.removeprefix(REGEX)
    words = r"[\s\p{Z}]+".join(re.escape(word) for word in entry.split())
    before = f"(?:^|{_OTHER})" if re.match(r"\w", entry.strip()) else ""
    after = f"(?:$|{_OTHER})" if re.search(r"\w$", entry.strip()) else ""
    return f"{before}{words}{after}"


def winners(counts: np.ndarray) -> np.ndarray:
    """Of entries found per class, [classes, n], the class with the most, [n]; -1 for none, or two with as many."""
    best = counts.max(axis=0)
    return np.where((best > 0) & ((counts == best).sum(axis=0) == 1), counts.argmax(axis=0), -1)


class PatternVotes(Scorer):
    """`sources` names every source and its entries per class: `{links: {spam: ["re:https?://", "my channel"]}}`.
    `ignore_case` holds for all of them."""

    sources: dict[str, dict[str, list[str]]] = Field(default_factory=dict)
    ignore_case: bool = True

    @field_validator("sources")
    @classmethod
    def _can_vote(cls, sources: dict[str, dict[str, list[str]]]) -> dict[str, dict[str, list[str]]]:
        for source, classes in sources.items():
            if not classes or not all(classes.values()):
                raise ValueError(f"source {source!r} needs entries for each of its classes")
            for entry in (entry for entries in classes.values() for entry in entries):
                if not entry.removeprefix(REGEX).strip():
                    raise ValueError(f"source {source!r} has an empty entry")
                try:
                    pc.match_substring_regex(pa.array(["probe"]), expression(entry))
                except pa.ArrowInvalid as error:
                    raise ValueError(
                        f"source {source!r}, {entry!r}: {error} (there is no look-around and no back-reference)"
                    ) from None
        return sources

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        if not self.sources:
            raise ConfigError(
                f"{self.name} needs sources",
                where="sources",
                expected='entries per source and class: {links: {spam: ["re:https?://"]}}',
                found="none",
            )
        if inputs.get("labels") is not None:
            space = LabelSpace.from_schema(inputs["labels"])
            for source, classes in self.sources.items():
                for name in classes:
                    space.index(name, f"sources.{source}")
        return {}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        texts = text_array(shard)
        columns = []
        for classes in self.sources.values():
            counts = np.array([self._count(texts, entries) for entries in classes.values()])
            columns.append(np.array([*classes, None], dtype=object)[winners(counts)])
        kind = pa.list_(pa.string())
        return {
            "votes": pa.array([list(row) for row in zip(*columns)], kind),
            "vote_sources": pa.array([list(self.sources)] * len(shard), kind),
        }

    def _count(self, texts: pa.Array, entries: list[str]) -> np.ndarray:
        """How many of the entries occur in every text, [n]."""
        count = np.zeros(len(texts), dtype=np.int64)
        for entry in dict.fromkeys(entries):
            found = pc.match_substring_regex(texts, expression(entry), ignore_case=self.ignore_case)
            count += found.to_numpy(zero_copy_only=False)
        return count
