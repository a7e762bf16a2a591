"""What a writer writes, its reader reads back unchanged; a file is complete or not there; no name escapes."""

import csv as stdlib_csv
import datetime
import errno
import gzip
import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, StoreError
from tutelage.data.read.csv import Csv as ReadCsv
from tutelage.data.read.hf_dataset import HfDataset as ReadHfDataset
from tutelage.data.read.jsonl import Jsonl as ReadJsonl
from tutelage.data.read.parquet import Parquet as ReadParquet
from tutelage.data.read.text import Text as ReadText
from tutelage.data.write import jsonl as jsonl_module
from tutelage.data.write.csv import Csv
from tutelage.data.write.hf_dataset import HfDataset
from tutelage.data.write.jsonl import Jsonl
from tutelage.data.write.parquet import Parquet
from tutelage.data.write.text_folder import TextFolder, relative_path

PROOF = {
    "data.write.jsonl": ["consistent", "verified"],
    "data.write.csv": ["consistent", "verified"],
    "data.write.parquet": ["consistent", "verified"],
    "data.write.hf_dataset": ["consistent", "verified"],
    "data.write.text_folder": ["consistent"],
}
MUTATIONS = [
    ("src/tutelage/data/write/csv.py", "if formula and self.for_spreadsheets else cell", "if False else cell"),
    ("src/tutelage/data/write/csv.py", "isinstance(value, str) and cell.startswith", "cell.startswith"),
    ("src/tutelage/data/write/jsonl.py", ".encode() + b", '.encode("latin-1", "replace") + b'),
    ("src/tutelage/data/write/jsonl.py", 'b"\\n\\t\\r"', 'b"\\n\\t\\r\\0"'),
    ("src/tutelage/data/write/jsonl.py", '(b"\\t", rb"\\t"), ', ""),
    ("src/tutelage/data/write/csv.py", "str(value).lower() if", "str(value) if"),
    ("src/tutelage/data/write/parquet.py", "writer.write_table(table)", "writer.write_table(table.slice(1))"),
    ("src/tutelage/data/write/hf_dataset.py", '"filename": _FILE', '"filename": "x.arrow"'),
    ("src/tutelage/data/write/text_folder.py", 'encoded.endswith((".", " "))', 'encoded.endswith(" ")'),
    ("src/tutelage/data/write/_atomic.py", "building.rename(target)", "target.touch()"),
]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "text": TEXT,
            "n": st.none() | st.integers(-(2**53), 2**53),
            "x": st.none() | st.floats(allow_nan=False, allow_infinity=False),
            "good": st.none() | st.booleans(),
        }
    ),
    min_size=1,
    max_size=8,
)
ROWS_OF_TEXT = st.lists(
    st.dictionaries(TEXT.filter(lambda name: name not in ("", "id")), TEXT, min_size=1, max_size=3)
    | st.fixed_dictionaries({"text": st.text('a"\\\n\t\r\x00\x01\x7f\u2028é', max_size=12)}),
    min_size=1,
    max_size=5,
)
NESTED = st.fixed_dictionaries(
    {
        "text": TEXT,
        "tags": st.lists(TEXT, max_size=3),
        "messages": st.lists(st.fixed_dictionaries({"role": TEXT, "content": TEXT}), min_size=1, max_size=2),
    }
)
ROUND_TRIP = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def through(writer, reader, dataset, folder, name):
    path = folder / name
    path.unlink(missing_ok=True)
    assert writer.write(dataset, str(path)) == [str(path)]
    return list(reader.read(str(path)).rows())


@ROUND_TRIP
@given(made=ROWS)
def test_round_trip_of_simple_rows(tmp_path, made):
    dataset = Dataset.from_rows({"id": f"r{n}", **row} for n, row in enumerate(made))
    wanted = list(dataset.rows())
    assert through(Jsonl(), ReadJsonl(), dataset, tmp_path, "a.jsonl") == wanted
    assert through(Jsonl(), ReadJsonl(), dataset, tmp_path, "a.jsonl.gz") == wanted
    assert through(Jsonl(), ReadJsonl(), dataset, tmp_path, "a.jsonl.zst") == wanted
    assert through(Parquet(), ReadParquet(), dataset, tmp_path, "a.parquet") == wanted


@ROUND_TRIP
@given(made=st.lists(NESTED, min_size=1, max_size=5))
def test_round_trip_of_nested_rows(tmp_path, made):
    dataset = Dataset.from_rows({"id": f"r{n}", **row} for n, row in enumerate(made))
    wanted = list(dataset.rows())
    assert through(Jsonl(), ReadJsonl(), dataset, tmp_path, "a.jsonl") == wanted
    assert through(Parquet(), ReadParquet(), dataset, tmp_path, "a.parquet") == wanted


