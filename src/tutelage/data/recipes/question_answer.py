"""Question-answer pairs from documents, by template: a heading gives the topic, its first paragraph the answer.

prompt = template with {topic} replaced by the heading; completion = the first paragraph below the heading that
has at least `min_words` words and is prose (no list, table, literal or code block). Headings are those of
Markdown (`# Topic`) and of reStructuredText (a line underlined with punctuation). Templates take turns over
the headings of a document. No model is involved, so nothing can be made up.
"""

import re
from collections.abc import Iterator
from typing import Any

from pydantic import Field, field_validator

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Transform
from tutelage.data.recipes._derive import CARRIED, derive

CARD = {
    "name": "data.recipes.question_answer",
    "paper": {"title": "Common practice"},
    "summary": "Makes prompt and completion pairs from headings and their paragraphs.",
    "reads": ["{column}"],
    "writes": ["prompt", "completion", "topic", "source_id", "group"],
    "needs": [],
    "cost": "one pass over the text",
    "baseline": None,
    "headline": "Instruction data from any documentation; every answer is a quotation.",
    "version": 1,
}
_HASH_HEADING = re.compile(r"#{1,6}\s+(.+?)\s*#*")
_UNDERLINE = re.compile(r"([=\-~^\"'*+#.:_`])\1{2,}")
_FENCE = re.compile(r"\s*(```|~~~)")
_NOT_PROSE = re.compile(r"\s*(?:[-*+|>]\s|\d+[.)]\s|\||\.\. |```|~~~|>>>)")


def sections(text: str) -> Iterator[tuple[str, list[str]]]:
    """(heading, paragraphs below it up to the next heading), in order; code blocks are left out."""
    lines = text.splitlines()
    heading, fenced, skip = "", False, False
    paragraphs: list[str] = []
    current: list[str] = []
    for number, line in enumerate(lines):
        if skip:
            skip = False
            continue
        if _FENCE.match(line):
            fenced, current = not fenced, []
            continue
        if fenced:
            continue
        found = _heading(line, lines[number + 1] if number + 1 < len(lines) else "")
        if found:
            if current:
                paragraphs.append("\n".join(current))
            if heading:
                yield heading, paragraphs
            heading, paragraphs, current = found, [], []
            skip = not line.startswith("#")
        elif line.strip():
            current.append(line)
        elif current:
            paragraphs.append("\n".join(current))
            current = []
    if current:
        paragraphs.append("\n".join(current))
    if heading:
        yield heading, paragraphs


def _heading(line: str, following: str) -> str:
    match = _HASH_HEADING.fullmatch(line)
    if match:
        return match[1]
    title = line.strip()
    underline = following.strip()
    if title and line == line.lstrip() and _UNDERLINE.fullmatch(underline) and not _UNDERLINE.fullmatch(title):
        return title if len(underline) >= len(title) else ""
    return ""


def answer(paragraphs: list[str], min_words: int) -> str:
    """The first paragraph of prose with enough words, on one line; empty when there is none."""
    for paragraph in paragraphs:
        indented = all(line.startswith(("    ", "\t")) for line in paragraph.split("\n"))
        words = paragraph.split()
        if not indented and not _NOT_PROSE.match(paragraph) and len(words) >= min_words:
            return " ".join(words)
    return ""


class QuestionAnswer(Transform):
    """`templates` ask for a {topic}; `min_words` is the shortest answer; `carry` names the columns copied to
    every pair."""

    templates: tuple[str, ...] = Field(
        default=("What does the documentation say about {topic}?", "Explain {topic}."), min_length=1
    )
    min_words: int = Field(default=8, ge=1)
    column: str = "text"
    carry: tuple[str, ...] = CARRIED

    @field_validator("templates")
    @classmethod
    def _ask_for_topic(cls, templates: tuple[str, ...]) -> tuple[str, ...]:
        for template in templates:
            if "{topic}" not in template:
                raise ValueError(f"every template must contain {{topic}}; {template!r} does not")
        return templates

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        """One row per heading that has an answer; documents without one are dropped."""

        def make(text: str, row: dict[str, Any]) -> "Iterator[dict[str, Any]] | str":
            pairs = [(topic, answer(found, self.min_words)) for topic, found in sections(text)]
            if not any(reply for _, reply in pairs):
                return "no heading with a paragraph of prose below it" if pairs else "no heading"
            asked = ((topic, reply) for topic, reply in pairs if reply)
            return (
                {
                    "prompt": self.templates[number % len(self.templates)].replace("{topic}", topic),
                    "completion": reply,
                    "topic": topic,
                }
                for number, (topic, reply) in enumerate(asked)
            )

        return derive(dataset, self.column, self.carry, make)
