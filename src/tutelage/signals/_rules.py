"""The counting behind `signals.heuristic_rules`: repetition of n-grams, and statistics of lines.

Words are runs of letters and digits. A repeated n-gram is found by hash: candidates for n + 1 are only the places
where an n-gram repeats, because a longer repeat contains a shorter one.
"""

import itertools
import re

import numpy as np

from tutelage.core.text.hashing import repeated
from tutelage.core.text.ngrams import ngram_hashes
from tutelage.core.text.words import Words

TOP = (2, 3, 4)
REPEATED = (5, 6, 7, 8, 9, 10)
TERMINAL = frozenset(".?!\"'")
ELLIPSES = ("...", "…")
NOTICES = (
    "javascript",
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


def ngram_shares(words: Words, lengths: np.ndarray, characters: np.ndarray) -> dict[str, np.ndarray]:
    """`rule_top_{2,3,4}gram` and `rule_repeated_{5..10}grams`, shares of each document's `characters` [D];
    `lengths` [W] are the words'.

    Top: length of the most frequent n-gram (words joined by spaces) times its count, 0 if none occurs twice.
    Repeated: scan from the left; on an n-gram seen before add its letters (no spaces) and jump n words, else 1.
    """
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
        members, starts = repeated(keys)
        # Groups of equal n-grams, each in the order of the text.
        at = first[members]
        candidate[:] = False
        candidate[at] = True
        if n in TOP:
            found = _top(at, starts, letters, document, n, len(total))
            shares[f"rule_top_{n}gram"] = found / total
        if n in REPEATED:
            later = np.ones(len(members), dtype=bool)
            later[starts[:-1]] = False
            group = np.empty(len(keys), dtype=np.int64)
            group[members[later]] = np.repeat(np.arange(len(starts) - 1), np.diff(starts) - 1)
            order = np.sort(members[later])
            hits = _scan(first[order].tolist(), group[order].tolist(), at[starts[:-1]].tolist(), len(document), n)
            found = np.bincount(document[hits], letters[hits + n] - letters[hits], len(total))
            shares[f"rule_repeated_{n}grams"] = found / total
    return shares


def _top(
    at: np.ndarray, starts: np.ndarray, letters: np.ndarray, document: np.ndarray, n: int, size: int
) -> np.ndarray:
    best = np.zeros(size)
    if not len(at):
        return best
    counts = np.diff(starts)
    at = at[starts[:-1]]
    owner = document[at]
    # Most frequent first; of equals the one that comes first in the text.
    order = np.lexsort((at, -counts, owner))
    lead = order[np.concatenate([[True], owner[order][1:] != owner[order][:-1]])]
    length = letters[at[lead] + n] - letters[at[lead]] + n - 1
    best[owner[lead]] = length * counts[lead]
    return best


def _scan(places: list[int], groups: list[int], firsts: list[int], words: int, n: int) -> np.ndarray:
    """Places of the hits. Only `places` where an n-gram of a group occurs again can be one, so only those are
    walked; the group's first place, `firsts[group]`, was passed unless a jump went over it."""
    hits = []
    seen = bytearray(len(firsts))
    jumped = bytearray(words + n)
    over = b"\x01" * (n - 1)
    free = 0
    for place, group in zip(places, groups):
        if place < free:
            continue
        if seen[group] or not jumped[firsts[group]]:
            hits.append(place)
            free = place + n
            jumped[place + 1 : free] = over
        else:
            seen[group] = 1
    return np.array(hits, dtype=np.int64)


def _repeats(parts: list[str]) -> tuple[int, int]:
    """(how many parts occurred before, their characters)."""
    once = set(parts)
    if len(once) == len(parts):
        return 0, 0
    return len(parts) - len(once), sum(map(len, parts)) - sum(map(len, once))


def passes_c4(line: str, notices: bool) -> bool:
    """The line rules of C4: a sentence, no notice (looked for where `notices`), at least 3 words, none longer than
    1000 characters."""
    if "[" in line:
        # A citation cut out may join the two halves of a notice.
        line, notices = _CITATION.sub("", line).strip(), True
    if line[-1:] not in TERMINAL or line.endswith("...") or len(line.split(None, 2)) < 3:
        return False
    if len(line) > 1000 and max(map(len, line.split())) > 1000:
        return False
    if not notices:
        return True
    lowered = line.lower()
    return not any(phrase in lowered for phrase in NOTICES)


def _sentences(line: str) -> int:
    """Sentences of a line that is one at least, by their end marks."""
    if line.find(".", 0, -1) < 0 and line.find("!", 0, -1) < 0 and line.find("?", 0, -1) < 0:
        return 1
    return max(1, len(_SENTENCE_END.findall(line)))


def line_columns(text: str, n_words: int) -> dict[str, float]:
    """Every rule of one text that looks at lines, symbols or phrases; shares of nothing are 0."""
    lines = [line for line in text.split("\n") if line]
    full = [line for line in lines if not line.isspace()]
    paragraphs = [part.strip("\n") for part in text.strip().split("\n\n") if part]
    sizes = list(map(len, full))
    n_lines = max(len(full), 1)
    n_characters = max(len(text), 1)
    repeated_lines, repeated_line_characters = _repeats(lines)
    repeated_full = repeated_line_characters if len(full) == len(lines) else _repeats(full)[1]
    repeated_paragraphs, repeated_paragraph_characters = _repeats(paragraphs)
    stripped = list(map(str.strip, full))
    ends = "".join([line[-1] for line in stripped])
    terminal = [line for line, end in zip(stripped, ends) if end in TERMINAL]
    cited = [line for line, end in zip(stripped, ends) if end == "]"] if "]" in ends else []
    lowered = text.lower()
    notices = any(phrase in lowered for phrase in NOTICES)
    sentences = [line for line in itertools.chain(terminal, cited) if passes_c4(line, notices)]
    ellipses = ends.count("…") + (sum([line.endswith("...") for line in terminal]) if "..." in text else 0)
    breaks = text.count("\n")
    return {
        "rule_hashes_per_word": text.count("#") / max(n_words, 1),
        "rule_ellipses_per_word": sum(text.count(mark) for mark in ELLIPSES) / max(n_words, 1),
        "rule_bullet_lines": sum([line[0] in "•-" for line in stripped]) / n_lines,
        "rule_ellipsis_lines": ellipses / n_lines,
        "rule_duplicate_lines": repeated_lines / max(len(lines), 1),
        "rule_duplicate_line_characters": repeated_line_characters / n_characters,
        "rule_duplicate_paragraphs": repeated_paragraphs / max(len(paragraphs), 1),
        "rule_duplicate_paragraph_characters": repeated_paragraph_characters / n_characters,
        "rule_lorem_ipsum": lowered.count("lorem ipsum"),
        "rule_braces": text.count("{"),
        "rule_c4_lines": len(sentences) / n_lines,
        "rule_c4_sentences": sum(map(_sentences, sentences)),
        "rule_long_lines": sum([size >= 200 for size in sizes]),
        "rule_terminal_lines": len(terminal) / n_lines,
        "rule_short_lines": sum([size <= 30 for size in sizes]) / n_lines,
        "rule_duplicated_characters": repeated_full / max(len(text) - breaks, 1),
        "rule_newlines_per_word": breaks / max(n_words, 1),
        "rule_mean_line": sum(sizes) / n_lines,
        "rule_max_line": max(sizes, default=0),
    }