@ROUND_TRIP
@given(made=ROWS)
def test_round_trip_of_csv(tmp_path, made):
    dataset = Dataset.from_rows({"id": f"r{n}", **row} for n, row in enumerate(made))
    # A column of nothing but nulls has no type that CSV could tell.
    types = {"n": "number", "x": "number", "good": "boolean"}
    found = through(Csv(), ReadCsv(types=types), dataset, tmp_path, "a.csv")
    assert found == list(dataset.rows())
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as source:
        assert [row["text"] for row in stdlib_csv.DictReader(source)] == [row["text"] for row in made]
    assert through(Csv(), ReadCsv(types=types), dataset, tmp_path, "a.tsv") == list(dataset.rows())


DATA = Dataset.from_rows(
    [
        {"id": "a/1", "text": "one\r\ntwo", "n": 1, "good": True, "tags": ["x"]},
        {"id": "b", "text": "ünï 🙂 \u2028", "n": 2, "good": False, "tags": []},
    ]
)


def test_files_are_what_other_libraries_read(tmp_path):
    Jsonl().write(DATA, str(tmp_path / "a.jsonl"))
    lines = (tmp_path / "a.jsonl").read_bytes().split(b"\n")
    assert [json.loads(line) for line in lines[:-1]] == list(DATA.rows()) and lines[-1] == b""
    Jsonl().write(DATA, str(tmp_path / "a.jsonl.gz"))
    assert gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()) == (tmp_path / "a.jsonl").read_bytes()
    Jsonl().write(DATA, str(tmp_path / "a.jsonl.zst"))
    packed = zstandard.ZstdDecompressor().decompressobj().decompress((tmp_path / "a.jsonl.zst").read_bytes())
    assert packed == (tmp_path / "a.jsonl").read_bytes()
    Parquet().write(DATA, str(tmp_path / "a.parquet"))
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == list(DATA.rows())


def test_hf_dataset_is_what_the_library_loads(tmp_path):
    datasets = pytest.importorskip("datasets")
    written = HfDataset().write(DATA, str(tmp_path / "hf"))
    assert all(Path(file).is_file() for file in written) and len(written) == 3
    assert datasets.load_from_disk(str(tmp_path / "hf")).to_list() == list(DATA.rows())
    assert list(ReadHfDataset().read(str(tmp_path / "hf")).rows()) == list(DATA.rows())


@pytest.mark.parametrize(
    ("writer", "name"), [(Jsonl, "a.jsonl"), (Csv, "a.csv"), (Parquet, "a.pq"), (HfDataset, "a")]
)
def test_columns_choose_what_is_written(tmp_path, writer, name):
    path = str(tmp_path / name)
    writer(columns=("n",)).write(DATA, path)
    reader = {Jsonl: ReadJsonl, Csv: ReadCsv, Parquet: ReadParquet, HfDataset: ReadHfDataset}[writer]
    assert list(reader().read(path).rows()) == [{"id": "a/1", "n": 1}, {"id": "b", "n": 2}]
    with pytest.raises(InputError, match="no column 'm'"):
        writer(columns=("m",)).write(DATA, str(tmp_path / "other"))
    assert not (tmp_path / "other").exists()


WRITERS = [
    (Jsonl, "a.jsonl"),
    (Jsonl, "a.jsonl.zst"),
    (Csv, "a.csv"),
    (Parquet, "a.pq"),
    (HfDataset, "a"),
    (TextFolder, "t"),
]


@pytest.mark.parametrize(("writer", "name"), WRITERS)
def test_nothing_is_overwritten(tmp_path, writer, name):
    path = tmp_path / name
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(StoreError, match="nothing is overwritten"):
        writer().write(DATA, str(path))
    assert path.read_text(encoding="utf-8") == "precious"
    with pytest.raises(ConfigError, match="needs a path"):
        writer().write(DATA, "")


@pytest.mark.parametrize(("writer", "name"), WRITERS)
def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch, writer, name):
    simple = Dataset.from_rows({"id": str(n), "text": "x"} for n in range(3))

    def full(self, *arguments, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tutelage.data.write._atomic.os.fsync", full)
    monkeypatch.setattr(Path, "write_text", full)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="could not be written") as error:
        writer().write(simple, str(tmp_path / "sub" / name))
    assert error.value.found == "No space left on device" and error.value.remedy
    assert list((tmp_path / "sub").iterdir()) == []


@pytest.mark.parametrize(("writer", "name"), WRITERS)
def test_a_place_that_cannot_be_written(tmp_path, writer, name):
    (tmp_path / "file").write_text("x", encoding="utf-8")
    simple = Dataset.from_rows([{"id": "1", "text": "x"}])
    with pytest.raises(StoreError, match="could not be written"):
        writer().write(simple, str(tmp_path / "file" / name))


def test_values_without_a_form_are_named(tmp_path):
    odd = Dataset.from_rows([{"id": "a", "x": 1.0}, {"id": "b", "x": math.nan}])
    with pytest.raises(InputError, match="column 'x' holds a value that JSON lacks") as error:
        Jsonl().write(odd, str(tmp_path / "a.jsonl"))
    assert error.value.where == "row b"
    dated = Dataset.from_rows([{"id": "a", "day": datetime.date(2024, 1, 2)}])
    with pytest.raises(InputError, match="date"):
        Jsonl().write(dated, str(tmp_path / "a.jsonl"))
    with pytest.raises(InputError, match="column 'tags' has no CSV form"):
        Csv().write(DATA, str(tmp_path / "a.csv"))
    assert list(tmp_path.iterdir()) == []


