"""Temporary room for data too large for memory, below the workspace and removed when the process ends."""

import atexit
import os
import shutil
import tempfile
import uuid
from pathlib import Path

_root: Path | None = None


def scratch_path(suffix: str = "") -> Path:
    """A fresh path (not created) in this process's scratch folder; set `TUTELAGE_SCRATCH` to move it."""
    global _root
    if _root is None or not _root.exists():
        parent = os.environ.get("TUTELAGE_SCRATCH")
        if parent:
            Path(parent).mkdir(parents=True, exist_ok=True)
        _root = Path(tempfile.mkdtemp(prefix="tutelage-", dir=parent))
        atexit.register(shutil.rmtree, _root, ignore_errors=True)
    return _root / (uuid.uuid4().hex + suffix)
