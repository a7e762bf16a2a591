"""What counts as the same text, and where paragraphs and lines repeat.

The canonical form is NFC, lower-cased, white space collapsed; decisions use 128-bit hashes of it, so that two
different texts are never taken for one.
"""

import hashlib
import unicodedata


def canonical(text: str, strict: bool = False) -> str:
    """The form in which texts are compared; `strict` leaves the text as it is."""
    return text if strict else " ".join(unicodedata.normalize("NFC", text).lower().split())


def digest128(text: str) -> bytes:
    """128-bit hash of a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def paragraphs(text: str) -> list[tuple[int, int]]:
    """(start, end) of every line that is not blank, in code points; a span includes its line break."""
    spans = []
    start = 0
    for line in text.splitlines(keepends=True):
        if line.strip():
            spans.append((start, start + len(line)))
        start += len(line)
    return spans


def cut(text: str, spans: list[tuple[int, int]]) -> str:
    """`text` without `spans` (sorted, not overlapping)."""
    kept, at = [], 0
    for start, end in spans:
        kept.append(text[at:start])
        at = end
    kept.append(text[at:])
    return "".join(kept)
