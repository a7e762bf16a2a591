"""Every kind of bad input is one error that names file, place, expected, found and remedy; under `quarantine`
nothing is lost silently: in = kept + quarantined."""

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tutelage.core import discovery
from tutelage.core.errors import EXIT_INVALID, ConfigError, InputError
from tutelage.data.read.csv import Csv
from tutelage.data.read.jsonl import Jsonl
from tutelage.data.read.parquet import Parquet
from tutelage.data.read.python_environment import PythonEnvironment
from tutelage.data.read.text import Text

GOOD = b'{"id": "1", "text": "a", "n": 1}\n{"id": "2", "text": "b", "n": 2}\n'


def parquet_bytes(**columns):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


LONG = b"".join(b'{"id": "%d", "text": "%s"}\n' % (n, os.urandom(40).hex().encode()) for n in range(5000))
CELLS = b"".join(os.urandom(40).hex().encode() + b"\n" for _ in range(900))
PARQUET = parquet_bytes(id=[str(n) for n in range(100)], text=["x"] * 100)

# name, reader, file name, bytes, what, place, found; then how many rows are kept and quarantined.
CASES = [
    ("empty", Jsonl, "a.jsonl", b"", "a file is empty", "", "no contents", None),
    ("only blank lines", Jsonl, "a.jsonl", b"\n \n", "a file is empty", "", "no contents", None),
    ("empty csv", Csv, "a.csv", b"", "a file is empty", "", "no contents", None),
    ("empty parquet", Parquet, "a.parquet", b"", "a file is empty", "", "no contents", None),
    ("torn last line", Jsonl, "a.jsonl", GOOD + b'{"id": "3", "te', "last line is torn", "line 3", '"te', (2, 1)),
    ("broken line", Jsonl, "a.jsonl", b"{]\n" + GOOD, "a line is not JSON", "line 1", "{]", (2, 1)),
    ("not an object", Jsonl, "a.jsonl", GOOD + b'["x"]\n', "not a JSON object", "line 3", "list", (2, 1)),
    ("null line", Jsonl, "a.jsonl", GOOD + b"null\n", "not a JSON object", "line 3", "list", (2, 1)),
    ("empty object", Jsonl, "a.jsonl", GOOD + b"{}\n", "a row is empty", "line 3", "{}", (2, 1)),
    ("torn array", Jsonl, "a.json", b'[{"text": "a"}, {"text": "b', "torn or broken", "", "item 2", (1, 1)),
    ("NaN", Jsonl, "a.jsonl", GOOD + b'{"n": NaN}\n', "column 'n' holds", "line 3", "nan", (2, 1)),
    (
        "NaN item",
        Jsonl,
        "a.json",
        b'[{"n": 1}, {"n": NaN}, {"n": 2}]',
        "column 'n' holds",
        "item 2",
        "nan",
        (2, 1),
    ),
    ("Infinity", Jsonl, "a.jsonl", GOOD + b'{"n": -Infinity}\n', "not a finite", "line 3", "-inf", (2, 1)),
    ("1e999", Jsonl, "a.jsonl", b'{"x": 1.5}\n{"x": 1e999}\n', "not a finite", "line 2", "inf", (1, 1)),
    ("nan in csv", Csv, "a.csv", b"text,x\na,1.5\nb,nan\n", "not a finite number", "line 3", "nan", (1, 1)),
    ("UTF-8", Jsonl, "a.jsonl", GOOD + b'{"text": "caf\xe9"}\n', "not valid UTF-8", "line 3", "0xe9", (2, 1)),
    ("UTF-8 in csv", Csv, "a.csv", b"text,n\na,1\ncaf\xe9,2\nb,3\n", "not valid UTF-8", "line 3", "0xe9", (2, 1)),
    (
        "UTF-16",
        Jsonl,
        "a.jsonl",
        GOOD.decode().encode("utf-16"),
        "a file is UTF-16",
        "",
        "byte-order mark",
        (0, 1),
    ),
    ("UTF-16 csv", Csv, "a.csv", "text\na\n".encode("utf-16"), "a file is UTF-16", "", "byte-order mark", (0, 1)),
    ("mixed", Jsonl, "a.jsonl", GOOD + b'{"n": "x"}\n', "column 'n' mixes types", "line 3", "text: 'x'", (2, 1)),
    ("bool", Jsonl, "a.jsonl", GOOD + b'{"n": true}\n', "column 'n' mixes types", "line 3", "boolean", (2, 1)),
    (
        "mixed deep",
        Jsonl,
        "a.jsonl",
        b'{"m": [{"x": "a"}]}\n{"m": [{"x": 1}]}\n',
        r"column 'm\[\].x' mixes types",
        "line 2",
        "whole number",
        (1, 1),
    ),
    ("list", Jsonl, "a.jsonl", GOOD + b'{"text": ["x"]}\n', "column 'text' mixes", "line 3", "list: ", (2, 1)),
    ("large", Jsonl, "a.jsonl", b'{"n": 1}\n{"n": 99999999999999999999}\n', "too large", "line 2", "9999", (1, 1)),
    (
        "digits lost",
        Jsonl,
        "a.jsonl",
        b'{"n": 0.5}\n{"n": 9007199254740993}\n',
        "mixes",
        "line 2",
        "large",
        (1, 1),
    ),
    (
        "mixed in csv",
        Csv,
        "a.csv",
        b"text,n\n" + b"a,1\n" * 1200 + b"b,x\n",
        "column 'n' mixes types",
        "line 1202",
        "'x'",
        (1200, 1),
    ),
    ("surrogate", Jsonl, "a.jsonl", GOOD + b'{"text": "\\ud800"}\n', "half of a char", "line 3", "d800", (2, 1)),
    ("same id", Jsonl, "a.jsonl", GOOD + b'{"id": "1", "text": "c"}\n', "the same id", "line 3", "1", (2, 1)),
    ("same id csv", Csv, "a.csv", b"id,text\n1,a\n1,b\n", "the same id", "line 3", "1", (1, 1)),
    ("same id pq", Parquet, "a.parquet", parquet_bytes(id=["a", "b", "a"]), "the same id", "row 3", "a", (2, 1)),
    ("empty id", Jsonl, "a.jsonl", GOOD + b'{"id": "", "text": "c"}\n', "has no id", "line 3", "''", (2, 1)),
    (
        "odd id",
        Jsonl,
        "a.jsonl",
        GOOD + b'{"id": [1], "text": "c"}\n',
        "neither text nor",
        "line 3",
        "list",
        (2, 1),
    ),
    ("NaN pq", Parquet, "a.parquet", parquet_bytes(x=[1.0, float("nan")]), "finite", "row 2", "nan", (1, 1)),
    ("ragged", Csv, "a.csv", b"text,n\na,1\nb\nc,3\n", "another number of cells", "line 3", "1: 'b'", (2, 1)),
    ("ragged long", Csv, "a.csv", b"text,n\na,1\nb,c,2\n", "another number of cells", "line 3", "3: ", (1, 1)),
    ("open quote", Csv, "a.csv", b'text,n\na,1\n"b,2\nc,3\n', "not valid CSV", "line 3", "end of data", (1, 1)),
    ("no header name", Csv, "a.csv", b"text,,n\na,1,2\n", "name every column", "", "text, , n", (0, 1)),
    ("header twice", Csv, "a.csv", b"text,text\na,1\n", "name every column", "", "text, text", (0, 1)),
    ("torn gz", Jsonl, "a.jsonl.gz", gzip.compress(LONG)[:-900], "truncated or damaged", "", "EOFError", 1),
    ("torn zst", Jsonl, "a.jsonl.zst", zstandard.compress(LONG)[:-900], "truncated or dam", "", "Truncated", 1),
    ("no gz", Jsonl, "a.jsonl.gz", GOOD, "truncated or damaged", "", "BadGzipFile", 1),
    ("torn csv gz", Csv, "a.csv.gz", gzip.compress(b"text\n" + CELLS)[:-900], "truncated or dam", "", "EOF", 1),
    ("torn parquet", Parquet, "a.parquet", PARQUET[:-40], "truncated or damaged", "", "Arrow", (0, 1)),
    ("not parquet", Parquet, "a.parquet", GOOD, "truncated or damaged", "", "Parquet", (0, 1)),
]


