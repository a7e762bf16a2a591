"""A folder of text, Markdown, reStructuredText and HTML files: every file becomes one document.

The id of a document is its path relative to the folder, with forward slashes. Text is decoded strictly as
UTF-8; HTML becomes the text that a reader of the page sees, headings marked with `#`. Files that cannot be
decoded go into quarantine; files with other suffixes are counted, not read; links out of the folder are not
followed.
"""

from pathlib import Path

from tutelage.core.errors import InputError
from tutelage.core.method import Reader
from tutelage.data.read._files import read_text
from tutelage.data.read._html import html_to_text
from tutelage.data.read._reader import TreeReader
from tutelage.data.read._rows import Rows

CARD = {
    "name": "data.read.text",
    "paper": {"title": "Common practice"},
    "summary": "Reads a folder (or one file) of text, Markdown, reStructuredText and HTML as documents.",
    "writes": ["text", "source", "kind"],
    "needs": [],
    "cost": "one pass over the files",
    "baseline": None,
    "headline": "Nothing is lost silently: every file is a document, in quarantine, or counted as left out.",
    "version": 1,
}
KINDS = {
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".rst": "rst",
    ".html": "html",
    ".htm": "html",
}


class Text(TreeReader, Reader):
    """`suffixes` are the files to read, with their dot; one that is not known is read as plain text."""

    suffixes: tuple[str, ...] = tuple(KINDS)

    def takes(self, file: Path, root: Path) -> bool:
        return file.suffix.lower() in self.suffixes or file == root

    def read_into(self, file: Path, name: str, rows: Rows) -> None:
        """Add one file as a document called `name` to `rows`."""
        rows.files += 1
        kind = KINDS.get(file.suffix.lower(), "text")
        try:
            text = read_text(file)
            if kind == "html":
                text = html_to_text(text)
            if not text:
                raise InputError("a page holds no text", expected="text outside of scripts and styles")
        except InputError as error:
            rows.bad(error, name)
            return
        rows.add({"id": name, "text": text, "source": name, "kind": kind}, name)
