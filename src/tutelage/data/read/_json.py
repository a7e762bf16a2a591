"""JSON records as a stream: one object per line, or the items of one array, with the place of each."""

import codecs
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from tutelage.core.errors import InputError
from tutelage.data.read._files import damaged, decode, empty_file, lines, open_binary, without_mark
from tutelage.data.read._rows import Rows

_SPACE = " \t\r\n"
# NaN and infinities are read as Python reads them and refused by `_types`, which knows the column.
_DECODER = json.JSONDecoder()


def records(path: Path, name: str, rows: Rows) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of every record of a file; what is no record goes to `rows.bad`."""
    try:
        with open_binary(path) as stream:
            head = _peek(stream)
            found = _items if without_mark(head).lstrip()[:1] == b"[" else _lines
            some = False
            for place, value in found(stream, name, rows):
                some = True
                if value is None:
                    continue
                if isinstance(value, dict):
                    yield place, value
                else:
                    rows.bad(_not_an_object(value), name, place, str(value))
            if not some:
                raise empty_file()
    except InputError as error:
        # Errors of `rows` carry their place already; these are about the file as a whole.
        if error.where is not None:
            raise
        rows.bad(error, name)


def _peek(stream: BinaryIO) -> bytes:
    try:
        return stream.peek(64)  # type: ignore[attr-defined]
    except (EOFError, OSError, zlib.error) as error:
        raise damaged(error) from None


def _lines(stream: BinaryIO, name: str, rows: Rows) -> Iterator[tuple[str, Any]]:
    for number, line in lines(stream):
        if not line.strip():
            continue
        place = f"line {number}"
        value = None
        try:
            value = _parse(decode(line), torn=not line.endswith(b"\n"))
        except InputError as error:
            rows.bad(error, name, place, line[:2000].decode("utf-8", "backslashreplace"))
        yield place, value


def _parse(text: str, torn: bool) -> Any:
    try:
        value = _DECODER.decode(text)
    except RecursionError:
        raise InputError("JSON is nested too deeply", expected="at most some hundred levels") from None
    except ValueError as error:
        detail = str(error)
        if torn:
            raise InputError(
                "the last line is torn",
                expected="a complete JSON object and a line end",
                found=f"{text[-60:]!r} and then the end of the file",
                remedy="write the file again, or set on_error: quarantine to leave the line out",
            ) from None
        raise InputError(
            "a line is not JSON",
            expected="one JSON object per line",
            found=f"{detail}: {text.strip()[:80]!r}",
            remedy="write each row as one JSON object on its own line (an array of objects is read too)",
        ) from None
    # `null` would look like a line that was dealt with already.
    return [] if value is None else value


def _not_an_object(value: Any) -> InputError:
    return InputError(
        "a line is not a JSON object",
        expected='an object such as {"text": "..."}',
        found=f"{type(value).__name__}: {str(value)[:80]!r}",
        remedy="wrap the value in an object with a column name",
    )


def _items(stream: BinaryIO, name: str, rows: Rows) -> Iterator[tuple[str, Any]]:
    """The items of one array, reading ahead only as far as the item at hand needs."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    buffer, ended, number, size = "", False, 0, 1 << 16

    def more() -> None:
        nonlocal buffer, ended, size
        try:
            block = stream.read(size)
            buffer = buffer + decoder.decode(without_mark(block) if not number else block, final=not block)
        except UnicodeDecodeError as error:
            raise InputError(
                "text is not valid UTF-8",
                expected="UTF-8",
                found=f"byte 0x{error.object[error.start]:02x} near item {number + 1}",
                remedy="convert the file to UTF-8 from its real encoding",
            ) from None
        except (EOFError, OSError, zlib.error) as error:
            raise damaged(error) from None
        ended = not block
        size *= 2

    more()
    buffer = buffer.lstrip(_SPACE)[1:]
    while True:
        buffer = buffer.lstrip(_SPACE + ("," if number else ""))
        if not buffer and not ended:
            more()
            continue
        if buffer.startswith("]"):
            return
        try:
            value, end = _DECODER.raw_decode(buffer)
            complete = ended or buffer[end : end + 1] in (",", "]") or buffer[end:].lstrip(_SPACE) != ""
        except RecursionError:
            raise InputError("JSON is nested too deeply", where=None, found=f"item {number + 1}") from None
        except ValueError as error:
            if ended:
                raise InputError(
                    "a JSON array is torn or broken",
                    expected="items separated by commas, then ]",
                    found=f"{error} in item {number + 1}: {buffer[:60]!r}",
                    remedy="write the file again; with on_error: quarantine the items before are kept",
                ) from None
            complete = False
        if not complete:
            more()
            continue
        number += 1
        size = 1 << 16
        buffer = buffer[end:]
        yield f"item {number}", [] if value is None else value
