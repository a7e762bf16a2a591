"""Each reader against the library or standard that defines its format, and the effect of every option."""

import csv as stdlib_csv
import gzip
import json
import platform
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from tutelage.core import dataset_builder
from tutelage.core.errors import ConfigError, InputError
from tutelage.data.read import _json
from tutelage.data.read.alpaca import Alpaca
from tutelage.data.read.auto import Auto
from tutelage.data.read.chats import Chats
from tutelage.data.read.csv import Csv
from tutelage.data.read.documents import Documents
from tutelage.data.read.hf_dataset import HfDataset
from tutelage.data.read.jsonl import Jsonl
from tutelage.data.read.parquet import Parquet
from tutelage.data.read.python_topics import PythonTopics
from tutelage.data.read.text import Text

PROOF = {
    "data.read.jsonl": ["consistent", "verified"],
    "data.read.csv": ["consistent", "verified"],
    "data.read.parquet": ["consistent", "verified"],
    "data.read.hf_dataset": ["consistent", "verified"],
    "data.read.text": ["consistent"],
    "data.read.documents": ["consistent", "verified"],
    "data.read.chats": ["consistent"],
    "data.read.alpaca": ["consistent"],
    "data.read.auto": ["consistent"],
    "data.read.python_topics": ["consistent", "verified"],
}
MUTATIONS = [
    ("src/tutelage/data/read/jsonl.py", "rename_row(record, self.columns)", "record"),
    ("src/tutelage/data/read/_json.py", "if table.num_rows == len(starts) else", "if True else"),
    ("src/tutelage/data/read/_json.py", "(data[starts] != _BRACE).any()", "False"),
    ("src/tutelage/data/read/_json.py", "table.validate(full=True)", "table.validate()"),
    ("src/tutelage/data/read/_json.py", "            if rows.full:\n", "            if False:\n"),
    (
        "src/tutelage/core/dataset_builder.py",
        "before + BYTES_PER_SHARD - self._pending",
        "before + BYTES_PER_SHARD",
    ),
    ("src/tutelage/core/dataset_builder.py", "or not self._seen.isdisjoint(fresh)", ""),
    ("src/tutelage/data/read/csv.py", 'return cell == "true"', 'return cell == "false"'),
    ("src/tutelage/data/read/parquet.py", "first += batch.num_rows", "first += 0"),
    ("src/tutelage/data/read/_rows.py", 'lambda table: "id" in table.column_names', "lambda table: True"),
    ("src/tutelage/data/read/hf_dataset.py", "else classes[number]", "else classes[0]"),
    ("src/tutelage/data/read/text.py", 'if kind == "html":', 'if kind == "markdown":'),
    ("src/tutelage/data/read/documents.py", '"#" * int(level) + " "', '""'),
    ("src/tutelage/data/read/chats.py", '"gpt": "assistant"', '"gpt": "user"'),
    ("src/tutelage/data/read/alpaca.py", "{extra}", "{record['output']}"),
    ("src/tutelage/data/read/auto.py", "return Chats()", "return Jsonl()"),
    ("src/tutelage/data/read/python_topics.py", '"group": topic', '"group": "all"'),
]

ROWS = [
    {"id": "a", "text": "one\nline \u2028 two", "score": 1.5, "tags": ["x", "y"], "n": 1, "good": True},
    {"id": "b", "text": "", "score": None, "tags": [], "n": 2, "good": False},
    {"id": "c", "text": 'quote " and \\ ünï 🙂', "score": -2.0, "tags": ["z"], "n": 3, "good": None},
]


def rows(dataset):
    return list(dataset.rows())


def counts(dataset):
    report = dataset.report
    assert report["in"] == report["kept"] + report["quarantined"]
    assert report["kept"] == dataset.num_rows
    assert report["quarantined"] == dataset.quarantined.num_rows
    return report["in"], report["kept"], report["quarantined"]


