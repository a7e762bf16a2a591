"""Paths, bytes and characters: finding files, opening compressed ones, decoding strictly, naming what is wrong."""

import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from tutelage.core.errors import ConfigError, InputError, suggest
from tutelage.data.read._rows import Rows

COMPRESSED = (".gz", ".zst")
_BLOCK = 1 << 20
# When a compressed file breaks off, what was read ahead is lost: small steps keep the rows before it.
_SMALL_BLOCK = 1 << 16
# What one record of a compressed file, or a compressed document, may be: a small file can hold gigabytes.
LARGEST_RECORD = 64 << 20
_SKIPPED_FOLDERS = {"__pycache__", "node_modules"}
_WIDE_MARKS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_UTF8_MARK = b"\xef\xbb\xbf"


def existing(path: str | os.PathLike[str] | None, reader: str) -> Path:
    """`path` as a Path that exists; raises ConfigError without one and InputError when nothing is there."""
    if path is None:
        raise ConfigError(f"{reader} needs a path", expected="a file or folder", remedy="give the source a path")
    found = Path(path)
    if not found.exists():
        beside = [p.name for p in found.parent.iterdir()] if found.parent.is_dir() else []
        raise InputError(
            "there is no such file or folder",
            where=found,
            expected="a file or folder",
            found="nothing",
            remedy=suggest(found.name, beside) if beside else f"check {found.parent}, which is no folder",
        )
    return found


def plain_suffix(path: Path) -> str:
    """The suffix in lower case, without that of the compression."""
    return Path(path.stem).suffix.lower() if path.suffix.lower() in COMPRESSED else path.suffix.lower()


def walk(root: Path, rows: Rows) -> Iterator[tuple[Path, str]]:
    """Files below `root` in a fixed order with their names relative to it (forward slashes).

    Hidden files and folders are left out. A link is followed only to a file inside `root`; others are bad.
    """
    inside = root.resolve()
    for folder, folders, files in os.walk(root, followlinks=False):
        here = Path(folder)
        for name in sorted(folders):
            if (here / name).is_symlink():
                rows.bad(_link("a link to a folder", here / name), (here / name).relative_to(root).as_posix())
                folders.remove(name)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in _SKIPPED_FOLDERS)
        for name in sorted(files):
            file = here / name
            relative = file.relative_to(root).as_posix()
            if name.startswith("."):
                rows.ignore("hidden")
            elif file.is_symlink() and not file.resolve().is_relative_to(inside):
                rows.bad(_link("a link that leaves the folder", file), relative)
            else:
                yield file, relative


def _link(what: str, file: Path) -> InputError:
    return InputError(
        f"{what} is not followed",
        expected="files inside the folder",
        found=f"a link to {file.readlink()}",
        remedy="copy what it points to into the folder, or remove the link",
    )


def damaged(error: Exception) -> InputError:
    """The error for a compressed or binary file that ends too early or does not add up."""
    return InputError(
        "a file is truncated or damaged",
        expected="a complete file",
        found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no details'}",
        remedy="copy or download the file again; with on_error: quarantine what was readable is kept",
    )


def open_binary(path: Path) -> BinaryIO:
    """The file's bytes as a stream, decompressed by suffix (.gz, .zst)."""
    try:
        if path.suffix.lower() == ".gz":
            return gzip.open(path, "rb")  # type: ignore[return-value]
        if path.suffix.lower() == ".zst":
            # Arrow's decoder notices a frame that ends too early; zstandard's stream reader does not.
            return io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"), _SMALL_BLOCK)
        return path.open("rb", buffering=_BLOCK)
    except OSError as error:
        raise unreadable(error) from None


def largest_record(path: Path) -> int:
    """How many bytes one record of the file may have; as many as there are where it is not compressed."""
    return LARGEST_RECORD if path.suffix.lower() in COMPRESSED else sys.maxsize


def too_large(most: int) -> InputError:
    """The error for a record of a compressed file that is larger than any row."""
    return InputError(
        "a compressed file holds a record that is too large",
        expected=f"records of at most {most >> 20} MB",
        found="more, without an end",
        remedy="if the file is what it should be, decompress it first: the limit is for compressed files alone",
    )


def unreadable(error: OSError) -> InputError:
    """The error for a file that the system does not let us read."""
    return InputError(
        "a file cannot be read",
        expected="a readable file",
        found=error.strerror or str(error),
        remedy="check its permissions, and that it is a file",
    )


def read_bytes(path: Path) -> bytes:
    """All bytes of a small file, decompressed by suffix."""
    try:
        most = largest_record(path)
        with open_binary(path) as stream:
            data = stream.read() if most == sys.maxsize else stream.read(most + 1)
        if len(data) > most:
            raise too_large(most)
        return data
    except (EOFError, OSError, zlib.error) as error:
        raise damaged(error) from None


def lines(stream: BinaryIO, largest: int = sys.maxsize) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers from 1, line ends kept, without the byte-order mark of UTF-8; raises InputError for
    one of more than `largest` bytes."""
    number = 0
    while True:
        try:
            line = stream.readline(-1 if largest == sys.maxsize else largest + 1)
        except (EOFError, OSError, zlib.error) as error:
            raise damaged(error) from None
        if not line:
            return
        if len(line) > largest:
            raise too_large(largest)
        number += 1
        yield number, without_mark(line) if number == 1 else line


def without_mark(data: bytes) -> bytes:
    """The bytes without the mark of UTF-8; raises InputError for the marks of UTF-16 and UTF-32."""
    for mark, name in _WIDE_MARKS.items():
        if data.startswith(mark):
            raise InputError(
                f"a file is {name}, not UTF-8",
                expected="UTF-8",
                found=f"the byte-order mark of {name}",
                remedy=f"save the file as UTF-8 (for example: iconv -f {name} -t UTF-8)",
            )
    return data.removeprefix(_UTF8_MARK)


def decode(data: bytes) -> str:
    """The text of UTF-8 bytes; raises InputError that names the first wrong byte."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            "text is not valid UTF-8",
            expected="UTF-8",
            found=f"byte 0x{data[error.start]:02x} at byte {error.start + 1}",
            remedy="convert it to UTF-8 from its real encoding (often Windows-1252 or Latin-1)",
        ) from None


def read_text(path: Path) -> str:
    """The text of a file; raises InputError when it is empty, UTF-16 or not valid UTF-8."""
    text = decode(without_mark(read_bytes(path)))
    if not text.strip():
        raise empty_file()
    return text


def empty_file() -> InputError:
    """The error for a file without contents."""
    return InputError(
        "a file is empty",
        expected="at least one row",
        found="no contents",
        remedy="remove the file, or write it again",
    )