@pytest.mark.parametrize(
    ("reader", "name", "data", "what", "place", "found", "kept"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
def test_bad_file(tmp_path, reader, name, data, what, place, found, kept):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=what) as caught:
        reader().read(str(path))
    error = caught.value
    assert str(error.where) == (f"{path}, {place}" if place else str(path))
    assert found in str(error.found)
    assert error.expected is not None and error.exit_code == EXIT_INVALID
    assert len(str(error).splitlines()) <= 5
    if kept is None:
        # Nothing to keep, nothing to put aside but the file itself.
        kept = (0, 1)
    lenient = reader(on_error="quarantine").read(str(path))
    report = lenient.report
    assert report["in"] == report["kept"] + report["quarantined"]
    assert (report["kept"], report["quarantined"]) == (lenient.num_rows, lenient.quarantined.num_rows)
    if kept == 1:
        assert report["quarantined"] >= 1
    else:
        assert (report["kept"], report["quarantined"]) == kept
    entry = lenient.quarantined.to_pylist()[-1]
    assert entry["where"] == (f"{name}, {place}" if place else name)
    assert str(tmp_path) not in entry["where"] + entry["reason"]
    lenient.save(tmp_path / "saved")


@pytest.mark.parametrize(
    ("suffix", "pack", "least"), [(".gz", gzip.compress, 4500), (".zst", zstandard.compress, 2000)]
)
def test_rows_before_the_tear_are_kept(tmp_path, suffix, pack, least):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(pack(LONG)[:-900])
    found = Jsonl(on_error="quarantine").read(str(path))
    assert least < found.num_rows < 5000
    assert found.ids() == [str(n) for n in range(found.num_rows)]


def test_csv_rows_before_the_tear_are_kept(tmp_path):
    # Fewer rows than the sample that types are inferred from.
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text\n" + CELLS)[:-900])
    assert 700 < Csv(on_error="quarantine").read(str(tmp_path / "a.csv.gz")).num_rows < 900


@pytest.mark.parametrize(
    ("reader", "name", "data"),
    [
        (Jsonl, "a.jsonl", GOOD),
        (Jsonl, "a.json", b'[{"id": "1", "text": "a", "n": 1}]'),
        (Csv, "a.csv", b"id,text\n1,a\n"),
    ],
)
def test_the_mark_of_utf8_has_no_effect(tmp_path, reader, name, data):
    (tmp_path / name).write_bytes(data)
    plain = reader().read(str(tmp_path / name))
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + data)
    assert reader().read(str(tmp_path / name)).hash == plain.hash
    assert plain.ids()[0] == "1"


