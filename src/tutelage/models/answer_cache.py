"""Answers of an endpoint on disk, one file for each request, named by its hash; each is complete or not there."""

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
        found = json_text.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write(file: Path, answer: dict[str, Any]) -> None:
    """Keep an answer."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        json.dump(answer, out)
    Path(name).replace(file)
