"""What counts as the same text, and which lines or paragraphs of a corpus repeat earlier ones.

The canonical form is NFC, lower-cased, white space collapsed; decisions use 128-bit hashes of it, so that two
different texts are never taken for one. Of equal pieces the first in (id, position) order is the original: the
result does not depend on the order of the rows.
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from typing import Literal

import numpy as np

Unit = Literal["line", "paragraph"]
Spans = list[tuple[int, int]]


def canonical(text: str, strict: bool = False) -> str:
    """The form in which texts are compared; `strict` leaves the text as it is."""
    return text if strict else " ".join(unicodedata.normalize("NFC", text).lower().split())


def digest128(text: str) -> bytes:
    """128-bit hash of a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def pieces(text: str, unit: Unit) -> Spans:
    """(start, end) in code points of every line, or run of lines between blank ones, that is not blank.

    A span includes its last line break.
    """
    spans: Spans = []
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        if not text[start:end].isspace():
            if unit == "paragraph" and spans and spans[-1][1] == start:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
        start = end
    return spans


def cut(text: str, spans: Spans) -> str:
    """`text` without `spans` (sorted, not overlapping)."""
    kept, at = [], 0
    for start, end in spans:
        kept.append(text[at:start])
        at = end
    kept.append(text[at:])
    return "".join(kept)


def repeated_spans(rows: Iterable[tuple[str, str]], unit: Unit, min_characters: int) -> dict[str, Spans]:
    """For every id that has any: the spans of its pieces that repeat an earlier piece of the corpus.

    `rows` are (id, text); earlier means a lower id, or the same id and further up. Pieces with fewer than
    `min_characters` in canonical form never count as repeated.
    """
    digests: list[bytes] = []
    owners: list[int] = []
    spans: Spans = []
    ids: list[str] = []
    for identifier, text in rows:
        for start, end in pieces(text, unit):
            form = canonical(text[start:end])
            if len(form) >= min_characters:
                digests.append(digest128(form))
                owners.append(len(ids))
                spans.append((start, end))
        ids.append(identifier)
    if not spans:
        return {}
    rank = np.empty(len(ids), dtype=np.int64)
    rank[np.argsort(np.array(ids, dtype=object), kind="stable")] = np.arange(len(ids))
    halves = np.frombuffer(b"".join(digests), dtype=np.uint64).reshape(-1, 2)
    starts = np.array([start for start, _ in spans])
    order = np.lexsort((starts, rank[owners], halves[:, 1], halves[:, 0]))
    ordered = halves[order]
    later = order[1:][(ordered[1:] == ordered[:-1]).all(axis=1)]
    found: dict[str, Spans] = {}
    for piece in np.sort(later).tolist():
        found.setdefault(ids[owners[piece]], []).append(spans[piece])
    return found
