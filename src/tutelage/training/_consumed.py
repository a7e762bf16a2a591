"""The log of what was trained on: one JSON line per optimiser step with its row ids."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tutelage.core.errors import TrainingError
from tutelage.core.scratch import scratch_path


class ConsumedLog:
    """`consumed.jsonl` in the checkpoint folder, or in scratch space. A resumed run cuts off what came after its
    checkpoint, so every step stands there once."""

    def __init__(self, folder: Path | None) -> None:
        self.path = scratch_path(".jsonl") if folder is None else folder / "consumed.jsonl"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab")
        except OSError as error:
            raise TrainingError(
                "the checkpoint folder cannot be used",
                where=self.path.parent,
                expected="a folder that can be written",
                found=str(error),
            ) from None

    @property
    def position(self) -> int:
        """Bytes written."""
        return self._file.tell()

    def rewind(self, position: int) -> None:
        """Forget what was written after `position`."""
        if position > self.position:
            raise TrainingError(
                "the log of consumed rows is shorter than its checkpoint says",
                where=self.path,
                expected=f"at least {position} bytes",
                found=f"{self.position} bytes",
                remedy="put the file back, or start over with resume=False",
            )
        self._file.truncate(position)
        self._file.seek(position)

    def write(self, step: int, ids: Sequence[str]) -> None:
        """One step's ids."""
        try:
            self._file.write(json.dumps({"step": step, "ids": list(ids)}).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise TrainingError(
                "the log of consumed rows could not be written",
                where=self.path,
                found=str(error),
                remedy="free space and run again: it resumes from the last complete checkpoint",
            ) from None

    def sync(self) -> None:
        """Flush to disk, before a checkpoint that counts on it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def read(path: str | Path) -> list[str]:
    """All consumed ids in order."""
    with Path(path).open(encoding="utf-8") as lines:
        return [name for line in lines for name in json.loads(line)["ids"]]
