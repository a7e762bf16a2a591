# ruff: noqa: E501  (tables of data)
"""Valid sources of every format, small; what a reader accepts of them is what its search starts from."""

import io
import json
import zlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.engine import Layout
from fuzz.mutate import packed

ROWS: list[dict[str, Any]] = [
    {"id": "a1", "text": "The first text, with Umlauts äöü.", "label": "x", "n": 1, "score": 0.5, "ok": True},
    {"id": "a2", "text": "A second\ntext", "label": "y", "n": 2, "score": None, "ok": False},
    {"id": "a3", "text": "third", "label": None, "n": 3, "score": 2.0, "ok": True},
]
TEXTS = [{"id": f"t{n}", "text": f'text {n} "quoted" ü', "label": "x"} for n in range(4)]
NESTED = [
    {"text": "a", "spans": [[0, 1], [2, 3]], "meta": {"k": {"deep": [1, None]}, "tags": ["x"]}},
    {"text": "b"},
]
PAIRS = [{"prompt": "p", "completion": "c"}, {"prompt": "q", "chosen": "c", "rejected": "r"}]
CHATS = [
    {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"},
                  {"role": "assistant", "content": "a", "tool_calls": None}], "topic": "t"},
    {"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}], "system": "s"},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "u"}]}]},
]  # fmt: skip
ALPACA = [
    {"instruction": "do", "input": "this", "output": "done"},
    {"instruction": "do", "input": "", "output": "ok"},
]
HTML = b"""<!doctype html><html><head><title>t</title><script>x()</script></head><body><h1>Head</h1>
<p>Some &amp; text<br>more</p><ul><li>one<li>two</ul><pre>  kept
 lines</pre><table><tr><td>a</td><td>b</td></tr></table></body></html>"""
MARKDOWN = b"# Title\n\nText with *stars* and `code`.\n\n- one\n- two\n\n```python\nx = 1\n```\n"
PYTHON = b'''"""Module."""
import os


class A:
    """A class."""

    def method(self, x):
        """Does it.

        In two lines.
        """
        text = """several
lines"""
        return x  # a comment


async def other(y=1):
    "short"
    return y
'''


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table, max_chunksize=2)
    return sink.getvalue()


@cache
def pdf() -> bytes:
    """Two pages of text, one content stream compressed; written by hand, offsets right."""
    first, second = (
        b"BT /F1 12 Tf 72 700 Td (Hello page one) Tj ET",
        b"BT /F1 12 Tf 72 700 Td (And page two) Tj ET",
    )
    packed_second = zlib.compress(second)
    bodies = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R 4 0 R] /Count 2 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R /Resources << /Font << /F1 7 0 R >> >> >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 6 0 R /Resources << /Font << /F1 7 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n" % len(first) + first + b"\nendstream",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n" % len(packed_second) + packed_second + b"\nendstream",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(bodies) + 1)
    tail = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(bodies) + 1, len(out))
    return out + head + table + tail


@cache
def docx() -> bytes:
    """A heading, a paragraph and a table; without pictures and themes, so that it is small."""
    import docx as library

    document = library.Document()
    document.add_heading("Head", 1)
    document.add_paragraph("A paragraph.")
    table = document.add_table(1, 2)
    table.rows[0].cells[0].text = "a"
    table.rows[0].cells[1].text = "b"
    sink = io.BytesIO()
    document.save(sink)
    return sink.getvalue()


@cache
def hf_folder() -> Mapping[str, bytes]:
    """As Hugging Face datasets saves: two Arrow files, a class label."""
    table = pa.table({"text": ["a", "b", "c"], "label": pa.array([0, 1, -1], pa.int64()), "n": [1.5, None, 2.0]})
    info = {
        "features": {
            "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
            "text": {"dtype": "string", "_type": "Value"},
        }
    }
    state = {
        "_data_files": [{"filename": "data-00000-of-00002.arrow"}, {"filename": "data-00001-of-00002.arrow"}],
        "_fingerprint": "0", "_split": "train", "_indices_data_files": None,
    }  # fmt: skip
    return {
        "state.json": json.dumps(state).encode(),
        "dataset_info.json": json.dumps(info).encode(),
        "data-00000-of-00002.arrow": arrow(table),
        "data-00001-of-00002.arrow": arrow(table),
    }


@cache
def sources() -> dict[str, Layout]:
    """Layouts by name: every kind of file and folder that a reader may be given."""
    records = {"rows": ROWS, "texts": TEXTS, "nested": NESTED, "pairs": PAIRS, "chats": CHATS, "alpaca": ALPACA}
    found: dict[str, Layout] = {}

    def file(name: str, entry: str, data: bytes) -> None:
        found[name] = Layout({entry: data}, entry)

    for name, rows in records.items():
        file(f"{name}-jsonl", "rows.jsonl", jsonl(rows))
    file("rows-array", "rows.json", json.dumps(ROWS).encode())
    file("chats-array", "rows.json", json.dumps(CHATS).encode())
    for suffix in (".gz", ".zst"):
        file(f"texts-jsonl{suffix}", f"rows.jsonl{suffix}", packed(jsonl(TEXTS), suffix))
        file(f"csv{suffix}", f"rows.csv{suffix}", packed(b"text,n\na,1\nb,2\n", suffix))
    file("array-gz", "rows.json.gz", packed(json.dumps(ROWS).encode(), ".gz"))
    file(
        "csv",
        "rows.csv",
        b'id,text,n,ok,label\r\n1,"a ""quoted"", b",1.5,true,x\r\n2,"two\r\nlines",-2,false,\r\n',
    )
    file("tsv", "rows.tsv", b"text\tn\na\t1\nb\t2\n")
    table = pa.table(
        {
            "id": ["1", "2", "3"], "text": ["a", "b", None], "n": [1, 2, 3], "x": [0.5, None, 1.5],
            "tags": [["a"], [], None], "m": [{"k": 1}, None, {"k": 2}],
        }
    )  # fmt: skip
    file("parquet", "rows.parquet", parquet(table))
    file("parquet-plain", "rows.parquet", parquet(pa.table({"text": ["a", "b"]})))
    file("html", "page.html", HTML)
    file("markdown", "page.md", MARKDOWN)
    file("text", "page.txt", "Plain text.\r\nTwo lines, é.\n".encode())
    file("python", "module.py", PYTHON)
    file("no-suffix", "README", b"Just words.\n")
    found["texts-folder"] = Layout({"a.txt": b"a text", "b/c.md": MARKDOWN, "b/d.html": HTML, "e.bin": b"\0"})
    found["mixed-folder"] = Layout(
        {"a.txt": b"a text", "rows.jsonl": jsonl(TEXTS), "t.csv": b"text,n\na,1\n", "p.parquet": parquet(table.select(["text"])),
         "chats.jsonl": jsonl(CHATS), "m.py": PYTHON}
    )  # fmt: skip
    found["python-folder"] = Layout({"p/__init__.py": b"x = 0\n", "p/module.py": PYTHON, "q.py": b"x = 1\n"})
    found["hf-folder"] = Layout(hf_folder())
    inner = {f"train/{name}": data for name, data in hf_folder().items()}
    found["hf-splits"] = Layout({"dataset_dict.json": b'{"splits": ["train"]}', **inner})
    try:
        file("docx", "page.docx", docx())
        import pypdf  # noqa: F401

        file("pdf", "page.pdf", pdf())
    except ImportError:
        pass
    return found