def jsonl(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


# -- JSON Lines -----------------------------------------------------------------------------------------------


def test_jsonl_gives_what_json_gives(tmp_path):
    dataset = Jsonl().read(jsonl(tmp_path / "a.jsonl", ROWS))
    assert rows(dataset) == ROWS
    assert counts(dataset) == (3, 3, 0)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_jsonl_compressed(tmp_path, suffix):
    data = "".join(json.dumps(r) + "\n" for r in ROWS).encode()
    half = len(data) // 2
    pack = gzip.compress if suffix == ".gz" else zstandard.compress
    # Two members, as `cat a.gz b.gz` makes them, are one stream.
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack(data[:half]) + pack(data[half:]))
    assert rows(Jsonl().read(str(tmp_path / f"a.jsonl{suffix}"))) == ROWS


def test_jsonl_reads_an_array_too(tmp_path):
    (tmp_path / "a.json").write_text("\n " + json.dumps(ROWS, indent=1), encoding="utf-8")
    assert rows(Jsonl().read(str(tmp_path / "a.json"))) == ROWS
    many = [{"id": str(n), "text": "é" * (n % 700), "value": {"n": [n], "deep": "]},["}} for n in range(2000)]
    (tmp_path / "b.json").write_text(json.dumps(many, ensure_ascii=False), encoding="utf-8")
    assert [r["id"] for r in rows(Jsonl().read(str(tmp_path / "b.json")))] == [r["id"] for r in many]


def test_jsonl_renames_and_limits(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"body": "x", "n": 1}, {"body": "y", "n": 2}, {"body": "z", "n": 3}])
    dataset = Jsonl(columns={"body": "text"}, limit=2).read(path)
    assert [(r["text"], r["n"]) for r in rows(dataset)] == [("x", 1), ("y", 2)]
    assert dataset.column_names == ["id", "text", "n"]
    with pytest.raises(InputError, match="two columns would be called 'n'"):
        Jsonl(columns={"body": "n"}).read(path)


GOOD_LINE = b'{"id": "%d", "text": "line %d \\u00e9 \\ud83d\\ude00 \\n"}\n'
DOUBTFUL = {
    "two objects": b'{"id": "x", "text": "a"} {"id": "y", "text": "b"}\n',
    "as many objects as lines": b'{"id": "x", "text": "a"} {"id": "y", "text": "b"}\n{"id": "z",\n"text": "c"}\n',
    "object over two lines": b'{"id": "x",\n"text": "a"}\n',
    "key twice": b'{"id": "x", "text": "a", "text": "b"}\n',
    "another key": b'{"id": "x", "text": "a", "more": "b"}\n',
    "key left out": b'{"id": "x"}\n',
    "null": b'{"id": "x", "text": null}\n',
    "number": b'{"id": 7, "text": "a"}\n',
    "no id": b'{"text": "a"}\n',
    "empty id": b'{"id": "", "text": "a"}\n',
    "id twice": b'{"id": "3", "text": "a"}\n',
    "not UTF-8": b'{"id": "x", "text": "\xff"}\n',
    "half a character": b'{"id": "x", "text": "\\ud800"}\n',
    "blank": b"  \n",
    "blank before the brace": b' {"id": "x", "text": "a"}\n',
    "comma": b'{"id": "x", "text": "a",}\n',
    "list": b'["x"]\n',
    "nested": b'{"id": "x", "text": {"a": "b"}}\n',
    "control": b'{"id": "x", "text": "a\tb"}\n',
    "torn": b'{"id": "x", "te',
}


@pytest.mark.parametrize("limit", [None, 7])
@pytest.mark.parametrize("name", DOUBTFUL)
def test_jsonl_by_the_block_equals_line_by_line(tmp_path, monkeypatch, name, limit):
    lines = [GOOD_LINE % (i, i) for i in range(12)]
    place = 12 if name == "torn" else 8
    (tmp_path / "a.jsonl").write_bytes(b"".join([*lines[:place], DOUBTFUL[name], *lines[place:]]))
    reader = Jsonl(on_error="quarantine", limit=limit)
    monkeypatch.setattr(dataset_builder, "BYTES_PER_SHARD", 300)
    with monkeypatch.context() as patch:
        patch.setattr(_json, "text_table", lambda block: None)
        slow = reader.read(str(tmp_path / "a.jsonl"))
    for size in (1, 120, 500, 10_000):
        monkeypatch.setattr(_json, "_BLOCK", size)
        fast = reader.read(str(tmp_path / "a.jsonl"))
        assert fast.hash == slow.hash and fast.schema == slow.schema and fast.report == slow.report
        assert fast.quarantined.equals(slow.quarantined)
    assert slow.num_shards > 1


