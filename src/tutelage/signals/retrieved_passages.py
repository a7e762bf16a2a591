"""For every row the passages of a corpus that answer its query best, by BM25: the obvious rival to training.

The corpus is cut into passages of about `passage_words` words. For passage p with tf_t occurrences of word t:
score = sum over query words t of idf_t * tf_t / (tf_t + k1 (1 - b + b len_p / mean len)),
idf_t = ln(1 + (N - df_t + 0.5) / (df_t + 0.5)) (the Lucene form: no factor k1 + 1). Words unseen in the corpus
score 0; a word given twice counts twice. The best passages, joined by blank lines, become `context`; a row never
retrieves a passage of the document that has its own id.
"""

import unicodedata
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.rows import string_column, text_array, texts
from tutelage.core.text.words import Words, hash_words

CARD = {
    "name": "signals.retrieved_passages",
    "paper": {
        "title": "The Probabilistic Relevance Framework: BM25 and Beyond",
        "identifier": "doi:10.1561/1500000019",
    },
    "summary": "Writes the best BM25 passages of a corpus for every row into a context column.",
    "reads": ["{query_column}"],
    "writes": ["context", "context_sources", "context_score"],
    "inputs": {"corpus": "the documents to search"},
    "cost": "one pass over the corpus, then milliseconds per row; longer prompts at every use",
    "baseline": None,
    "headline": "gives a model the facts without training; needs the corpus at every question",
    "version": 1,
}

SEPARATOR = "\n\n"


def passage_bounds(bounds: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(word bounds of passages int64 [P + 1], their document int64 [P]): near-equal pieces of about `size` words.

    `bounds` are the documents' word bounds; documents without words give no passage.
    """
    lengths = np.diff(bounds)
    pieces = np.where(lengths > 0, np.maximum(1, np.round(lengths / size).astype(np.int64)), 0)
    document = np.repeat(np.arange(len(lengths)), pieces)
    within = np.arange(len(document)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = bounds[document] + within * lengths[document] // pieces[document]
    return np.append(starts, bounds[-1]), document


def bm25_index(hashes: np.ndarray, bounds: np.ndarray, k1: float = 0.9, b: float = 0.4) -> State:
    """Postings with their weights: word hashes uint64 [W] and passage bounds int64 [P + 1] -> arrays."""
    passages = len(bounds) - 1
    lengths = np.diff(bounds)
    vocabulary, rank = np.unique(hashes, return_inverse=True)
    keys = rank.astype(np.int64) * passages + np.repeat(np.arange(passages), lengths)
    keys, tf = np.unique(keys, return_counts=True)
    term, passage = keys // max(passages, 1), keys % max(passages, 1)
    df = np.bincount(term, minlength=len(vocabulary))
    idf = np.log(1 + (passages - df + 0.5) / (df + 0.5))
    norm = k1 * (1 - b + b * lengths / lengths.mean())
    return {
        "vocabulary": vocabulary,
        "starts": np.searchsorted(term, np.arange(len(vocabulary) + 1)),
        "passages": passage.astype(np.int32),
        "weights": (idf[term] * tf / (tf + norm[passage])).astype(np.float32),
    }


def bm25_scores(index: State, query: np.ndarray, passages: int) -> np.ndarray:
    """Score of every passage, float32 [P], for the word hashes of a query."""
    scores = np.zeros(passages, dtype=np.float32)
    places = np.searchsorted(index["vocabulary"], query)
    for place, word in zip(places, query):
        if place < len(index["vocabulary"]) and index["vocabulary"][place] == word:
            posting = slice(index["starts"][place], index["starts"][place + 1])
            scores[index["passages"][posting]] += index["weights"][posting]
    return scores


class Passage(NamedTuple):
    """A passage of the row `id`: its text, and where it begins and ends in the row's text (code points, NFC)."""

    id: str
    text: str
    start: int
    end: int


def index_corpus(corpus: Dataset, passage_words: int = 120, k1: float = 0.9, b: float = 0.4) -> State:
    """BM25 over the passages of a corpus; `document` is the row of every passage, `begin` and `end` its bytes."""
    parts: list[tuple[np.ndarray, ...]] = []
    rows = total = 0
    for shard in corpus.shards():
        words = hash_words(text_array(shard))
        bounds, document = passage_bounds(words.bounds, passage_words)
        starts, ends = _byte_spans(words, bounds, document)
        parts.append((words.hashes, bounds[:-1] + total, document + rows, starts, ends))
        total += len(words.hashes)
        rows += shard.num_rows
    if total == 0:
        raise InputError(
            "the corpus holds no word",
            where="corpus",
            expected="rows with text",
            found=f"{corpus.num_rows} rows",
        )
    hashes, bounds, document, starts, ends = (np.concatenate(column) for column in zip(*parts))
    index = bm25_index(hashes, np.append(bounds, total), k1, b)
    return {**index, "document": document, "begin": starts, "end": ends}


def best_passages(scores: np.ndarray, k: int) -> np.ndarray:
    """Passages with the k largest positive scores, best first, ties by position."""
    count = min(k, int((scores > 0).sum()))
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    candidates = np.flatnonzero(scores >= least)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:count]


