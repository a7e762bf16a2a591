"""The artifact store: results by content key, written completely or not at all, never changed in place.

An artifact is the folder `<root>/<key[:2]>/<key>/`. It is built in a temporary folder, every file is hashed and
flushed, the marker `artifact.json` is written last and one rename makes it visible; a folder without a whole
marker is not an artifact. A file lock per key makes a second process wait for the first one and reuse its result.
Whoever loads what an earlier process wrote asks for it with `sound`, which reads it once and compares the hashes.
"""

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import blake3
from filelock import FileLock, Timeout

from tutelage.core import json_text
from tutelage.core.errors import StoreError, TutelageError

MARKER = "artifact.json"
FORMAT = 1
Kind = Literal["dataset", "model", "state", "result", "fit", "files", "failure"]
_UNWRITABLE = {
    errno.ENOSPC,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EDQUOT,
    errno.EFBIG,
    errno.ENOTDIR,
    errno.EEXIST,
}


class DamagedArtifact(StoreError):
    """Files of the artifact `key` are not what was written."""

    key = ""


@dataclass(frozen=True)
class Artifact:
    """A complete artifact: `path` is its folder, `files` maps relative names to size and hash, `meta` is JSON."""

    key: str
    kind: str
    path: Path
    meta: dict[str, Any]
    files: dict[str, dict[str, Any]]

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(entry["bytes"] for entry in self.files.values())

    def verify(self) -> None:
        """Read every file and compare it with its hash; raises DamagedArtifact naming the first difference."""
        for name, entry in self.files.items():
            file = self.path / name
            found = _hash_file(file) if file.is_file() else "no file"
            if found != entry["hash"]:
                damaged = DamagedArtifact(
                    "a stored artifact is damaged",
                    where=file,
                    expected=entry["hash"],
                    found=found,
                    remedy=f"delete the folder {self.path} and run again",
                )
                damaged.key = self.key
                raise damaged