def test_jsonl_takes_blocks_of_text_at_once(tmp_path, monkeypatch):
    lines = [GOOD_LINE % (i, i) for i in range(12)]
    (tmp_path / "a.jsonl").write_bytes(b"".join(lines))
    monkeypatch.setattr(_json, "_parse", None)
    assert Jsonl().read(str(tmp_path / "a.jsonl")).num_rows == 12
    assert Jsonl(limit=5).read(str(tmp_path / "a.jsonl")).num_rows == 5


def test_ids_are_kept_made_text_or_made_from_contents(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"id": 7, "text": "a"}, {"id": "x", "text": "b"}, {"text": "c"}])
    first, second = Jsonl().read(path), Jsonl().read(path)
    assert first.ids()[:2] == ["7", "x"] and len(first.ids()[2]) == 16
    assert first.ids() == second.ids() and first.hash == second.hash


def test_empty_objects_become_null_and_can_be_saved(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"text": "a", "args": {}}, {"text": "b", "args": {"x": {}, "y": 1}}])
    saved = Jsonl().read(path).save(tmp_path / "saved")
    assert [r["args"] for r in rows(saved)] == [None, {"x": None, "y": 1}]


# -- CSV ------------------------------------------------------------------------------------------------------


def test_csv_gives_what_the_csv_module_gives(tmp_path):
    cells = [["id", "text", "note"], ["1", 'say "hi", ok', "a\nb"], ["2", "", "ü"], ["3", "x\r\ny", "true "]]
    with (tmp_path / "a.csv").open("w", newline="", encoding="utf-8") as out:
        stdlib_csv.writer(out).writerows(cells)
    dataset = Csv().read(str(tmp_path / "a.csv"))
    assert rows(dataset) == [dict(zip(cells[0], line)) for line in cells[1:]]
    assert counts(dataset) == (3, 3, 0)


