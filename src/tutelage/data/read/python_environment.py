"""Everything readable in the running Python environment: the standard library and the installed packages.

Sources, stubs, Markdown, reStructuredText, text, HTML, licences and data files, each file one document; a pile of
mixed real text that is on every machine. Sources are relative (`python/...`, `site-packages/...`), never paths
of the machine, and come in the order of their names. Files that are not strict UTF-8 go into quarantine;
binaries, empty files, links, caches and whatever the fields leave out are counted.
"""

import os
import platform
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Reader
from tutelage.data._python_source import decode_source, docstrings
from tutelage.data.read._files import decode, existing, without_mark
from tutelage.data.read._html import html_to_text
from tutelage.data.read._rows import Rows

CARD = {
    "name": "data.read.python_environment",
    "paper": {"title": "Common practice"},
    "summary": "Reads all text and code of the running Python environment, one document per file.",
    "writes": ["text", "source", "kind", "package"],
    "needs": [],
    "cost": "one pass over the files, tens of MB per second",
    "baseline": None,
    "headline": "A large pool of mixed real files without a download.",
    "version": 1,
}
Kind = Literal["python", "markdown", "rst", "text", "licence", "data", "html", "stub", "docstring"]
ALL_FILES: tuple[Kind, ...] = ("python", "markdown", "rst", "text", "licence", "data", "html", "stub")
_BY_SUFFIX: dict[str, Kind] = {
    ".py": "python",
    ".pyi": "stub",
    ".md": "markdown",
    ".markdown": "markdown",
    ".rst": "rst",
    ".txt": "text",
    ".html": "html",
    ".htm": "html",
}
_BINARY = frozenset(
    ".pyc .pyo .so .pyd .dll .dylib .exe .a .o .lib .whl .zip .gz .bz2 .xz .zst .tar .tgz .egg .jar .png .jpg "
    ".jpeg .gif .ico .bmp .tif .tiff .webp .pdf .docx .xlsx .ttf .otf .woff .woff2 .eot .wav .mp3 .mp4 .npy .npz "
    ".mat .pkl .pickle .pt .pth .bin .onnx .safetensors .parquet .arrow .feather .h5 .hdf5 .db .sqlite .sqlite3 "
    ".mo".split()
)
_LICENCES = ("licen", "copying", "notice", "authors", "copyright")
_TEXTS = ("readme", "metadata", "changelog", "changes", "news", "history")
_CACHES = {"__pycache__", "site-packages", "dist-packages", "node_modules"}
_TESTS = {"test", "tests", "idle_test"}


def kind_of(folder: str, name: str) -> Kind:
    """The kind of a file, by its name and that of its folder."""
    lower = name.lower()
    suffix = os.path.splitext(lower)[1]  # noqa: PTH122 (called for every file: pathlib is several times slower)
    if suffix not in (".py", ".pyi", ".html", ".json") and (
        lower.startswith(_LICENCES) or folder.endswith(("licenses", "LICENSES", "license_files"))
    ):
        return "licence"
    return _BY_SUFFIX.get(suffix) or ("text" if lower.startswith(_TEXTS) and not suffix[1:].isalpha() else "data")


def package_of(relative: str) -> str:
    """The package that a file belongs to: its top folder or module, without a distribution's version."""
    top = relative.split("/", 1)[0]
    if top.endswith((".dist-info", ".egg-info", ".data")):
        return top.split("-", 1)[0].lower()
    return top.removesuffix(".pyi").removesuffix(".py")


class PythonEnvironment(Reader):
    """`kinds` of documents to read (`docstring`: the docstrings of each module as a document, parsed, slower);
    files larger than `max_bytes` and, without `include_tests`, test folders and modules are left out."""

    kinds: tuple[Kind, ...] = Field(default=ALL_FILES, min_length=1)
    max_bytes: int = Field(default=1_000_000, ge=1)
    include_tests: bool = False
    limit: int | None = Field(default=None, ge=1)

    def read(self, path: str | None = None) -> Dataset:
        """The documents of the running environment, or of the package folder at `path`."""
        if path is not None:
            roots = [("", existing(path, self.name))]
        else:
            places = sysconfig.get_paths()
            packages = sorted({places["purelib"], places["platlib"]})
            roots = [("python/", Path(places["stdlib"])), *(("site-packages/", Path(p)) for p in packages)]
        rows = Rows(self.name, roots[0][1], "quarantine", self.limit)
        for prefix, root in roots:
            for file, relative in self._files(str(root), "", rows):
                if rows.full:
                    break
                self._add(file, prefix, relative, rows)
        return rows.finish({"python": platform.python_version()})

    def _files(self, folder: str, relative: str, rows: Rows) -> Iterator[tuple[os.DirEntry[str], str]]:
        try:
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            rows.ignore("folder that cannot be opened")
            return
        for entry in entries:
            name = entry.name
            if entry.is_symlink():
                rows.ignore("link")
            elif entry.is_dir():
                if name in _CACHES or name.startswith("."):
                    continue
                if name in _TESTS and not self.include_tests:
                    rows.ignore("test folder")
                    continue
                yield from self._files(entry.path, f"{relative}{name}/", rows)
            else:
                yield entry, relative + name

    def _add(self, file: os.DirEntry[str], prefix: str, relative: str, rows: Rows) -> None:
        folder, _, name = relative.rpartition("/")
        kind = kind_of(folder, name)
        reason = self._left_out(file, kind)
        if reason:
            rows.ignore(reason)
            return
        source = prefix + relative
        try:
            with open(file.path, "rb") as stream:  # noqa: PTH123
                data = stream.read()
        except OSError:
            rows.ignore("file that cannot be opened")
            return
        if b"\0" in data[:65536]:
            rows.ignore("binary")
            return
        rows.files += 1
        row = {"source": source, "package": package_of(relative)}
        try:
            text = decode(without_mark(data))
            if not text or text.isspace():
                rows.ignore("empty")
                return
            if kind == "html":
                text = html_to_text(text)
            if kind in self.kinds:
                rows.add_document({"id": source, "text": text, "kind": kind, **row})
            if kind == "python" and "docstring" in self.kinds and not rows.full:
                found = "\n\n".join(docstrings(decode_source(data)))
                if found:
                    rows.add_document({"id": f"{source}#docstrings", "text": found, "kind": "docstring", **row})
        except InputError as error:
            rows.bad(error, source)

    def _left_out(self, file: os.DirEntry[str], kind: Kind) -> str:
        name = file.name
        if os.path.splitext(name)[1].lower() in _BINARY:  # noqa: PTH122
            return "binary"
        if kind not in self.kinds and not (kind == "python" and "docstring" in self.kinds):
            return f"kind {kind}"
        if not self.include_tests and kind == "python" and (name.startswith("test_") or name == "conftest.py"):
            return "test module"
        return "larger than max_bytes" if file.stat().st_size > self.max_bytes else ""
