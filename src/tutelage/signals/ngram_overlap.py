"""Which rows contain word n-grams of evaluation items: decontamination by exact n-gram match.

Index the 64-bit hashes of all normalised n-grams (lower case, punctuation to spaces, n = 12) of every evaluation
item: of a text all of them, of a question/answer pair those that touch the answer (with `questions` also those
inside the question). Row r is contaminated if any of its n-grams is in the index (`decide: any`), or if
coverage_r = (words of r inside hit n-grams) / (words of r) >= `min_coverage` (`decide: coverage`). To find
evaluation items that a corpus covers, score the evaluation items with the corpus as `evaluation`. Items shorter
than n words match as a whole if they have at least 5 words, else they cannot be checked and are counted in the
state. Numbers are kept: mapping all numbers to one makes rows of digits match each other (`map_numbers` does it).
Item, snippet and offset are those of a row's first hit of the smallest n-gram size; the offset counts characters
(code points) of the row's text in NFC.
"""

from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.ngrams import HashSet, ngram_hashes
from tutelage.core.text.rows import pair_columns, string_column, text_array
from tutelage.core.text.words import hash_words, text_batches

CARD = {
    "name": "signals.ngram_overlap",
    "paper": {"title": "Common practice (n-gram decontamination)", "identifier": ""},
    "summary": "Marks rows that contain word n-grams of the evaluation items.",
    "reads": ["text"],
    "writes": [
        "contaminated",
        "contamination_hits",
        "contamination_coverage",
        "contamination_item",
        "contamination_snippet",
        "contamination_offset",
    ],
    "inputs": {"evaluation": "the items that must not occur in the rows"},
    "cost": "one pass over the bytes",
    "baseline": None,
    "headline": "finds verbatim, recased and re-punctuated copies; not paraphrases",
    "version": 1,
}

BATCH_BYTES = 1 << 20  # texts looked at together: their words fit the processor's cache
TYPES = {
    "contaminated": pa.bool_(),
    "contamination_hits": pa.int64(),
    "contamination_coverage": pa.float64(),
    "contamination_item": pa.string(),
    "contamination_snippet": pa.string(),
    "contamination_offset": pa.int64(),
}
SHORTEST = 5  # words of an item that can still be checked as a whole


def item_ngrams(
    shard: pa.Table, n: int, questions: bool, map_numbers: bool
) -> tuple[dict[int, tuple[np.ndarray, np.ndarray]], np.ndarray]:
    """({n-gram length: (hashes, their items)}, words per item) of one shard of items."""
    words = hash_words(text_array(shard), map_numbers=map_numbers)
    lengths = np.diff(words.bounds)
    first_answer = np.zeros(len(lengths), dtype=np.int64)
    pair = pair_columns(shard.schema)
    if pair and not questions:
        first_answer = np.diff(hash_words(string_column(shard, pair[0]), map_numbers=map_numbers).bounds)
    owner = words.documents
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for size in sorted({n, *lengths[(lengths >= SHORTEST) & (lengths < n)].tolist()}):
        hashes, first = ngram_hashes(words, size)
        item = owner[first]
        last_in_item = first + size - 1 - words.bounds[item]
        use = (lengths[item] == size) if size < n else (last_in_item >= first_answer[item])
        found[size] = (hashes[use], item[use])
    return found, lengths


class NgramOverlap(Scorer):
    """`n` words; `decide` "any" or "coverage" with `min_coverage`; `questions` also indexes n-grams inside the
    questions of pairs; `map_numbers` makes all numbers equal (never for mathematics)."""

    threads: ClassVar[int] = 2

    n: int = Field(default=12, ge=2, le=100)
    decide: Literal["any", "coverage"] = "any"
    min_coverage: float = Field(default=0.5, gt=0, le=1)
    questions: bool = False
    map_numbers: bool = False

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        evaluation: Dataset = inputs["evaluation"]
        ids: list[str] = []
        unchecked: list[str] = []
        parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        for shard in evaluation.shards():
            found, lengths = item_ngrams(shard, self.n, self.questions, self.map_numbers)
            names = shard.column("id").to_pylist()
            unchecked += [names[i] for i in np.flatnonzero(lengths < SHORTEST)]
            for size, (hashes, items) in found.items():
                parts.setdefault(size, []).append((hashes, items + len(ids)))
            ids += names
        state: State = {"ids": ids, "sizes": []}
        for size, pieces in sorted(parts.items()):
            hashes, index = np.unique(np.concatenate([h for h, _ in pieces]), return_index=True)
            if len(hashes):
                state["sizes"].append(size)
                state[f"hashes_{size}"] = hashes
                state[f"items_{size}"] = np.concatenate([i for _, i in pieces])[index]
        if not state["sizes"]:
            raise InputError(
                "the evaluation items give no n-gram to look for",
                where="inputs.evaluation",
                expected=f"at least one item of {SHORTEST} words or more",
                found=f"{len(ids)} items",
                remedy="check the columns of the evaluation data (text, or prompt with completion)",
            )
        state["report"] = {
            "items": len(ids),
            "uncheckable": len(unchecked),
            "uncheckable_ids": unchecked[:50],
            "ngrams": {str(size): len(state[f"hashes_{size}"]) for size in state["sizes"]},
        }
        return state

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, object]:
        known = {size: HashSet(state[f"hashes_{size}"]) for size in state["sizes"]}
        parts = [self._found(batch, known, state) for batch in text_batches(text_array(shard), BATCH_BYTES)]
        return {
            name: pa.concat_arrays([pa.array(part[name], kind) for part in parts]) for name, kind in TYPES.items()
        }

    def _found(self, texts: pa.LargeStringArray, known: dict[int, HashSet], state: State) -> dict[str, Any]:
        """The columns of some rows, against the `known` hashes of every n-gram size."""
        words = hash_words(texts, map_numbers=self.map_numbers)
        rows = len(words.bounds) - 1
        hits = np.zeros(rows, dtype=np.int64)
        covered = np.zeros(len(words.hashes) + 1, dtype=np.int64)
        item: list[str | None] = [None] * rows
        snippet: list[str | None] = [None] * rows
        offset: list[int | None] = [None] * rows
        for size, hashed in known.items():
            hashes, first = ngram_hashes(words, size)
            places, ranks = hashed.find(hashes)
            if not len(places):
                continue
            starts = first[places]
            np.add.at(covered, starts, 1)
            np.add.at(covered, starts + size, -1)
            found = np.searchsorted(words.bounds, starts, side="right") - 1
            hits += np.bincount(found, minlength=rows)
            for row, at in zip(*np.unique(found, return_index=True)):
                if item[row] is None:
                    item[row] = state["ids"][int(state[f"items_{size}"][ranks[at]])]
                    snippet[row] = words.text(int(starts[at]), int(starts[at]) + size - 1)
                    before = words.data[words.offsets[row] : words.starts[starts[at]]]
                    offset[row] = len(bytes(before).decode("utf-8"))
        inside = np.concatenate([[0], np.cumsum(np.cumsum(covered[:-1]) > 0)])
        lengths = np.diff(words.bounds)
        coverage = (inside[words.bounds[1:]] - inside[words.bounds[:-1]]) / np.maximum(lengths, 1)
        return {
            "contaminated": hits > 0 if self.decide == "any" else coverage >= self.min_coverage,
            "contamination_hits": hits,
            "contamination_coverage": coverage,
            "contamination_item": item,
            "contamination_snippet": snippet,
            "contamination_offset": offset,
        }