def test_csv_types_are_inferred_and_declared(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(
        "text,n,x,good,zip,big\n1,1,1.5,true,01234,123456789012345678901\n2,,-2e3,false,98765,2\n",
        encoding="utf-8",
    )
    found = rows(Csv().read(str(path)))
    assert [{k: v for k, v in row.items() if k != "id"} for row in found] == [
        {"text": "1", "n": 1, "x": 1.5, "good": True, "zip": "01234", "big": "123456789012345678901"},
        {"text": "2", "n": None, "x": -2000.0, "good": False, "zip": "98765", "big": "2"},
    ]
    declared = rows(Csv(types={"n": "text", "good": "text"}).read(str(path)))
    assert [(row["n"], row["good"]) for row in declared] == [("1", "true"), ("", "false")]
    with pytest.raises(InputError, match=r"no column 'goood'") as error:
        Csv(types={"goood": "text"}).read(str(path))
    assert "good" in error.value.remedy


def test_csv_labels_are_names_and_an_empty_one_is_none(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label,note\none,1,\ntwo,,x\n", encoding="utf-8")
    found = rows(Csv().read(str(path)))
    assert [(row["label"], row["note"]) for row in found] == [("1", ""), (None, "x")]
    renamed = rows(Csv(columns={"note": "label", "label": "grade"}).read(str(path)))
    assert [(row["label"], row["grade"]) for row in renamed] == [(None, 1), ("x", None)]


def test_csv_delimiter_rename_limit_and_suffix(tmp_path):
    (tmp_path / "a.csv").write_text("body;n\nx;1\ny;2\nz;3\n", encoding="utf-8")
    with pytest.raises(InputError, match="other separators") as error:
        Csv().read(str(tmp_path / "a.csv"))
    assert "delimiter" in error.value.remedy
    found = rows(Csv(delimiter=";", columns={"body": "text"}, limit=2).read(str(tmp_path / "a.csv")))
    assert [(r["text"], r["n"]) for r in found] == [("x", 1), ("y", 2)]
    (tmp_path / "a.tsv").write_text("text\tn\na,b\t1\n", encoding="utf-8")
    assert rows(Csv().read(str(tmp_path / "a.tsv")))[0]["text"] == "a,b"
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,n\nx,1\n"))
    assert rows(Csv().read(str(tmp_path / "a.csv.gz")))[0]["n"] == 1


def test_csv_cells_may_be_long(tmp_path):
    (tmp_path / "a.csv").write_text("text\n" + "x" * 300_000 + "\n", encoding="utf-8")
    before = stdlib_csv.field_size_limit()
    assert len(rows(Csv().read(str(tmp_path / "a.csv")))[0]["text"]) == 300_000
    assert stdlib_csv.field_size_limit() == before


# -- Parquet --------------------------------------------------------------------------------------------------


def test_parquet_gives_what_pyarrow_gives(tmp_path):
    table = pa.table(
        {
            "id": [str(n) for n in range(9000)],
            "text": pa.array([f"row {n}" for n in range(9000)]).dictionary_encode(),
            "x": pa.array([n / 7 for n in range(9000)], pa.float32()),
            "v": [[float(n), 1.0] for n in range(9000)],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=1000)
    dataset = Parquet().read(str(tmp_path / "a.parquet"))
    assert rows(dataset) == table.to_pylist()
    assert dataset.schema.field("x").type == pa.float32()
    assert dataset.schema.field("text").type == pa.string()
    assert dataset.num_shards == 1
    assert counts(dataset) == (9000, 9000, 0)


def test_files_with_and_without_ids(tmp_path):
    """Rows of a file without ids get ids from what they say, as they would in a folder without any."""
    pq.write_table(pa.table({"id": ["x", "y"], "text": ["a", "b"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["c", "d"]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"id": ["z"], "text": ["e"]}), tmp_path / "c.parquet")
    dataset = Auto().read(str(tmp_path))
    assert dataset.column("text").to_pylist() == list("abcde")
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "c.parquet").unlink()
    assert dataset.ids() == ["x", "y", *Auto().read(str(tmp_path)).ids(), "z"]


def test_parquet_rename_limit_and_number_ids(tmp_path):
    pq.write_table(pa.table({"key": [5, 6, 7], "body": ["a", "b", "c"]}), tmp_path / "a.parquet")
    dataset = Parquet(columns={"body": "text", "key": "id"}, limit=2).read(str(tmp_path / "a.parquet"))
    assert rows(dataset) == [{"id": "5", "text": "a"}, {"id": "6", "text": "b"}]
    assert len(Parquet().read(str(tmp_path / "a.parquet")).ids()[0]) == 16


def test_parquet_names_the_row_in_a_later_batch(tmp_path):
    values = [1.0] * 9000
    values[8999] = float("nan")
    pq.write_table(pa.table({"text": ["a"] * 9000, "x": values}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="row 9000"):
        Parquet().read(str(tmp_path / "a.parquet"))


# -- Hugging Face folders -------------------------------------------------------------------------------------


def test_hf_dataset_reads_what_the_library_saves(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["ham", "spam"])}
    )
    made = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    made.save_to_disk(str(tmp_path / "one"), num_shards=2)
    found = rows(HfDataset().read(str(tmp_path / "one")))
    assert [(r["text"], r["label"]) for r in found] == [("a", "spam"), ("b", "ham"), ("c", None)]
    both = datasets.DatasetDict({"train": made, "test": made.select([0])})
    both.save_to_disk(str(tmp_path / "two"))
    assert HfDataset(split="test").read(str(tmp_path / "two")).num_rows == 1
    with pytest.raises(ConfigError, match="several splits"):
        HfDataset().read(str(tmp_path / "two"))
    with pytest.raises(ConfigError, match=r"no split 'tset'") as error:
        HfDataset(split="tset").read(str(tmp_path / "two"))
    assert "did you mean test" in error.value.remedy


def hf_folder(folder, table, features=None, end=True):
    folder.mkdir(parents=True)
    state = {"_data_files": [{"filename": "data.arrow"}], "_split": None}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}), encoding="utf-8")
    with pa.OSFile(str(folder / "data.arrow"), "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table, max_chunksize=2)
    if not end:
        data = (folder / "data.arrow").read_bytes()
        (folder / "data.arrow").write_bytes(data[:-8])
    return str(folder)


def test_hf_dataset_by_hand_with_class_names_rename_and_limit(tmp_path):
    table = pa.table({"body": ["a", "b", "c"], "label": [0, 1, -1]})
    path = hf_folder(tmp_path / "d", table, {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}})
    found = rows(HfDataset(columns={"body": "text"}).read(path))
    assert [(r["text"], r["label"]) for r in found] == [("a", "no"), ("b", "yes"), ("c", None)]
    assert HfDataset(limit=1).read(path).num_rows == 1