def test_sidecars_and_missing_columns_are_written(tmp_path):
    mixed = Dataset.from_rows([{"id": "a", "text": "x"}, {"id": "b", "n": 2}])
    wide = mixed.with_columns("score", [{"score": [0.5, 1.5]}])
    Parquet().write(wide, str(tmp_path / "a.parquet"))
    assert list(ReadParquet().read(str(tmp_path / "a.parquet")).rows()) == list(wide.rows())
    assert pq.read_schema(tmp_path / "a.parquet").field("score").type == pa.float64()


# -- text folders ---------------------------------------------------------------------------------------------


FORMULAS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://evil")', "＝1"]


def test_formulas_in_csv(tmp_path):
    """CSV for programs is exact; for spreadsheets a cell that one of them would compute gets an apostrophe."""
    data = Dataset.from_rows(
        [{"id": str(n), "text": text, "n": -n} for n, text in enumerate([*FORMULAS, "plain - text"])]
    )
    Csv().write(data, str(tmp_path / "exact.csv"))
    exact = ReadCsv().read(str(tmp_path / "exact.csv"))
    assert exact.column("text").to_pylist() == [*FORMULAS, "plain - text"]
    Csv(for_spreadsheets=True).write(data, str(tmp_path / "shown.csv"))
    shown = ReadCsv().read(str(tmp_path / "shown.csv"))
    assert shown.column("text").to_pylist() == [*(f"'{text}" for text in FORMULAS), "plain - text"]
    assert shown.column("n").to_pylist() == exact.column("n").to_pylist() == [-n for n in range(9)]


def test_text_folder_reads_back(tmp_path):
    written = TextFolder().write(DATA, str(tmp_path / "out"))
    assert written == [str(tmp_path / "out" / "a" / "1.txt"), str(tmp_path / "out" / "b.txt")]
    found = {r["id"]: r["text"] for r in ReadText().read(str(tmp_path / "out")).rows()}
    assert found == {"a/1.txt": "one\r\ntwo", "b.txt": "ünï 🙂 \u2028"}
    named = Dataset.from_rows([{"id": "x.md", "body": "# T"}])
    TextFolder(column="body", suffix=".md").write(named, str(tmp_path / "md"))
    assert (tmp_path / "md" / "x.md").read_text(encoding="utf-8") == "# T"
    with pytest.raises(InputError, match="column 'n' is not text"):
        TextFolder(column="n").write(DATA, str(tmp_path / "bad"))
    assert not (tmp_path / "bad").exists()


HOSTILE = [
    "../../x",
    "/etc/passwd",
    "..",
    ".",
    "a/../../b",
    "C:\\x",
    "con",
    "NUL.txt",
    "a\0b",
    "a:b",
    "x" * 500,
    "a. ",
    "//",
]


def test_no_id_leads_out_of_the_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    target = tmp_path / "deep" / "out"
    dataset = Dataset.from_rows({"id": identifier, "text": identifier} for identifier in HOSTILE)
    written = TextFolder().write(dataset, str(target))
    assert len(set(written)) == len(HOSTILE)
    for file, identifier in zip(written, HOSTILE):
        assert Path(file).resolve().is_relative_to(target.resolve()), identifier
        assert Path(file).read_bytes() == identifier.encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_every_id_makes_a_safe_name(identifier):
    path = relative_path(identifier, ".txt")
    assert not path.is_absolute() and ".." not in path.parts and "." not in path.parts
    for part in path.parts:
        assert part and len(part.encode()) <= 130 and not set(part) & set('\\:*?"<>|\0/')
        assert part.split(".")[0].lower() not in ("con", "nul", "aux", "prn", "com1")


def test_ids_that_differ_in_case_get_files_of_their_own(tmp_path):
    dataset = Dataset.from_rows([{"id": "A", "text": "1"}, {"id": "a", "text": "2"}, {"id": "a.txt", "text": "3"}])
    written = [Path(p).name for p in TextFolder().write(dataset, str(tmp_path / "out"))]
    assert written == ["A.txt", "a~2.txt", "a~3.txt"]


@settings(max_examples=150, deadline=None)
@given(ROWS_OF_TEXT)
def test_rows_of_text_are_written_as_json_writes_them(rows):
    for shard in Dataset.from_rows(rows).shards():
        for batch in shard.to_batches():
            lines = jsonl_module._text_lines(batch)
            expected = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in batch.to_pylist()).encode()
            assert lines is None or lines == expected


def test_rows_of_text_are_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonl_module, "to_line", None)
    rows = [{"id": "a", "text": 'one "two"\t\r\n\\ é'}, {"id": "b", "text": ""}]
    target = str(tmp_path / "a.jsonl")
    Jsonl().write(Dataset.from_rows(rows), target)
    assert [json.loads(line) for line in Path(target).read_bytes().splitlines()] == rows
    assert list(ReadJsonl().read(target).rows()) == rows