def read_passages(corpus: Dataset, index: State, passages: np.ndarray) -> dict[int, Passage]:
    """The texts of the passages with these numbers."""
    documents = np.unique(index["document"][passages])
    found = corpus.take(documents)
    whole = dict(zip(documents.tolist(), (unicodedata.normalize("NFC", text).encode() for text in texts(found))))
    names = dict(zip(documents.tolist(), found.column("id").to_pylist()))
    read = {}
    for passage in passages.tolist():
        document = int(index["document"][passage])
        begin, end = int(index["begin"][passage]), int(index["end"][passage])
        piece = whole[document][begin:end].decode("utf-8")
        start = len(whole[document][:begin].decode("utf-8")) + len(piece) - len(piece.lstrip())
        piece = piece.strip()
        read[passage] = Passage(names[document], piece, start, start + len(piece))
    return read


class RetrievedPassages(Scorer):
    """`query_column` asks; `k` passages of about `passage_words` words, cut at `max_characters`; `k1`, `b` of
    BM25 (Anserini's defaults)."""

    query_column: str = "prompt"
    k: int = Field(default=3, ge=1)
    passage_words: int = Field(default=120, ge=1)
    max_characters: int = Field(default=2000, ge=1)
    k1: float = Field(default=0.9, gt=0)
    b: float = Field(default=0.4, ge=0, le=1)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        dataset.require(self.query_column)
        return index_corpus(inputs["corpus"], self.passage_words, self.k1, self.b)

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        corpus: Dataset = inputs["corpus"]
        queries = hash_words(string_column(shard, self.query_column))
        own = shard.column("id").to_pylist()
        place = {identifier: row for row, identifier in enumerate(corpus.ids())}
        chosen, best = [], []
        for row in range(shard.num_rows):
            query = queries.hashes[queries.bounds[row] : queries.bounds[row + 1]]
            if len(query) == 0:
                raise InputError(
                    "a query has no word",
                    where=f"row {own[row]}, column {self.query_column}",
                    remedy="name another query_column, or drop such rows first (data.filter.where)",
                )
            scores = bm25_scores(state, query, len(state["document"]))
            if own[row] in place:
                scores[state["document"] == place[own[row]]] = 0.0
            top = best_passages(scores, self.k)
            chosen.append(top)
            best.append(float(scores[top[0]]) if len(top) else 0.0)
        read = read_passages(corpus, state, np.unique(np.concatenate([np.zeros(0, np.int64), *chosen])))
        contexts, sources = [], []
        for top in chosen:
            pieces = [read[passage] for passage in top.tolist()]
            contexts.append(_shorten(SEPARATOR.join([piece.text for piece in pieces]), self.max_characters))
            sources.append([piece.id for piece in pieces])
        return {
            "context": pa.array(contexts, pa.string()),
            "context_sources": pa.array(sources, pa.list_(pa.string())),
            "context_score": np.array(best, dtype=np.float64),
        }


def _byte_spans(words: Words, bounds: np.ndarray, document: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each passage begins and ends in its document's bytes: up to the first word of the next passage."""
    starts = words.starts[bounds[:-1]]
    opens = np.append(True, document[1:] != document[:-1])[: len(document)]
    starts = np.where(opens, words.offsets[document], starts)
    closes = np.append(opens[1:], True)[: len(document)]
    ends = np.where(closes, words.offsets[document + 1], np.append(starts[1:], 0)[: len(document)])
    return starts - words.offsets[document], ends - words.offsets[document]


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    cut = text[:limit]
    return cut.rsplit(None, 1)[0] if " " in cut else cut