def test_wrong_column_gets_a_suggestion(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "a.csv").write_bytes(b"id,text\n1,a\n")
    (tmp_path / "a.parquet").write_bytes(PARQUET)
    for reader, name in ((Jsonl, "a.jsonl"), (Csv, "a.csv"), (Parquet, "a.parquet")):
        with pytest.raises(InputError, match="no column 'txet'") as error:
            reader(columns={"txet": "prompt"}).read(str(tmp_path / name))
        assert "did you mean text" in error.value.remedy and name in str(error.value.where)


# Their rows come from no file of the user's: each refuses a path, in its own test.
PATHLESS = ("data.read.python_topics", "data.read.invented_facts", "data.read.packaged")
READERS = sorted(name for name in discovery.cards() if name.startswith("data.read.") and name not in PATHLESS)


@pytest.mark.parametrize("name", READERS)
def test_a_path_that_does_not_exist(tmp_path, name):
    (tmp_path / "corpus.jsonl").write_bytes(GOOD)
    with pytest.raises(InputError, match="no such file or folder") as error:
        discovery.build(name).read(str(tmp_path / "corpsu.jsonl"))
    assert "did you mean corpus.jsonl" in error.value.remedy


@pytest.mark.parametrize("name", [name for name in READERS if name != "data.read.python_environment"])
def test_no_path_and_no_contents(tmp_path, name):
    with pytest.raises(ConfigError, match="needs a path"):
        discovery.build(name).read()
    if name not in (
        "data.read.jsonl",
        "data.read.csv",
        "data.read.parquet",
        "data.read.chats",
        "data.read.alpaca",
    ):
        with pytest.raises(InputError):
            discovery.build(name).read(str(tmp_path))


