"""Names that lead out of where they belong, and small files that become large."""

import gzip
import io
import json
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from toy.command_line import tutelage, write_rows
from tutelage.core.dataset import MANIFEST, Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError, TutelageError
from tutelage.core.store import MARKER, Store
from tutelage.data.read import _files, documents
from tutelage.runs import Recipe
from tutelage.runs.paths import check_paths, model_path, output_path, source_path, tree_hash

MUTATIONS = [
    ("src/tutelage/core/dataset.py", "if not path.resolve().is_relative_to(folder.resolve()):", "if False:"),
    ("src/tutelage/core/store.py", '".." not in path.parts', "True"),
    ("src/tutelage/core/store.py", "not path.is_absolute() and", ""),
    ("src/tutelage/data/read/hf_dataset.py", "    if not inside:\n", "    if False:\n"),
    ("src/tutelage/runs/paths.py", "    if not allow_outside and not any(", "    if False and not any("),
    ("src/tutelage/runs/paths.py", "    _inside(path, [workspace], False, where)\n", ""),
    ("src/tutelage/data/read/_files.py", "        if len(line) > largest:\n", "        if False:\n"),
    ("src/tutelage/data/read/_files.py", "        if len(data) > most:\n", "        if False:\n"),
    ("src/tutelage/data/read/_json.py", "        if len(buffer) > largest:\n", "        if False:\n"),
    ("src/tutelage/data/read/csv.py", "                if size > largest:\n", "                if False:\n"),
    ("src/tutelage/data/read/documents.py", "    if size > LARGEST_PACKAGE:\n", "    if False:\n"),
    ("src/tutelage/data/read/hf_dataset.py", "            batch.validate(full=True)\n", ""),
]
SECRET = "the secret of another folder"
ROWS = [{"id": str(n), "text": f"text {n}"} for n in range(3)]


@pytest.fixture
def bed(tmp_path) -> Path:
    """`bed/project` beside `bed/away`, which holds what nobody named."""
    away = tmp_path / "away"
    away.mkdir()
    write_rows(away / "secret.jsonl", [{"id": "s", "text": SECRET}])
    Dataset.from_rows([{"id": "s", "text": SECRET}]).save(away / "data")
    (tmp_path / "project").mkdir()
    write_rows(tmp_path / "project" / "rows.jsonl", ROWS)
    return tmp_path


def link(place: Path, target: Path) -> None:
    try:
        place.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("no right to make links here")


def outside(bed: Path) -> list[str]:
    return [
        "../away/secret.jsonl", "../away", str(bed / "away" / "secret.jsonl"), "sub/../../away/secret.jsonl",
        "linked", "linked-folder/secret.jsonl", "..",
    ]  # fmt: skip


def test_sources_adapters_and_models_of_a_recipe(bed):
    project = bed / "project"
    link(project / "linked", bed / "away" / "secret.jsonl")
    link(project / "linked-folder", bed / "away")
    (project / "sub").mkdir()
    steps = [{"name": "a", "use": "signals.length", "from": "pool"}]
    for path in outside(bed):
        recipe = Recipe(name="x", sources={"pool": {"path": path}}, steps=steps).placed(project)
        with pytest.raises(ConfigError, match="leaves the workspace"):
            source_path(recipe, project, "pool")
        allowed = recipe.placed(project, allow_outside=True)
        assert source_path(allowed, project, "pool").exists()
        if not Path(path).is_absolute():
            # An absolute path of a model was written for this machine; see `runs.paths`.
            models = {"m": {"load": "smollm2", "adapter": path}, "n": {"load": f"./{path}"}}
            recipe = Recipe(name="x", sources={"pool": {"path": "rows.jsonl"}}, models=models, steps=steps)
            for name, field in (("m", "adapter"), ("n", "load")):
                with pytest.raises(ConfigError, match="leaves the workspace"):
                    model_path(recipe.placed(project), project, name, field)
            with pytest.raises(ConfigError, match="leaves the workspace"):
                check_paths(recipe.placed(project), project)


def test_what_writers_write(bed):
    project = bed / "project"
    link(project / "linked-folder", bed / "away")
    steps = [{"name": "a", "use": "signals.length", "from": "pool"}]
    recipe = Recipe(name="x", sources={"pool": {"path": "rows.jsonl"}}, steps=steps)
    for to in (
        "../escaped",
        str(bed / "escaped"),
        "linked-folder/escaped",
        "a/../../escaped",
        "..",
        "/etc/escaped",
    ):
        for allowed in (False, True):
            with pytest.raises(ConfigError, match="leaves the workspace"):
                output_path(recipe.placed(project, allowed), project, to, "here")
    assert output_path(recipe.placed(project), project, "out/rows.jsonl", "here") == project / "out" / "rows.jsonl"


