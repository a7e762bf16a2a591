"""The numbers that web-corpus filters look at, one column per rule, without any threshold.

Gopher quality (words, their mean length, symbols per word, bullet and ellipsis lines, words with a letter, stop
words), Gopher repetition (duplicate lines and paragraphs by count and by characters, the most frequent 2/3/4-gram,
repeated 5- to 10-grams), C4 (share of lines that pass its line rules, sentences left, lorem ipsum, braces), mC4
(long lines), FineWeb (terminal, short and duplicated lines, line breaks per word), code (line lengths,
alphanumeric share); C4's list of bad words is the user's own. `data.filter.rules` holds the thresholds, so a
changed threshold recomputes nothing here. Departures, ours: words are runs of letters and digits; stop words are
compared in lower case; an n-gram must occur twice to be the top one, or short texts would fail; sentences are
counted by their end marks.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.ngrams import HashSet, ngram_hashes
from tutelage.core.text.rows import text_array
from tutelage.core.text.words import Words, hash_words, split_words, text_batches
from tutelage.signals._rules import line_columns, ngram_shares, word_lengths

CARD = {
    "name": "signals.heuristic_rules",
    "paper": {
        "title": "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
        "identifier": "arXiv:2112.11446",
    },
    "summary": "The numeric columns behind the Gopher, C4, FineWeb and code filters.",
    "reads": ["text"],
    "writes": [
        "rule_words",
        "rule_mean_word",
        "rule_alpha_words",
        "rule_stop_words",
        "rule_alphanumeric",
        "rule_hashes_per_word",
        "rule_ellipses_per_word",
        "rule_bullet_lines",
        "rule_ellipsis_lines",
        "rule_duplicate_lines",
        "rule_duplicate_line_characters",
        "rule_duplicate_paragraphs",
        "rule_duplicate_paragraph_characters",
        "rule_top_2gram",
        "rule_top_3gram",
        "rule_top_4gram",
        "rule_repeated_5grams",
        "rule_repeated_6grams",
        "rule_repeated_7grams",
        "rule_repeated_8grams",
        "rule_repeated_9grams",
        "rule_repeated_10grams",
        "rule_lorem_ipsum",
        "rule_braces",
        "rule_c4_lines",
        "rule_c4_sentences",
        "rule_long_lines",
        "rule_terminal_lines",
        "rule_short_lines",
        "rule_duplicated_characters",
        "rule_newlines_per_word",
        "rule_mean_line",
        "rule_max_line",
        "rule_bad_words",
    ],
    "cost": "one pass over the lines and ten over the words",
    "baseline": "signals.length",
    "headline": "removes what is clearly not text; says little about what is useful",
    "version": 1,
}

BATCH_BYTES = 1 << 20
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


def word_columns(words: Words, lengths: np.ndarray) -> dict[str, np.ndarray]:
    """Word rules of every document [D], `lengths` [W] its words'; means and shares of no words are 0."""
    documents = len(words.bounds) - 1
    owner = words.documents
    counts = np.diff(words.bounds)
    digits = np.concatenate([[0], np.cumsum((words.data >= 48) & (words.data <= 57))])
    all_digits = digits[words.ends] - digits[words.starts] == words.ends - words.starts
    stops = np.zeros(documents, dtype=np.int64)
    for stop in hash_words(list(STOP_WORDS)).hashes:
        stops += np.bincount(owner[words.hashes == stop], minlength=documents) > 0
    some = np.maximum(counts, 1)
    return {
        "rule_words": counts,
        "rule_mean_word": np.bincount(owner, lengths, documents) / some,
        "rule_alpha_words": np.bincount(owner[~all_digits], minlength=documents) / some,
        "rule_stop_words": stops,
    }


def count_phrases(words: Words, phrases: Sequence[str]) -> np.ndarray:
    """How often any of the phrases stands in every document as whole words, int64 [D]."""
    found = np.zeros(len(words.bounds) - 1, dtype=np.int64)
    lengths = [len(split_words(phrase)) for phrase in phrases]
    for n in sorted(set(lengths)):
        wanted, _ = ngram_hashes(hash_words([p for p, length in zip(phrases, lengths) if length == n]), n)
        hashes, first = ngram_hashes(words, n)
        places, _ = HashSet(wanted).find(hashes)
        found += np.bincount(words.documents[first[places]], minlength=len(found))
    return found


def rule_columns(array: pa.LargeStringArray, bad_words: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """All rules of every text, [n] each."""
    words = hash_words(array)
    rows = array.to_pylist()
    characters = np.array([len(text) for text in rows], dtype=np.int64)
    lengths = word_lengths(words)
    columns = word_columns(words, lengths)
    columns["rule_bad_words"] = count_phrases(words, bad_words)
    letters = np.bincount(words.documents, lengths, len(rows))
    columns["rule_alphanumeric"] = letters / np.maximum(characters, 1)
    counted = [line_columns(text, int(n)) for text, n in zip(rows, columns["rule_words"])]
    for name in line_columns("", 0):
        columns[name] = np.array([row[name] for row in counted], dtype=np.float64)
    return columns | ngram_shares(words, lengths, characters)


class HeuristicRules(Scorer):
    """`bad_words`: words or phrases to count, whole words in any case; thresholds are in `data.filter.rules`."""

    threads: ClassVar[int] = 2

    bad_words: list[str] = Field(default=[])

    @field_validator("bad_words")
    @classmethod
    def _words(cls, phrases: list[str]) -> list[str]:
        if empty := [phrase for phrase in phrases if not split_words(phrase)]:
            raise ValueError(f"{empty[0]!r} holds no word")
        return phrases

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, np.ndarray]:
        parts = [rule_columns(batch, self.bad_words) for batch in text_batches(text_array(shard), BATCH_BYTES)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
