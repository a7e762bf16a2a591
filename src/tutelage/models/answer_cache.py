"""Answers of an endpoint on disk, one file for each request, named by its hash; each is complete or not there.

A file is the hash of the answer and, on the next line, the answer as JSON.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tutelage.core import json_text


def place(folder: Path, request: list[Any]) -> Path:
    """Where the answer to a request (address, path, body) is kept."""
    key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
    return folder / key[:2] / f"{key}.json"


def read(file: Path) -> dict[str, Any] | None:
    """The answer, or None where there is none or it is damaged."""
    try:
        content = file.read_bytes()
        digest, _, answer = content.partition(b"\n")
        if not content.startswith(b"{") and digest != _digest(answer):
            return None
        # Files of earlier versions are the answer alone.
        found = json_text.loads(content if content.startswith(b"{") else answer)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(file: Path, answer: dict[str, Any]) -> None:
    """Keep an answer."""
    file.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(answer).encode()
    handle, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(_digest(content) + b"\n" + content)
        Path(name).replace(file)
    finally:
        with contextlib.suppress(OSError):
            Path(name).unlink()


def _digest(answer: bytes) -> bytes:
    return hashlib.sha256(answer).hexdigest().encode()