class Store:
    """Artifacts below `root` (usually `<workspace>/.tutelage/store`)."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        # Keys of artifacts that this process has read through, or written itself.
        self._sound: set[str] = set()

    def folder(self, key: str) -> Path:
        """Where the artifact `key` is, or would be."""
        return self.root / key[:2] / key

    def get(self, key: str) -> Artifact | None:
        """The artifact `key`, or None when it is not there or not complete."""
        folder = self.folder(key)
        try:
            marker = json_text.loads((folder / MARKER).read_bytes())
            files = marker["files"]
            if marker["format"] != FORMAT or marker["key"] != key or not isinstance(marker["meta"], dict):
                return None
            if marker.get("hash") not in (None, _marker_hash(marker)):
                return None
            if not all(isinstance(entry["hash"], str) and _plain(name) for name, entry in files.items()):
                return None
            if any((folder / name).stat().st_size != entry["bytes"] for name, entry in files.items()):
                return None
            return Artifact(key, marker["kind"], folder, marker["meta"], files)
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, AttributeError):
            return None
        except OSError as error:
            raise _store_error("the artifact store cannot be read", folder, error) from None

    def sound(self, artifact: Artifact) -> Artifact:
        """The artifact, its files compared with their hashes when this store meets it for the first time."""
        if artifact.key not in self._sound:
            artifact.verify()
            self._sound.add(artifact.key)
        return artifact

    def whole(self, key: str) -> Artifact | None:
        """The artifact `key`, its files compared with their hashes, or None when it is not there."""
        found = self.get(key)
        return None if found is None else self.sound(found)

    def discard(self, key: str) -> None:
        """Remove an artifact, so that it is made again."""
        self._sound.discard(key)
        with self.lock(key):
            self._clear(self.folder(key))

    def put(
        self,
        key: str,
        write: Callable[[Path], Mapping[str, Any] | None],
        *,
        kind: Kind,
        meta: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """The artifact `key`; `write(folder)` makes it when it is not there yet.

        `write` does the whole computation, so that a process that comes second waits for the first one instead of
        computing the same thing; what it returns is added to `meta`. A failure leaves nothing behind.
        """
        with self.lock(key):
            found = self.get(key)
            if found is not None:
                return found
            building = self._building(key)
            try:
                with disk_errors():
                    returned = write(building)
                self._finish(building, key, kind, {**(meta or {}), **(returned or {})})
                final = self.folder(key)
                final.parent.mkdir(parents=True, exist_ok=True)
                if final.exists():
                    shutil.rmtree(final)
                building.replace(final)
                _sync_folder(final.parent)
            except OSError as error:
                if error.errno in _UNWRITABLE:
                    raise _store_error("an artifact could not be written", self.folder(key), error) from None
                raise
            finally:
                shutil.rmtree(building, ignore_errors=True)
            made = self.get(key)
            if made is None:
                raise StoreError("an artifact vanished after it was written", where=self.folder(key))
            self._sound.add(key)
            return made

    def keys(self) -> Iterator[str]:
        """Keys of all folders of the store, complete or not."""
        if self.root.is_dir():
            for shelf in sorted(self.root.iterdir()):
                if shelf.is_dir() and len(shelf.name) == 2:
                    yield from sorted(folder.name for folder in shelf.iterdir())

    def gc(self, keep: set[str]) -> dict[str, int]:
        """Remove leftovers of dead processes and every artifact not in `keep`; what is locked is left alone.

        Returns {"artifacts": removed, "leftovers": removed, "bytes": freed}.
        """
        removed = {"artifacts": 0, "leftovers": 0, "bytes": 0}
        temporary = self.root / "tmp"
        for building in sorted(temporary.iterdir()) if temporary.is_dir() else []:
            self._remove(building.name.partition(".")[0], building, "leftovers", removed)
        for key in list(self.keys()):
            if key not in keep or self.get(key) is None:
                self._remove(key, self.folder(key), "artifacts", removed)
        return removed

    @contextmanager
    def lock(self, key: str, timeout: float = -1) -> Iterator[None]:
        """Hold the lock of `key`; waits `timeout` seconds (-1: as long as it takes), then raises `Timeout`."""
        folder = self.root / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / f"{key}.lock")
            lock.acquire(timeout=timeout)
        except Timeout:
            raise
        except OSError as error:
            raise _store_error("the artifact store cannot be locked", folder, error) from None
        try:
            yield
        finally:
            lock.release()

    def _building(self, key: str) -> Path:
        temporary = self.root / "tmp"
        building = temporary / f"{key}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        try:
            # Whoever holds the lock is alone: what else has the key's name was left by a process that died.
            for leftover in temporary.glob(f"{key}.*"):
                shutil.rmtree(leftover, ignore_errors=True)
            building.mkdir(parents=True)
        except OSError as error:
            raise _store_error("an artifact could not be written", building, error) from None
        return building

    def _finish(self, building: Path, key: str, kind: str, meta: dict[str, Any]) -> None:
        files = {}
        for file in sorted(path for path in building.rglob("*") if path.is_file()):
            name = file.relative_to(building).as_posix()
            files[name] = {"bytes": file.stat().st_size, "hash": _hash_file(file)}
            _sync_file(file)
        marker: dict[str, Any] = {"format": FORMAT, "key": key, "kind": kind, "meta": meta, "files": files}
        marker["hash"] = _marker_hash(marker)
        with (building / MARKER).open("w", encoding="utf-8") as out:
            json.dump(marker, out, indent=1)
            out.flush()
            os.fsync(out.fileno())

    def _remove(self, key: str, folder: Path, counted: str, removed: dict[str, int]) -> None:
        try:
            with self.lock(key, timeout=0):
                size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
                self._clear(folder)
        except Timeout:
            return
        removed[counted] += 1
        removed["bytes"] += size

    def _clear(self, folder: Path) -> None:
        try:
            # The marker goes first: a removal that is cut short leaves no artifact that looks whole.
            with suppress(FileNotFoundError):
                (folder / MARKER).unlink()
            shutil.rmtree(folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise _store_error("an artifact could not be removed", folder, error) from None


@contextmanager
def disk_errors() -> Iterator[None]:
    """Raise as OSError what libraries written in Rust (safetensors, tokenizers) report of a full disk in types of
    their own, so that writers need to expect one type."""
    try:
        yield
    except (OSError, TutelageError):
        raise
    except Exception as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        if found is None:
            raise
        number = int(found[1])
        if os.name == "nt":
            raise OSError(0, str(error), None, number) from None
        raise OSError(number, os.strerror(number)) from None


def _store_error(what: str, where: Path, error: OSError) -> StoreError:
    return StoreError(
        what,
        where=where,
        found=error.strerror or str(error),
        remedy="free space or choose a --workspace that can be written",
    )


def _plain(name: str) -> bool:
    """Whether a file's name in a marker stays below the artifact's folder."""
    path = PurePosixPath(name)
    return (
        bool(name) and not path.is_absolute() and ".." not in path.parts and ":" not in name and "\\" not in name
    )


def _marker_hash(marker: Mapping[str, Any]) -> str:
    """Hash of what a marker says, but for its hash (which markers of earlier versions lack)."""
    text = json.dumps({name: marker[name] for name in marker if name != "hash"}, sort_keys=True)
    return blake3.blake3(text.encode()).hexdigest(length=16)


def _hash_file(file: Path) -> str:
    return blake3.blake3(max_threads=1).update_mmap(file).hexdigest(length=16)


def _sync_file(file: Path) -> None:
    # Windows flushes only descriptors open for writing.
    descriptor = os.open(file, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
