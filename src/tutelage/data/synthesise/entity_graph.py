"""Rewrite each document around its entities and the relations between them: many views of facts stated once.

Per document the writer names its entities {e_1 .. e_E} and a summary as JSON (three tries, then capitalised
phrases); then it writes one text about every e_i, one about every unordered pair, E (E - 1) / 2 of them, and
about triples drawn without replacement, always with the document before it. Rows: the summary and the texts
that pass the gates. Departures: an entity must occur in the document, and a text must name what it was asked
about; triples are counted per document instead of filling the budget. Left out: the paper's forecast of
accuracy by tokens.
"""

import itertools
import re
from collections import Counter

import numpy as np
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.method import Inputs, Transform
from tutelage.core.records import Budget
from tutelage.core.text.hashing import hash64
from tutelage.core.text.sentences import sentence_spans
from tutelage.data.synthesise._gates import Funnel, GateSettings
from tutelage.data.synthesise._writer import Request, Writing, carried, derived_id, json_object, material

CARD = {
    "name": "data.synthesise.entity_graph",
    "paper": {"title": "Synthetic continued pretraining", "identifier": "arXiv:2409.07431"},
    "summary": "Writes texts about the entities of each document and about how pairs of them are related.",
    "reads": ["text"],
    "writes": ["text", "entities", "synthesis", "source_id", "group", "label_source"],
    "inputs": {
        "writer": "the model that writes",
        "protected?": "evaluation rows that no generated text may repeat",
    },
    "needs": [],
    "cost": "E + E (E - 1) / 2 + triples answers per document, each with the document in its prompt",
    "baseline": "data.recipes.text_chunks",
    "headline": "the paper: closed-book QuALITY from 39 to 56 with 455 million tokens; a small writer invents",
    "version": 1,
}
TRIES = 3
_PHRASE = re.compile(r"[A-Z][\w'’-]*(?: (?:of (?:the )?)?[A-Z][\w'’-]*)*")
# Words that are capitals at the start of a sentence only because they stand there.
_OPENERS = frozenset(
    "a after all an and as at before both but by during each every few for from he her his how if in it its many "
    "most no of on one or our she so some such that the their there these they this those to under we what when "
    "where which while who with you".split()
)


def parse_entities(answer: str | None, document: str, most: int) -> tuple[str, list[str]] | None:
    """(summary, entities that occur in the document, the first `most`) of a JSON answer; None without any."""
    found = json_object(answer or "")
    if found is None or not isinstance(found.get("entities"), list):
        return None
    known = document.casefold()
    names = [" ".join(e.split()) for e in found["entities"] if isinstance(e, str)]
    unique = {name.casefold(): name for name in reversed(names) if name and name.casefold() in known}
    kept = list(dict.fromkeys(unique[name.casefold()] for name in names if name.casefold() in unique))
    summary = found.get("summary")
    return (summary.strip() if isinstance(summary, str) else "", kept[:most]) if kept else None


def capitalised(document: str, most: int) -> list[str]:
    """The most frequent capitalised phrases, earlier ones first among equals."""
    counts: Counter[str] = Counter()
    for start, end in sentence_spans(document):
        sentence = document[start:end]
        for match in _PHRASE.finditer(sentence):
            words = match[0].split()
            while words and words[0].casefold() in _OPENERS:
                words = words[1:]
            if not words or (match.start() == 0 and len(match[0].split()) == 1):
                continue  # a single word that opens a sentence may be any word
            counts[" ".join(words)] += 1
    return [name for name, _ in counts.most_common(most)]


def plan(entities: list[str], triples: int, seed: int) -> list[tuple[str, ...]]:
    """Every entity, every unordered pair, and `triples` of the triples in an order drawn by `seed`."""
    pairs = list(itertools.combinations(entities, 2))
    threes = list(itertools.combinations(entities, 3)) if triples else []
    order = np.random.default_rng(seed).permutation(len(threes))[:triples]
    return [*((one,) for one in entities), *pairs, *(threes[i] for i in order)]


def question(group: tuple[str, ...]) -> str:
    """What the writer is asked to write about one, two or three entities."""
    if len(group) == 1:
        return f"Write a paragraph that tells everything the document says about {group[0]}. Name {group[0]}."
    names = ", ".join(group[:-1]) + f" and {group[-1]}"
    return f"Write a paragraph on how {names} are related according to the document. Name all of them."