def test_hf_dataset_cut_between_batches_is_noticed(tmp_path):
    path = hf_folder(tmp_path / "d", pa.table({"text": ["a", "b", "c"]}), end=False)
    with pytest.raises(InputError, match="truncated"):
        HfDataset().read(path)
    kept = HfDataset(on_error="quarantine").read(path)
    assert counts(kept) == (4, 3, 1)


def test_hf_dataset_never_leaves_its_folder(tmp_path):
    path = Path(hf_folder(tmp_path / "d", pa.table({"text": ["a"]})))
    (path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../x.arrow"}]}), encoding="utf-8")
    with pytest.raises(InputError, match="outside its folder"):
        HfDataset().read(str(path))


# -- documents ------------------------------------------------------------------------------------------------

HTML = """<!doctype html><html><head><title>T</title><style>p {}</style></head><body>
<h1>Big &amp; small</h1><p>First   <b>bold</b>
text.</p><script>alert("x")</script><ul><li>one</li><li>two</li></ul><pre>a
  b</pre></body></html>"""


def folder_of_texts(root):
    (root / "sub").mkdir(parents=True)
    (root / "b.txt").write_bytes(b"plain\r\ntext\n")
    (root / "sub" / "a.md").write_text("# Title\n\nBody é\n", encoding="utf-8")
    (root / "page.HTML").write_text(HTML, encoding="utf-8")
    (root / "data.bin").write_bytes(b"\x00\x01")
    (root / ".hidden.txt").write_text("secret", encoding="utf-8")
    return str(root)


def test_text_folder_becomes_documents(tmp_path):
    dataset = Text().read(folder_of_texts(tmp_path / "docs"))
    found = {r["id"]: (r["text"], r["source"], r["kind"]) for r in rows(dataset)}
    assert list(found) == ["b.txt", "page.HTML", "sub/a.md"]
    assert found["b.txt"] == ("plain\r\ntext\n", "b.txt", "text")
    assert found["sub/a.md"] == ("# Title\n\nBody é\n", "sub/a.md", "markdown")
    assert found["page.HTML"][0] == "# Big & small\n\nFirst bold text.\n\n- one\n- two\n\na\n  b"
    assert found["page.HTML"][2] == "html"
    assert dataset.report["ignored"] == {"hidden": 1, "suffix .bin": 1}


def test_text_suffixes_limit_and_single_file(tmp_path):
    root = folder_of_texts(tmp_path / "docs")
    assert Text(suffixes=(".md",)).read(root).ids() == ["sub/a.md"]
    assert Text(limit=1).read(root).ids() == ["b.txt"]
    assert Text().read(f"{root}/sub/a.md").ids() == ["a.md"]


def minimal_pdf(text):
    """A PDF of one page with one line of text, written by hand."""
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode() if text else b""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    data, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    tail = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, len(data))
    return data + head + table + tail


def test_documents_reads_pdf_and_docx(tmp_path):
    pytest.importorskip("pypdf")
    docx = pytest.importorskip("docx")
    (tmp_path / "a.pdf").write_bytes(minimal_pdf("Hello from a page"))
    made = docx.Document()
    made.add_heading("The title", level=2)
    made.add_paragraph("First paragraph.")
    table = made.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "left", "right"
    made.add_paragraph("Last.")
    made.save(str(tmp_path / "b.docx"))
    (tmp_path / "notes.txt").write_text("not read here", encoding="utf-8")
    dataset = Documents().read(str(tmp_path))
    assert [(r["id"], r["text"], r["kind"]) for r in rows(dataset)] == [
        ("a.pdf", "Hello from a page", "pdf"),
        ("b.docx", "## The title\n\nFirst paragraph.\n\nleft\tright\n\nLast.", "docx"),
    ]
    assert dataset.report["ignored"] == {"suffix .txt": 1}
    assert Documents(limit=1).read(str(tmp_path)).ids() == ["a.pdf"]


