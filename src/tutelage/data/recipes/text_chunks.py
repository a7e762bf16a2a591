r"""Documents cut into chunks of at most `characters` (or `words`), at the coarsest boundary that fits.

A text is split at blank lines; a piece that is still too long at line ends, then after sentences, then between
words, at last anywhere. Neighbouring pieces are joined again while they fit:
chunk_1 + chunk_2 + ... + chunk_n = text, len(strip(chunk_i)) <= characters, and no chunk is blank (white space
between chunks belongs to the chunk before it and is not counted).
"""

import itertools
import re
from collections.abc import Iterator
from typing import Any, Self

from pydantic import Field, model_validator

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.data.recipes._derive import CARRIED, derive

CARD = {
    "name": "data.recipes.text_chunks",
    "paper": {"title": "Common practice"},
    "summary": "Splits documents into chunks at paragraph, line, sentence or word boundaries.",
    "reads": ["{column}"],
    "writes": ["text", "source_id", "group"],
    "needs": [],
    "cost": "one pass over the text",
    "baseline": None,
    "headline": "The chunks of a document, joined, are the document.",
    "version": 1,
}
# What ends a piece, from coarse to fine; a piece keeps its end.
_BOUNDARIES = (
    re.compile(r"\n[ \t\r\f\v]*\n\s*"),
    re.compile(r"\n"),
    re.compile(r"[.!?][\"')\]]*\s+"),
    re.compile(r"(?<=\S)\s+"),
)


def chunks(text: str, limit: int, by_words: bool = False) -> list[str]:
    """The chunks of `text` of at most `limit` characters (or words), in order; joined they are the text."""
    return _split(text, limit, by_words, 0)


def _size(text: str, by_words: bool) -> int:
    return len(text.split()) if by_words else len(text.strip())


def _split(text: str, limit: int, by_words: bool, level: int) -> list[str]:
    if _size(text, by_words) <= limit:
        return [text]
    if level == len(_BOUNDARIES):
        return _cut(text, limit)
    found: list[str] = []
    current, length = "", 0
    for piece in _pieces(text, _BOUNDARIES[level]):
        # `length` runs from the first visible character of `current` on (0: none yet) and counts white space
        # between pieces; for words it is their number.
        size = _size(piece, by_words)
        grown = len(piece.split()) if by_words else len(piece) if length else len(piece.lstrip())
        ends = 0 if by_words or not length else len(piece) - len(piece.rstrip())
        if not size or not length or length + grown - ends <= limit:
            current, length = current + piece, length + grown
        else:
            found += _split(current, limit, by_words, level + 1)
            current, length = piece, size if by_words else len(piece.lstrip())
    return found + _split(current, limit, by_words, level + 1)


def _pieces(text: str, boundary: re.Pattern[str]) -> Iterator[str]:
    start = 0
    for end in (*(match.end() for match in boundary.finditer(text)), len(text)):
        if end > start:
            yield text[start:end]
            start = end


def _cut(text: str, limit: int) -> list[str]:
    """Pieces of `limit` characters of one long word; white space around it stays with its first and last."""
    start = len(text) - len(text.lstrip())
    end = len(text.rstrip())
    marks = [0, *range(start + limit, end, limit), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(marks)]


class TextChunks(Transform):
    """Exactly one of `characters` (default 1200) and `words` is the largest size of a chunk; `carry` names the
    columns copied to every chunk."""

    characters: int | None = Field(default=None, ge=20)
    words: int | None = Field(default=None, ge=5)
    column: str = "text"
    carry: tuple[str, ...] = CARRIED

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.characters is not None and self.words is not None:
            raise ValueError("give characters or words, not both")
        return self

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """One row per chunk; blank documents are dropped."""

        def make(text: str, row: dict[str, Any]) -> "Iterator[dict[str, Any]] | str":
            if not text.strip():
                return "no text"
            limit = self.words or self.characters or 1200
            return ({"text": chunk} for chunk in chunks(text, limit, by_words=self.words is not None))

        return derive(dataset, self.column, self.carry, make)
