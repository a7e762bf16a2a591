"""Temporary room for data too large for memory, in the system's temporary folder or `TUTELAGE_SCRATCH`.

A process removes its own folder when it ends. One that was killed cannot: the next one that needs room removes
what nobody holds the lock of any more.
"""

import atexit
import os
import shutil
import tempfile
import uuid
from pathlib import Path

from filelock import FileLock, Timeout

PREFIX = "tutelage-"
IN_USE = ".in-use"

_root: Path | None = None
_lock: FileLock | None = None  # held as long as the process lives


def scratch_path(suffix: str = "") -> Path:
    """A fresh path (not created) in this process's scratch folder; set `TUTELAGE_SCRATCH` to move it."""
    global _root, _lock
    if _root is None or not _root.exists():
        parent = Path(os.environ.get("TUTELAGE_SCRATCH") or tempfile.gettempdir())
        parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(parent)
        _root, _lock = _claimed(parent)
        atexit.register(shutil.rmtree, _root, ignore_errors=True)
    return _root / (uuid.uuid4().hex + suffix)


def remove_abandoned(parent: Path) -> list[Path]:
    """Remove the scratch folders below `parent` whose processes are gone; which ones."""
    removed = []
    for folder in sorted(parent.glob(f"{PREFIX}*")):
        lock = folder / IN_USE
        try:
            if folder.is_symlink() or not _ours(folder) or not lock.is_file():
                continue
            with FileLock(lock, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
                removed.append(folder)
        except (Timeout, OSError):
            continue  # in use, or just removed by another process
    return removed


def _claimed(parent: Path) -> tuple[Path, FileLock]:
    """A new folder with its lock held; made again when somebody took it for abandoned before it was locked."""
    while True:
        root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = FileLock(root / IN_USE, thread_local=False)
        lock.acquire()
        if (root / IN_USE).exists():
            return root, lock
        lock.release()


def _ours(folder: Path) -> bool:
    """Whether the folder belongs to this user: others' folders in a shared place are not opened."""
    return not hasattr(os, "getuid") or folder.stat().st_uid == os.getuid()