def test_documents_broken_and_empty_files(tmp_path):
    pytest.importorskip("pypdf")
    pytest.importorskip("docx")
    (tmp_path / "a.pdf").write_bytes(minimal_pdf("fine"))
    (tmp_path / "b.pdf").write_bytes(minimal_pdf("cut off")[:200])
    (tmp_path / "c.pdf").write_bytes(minimal_pdf(""))
    (tmp_path / "d.docx").write_bytes(b"PK\x03\x04 not a document")
    dataset = Documents().read(str(tmp_path))
    assert counts(dataset) == (4, 1, 3)
    reasons = {r["where"]: r["reason"] for r in dataset.quarantined.to_pylist()}
    assert "cannot be read" in reasons["b.pdf"] and "cannot be read" in reasons["d.docx"]
    assert "no text" in reasons["c.pdf"]
    with pytest.raises(InputError, match=r"b\.pdf"):
        Documents(on_error="raise").read(str(tmp_path / "b.pdf"))


def test_documents_names_the_extra(tmp_path, monkeypatch):
    import sys

    (tmp_path / "a.pdf").write_bytes(minimal_pdf("x"))
    monkeypatch.setitem(sys.modules, "pypdf", None)
    with pytest.raises(ConfigError, match=r"tutelage\[documents\]"):
        Documents().read(str(tmp_path))


# -- chats and instructions -----------------------------------------------------------------------------------


def test_chats_share_gpt_and_messages(tmp_path):
    records = [
        {
            "system": "Be brief.",
            "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
            "topic": "greeting",
        },
        {
            "messages": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2?"}]},
                {"role": "Assistant", "content": "4"},
            ]
        },
    ]
    (tmp_path / "a.json").write_text(json.dumps(records), encoding="utf-8")
    dataset = Chats().read(str(tmp_path / "a.json"))
    found = rows(dataset)
    assert found[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]
    assert found[0]["topic"] == "greeting"
    assert [(m["role"], m["content"]) for m in found[1]["messages"]] == [
        ("system", "S"),
        ("user", "2+2?"),
        ("assistant", "4"),
    ]
    assert set(dataset.column_names) == {"id", "topic", "messages"}
    assert Chats(limit=1).read(str(tmp_path / "a.json")).num_rows == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"messages": []}, "no messages"),
        ({"mesages": [{"role": "user", "content": "x"}]}, "did you mean mesages"),
        ({"messages": [{"role": "usr", "content": "x"}]}, r"messages\[0\] has no known role"),
        ({"messages": [{"role": "user", "content": 3}]}, r"messages\[0\] has no text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "only text is read"),
        ({"messages": ["hi"]}, "not an object"),
    ],
)
def test_chats_bad_records(tmp_path, record, message):
    good = {"messages": [{"role": "user", "content": "x"}]}
    path = jsonl(tmp_path / "a.jsonl", [good, record])
    with pytest.raises(InputError, match=message) as error:
        Chats().read(path)
    assert "line 2" in str(error.value.where)
    assert counts(Chats(on_error="quarantine").read(path)) == (2, 1, 1)


def test_alpaca(tmp_path):
    records = [
        {"instruction": "Add.", "input": "1 and 2", "output": "3", "level": 1},
        {"instruction": "Say hi.", "input": "", "output": "hi", "level": 2},
    ]
    path = jsonl(tmp_path / "a.jsonl", records)
    found = rows(Alpaca().read(path))
    assert [(r["prompt"], r["completion"], r["level"]) for r in found] == [
        ("Add.\n\n1 and 2", "3", 1),
        ("Say hi.", "hi", 2),
    ]
    assert Alpaca(limit=1).read(path).num_rows == 1
    bad = jsonl(tmp_path / "b.jsonl", [*records, {"instruction": "x", "outputs": "y"}])
    with pytest.raises(InputError, match="no output") as error:
        Alpaca().read(bad)
    assert "line 3" in str(error.value.where) and "outputs" in error.value.remedy
    assert counts(Alpaca(on_error="quarantine").read(bad)) == (3, 2, 1)


