"""Where fetched and converted models are kept, and how a folder appears there complete or not at all.

A folder is built beside its final place, its marker (`tutelage.json`: origin, sizes of all files) is written
last, then the folder is renamed. Without a marker that fits the files a folder does not count as present.
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from tutelage.core import json_text
from tutelage.core.errors import StoreError
from tutelage.core.store import disk_errors

MARKER = "tutelage.json"


def cache_dir() -> Path:
    """The folder for fetched and converted models: `TUTELAGE_CACHE`, else the platform's cache folder."""
    if named := os.environ.get("TUTELAGE_CACHE"):
        return Path(named).expanduser().resolve()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "tutelage"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def complete(folder: Path) -> dict[str, Any] | None:
    """The marker of a complete folder, or None when it is absent, torn or has lost files."""
    try:
        marker = json_text.loads((folder / MARKER).read_bytes())
        for name, size in marker["files"].items():
            if (folder / name).stat().st_size != size:
                return None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return marker


@contextlib.contextmanager
def building(final: Path, origin: dict[str, Any]) -> Iterator[Path]:
    """A temporary folder that becomes `final` when the block ends without an error.

    The caller holds `locked(final)` and has seen that `complete(final)` is None. Raises StoreError when the
    place cannot be written.
    """
    work = Path(tempfile.mkdtemp(prefix=f".{final.name}-", dir=final.parent))
    try:
        with disk_errors():
            yield work
        files = {p.relative_to(work).as_posix(): p.stat().st_size for p in sorted(work.rglob("*")) if p.is_file()}
        (work / MARKER).write_text(json.dumps({**origin, "files": files}, indent=1), encoding="utf-8")
        if final.exists():
            # Only an incomplete or outdated folder gets here; a complete one was returned by the caller.
            shutil.rmtree(final)
        work.chmod(0o755)  # temporary folders are private, a shared cache is not
        work.rename(final)
    except OSError as error:
        raise StoreError(
            "a model folder could not be written",
            where=final,
            found=error,
            remedy="free some space, or set TUTELAGE_CACHE to a folder that can be written",
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def locked(final: Path) -> Iterator[None]:
    """Hold the lock of one cached folder, so that two processes do not build it twice."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(final.parent / f".{final.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise StoreError(
            "the model cache cannot be written",
            where=final.parent,
            found=error,
            remedy="set TUTELAGE_CACHE to a folder that can be written",
        ) from error
    try:
        yield
    finally:
        lock.release()