def test_links_inside_a_source(bed):
    project = bed / "project"
    (project / "docs").mkdir()
    (project / "docs" / "a.txt").write_text("fine", encoding="utf-8")
    link(project / "docs" / "b.jsonl", bed / "away" / "secret.jsonl")
    with pytest.raises(ConfigError, match="leaves the workspace"):
        tree_hash(project / "docs", [project], False)
    for reader in ("data.read.auto", "data.read.text", "data.read.python_source", "data.read.documents"):
        try:
            found = build(reader).read(str(project / "docs"))
        except TutelageError:
            continue
        assert SECRET not in str(list(found.rows()))


@pytest.mark.parametrize("name", ["../../away/data/shards/00000.parquet", "ABSOLUTE", "linked.parquet"])
def test_a_manifest_that_names_shards_elsewhere(bed, name):
    folder = bed / "project" / "data"
    Dataset.from_rows([{"id": "s", "text": "mine"}]).save(folder)
    shard = bed / "away" / "data" / "shards" / "00000.parquet"
    name = str(shard) if name == "ABSOLUTE" else name
    if name == "linked.parquet":
        link(folder / name, shard)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["shards"][0]["parts"][0] |= {"file": name, "bytes": shard.stat().st_size}
    (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(InputError, match="names a file outside its folder"):
        Dataset.open(folder)


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        ("../away.arrow", False),
        ("a/../../away.arrow", False),
        ("ABSOLUTE", False),
        ("linked.arrow", False),
        *((odd, True) for odd in ("\0", "", 7, None, ["x"])),
    ],
)
def test_a_saved_dataset_folder_that_names_files_elsewhere(tmp_path, name, inside):
    folder, away = tmp_path / "saved", tmp_path / "away.arrow"
    folder.mkdir()
    table = pa.table({"text": [SECRET]})
    with pa.OSFile(str(away), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    if name == "linked.arrow":
        link(folder / name, away)
    name = str(away) if name == "ABSOLUTE" else name
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}), encoding="utf-8")
    words = "is damaged" if inside else "names a file outside its folder"
    with pytest.raises(InputError, match=words) as caught:
        build("data.read.hf_dataset").read(str(folder))
    assert caught.value.where is not None
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": [name]}), encoding="utf-8")
    with pytest.raises(InputError, match=words):
        build("data.read.hf_dataset").read(str(folder))


@pytest.mark.parametrize("name", ["../../../away", "ABSOLUTE", "C:/x", "a\\..\\b", "..", ""])
def test_an_artifact_that_names_files_elsewhere_is_none(tmp_path, name):
    """Also where the file is there and has the size: nobody would check what it says."""
    away = tmp_path / "away"
    away.write_text("x", encoding="utf-8")
    store = Store(tmp_path / "store")
    made = store.put("ab12", lambda folder: (folder / "file").write_text("x") and None, kind="files")
    assert (made.path / "../../../away").resolve() == away
    marker = json.loads((made.path / MARKER).read_text(encoding="utf-8"))
    marker["files"] = {str(away) if name == "ABSOLUTE" else name: marker["files"]["file"]}
    marker.pop("hash", None)
    (made.path / MARKER).write_text(json.dumps(marker), encoding="utf-8")
    assert Store(tmp_path / "store").get("ab12") is None


def test_exports_and_reports_go_where_they_are_told_and_overwrite_nothing(bed, capfd, monkeypatch):
    project = bed / "project"
    monkeypatch.chdir(project)
    before = sorted(path.name for path in bed.rglob("*"))
    for command in (["export", "rows.jsonl", "../away"], ["export", "../away", "out"], ["report", "-w", "."]):
        answer = tutelage(capfd, *command)
        assert answer.code == 2, answer.err
    assert sorted(path.name for path in bed.rglob("*")) == before


# -- archives -----------------------------------------------------------------------------------------------------


