"""Copyright traps: unique sequences planted in documents, so that a later model can be tested for having seen
them.

The writer, a language model, samples sequences of L tokens at temperatures 0.5, 1, ..., 3.5. One is kept when
its text has the same tokens again, its perplexity lies in a bucket that is not full, and the Jaccard overlap of
its tokens with every kept one is at most `overlap`. Buckets are equal and equally full; each holds pairs, of
which one at random is planted, n times at random places between the words of one document of its own, and the
other is held back: both come from one distribution, so that whatever tells them apart was learned. The list of
both is sealed with its hash in the dataset's report; evaluation.membership reads it there. Repeats must survive
deduplication: plant after it. Departure from the paper: at most 100 repeats by default, for documents of
ordinary length.
"""

import math
import re
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import InputError
from tutelage.core.fingerprint import digest
from tutelage.core.method import Inputs, Transform

CARD = {
    "name": "data.augment.traps",
    "paper": {"title": "Copyright Traps for Large Language Models", "identifier": "arXiv:2402.09363"},
    "summary": "Plant generated sequences in documents to test later models for having seen them.",
    "reads": ["{column}"],
    "writes": ["{column}", "trap_repeats"],
    "inputs": {"writer": "the language model that writes the traps"},
    "needs": ["train"],
    "cost": "some tens of sampled sequences for each kept one; repeats x length trained tokens per trap",
    "baseline": "data.augment.canaries",
    "headline": "AUC .75 for 100 tokens repeated 1,000 times in a model of 1.3 billion weights, the paper finds",
    "version": 1,
}
TEMPERATURES = tuple(0.5 * step for step in range(1, 8))
BATCH = 32
# Rounds over all temperatures without a new sequence after which the buckets stay as they are.
PATIENCE = 4


def overlap_of(one: set[int], other: set[int]) -> float:
    """Jaccard overlap of two sets of tokens."""
    return len(one & other) / len(one | other)


def insert(text: str, trap: str, times: int, rng: np.random.Generator) -> str:
    """`text` with `trap` put `times` times between its words, at places drawn with replacement."""
    gaps = [match.end() for match in re.finditer(r"\s+", text)] + [len(text)]
    places = np.bincount(rng.integers(0, len(gaps), times), minlength=len(gaps))
    parts, before = [], 0
    for place, count in zip(gaps, places):
        parts += [text[before:place], *[f"{trap} " if place < len(text) else f" {trap}"] * count]
        before = place
    return "".join(parts)


class Traps(Transform):
    """`pairs` of sequences of `length` tokens, one of each planted; `repeats` are cycled; `perplexity` is the
    range that is cut into `buckets`. `column` is the text that they are put into."""

    pairs: int = Field(default=20, ge=2, le=10_000)
    length: int = Field(default=50, ge=2)
    repeats: tuple[int, ...] = Field(default=(1, 10, 100), min_length=1)
    perplexity: tuple[float, float] = (1.0, 101.0)
    buckets: int = Field(default=10, ge=1)
    overlap: float = Field(default=0.2, ge=0, le=1)
    column: str = "text"
    seed: int = Field(default=0, ge=0)

    @field_validator("repeats")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1:
            raise ValueError("counts of at least 1; what is held back is made anyway")
        return value

    @field_validator("perplexity")
    @classmethod
    def _range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 1 <= value[0] < value[1]:
            raise ValueError("two rising numbers from 1")
        return value

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """`report`: traps (text, planted, perplexity, bucket, document), seal, and unfilled (pairs that no bucket
        had sequences for).

        Raises InputError for fewer documents than pairs, for a writer that gives no sequence in the range, and for
        rows that hold traps already.
        """
        dataset.require(self.column)
        if "traps" in dataset.report:
            raise InputError(
                "these rows hold traps already",
                where=self.name,
                expected="rows without a sealed list of traps",
                found=f"{len(dataset.report['traps'])} traps",
                remedy="plant once, with as many pairs and repeats as you need",
            )
        if dataset.num_rows < self.pairs:
            raise InputError(
                "there are fewer documents than traps",
                where=self.name,
                expected=f"at least {self.pairs} rows: each trap has a document of its own",
                found=f"{dataset.num_rows} rows",
                remedy="plant fewer pairs",
            )
        rng = np.random.default_rng([self.seed, 1])
        pairs = [pair for kept in self._written(inputs["writer"]) for pair in zip(kept[::2], kept[1::2])]
        if len(pairs) < 2:
            raise InputError(
                "the writer gives no sequences of the wanted perplexity",
                where=f"{self.name}: writer",
                expected="perplexity from {:g} to {:g}".format(*self.perplexity),
                found=f"{len(pairs)} pairs",
                remedy="use a trained model, another range or a shorter length",
            )
        ids = dataset.ids()
        documents = rng.choice(len(ids), size=len(pairs), replace=False)
        traps: list[dict[str, Any]] = []
        by_row: dict[int, dict[str, Any]] = {}
        for number, (pair, document) in enumerate(zip(pairs, documents.tolist())):
            planted, held = (pair[i] for i in rng.permutation(2))
            times = self.repeats[number % len(self.repeats)]
            by_row[document] = {**planted, "planted": times, "document": ids[document]}
            traps += [by_row[document], {**held, "planted": 0, "document": None}]
        builder = DatasetBuilder()
        for index, row in enumerate(dataset.rows()):
            trap = by_row.get(index)
            text = (
                row[self.column] if trap is None else insert(row[self.column], trap["text"], trap["planted"], rng)
            )
            builder.add({**row, self.column: text, "trap_repeats": 0 if trap is None else trap["planted"]})
        found = {"traps": traps, "seal": digest(traps), "unfilled": self.pairs - len(pairs)}
        return builder.finish({**dataset.report, **found})

    def _written(self, writer: Any) -> list[list[dict[str, Any]]]:
        """Per bucket an even number of sequences with text, perplexity and bucket."""
        low, high = self.perplexity
        quota = [2 * len(range(bucket, self.pairs, self.buckets)) for bucket in range(self.buckets)]
        kept: list[list[dict[str, Any]]] = [[] for _ in quota]
        tokens: list[set[int]] = []
        idle = turn = 0
        while idle < PATIENCE and any(len(found) < most for found, most in zip(kept, quota)):
            before = len(tokens)
            for temperature in TEMPERATURES:
                seed = digest([self.seed, turn])
                turn += 1
                made = writer.generate(
                    [""] * BATCH, max_new_tokens=self.length, temperature=temperature, seed=int(seed[:12], 16)
                )
                # One that reads back differently is another sequence; one that ended by itself is too short.
                whole = [
                    (one.text, ids)
                    for one, ids in zip(made, writer.tokenize([one.text for one in made]))
                    if ids == list(one.token_ids) and len(ids) == self.length
                ]
                scores = writer.score_texts([text for text, _ in whole]) if whole else []
                for (text, ids), score in zip(whole, scores):
                    perplexity = math.exp(min(score.nll_sum / max(1, score.n_tokens), 700.0))
                    bucket = int((perplexity - low) / (high - low) * self.buckets)
                    if not low <= perplexity < high or len(kept[bucket]) >= quota[bucket]:
                        continue
                    if all(overlap_of(set(ids), other) <= self.overlap for other in tokens):
                        tokens.append(set(ids))
                        kept[bucket].append({"text": text, "perplexity": round(perplexity, 4), "bucket": bucket})
            idle = 0 if len(tokens) > before else idle + 1
        return kept
