# ruff: noqa: E501  (tables of data)
"""Changing valid files into hostile ones, knowing their format: JSON by its nodes, archives by their members, tables
by their types, and any bytes by their bytes.

Every choice is asked of a `Choice`, so that hypothesis, atheris or a plain generator can be what chooses.
"""

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

T = TypeVar("T")


class Choice(Protocol):
    """Whole numbers from 0, below the one that is given."""

    def below(self, count: int) -> int: ...


def pick(choice: Choice, options: Sequence[T]) -> T:
    return options[choice.below(len(options))]


# -- bytes --------------------------------------------------------------------------------------------------------

MARKS = [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff", b"\x1f\x8b", b"PAR1"]
ODD = [
    b"\x00",
    b"\xff",
    b"\x80",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\x1b[31m",
    b"\r",
    b"\r\n",
    b"\n",
]
ODD += ["\u2028".encode(), "\u202e".encode(), "\x85".encode(), b"\x0c", b"\t", b"\\ud800", b"\\u0000", b"\\", b"'"]
NUMBERS = [b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"-0", b"0x10", b"1_0", b"18446744073709551616", b"1e-400"]
NUMBERS += [b"9223372036854775807", b"9223372036854775808", b"9007199254740993", b"-1", b"4294967295", b"00"]
PATHS = [
    b"../outside.txt",
    b"/etc/passwd",
    b"..\\outside.txt",
    b"C:\\Windows\\win.ini",
    b"~/.ssh/id_rsa",
    b".",
    b"..",
]
TOKENS: dict[str, list[bytes]] = {
    "json": [b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"true", b'"id"', b'"text"', b'{"a":', b"[[", b"//"],
    "yaml": [
        b"!!python/object/apply:os.system [touch outside]", b"!!python/name:os.system", b"&a ", b"*a", b"<<: *a",
        b"!!binary ", b"!!set ", b"!!timestamp ", b"!!int ", b"!!float ", b"!!map ", b"!x ", b"? [a]\n: b", b"---",
        b"%YAML 9.9\n", b"|\n", b">\n", b"\t", b"{", b"[", b"}", b"]", b": ", b"- ", b"#", b"2001-01-01", b".inf",
        b"yes", b"~", b"!function a.b", b"1:30", b"''", b'"', b"@", b"`", b"steps:", b"arms:", b"compare:",
        b"foreach: {over: [1], as: x}", b"repeat: {times: 1000}", b"gates:", b"include: task.yaml", b"use: ",
        b"data.select.random", b"training.fit", b"$x", b"run:a/b@c", b"http://example.com/v1",
    ],
    "csv": [b'"', b'""', b",", b";", b"\t", b"nan", b"inf", b"true", b"=1+1", b"text", b"id", b",,,,,", b"1.5", b"|"],
    "html": [
        b"<", b">", b"</", b"<!--", b"-->", b"<![CDATA[", b"<!", b"<?", b"&#x", b"&#99999999999;", b"&#xD800;", b"&",
        b"<script>", b"</script>", b"<body>", b"<pre>", b"<template>", b"<svg>", b"<a b='", b"<li>", b"<!DOCTYPE [",
        b"<style>", b"<title>", b"<textarea>", b"<plaintext>", b"=", b"/>", b"<td>", b"</body>",
    ],
    "pdf": [
        b"endobj", b"stream\n", b"endstream", b"<<", b">>", b"[", b"]", b"/Length -1", b"/FlateDecode", b" 0 R",
        b"/Kids [2 0 R]", b"/Parent 2 0 R", b"xref", b"trailer", b"/Filter [/LZWDecode /ASCII85Decode]", b"(", b")",
        b"/Encrypt 1 0 R", b"/Type /ObjStm", b"/Prev 0", b"startxref\n0", b"BT", b"ET", b"Tj", b"/Size 999999999",
    ],
    "python": [
        b'"""', b"(", b")", b"def f():", b"class A:", b"@", b"\\\n", b"\t", b"# -*- coding: utf-7 -*-\n", b"f'{",
        b"#coding:rot13\n", b"#coding:hex\n", b"lambda:", b"async ", b"match x:", b"if 1:", b"\x0c", b";", b"'''",
    ],
    "text": [b"# ", b"\n\n", b"```", b"[x](y)", b"<script>", b"---\n"],
}  # fmt: skip
NESTS = [
    (b"[", b"]"),
    (b'{"a":', b"}"),
    (b"(", b")"),
    (b"<div>", b"</div>"),
    (b"<<", b">>"),
    (b"- ", b""),
    (b"{", b""),
]


def _position(choice: Choice, data: bytes) -> int:
    return choice.below(len(data) + 1)


def _span(choice: Choice, data: bytes) -> tuple[int, int]:
    start = _position(choice, data)
    return start, min(len(data), start + pick(choice, (1, 2, 4, 16, 64, 1024)))


def _insert(data: bytes, place: int, extra: bytes) -> bytes:
    return data[:place] + extra + data[place:]


def random_bytes(choice: Choice, most: int = 64) -> bytes:
    """Bytes that follow from nothing."""
    return bytes(choice.below(256) for _ in range(choice.below(most) + 1))


def mutate_bytes(choice: Choice, data: bytes, others: Sequence[bytes], kind: str) -> bytes:
    """One change of the bytes: flips, cuts, doublings, splices, marks, tokens of the format, deep nesting."""
    what = choice.below(16)
    place = _position(choice, data)
    if what == 0 and data:
        place = min(place, len(data) - 1)
        return data[:place] + bytes([data[place] ^ (1 << choice.below(8))]) + data[place + 1 :]
    if what == 1:
        return data[:place]
    if what == 2:
        start, end = _span(choice, data)
        return data[:start] + data[end:]
    if what == 3:
        start, end = _span(choice, data)
        return _insert(data, end, data[start:end] * pick(choice, (1, 1, 2, 50)))
    if what == 4:
        other = pick(choice, others)
        return data[:place] + other[_position(choice, other) :]
    if what == 5:
        return pick(choice, MARKS) + data
    if what == 6:
        return _insert(data, place, pick(choice, ODD))
    if what == 7:
        return _insert(data, place, pick(choice, NUMBERS))
    if what == 8:
        opening, closing = pick(choice, NESTS)
        depth = pick(choice, (3, 60, 1200, 20_000))
        return _insert(data, place, opening * depth + (b"1" + closing * depth if choice.below(2) else b""))
    if what == 9:
        return data.replace(b"\n", pick(choice, (b"\r\n", b"\r", b"", "\u2028".encode(), b"\n\n")))
    if what == 10:
        return _insert(data, place, random_bytes(choice))
    if what == 11:
        return data.decode("utf-8", "replace").encode(
            pick(choice, ("utf-16", "utf-32", "utf-16-le", "cp1252")), "replace"
        )
    if what == 12:
        return _insert(data, place, pick(choice, PATHS))
    if what == 13 and data:
        # A number somewhere in a binary header becomes an extreme one.
        place = min(place, len(data) - 1)
        number = pick(
            choice, (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f", b"\xff" * 8, b"\x80")
        )
        return data[:place] + number + data[place + len(number) :]
    return _insert(data, place, pick(choice, TOKENS[kind]) * pick(choice, (1, 1, 1, 2)))


# -- JSON ---------------------------------------------------------------------------------------------------------

# Texts that stand for what json.dumps does not write; see `_dumped`.
RAW = {
    "@raw0": "1e999", "@raw1": "9" * 5000, "@raw2": "[" * 3000 + "]" * 3000, "@raw3": '{"a":' * 1500 + "1" + "}" * 1500,
    "@raw4": "-", "@raw5": "1e-999", "@raw6": '"\\ud800"', "@raw7": '"\\ud83d\\ude00"', "@raw8": "0.1e+2",
    "@raw9": "tru",
}  # fmt: skip
JUNK: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e308, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 10**400, "", " ", "\x00", "a\ud800",
    "\x1b[2J[red]", "../outside.txt", "/etc/passwd", "C:\\x", "..", ".", "NaN", "x" * 5000, [], {}, [[]], [{}], {"": ""},
    {"a": {"b": []}}, [1, "a"], [None], [[1], ["a"]], {"a": None}, float("nan"), float("-inf"), "1", "true",
    {"id": 1}, {"use": "data.read.jsonl"}, "data.read.jsonl", 1e-300, "2024-01-01", "{{ x }}", "=1+1", *RAW,
]  # fmt: skip
KEYS = [
    "",
    "id",
    "text",
    "messages",
    "role",
    "content",
    "__class__",
    "$tensor",
    "a.b",
    "\x00",
    "x" * 300,
    "é",
    "use",
    "1",
]


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [at]
    if isinstance(value, dict):
        for key, item in value.items():
            found += _places(item, (*at, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            found += _places(item, (*at, number))
    return found


def _replaced(value: Any, place: Sequence[Any], change: Callable[[Any], Any]) -> Any:
    if not place:
        return change(value)
    first, rest = place[0], place[1:]
    if isinstance(value, dict):
        return {key: _replaced(item, rest, change) if key == first else item for key, item in value.items()}
    return [_replaced(item, rest, change) if number == first else item for number, item in enumerate(value)]


def mutate_value(choice: Choice, value: Any) -> Any:
    """One change of a JSON value: a node becomes junk, goes, is doubled, renamed, wrapped or swapped."""
    places = _places(value)
    place = pick(choice, places)
    what = choice.below(8)
    if what <= 3 or not place:
        return _replaced(value, place, lambda _: pick(choice, JUNK))
    if what == 4:
        other = pick(choice, places)
        found = value
        for part in other:
            found = found[part]
        return _replaced(value, place, lambda _: found)

    def change(parent: Any) -> Any:
        key = place[-1]
        if isinstance(parent, list):
            if what == 5:
                return [*parent[:key], *parent[key + 1 :]]
            return (
                [*parent, *[parent[key]] * pick(choice, (1, 2, 40))]
                if what == 6
                else [*parent, pick(choice, JUNK)]
            )
        if what == 5:
            return {name: item for name, item in parent.items() if name != key}
        if what == 6:
            name = pick(choice, KEYS)
            return {name if old == key else old: item for old, item in parent.items()}
        return {**parent, pick(choice, KEYS): pick(choice, JUNK)}

    return _replaced(value, place[:-1], change)


def _dumped(value: Any, indent: int | None = None) -> bytes:
    text = json.dumps(value, indent=indent)
    for name, raw in RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text.encode()


def mutate_json(choice: Choice, data: bytes) -> bytes | None:
    """One or two changes of a JSON document, or of a line of JSON Lines; None for what is neither."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        lines = data.split(b"\n")
        number = choice.below(len(lines))
        try:
            value = json.loads(lines[number])
        except (ValueError, RecursionError):
            return None
        changed = _changed(choice, value, None)
        return None if changed is None else b"\n".join([*lines[:number], changed, *lines[number + 1 :]])
    return _changed(choice, value, pick(choice, (None, 1)))


def _changed(choice: Choice, value: Any, indent: int | None) -> bytes | None:
    try:
        return _doubled_key(choice, _dumped(mutate_value(choice, value), indent))
    except RecursionError:
        return None


def _doubled_key(choice: Choice, text: bytes) -> bytes:
    if choice.below(8) or b"{" not in text:
        return text
    braces = [place for place, byte in enumerate(text) if byte == ord("{")]
    key = pick(choice, [b'"id": "9", ', b'"text": null, ', b'"": 1, ', b'"schema": 1, '])
    return _insert(text, pick(choice, braces) + 1, key)


def mutate_yaml(choice: Choice, data: bytes) -> bytes | None:
    """One change of a YAML document by its nodes, written as JSON, which is YAML too."""
    import yaml

    try:
        value = yaml.load(data, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        text = _dumped(json.loads(json.dumps(mutate_value(choice, value), default=str)))
    except (yaml.YAMLError, ValueError, RecursionError, TypeError, AttributeError, LookupError):
        return None
    if choice.below(2):
        return text
    try:
        return yaml.safe_dump(json.loads(text), sort_keys=False).encode("utf-8", "surrogatepass")
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


# -- containers ---------------------------------------------------------------------------------------------------


def _zip_members(data: bytes) -> list[tuple[zipfile.ZipInfo, bytes]] | None:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return [(info, archive.read(info)) for info in archive.infolist()]
    except Exception:
        return None


def mutate_zip(choice: Choice, data: bytes) -> bytes | None:
    """A zip file with a member changed, gone, doubled, grown by a bomb, or with a name that leads out."""
    members = _zip_members(data)
    if not members:
        return None
    what = choice.below(6)
    number = choice.below(len(members))
    info, content = members[number]
    changed = [(one.filename, body) for one, body in members]
    if what <= 2:
        changed[number] = (info.filename, mutate_bytes(choice, content, [content], "html"))
    elif what == 3:
        changed.pop(number)
    elif what == 4:
        changed.append(
            (pick(choice, ("../outside.txt", "/outside.txt", "word/../../outside.txt", info.filename)), b"x")
        )
    else:
        bomb = content.replace(b"</", b" " * (40 << 20) + b"</", 1) if b"</" in content else bytes(40 << 20)
        changed[number] = (info.filename, bomb)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, body in changed:
            archive.writestr(zipfile.ZipInfo(name), body, zipfile.ZIP_DEFLATED)
    return sink.getvalue()


def _unpacked(data: bytes, suffix: str) -> bytes | None:
    try:
        if suffix == ".gz":
            return gzip.decompress(data)
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except Exception:
        return None


def packed(data: bytes, suffix: str) -> bytes:
    """The bytes compressed as the suffix says."""
    return gzip.compress(data, 1, mtime=0) if suffix == ".gz" else zstandard.ZstdCompressor(1).compress(data)


def mutate_safetensors(choice: Choice, data: bytes) -> bytes | None:
    """The JSON header of a safetensors file changed, with its length right, or only the length wrong."""
    if len(data) < 8:
        return None
    length = struct.unpack("<Q", data[:8])[0]
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        return None
    text = _changed(choice, header, None)
    if text is None:
        return None
    claimed = pick(choice, (len(text), len(text), len(text), len(text) + 1, 2**40, 0, 2**64 - 1))
    return struct.pack("<Q", claimed) + text + data[8 + length :]


def mutate_sqlite(choice: Choice, data: bytes) -> bytes | None:
    """A ledger with one cell changed, its page structure left whole; or a table gone."""
    import sqlite3

    db = sqlite3.connect(":memory:")
    try:
        db.deserialize(data)
        tables = [
            name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        ]
        table = pick(choice, tables)
        if choice.below(12) == 0:
            db.execute(f"DROP TABLE {table}")
        else:
            columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            column = pick(choice, columns)
            old = next((value for (value,) in db.execute(f"SELECT {column} FROM {table} LIMIT 1")), None)
            new: Any = None
            if isinstance(old, str) and choice.below(3):
                new = mutate_json(choice, old.encode())
                new = None if new is None else new.decode("utf-8", "replace")
            if new is None:
                new = pick(
                    choice,
                    ["", "{", "null", "[]", "{}", None, 7, 1e300, b"\xff", "\x1b[2J", "9" * 5000, "[" * 5000],
                )
            db.execute(f"UPDATE {table} SET {column} = ?", (new,))
        db.commit()
        return db.serialize()
    except (sqlite3.Error, OverflowError, UnicodeEncodeError):
        return None
    finally:
        db.close()


# -- tables -------------------------------------------------------------------------------------------------------

TYPES: list[tuple[pa.DataType, list[Any]]] = [
    (pa.string(), ["a", "", None, "\x1b[31m", "long " * 50, "a"]),
    (pa.large_string(), ["a", None, "b"]),
    (pa.string_view(), ["a", "b", None]),
    (pa.binary(), [b"\xff", b"", None]),
    (pa.int8(), [1, -1, None]),
    (pa.int64(), [2**63 - 1, -(2**63), 0, None]),
    (pa.uint64(), [2**64 - 1, 0, None]),
    (pa.float16(), [1.5, None]),
    (pa.float32(), [1.5, float("nan"), None]),
    (pa.float64(), [1.5, float("inf"), None, float("nan")]),
    (pa.bool_(), [True, False, None]),
    (pa.null(), [None]),
    (pa.timestamp("ns"), [0, 2**62, None]),
    (pa.timestamp("s", "Europe/Vienna"), [0, 2**40, None]),
    (pa.date32(), [0, 2**30, None]),
    (pa.time64("us"), [1, None]),
    (pa.duration("s"), [1, 2**50, None]),
    (pa.decimal128(38, 2), [None]),
    (pa.list_(pa.string()), [["a"], [], None, [None]]),
    (pa.list_(pa.float64()), [[float("nan")], [], None]),
    (pa.list_(pa.list_(pa.int8())), [[[1], []], None]),
    (pa.list_(pa.float32(), 2), [[1.0, 2.0], None]),
    (pa.struct([("role", pa.string()), ("content", pa.string())]), [{"role": "user", "content": "x"}, None]),
    (pa.struct([]), [{}, None]),
    (pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])), [[{"role": "user", "content": None}]]),
    (pa.map_(pa.string(), pa.int8()), [[("a", 1)], [], None]),
    (pa.dictionary(pa.int8(), pa.string()), ["a", None, "b"]),
    (pa.dictionary(pa.int8(), pa.float64()), [float("nan"), None]),
    (pa.dictionary(pa.int8(), pa.int64()), [1, None]),
    (pa.month_day_nano_interval(), [None]),
]  # fmt: skip
COLUMNS = ["id", "text", "label", "n", "", "a.b", "\x00", "text", "source", "é" * 40, "messages", "prompt", "ID"]


def odd_table(choice: Choice) -> pa.Table:
    """A valid Arrow table of unusual columns: any types, names that are empty or twice there, no rows at all."""
    rows = pick(choice, (0, 1, 2, 3, 7))
    names, arrays = [], []
    for _ in range(choice.below(4) + 1):
        kind, values = pick(choice, TYPES)
        names.append(pick(choice, COLUMNS))
        cells = [pick(choice, values) for _ in range(rows)]
        if pa.types.is_dictionary(kind):
            array = pa.array(cells, kind.value_type).dictionary_encode().cast(kind)
        else:
            array = pa.array(cells, kind)
        arrays.append(array)
    return pa.Table.from_arrays(arrays, names=names)


def odd_parquet(choice: Choice) -> bytes | None:
    """An odd table as a Parquet file."""
    sink = io.BytesIO()
    table = odd_table(choice)
    try:
        pq.write_table(
            table,
            sink,
            compression=pick(choice, ("none", "snappy", "zstd", "gzip")),
            use_dictionary=bool(choice.below(2)),
            data_page_version=pick(choice, ("1.0", "2.0")),
            row_group_size=pick(choice, (1, 100)),
        )
    except (pa.ArrowException, ValueError):
        return None
    return sink.getvalue()


def odd_arrow(choice: Choice) -> bytes | None:
    """An odd table as an Arrow stream, in one or more batches."""
    table = odd_table(choice)
    sink = io.BytesIO()
    try:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table, max_chunksize=pick(choice, (1, 100)))
    except (pa.ArrowException, ValueError):
        return None
    return sink.getvalue()


# -- any file -----------------------------------------------------------------------------------------------------

KINDS = {
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".yaml": "yaml", ".yml": "yaml", ".csv": "csv", ".tsv": "csv",
    ".html": "html", ".htm": "html", ".docx": "html", ".pdf": "pdf", ".py": "python", ".safetensors": "json",
    ".j2": "html", ".jinja": "html",
}  # fmt: skip


def suffixes(name: str) -> tuple[str, str]:
    """(suffix without that of a compression, suffix of the compression or "")."""
    stem, dot, last = name.lower().rpartition(".")
    if dot and last in ("gz", "zst"):
        return suffixes(stem)[0], f".{last}"
    return (f".{last}" if dot else ""), ""


def mutate(choice: Choice, name: str, data: bytes, others: Sequence[bytes]) -> bytes:
    """The file `name` changed up to five times, by its format where it has one, else by its bytes."""
    suffix, compression = suffixes(name)
    kind = KINDS.get(suffix, "text")
    if choice.below(25) == 0:
        return random_bytes(choice, 200)
    if compression and choice.below(5):
        inner = _unpacked(data, compression)
        if inner is not None:
            plain = [part for other in others if (part := _unpacked(other, compression))] or [inner]
            if choice.below(400) == 0:
                filler = pick(choice, (b" ", b"a", b"\n", b"["))
                inner = inner[: _position(choice, inner)] + filler * (1 << 20)
            else:
                inner = mutate(choice, name[: -len(compression)], inner, plain)
            return packed(inner, compression)
    structured: dict[str, list[Callable[[], bytes | None]]] = {
        ".json": [lambda: mutate_json(choice, data)],
        ".jsonl": [lambda: mutate_json(choice, data)],
        ".yaml": [lambda: mutate_yaml(choice, data)],
        ".docx": [lambda: mutate_zip(choice, data)],
        ".parquet": [lambda: odd_parquet(choice)],
        ".arrow": [lambda: odd_arrow(choice)],
        ".safetensors": [lambda: mutate_safetensors(choice, data)],
        ".sqlite": [lambda: mutate_sqlite(choice, data)],
    }
    for _ in range(choice.below(4) + 1):
        changed = None
        if suffix in structured and choice.below(3):
            changed = pick(choice, structured[suffix])()
        data = mutate_bytes(choice, data, others, kind) if changed is None else changed
    return data