class EntityGraph(Transform):
    """At most `max_entities` and `triples` per document; texts of `min_words` or more words, at most `rouge_l`
    like the document or each other. `budget` in rows (texts) or tokens (written) and `max_calls` end the job;
    documents that were not reached are dropped with that reason."""

    max_entities: int = Field(default=10, ge=1)
    triples: int = Field(default=0, ge=0)
    min_words: int = Field(default=12, ge=1)
    rouge_l: float = Field(default=0.95, gt=0, le=1)
    max_new_tokens: int = Field(default=160, ge=1)
    temperature: float = Field(default=0.7, ge=0)
    budget: Budget | None = None
    max_calls: int | None = Field(default=None, ge=1)
    column: str = "text"
    seed: int = Field(default=0, ge=0)

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """Summary and texts of every document; a document without any is dropped, and why."""
        dataset.require(self.column)
        writing = Writing(inputs, self)
        funnel = Funnel(GateSettings(min_words=self.min_words, rouge_l=self.rouge_l), inputs.get("protected"))
        builder = DatasetBuilder()
        fell_back = lonely = 0
        for row in dataset.rows():
            text = row[self.column]
            problem = "" if isinstance(text, str) and text.strip() else "no text"
            document = "" if problem else material(text, writing.writer)
            longest = question(("x" * 40,) * 3)
            problem = problem or writing.too_long(document + longest) or _spent(writing, len(funnel.accepted))
            if problem:
                builder.drop(row["id"], problem)
                continue
            funnel.know([(row["id"], text)])
            summary, entities = self._entities(row["id"], text, document, writing)
            fell_back += summary is None
            lonely += len(entities) < 2
            made = [("summary", tuple(entities), summary)] if summary else []
            groups = plan(entities, self.triples, hash64(self.seed, row["id"]) % 2**63)
            asked = [Request(f"{row['id']}/{'|'.join(group)}", document + question(group)) for group in groups]
            kept = []
            for kind, group, answer, trouble in [
                *((kind, group, answer, "") for kind, group, answer in made),
                *(
                    (("entity", "pair", "triple")[len(group) - 1], group, one.text, one.problem)
                    for group, one in zip(groups, writing.ask(asked))
                ),
            ]:
                if trouble == "budget" or writing.out_of(len(funnel.accepted)) == "rows":
                    continue
                if kind != "summary" and answer is not None and not _names(answer, group):
                    answer, trouble = None, "entity_missing"
                identifier = derived_id(row["id"], answer or "")
                if not funnel.offer(identifier, answer, trouble):
                    kept.append({"id": identifier, "text": answer, "entities": list(group), "synthesis": kind})
            for one in kept:
                builder.add({**one, **carried(row), "label_source": "synthetic"})
            if not kept:
                builder.drop(row["id"], _spent(writing, len(funnel.accepted)) or "no text passed the gates")
        facts = {"documents_without_json": fell_back, "documents_with_one_entity": lonely}
        return builder.finish({"method": self.name, **funnel.report(), **writing.report(), **facts})

    def _entities(
        self, identifier: str, text: str, document: str, writing: Writing
    ) -> tuple[str | None, list[str]]:
        """(summary, entities); the summary is None where the writer gave no usable JSON."""
        ask = (
            f"Name up to {self.max_entities} people, places and things of the document and sum it up. Answer with "
            'JSON and nothing else: {"summary": "...", "entities": ["...", "..."]}'
        )
        for attempt in range(TRIES):
            answer = writing.ask([Request(f"{identifier}/entities/{attempt}", document + ask)], structured=True)[0]
            found = parse_entities(answer.text, text, self.max_entities)
            if found is not None:
                return found
            if answer.problem == "budget":
                break
        return None, capitalised(text, self.max_entities)


def _names(text: str, group: tuple[str, ...]) -> bool:
    folded = text.casefold()
    return all(name.casefold() in folded for name in group)


def _spent(writing: Writing, rows: int) -> str:
    stopped = writing.out_of(rows)
    return f"the budget of {stopped} was spent" if stopped else ""
