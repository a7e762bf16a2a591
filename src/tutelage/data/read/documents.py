"""PDF and DOCX files as documents, through pypdf and python-docx (extra `documents`).

A PDF's text is that of its pages, separated by blank lines; a scan without a text layer holds no text and is
an error. A DOCX's text is its paragraphs and tables in order, headings marked with `#`, cells separated by
tabs. Ids and sources are paths relative to the folder.
"""

import logging
import zipfile
from pathlib import Path
from typing import Any

from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Reader
from tutelage.data.read._reader import TreeReader
from tutelage.data.read._rows import Rows

CARD = {
    "name": "data.read.documents",
    "paper": {"title": "Common practice"},
    "summary": "Reads PDF and DOCX files of a folder (or one file) as documents.",
    "writes": ["text", "source", "kind"],
    "needs": ["documents"],
    "cost": "one pass over the files; PDF about a page per 10 ms",
    "baseline": None,
    "headline": "Plain text and headings; no layout, no optical character recognition.",
    "version": 1,
}
SUFFIXES = (".pdf", ".docx")
LARGEST_PACKAGE = 200 << 20


def pdf_text(file: Path) -> str:
    """The text of all pages; raises InputError for an encrypted file."""
    pypdf = _library("pypdf")
    # What it says of a file's defects is said once, by the error, if there is one.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    with file.open("rb") as stream:
        reader = pypdf.PdfReader(stream)
        if reader.is_encrypted and not reader.decrypt(""):
            raise InputError(
                "a PDF is encrypted",
                expected="a file that opens without a password",
                remedy="save a copy without a password",
            )
        return "\n\n".join(page.extract_text().strip() for page in reader.pages).strip()


def docx_text(file: Path) -> str:
    """Paragraphs and tables in document order."""
    docx = _library("docx")
    _check_size(file)
    parts = []
    for block in docx.Document(str(file)).iter_inner_content():
        if hasattr(block, "rows"):
            parts.append("\n".join("\t".join(cell.text for cell in row.cells) for row in block.rows))
        elif block.text.strip():
            style = (block.style.name or "") if block.style is not None else ""
            level = style.removeprefix("Heading ") if style.startswith("Heading ") else ""
            mark = "#" * int(level) + " " if level.isdigit() else "# " if style == "Title" else ""
            parts.append(mark + block.text)
    return "\n\n".join(parts)


def _check_size(file: Path) -> None:
    """Raise InputError for a package whose parts are larger than any document: a small file can hold gigabytes."""
    with zipfile.ZipFile(file) as package:
        size = sum(part.file_size for part in package.infolist())
    if size > LARGEST_PACKAGE:
        raise InputError(
            "a DOCX file unpacks to too much",
            expected=f"at most {LARGEST_PACKAGE >> 20} MB of parts",
            found=f"{size >> 20} MB",
            remedy="if it is a document, save its text in another format",
        )


def _library(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError:
        raise ConfigError(
            "reading PDF and DOCX files needs an extra",
            where="data.read.documents",
            expected="the extra documents (pypdf, python-docx)",
            found=f"no module {name}",
            remedy="pip install 'tutelage[documents]'",
        ) from None


class Documents(TreeReader, Reader):
    """All PDF and DOCX files below a folder, in the order of their names."""

    def takes(self, file: Path, root: Path) -> bool:
        return file.suffix.lower() in SUFFIXES

    def read_into(self, file: Path, name: str, rows: Rows) -> None:
        """Add one file as a document called `name` to `rows`."""
        rows.files += 1
        kind = file.suffix.lower().removeprefix(".")
        try:
            text = _text(file, kind)
        except InputError as error:
            rows.bad(error, name)
            return
        rows.add({"id": name, "text": text, "source": name, "kind": kind}, name)


def _text(file: Path, kind: str) -> str:
    try:
        text = pdf_text(file) if kind == "pdf" else docx_text(file)
    except (ConfigError, InputError):
        raise
    except Exception as error:
        # Hostile or broken files make these libraries fail in dozens of ways; all mean the same here.
        raise InputError(
            f"a {kind.upper()} file cannot be read",
            expected=f"a complete {kind.upper()} file",
            found=f"{type(error).__name__}: {str(error)[:100]}",
            remedy="open it in its program and save it again",
        ) from None
    if not text.strip():
        raise InputError(
            "a document holds no text",
            expected="text",
            found=f"a {kind.upper()} file without any (a scan?)",
            remedy="recognise its text first, or remove the file",
        )
    return text.encode("utf-8", "replace").decode()