def package(**parts: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return sink.getvalue()


def test_a_document_that_unpacks_elsewhere_or_to_too_much(tmp_path, monkeypatch):
    library = pytest.importorskip("docx")
    document = library.Document()
    document.add_paragraph("A paragraph.")
    document.save(tmp_path / "fine.docx")
    with zipfile.ZipFile(tmp_path / "fine.docx") as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    folder = tmp_path / "docs"
    folder.mkdir()
    evil = {**parts, "../../escaped.txt": b"x", "/escaped.txt": b"x", "word/../../../escaped.txt": b"x"}
    (folder / "evil.docx").write_bytes(package(**evil))
    assert build("data.read.documents").read(str(folder)).column("text").to_pylist() == ["A paragraph."]
    assert not list(tmp_path.rglob("escaped.txt"))
    # An entity that grows, and one that reads a file.
    entities = (
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY f SYSTEM "file:///etc/passwd">]>'
    )
    body = parts["word/document.xml"].replace(b"A paragraph.", b"&b;&f;")
    body = body.partition(b"?>")[0] + b"?>" + entities + body.partition(b"?>")[2]
    (folder / "evil.docx").write_bytes(package(**{**parts, "word/document.xml": body}))
    try:
        text = build("data.read.documents", {"on_error": "raise"}).read(str(folder)).column("text").to_pylist()[0]
    except InputError as error:
        text = str(error)
    assert "root:" not in text and "aaaa" not in text
    monkeypatch.setattr(documents, "LARGEST_PACKAGE", 4 << 20)
    (folder / "evil.docx").write_bytes(package(**{**parts, "word/media.bin": bytes(5 << 20)}))
    with pytest.raises(InputError, match="unpacks to too much"):
        build("data.read.documents", {"on_error": "raise"}).read(str(folder))


def packed(data: bytes, suffix: str) -> bytes:
    return gzip.compress(data, 9) if suffix == ".gz" else zstandard.ZstdCompressor(9).compress(data)


BOMBS = {
    "rows.jsonl": (b'{"text": "', b'"}\n'),
    "rows.json": (b'[{"text": "', b'"}]'),
    "rows.csv": (b'text\n"', b'"\n'),
    "lines.csv": (b'text\n"a\n', b'"\n'),
    "page.txt": (b"", b""),
    "module.py": (b"x = '", b"'\n"),
}


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("name", BOMBS)
def test_a_small_file_that_becomes_a_large_record(tmp_path, monkeypatch, name, suffix):
    """The limit is for compressed files alone, counts one record, and keeps memory near itself."""
    monkeypatch.setattr(_files, "LARGEST_RECORD", 1 << 20)
    head, tail = BOMBS[name]
    filler = b"a\n" if name == "lines.csv" else b"a"
    bomb = head + filler * ((8 << 20) // len(filler)) + tail
    file = tmp_path / f"{name}{suffix}"
    file.write_bytes(packed(bomb, suffix))
    assert file.stat().st_size < 20_000
    plain = tmp_path / name
    plain.write_bytes(bomb)
    readers = {".txt": "data.read.text", ".py": "data.read.python_source", ".csv": "data.read.csv"}
    reader = readers.get(plain.suffix, "data.read.jsonl")
    if plain.suffix != ".py":
        # What is not compressed may be as large as it is.
        assert build(reader).read(str(plain)).num_rows == 1
        with pytest.raises(InputError, match="record that is too large") as caught:
            build(reader, {"on_error": "raise"}).read(str(file))
        assert "decompress it first" in str(caught.value) and str(file) in str(caught.value)
    # Many small records are no large one.
    small = {"rows.jsonl": b'{"text": "a"}\n', "rows.csv": b"a\n"}.get(name)
    if small:
        file.write_bytes(packed((b"text\n" if name == "rows.csv" else b"") + small * 200_000, suffix))
        assert build(reader).read(str(file)).num_rows == 200_000


# -- values ------------------------------------------------------------------------------------------------------


def test_a_table_of_parquet_that_is_not_its_own_text(tmp_path):
    """Text of a Parquet file is checked: Arrow does not look at the bytes."""
    text = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0\4\0\0\0"), pa.py_buffer(b"ok\xff\xfe")]
    )
    pq.write_table(pa.table({"text": text}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="not valid UTF-8"):
        build("data.read.parquet").read(str(tmp_path / "a.parquet"))
    kept = build("data.read.parquet", {"on_error": "quarantine"}).read(str(tmp_path / "a.parquet"))
    assert kept.column("text").to_pylist() == ["ok"] and kept.quarantined.num_rows == 1


def test_an_arrow_stream_whose_values_lie_elsewhere_does_not_end_the_process(tmp_path):
    """Offsets and indices out of their buffers: checked before anything follows them."""
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}', encoding="utf-8")
    text, codes = pa.array(["a" * 0x1234]), pa.DictionaryArray.from_arrays(pa.array([0x1234]), ["a"], safe=False)
    for column, changed in ((text, b"\x00\x00\x00\x7e"), (codes, b"\x34\x12\x00\x00")):
        table = pa.table({"text": column})
        with pa.OSFile(str(folder / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        data = (folder / "a.arrow").read_bytes()
        assert b"\x34\x12\x00\x00" in data
        (folder / "a.arrow").write_bytes(data.replace(b"\x34\x12\x00\x00", changed))
        with pytest.raises(InputError, match="truncated or damaged"):
            build("data.read.hf_dataset").read(str(folder))