# -- any of them ----------------------------------------------------------------------------------------------


def test_auto_single_files(tmp_path):
    jsonl(tmp_path / "chat.jsonl", [{"conversations": [{"from": "human", "value": "x"}]}])
    jsonl(tmp_path / "alpaca.jsonl", [{"instruction": "a", "input": "", "output": "b"}])
    jsonl(tmp_path / "plain.jsonl", [{"text": "a"}])
    (tmp_path / "t.csv").write_text("text\na\n", encoding="utf-8")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "noname")
    (tmp_path / "m.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "README").write_text("read me", encoding="utf-8")
    columns = {
        "chat.jsonl": "messages",
        "alpaca.jsonl": "completion",
        "plain.jsonl": "text",
        "t.csv": "text",
        "noname": "text",
        "m.py": "group",
        "README": "text",
    }
    for name, column in columns.items():
        assert column in Auto().read(str(tmp_path / name)).column_names, name
    (tmp_path / "x.exe").write_bytes(b"MZ")
    with pytest.raises(InputError, match="no reader knows"):
        Auto().read(str(tmp_path / "x.exe"))


def test_auto_mixed_folder(tmp_path):
    folder_of_texts(tmp_path / "pile")
    root = tmp_path / "pile"
    jsonl(root / "rows.jsonl", [{"id": "r1", "text": "row one"}, {"id": "r2", "text": "row two"}])
    (root / "numbers.csv").write_text("a,b\n1,2\n3,4\n", encoding="utf-8")
    pq.write_table(pa.table({"id": ["p1", "r1"], "text": ["from parquet", "again"]}), root / "t.parquet")
    (root / "broken.jsonl").write_text("{torn", encoding="utf-8")
    (root / "mod.py").write_text('"""Doc."""\n', encoding="utf-8")
    (root / "latin.txt").write_bytes(b"caf\xe9")
    dataset = Auto().read(str(root))
    found = {r["id"]: r["source"] for r in rows(dataset)}
    assert found == {
        "b.txt": "b.txt",
        "mod.py": "mod.py",
        "page.HTML": "page.HTML",
        "r1": "rows.jsonl",
        "r2": "rows.jsonl",
        "sub/a.md": "sub/a.md",
        "p1": "t.parquet",
    }
    assert counts(dataset) == (11, 7, 4)
    where = {r["where"] for r in dataset.quarantined.to_pylist()}
    assert where == {"broken.jsonl, line 1", "latin.txt", "numbers.csv", "t.parquet, row 2"}
    assert dataset.report["readers"]["data.read.text"] == 4
    with pytest.raises(InputError, match=r"broken\.jsonl"):
        Auto(on_error="raise").read(str(root))
    assert Auto(limit=2).read(str(root)).num_rows == 2


def test_auto_folders_that_are_one_dataset(tmp_path):
    path = hf_folder(tmp_path / "hf", pa.table({"text": ["a", "b"]}))
    assert [r["text"] for r in rows(Auto().read(path))] == ["a", "b"]
    saved = Auto().read(path).save(tmp_path / "saved")
    assert Auto().read(str(tmp_path / "saved")).hash == saved.hash
    assert Auto(limit=1).read(str(tmp_path / "saved")).num_rows == 1


def test_auto_single_table_stops_at_the_first_error(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n[]\n', encoding="utf-8")
    with pytest.raises(InputError, match="line 2"):
        Auto().read(str(tmp_path / "a.jsonl"))
    assert counts(Auto(on_error="quarantine").read(str(tmp_path / "a.jsonl"))) == (2, 1, 1)


# -- the corpus inside Python ---------------------------------------------------------------------------------


def test_python_topics():
    from pydoc_data.topics import topics

    dataset = PythonTopics().read()
    assert {r["id"]: r["text"] for r in rows(dataset)} == topics
    assert dataset.ids() == sorted(topics)
    assert all(r["group"] == r["id"] and r["source"] == "pydoc_data.topics" for r in rows(dataset))
    assert dataset.report["python"] == platform.python_version()
    assert PythonTopics(limit=3).read().ids() == sorted(topics)[:3]
    with pytest.raises(ConfigError, match="takes no path"):
        PythonTopics().read("x")