@pytest.mark.parametrize("name", ["data.read.jsonl", "data.read.csv", "data.read.parquet", "data.read.chats"])
def test_a_folder_where_a_file_is_expected(tmp_path, name):
    with pytest.raises(InputError) as error:
        discovery.build(name).read(str(tmp_path))
    assert str(tmp_path) in str(error.value.where)


def test_links_that_leave_the_folder_are_not_followed(tmp_path):
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "more.txt").write_text("secret", encoding="utf-8")
    root = tmp_path / "docs"
    root.mkdir()
    (root / "a.txt").write_text("open", encoding="utf-8")
    try:
        (root / "link.txt").symlink_to(tmp_path / "secret.txt")
        (root / "inner.txt").symlink_to(root / "a.txt")
        (root / "folder").symlink_to(tmp_path / "away")
    except OSError:
        pytest.skip("no right to make links here")
    found = Text().read(str(root))
    assert [r["text"] for r in found.rows()] == ["open", "open"]
    assert sorted(found.quarantined.column("where").to_pylist()) == ["folder", "link.txt"]
    with pytest.raises(InputError, match="is not followed"):
        Text(on_error="raise").read(str(root))
    everything = PythonEnvironment().read(str(root))
    assert everything.ids() == ["a.txt"] and everything.report["ignored"] == {"link": 3}


def test_documents_that_cannot_be_read_are_counted(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"fine")
    (tmp_path / "b.txt").write_bytes(b"")
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    (tmp_path / "d.txt").write_bytes("x".encode("utf-16"))
    (tmp_path / "e.txt").write_bytes(b"\xef\xbb\xbfmarked")
    (tmp_path / "f.html").write_bytes(b"<script>only()</script>")
    found = Text().read(str(tmp_path))
    assert {r["id"]: r["text"] for r in found.rows()} == {"a.txt": "fine", "e.txt": "marked"}
    reasons = {r["where"]: r["reason"] for r in found.quarantined.to_pylist()}
    assert "empty" in reasons["b.txt"] and "0xe9 at byte 4" in reasons["c.txt"]
    assert "UTF-16" in reasons["d.txt"] and "no text" in reasons["f.html"]
    assert found.report["in"] == 6 and sum(found.report["reasons"].values()) == 4


def test_control_characters_in_an_error_are_shown_not_sent(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(GOOD + b"\x1b[31m not json\n")
    with pytest.raises(InputError) as error:
        Jsonl().read(str(tmp_path / "a.jsonl"))
    assert "\x1b" not in str(error.value) and json.dumps(error.value.to_json())


def test_memory_stays_bounded(tmp_path):
    import tracemalloc

    path = tmp_path / "a.jsonl"
    line = b'{"text": "' + b"word " * 4000 + b'", "n": %d}\n'
    with path.open("wb") as out:
        for number in range(9000):
            out.write(line % number)
    assert path.stat().st_size > 170e6
    tracemalloc.start()
    found = Jsonl().read(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.num_rows == 9000 and found.num_shards > 2
    # One shard of 64 MiB as Python strings, and what becomes of it; the file is larger. Arrow's own memory
    # (at most 128 MiB before shards go to the disk) is not traced.
    assert peak < 150e6
