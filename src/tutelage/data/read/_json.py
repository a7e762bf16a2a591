"""JSON records as a stream: one object per line, or the items of one array, with the place of each.

Lines whose values are all text may be taken a block at a time, as a table that Arrow parses. A block in which
anything is not as it should be is read line by line, so that errors are the same and name their line.
"""

import codecs
import functools
import io
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.json

from tutelage.core import json_text
from tutelage.core.errors import InputError
from tutelage.data.read._files import (
    damaged,
    decode,
    empty_file,
    largest_record,
    lines,
    open_binary,
    too_large,
    without_mark,
)
from tutelage.data.read._rows import Rows

_SPACE = " \t\r\n"
# NaN and infinities are read as Python reads them and refused by `_types`, which knows the column.
_DECODER = json.JSONDecoder()
_BLOCK = 1 << 21  # bytes of lines parsed at once
_BREAK, _BRACE = b"\n{"
# Takes a table of text columns and says whether it did.
Take = Callable[[pa.Table], bool]


def records(path: Path, name: str, rows: Rows, take: Take | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, object) of every record of a file that `take` did not take with its block; what is no record goes to
    `rows.bad`."""
    try:
        with open_binary(path) as stream:
            head = _peek(stream)
            array = without_mark(head).lstrip()[:1] == b"["
            found = _items if array else functools.partial(_lines, take=take)
            some = False
            for place, value in found(stream, name, rows, largest=largest_record(path)):
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


def _lines(stream: BinaryIO, name: str, rows: Rows, take: Take | None, largest: int) -> Iterator[tuple[str, Any]]:
    number = 0
    for block in _blocks(stream, largest):
        table = text_table(block) if take else None
        if take and table is not None and take(table):
            yield "", None
            if rows.full:
                return
            number += table.num_rows
            continue
        for line in io.BytesIO(block):
            number += 1
            if line.isspace():
                continue
            place = f"line {number}"
            value = None
            try:
                value = _parse(decode(line), torn=not line.endswith(b"\n"))
            except InputError as error:
                rows.bad(error, name, place, line[:2000].decode("utf-8", "backslashreplace"))
            yield place, value


def _blocks(stream: BinaryIO, largest: int) -> Iterator[bytes]:
    """Runs of whole lines of about `_BLOCK` bytes."""
    if not (isinstance(stream, io.BufferedReader) and isinstance(stream.raw, io.FileIO)):
        yield from _compressed_blocks(stream, largest)
        return
    first = True
    try:
        while block := stream.read(_BLOCK):
            block += stream.readline()
            yield without_mark(block) if first else block
            first = False
    except OSError as error:
        raise damaged(error) from None


def _compressed_blocks(stream: BinaryIO, largest: int) -> Iterator[bytes]:
    """As `_blocks`; where the stream breaks off, the lines before come first."""
    held: list[bytes] = []
    total = 0
    broken: InputError | None = None
    try:
        for _, line in lines(stream, largest):
            held.append(line)
            total += len(line)
            if total >= _BLOCK:
                yield b"".join(held)
                held, total = [], 0
    except InputError as error:
        broken = error
    yield b"".join(held)
    if broken is not None:
        raise broken


def text_table(block: bytes) -> pa.Table | None:
    """The rows of these lines if each is one object whose values are all text or null, none of it doubtful; the
    columns are those of the first line."""
    data = np.frombuffer(block, np.uint8)
    starts = np.append(0, np.flatnonzero(data[:-1] == _BREAK) + 1)
    # With text values alone nothing nests and no string holds a line break: as many objects as lines that begin
    # with a brace are one in each.
    if not block or (data[starts] != _BRACE).any():
        return None
    try:
        first = json_text.loads(block[: block.find(b"\n") + 1 or len(block)])
    except ValueError:
        return None
    if "id" not in first or not all(type(value) is str for value in first.values()):
        return None
    try:
        schema = pa.schema([(name, pa.string()) for name in first])
        table = pa.json.read_json(
            pa.BufferReader(block),
            pa.json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )
        table.validate(full=True)  # UTF-8
    except (pa.ArrowInvalid, UnicodeEncodeError):  # the latter: half a character in a name
        return None
    return table if table.num_rows == len(starts) else None


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


def _items(stream: BinaryIO, name: str, rows: Rows, largest: int) -> Iterator[tuple[str, Any]]:
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
        if len(buffer) > largest:
            raise too_large(largest)

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
