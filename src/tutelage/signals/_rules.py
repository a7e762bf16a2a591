"""The counting behind `signals.heuristic_rules`: repetition of n-grams, and statistics of lines.

Words are runs of letters and digits. A repeated n-gram is found by hash: candidates for n + 1 are only the places
where an n-gram repeats, because a longer repeat contains a shorter one.
"""

import itertools
import re

import numpy as np

from tutelage.core.text.ngrams import HashSet, ngram_hashes
from tutelage.core.text.words import Words

TOP = (2, 3, 4)
REPEATED = (5, 6, 7, 8, 9, 10)
TERMINAL = (".", "?", "!", '"', "'")
ELLIPSES = ("...", "…")
C4_PHRASES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_SENTENCE_END = re.compile(r"[.!?]+[\"')\]]*(?=\s|$)")
_DOCUMENT = np.uint64(0xA24BAED4963EE407)


def word_lengths(words: Words) -> np.ndarray:
    """Characters (not bytes) of every word, int64 [W]."""
    lengths = words.ends - words.starts
    if not (words.data > 127).any():
        return lengths
    inner = np.concatenate([[0], np.cumsum((words.data & 0xC0) == 0x80)])
    return lengths - (inner[words.ends] - inner[words.starts])


def ngram_shares(words: Words, characters: np.ndarray) -> dict[str, np.ndarray]:
    """`rule_top_{2,3,4}gram` and `rule_repeated_{5..10}grams`, shares of each document's characters [D].

    Top: length of the most frequent n-gram (words joined by spaces) times its count, 0 if none occurs twice.
    Repeated: scan from the left; on an n-gram seen before add its letters (no spaces) and jump n words, else 1.
    """
    lengths = word_lengths(words)
    letters = np.concatenate([[0], np.cumsum(lengths)])
    document = words.documents
    salt = document.astype(np.uint64) * _DOCUMENT
    total = np.maximum(characters, 1)
    shares: dict[str, np.ndarray] = {}
    candidate = np.ones(len(words.hashes), dtype=bool)
    for n in range(2, REPEATED[-1] + 1):
        hashes, first = ngram_hashes(words, n)
        chosen = candidate[first]
        keys, first = (hashes ^ salt[first])[chosen], first[chosen]
        ordered = np.sort(keys)
        places, ranks = HashSet(ordered[1:][ordered[1:] == ordered[:-1]]).find(keys)
        first = first[places]
        candidate[:] = False
        candidate[first] = True
        if n in TOP:
            found = _top(first, ranks, letters, document, n, len(total))
            shares[f"rule_top_{n}gram"] = found / total
        if n in REPEATED:
            found = _scan(first.tolist(), ranks.tolist(), letters, document, n, len(total))
            shares[f"rule_repeated_{n}grams"] = found / total
    return shares


def _top(
    first: np.ndarray, ranks: np.ndarray, letters: np.ndarray, document: np.ndarray, n: int, size: int
) -> np.ndarray:
    best = np.zeros(size)
    if not len(first):
        return best
    _, index, counts = np.unique(ranks, return_index=True, return_counts=True)
    at = first[index]
    owner = document[at]
    # Most frequent first; of equals the one that comes first in the text.
    order = np.lexsort((at, -counts, owner))
    lead = order[np.concatenate([[True], owner[order][1:] != owner[order][:-1]])]
    length = letters[at[lead] + n] - letters[at[lead]] + n - 1
    best[owner[lead]] = length * counts[lead]
    return best


def _scan(
    first: list[int], ranks: list[int], letters: np.ndarray, document: np.ndarray, n: int, size: int
) -> np.ndarray:
    """Only places whose n-gram occurs twice in its document can matter, so only those are walked."""
    hits = []
    seen: set[int] = set()
    free = 0
    for place, rank in zip(first, ranks):
        if place < free:
            continue
        if rank in seen:
            hits.append(place)
            free = place + n
        else:
            seen.add(rank)
    at = np.array(hits, dtype=np.int64)
    return np.bincount(document[at], letters[at + n] - letters[at], size)


def _repeats(parts: list[str]) -> tuple[int, int]:
    """(how many parts occurred before, their characters)."""
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        else:
            seen.add(part)
    return count, characters


def passes_c4(line: str) -> bool:
    """The line rules of C4: a sentence, no notice, at least 3 words, none longer than 1000 characters."""
    line = _CITATION.sub("", line).strip() if "[" in line else line.strip()
    if not line.endswith(TERMINAL) or line.endswith("..."):
        return False
    words = line.split()
    lowered = line.lower()
    return (
        len(words) >= 3
        and max(map(len, words)) <= 1000
        and "javascript" not in lowered
        and not any(phrase in lowered for phrase in C4_PHRASES)
    )


def line_columns(text: str, n_words: int) -> dict[str, float]:
    """Every rule of one text that looks at lines, symbols or phrases; shares of nothing are 0."""
    lines = [line for line in text.split("\n") if line]
    full = [line for line in lines if not line.isspace()]
    paragraphs = [part.strip("\n") for part in text.strip().split("\n\n") if part]
    sizes = list(map(len, full))
    n_lines = max(len(full), 1)
    n_characters = max(len(text), 1)
    repeated_lines, repeated_line_characters = _repeats(lines)
    repeated_paragraphs, repeated_paragraph_characters = _repeats(paragraphs)
    stripped = list(map(str.strip, full))
    terminal = [line for line in stripped if line.endswith(TERMINAL)]
    cited = [line for line in stripped if line.endswith("]")]
    sentences = [line for line in itertools.chain(terminal, cited) if passes_c4(line)]
    lowered = text.lower()
    return {
        "rule_hashes_per_word": text.count("#") / max(n_words, 1),
        "rule_ellipses_per_word": sum(text.count(mark) for mark in ELLIPSES) / max(n_words, 1),
        "rule_bullet_lines": sum(line.startswith(("•", "-")) for line in stripped) / n_lines,
        "rule_ellipsis_lines": sum(line.endswith(ELLIPSES) for line in stripped) / n_lines,
        "rule_duplicate_lines": repeated_lines / max(len(lines), 1),
        "rule_duplicate_line_characters": repeated_line_characters / n_characters,
        "rule_duplicate_paragraphs": repeated_paragraphs / max(len(paragraphs), 1),
        "rule_duplicate_paragraph_characters": repeated_paragraph_characters / n_characters,
        "rule_lorem_ipsum": lowered.count("lorem ipsum"),
        "rule_braces": text.count("{"),
        "rule_c4_lines": len(sentences) / n_lines,
        "rule_c4_sentences": sum(max(1, len(_SENTENCE_END.findall(line.strip()))) for line in sentences),
        "rule_long_lines": sum(size >= 200 for size in sizes),
        "rule_terminal_lines": len(terminal) / n_lines,
        "rule_short_lines": sum(size <= 30 for size in sizes) / n_lines,
        "rule_duplicated_characters": _repeats(full)[1] / max(len(text) - text.count("\n"), 1),
        "rule_newlines_per_word": text.count("\n") / max(n_words, 1),
        "rule_mean_line": sum(sizes) / n_lines,
        "rule_max_line": max(sizes, default=0),
    }
