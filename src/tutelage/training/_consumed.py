"""The log of what was trained on: one JSON line per optimiser step with its row ids."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import blake3

from tutelage.core.errors import TrainingError
from tutelage.core.scratch import scratch_path


class ConsumedLog:
    """`consumed.jsonl` in the checkpoint folder, or in scratch space. A resumed run cuts off what came after its
    checkpoint, so every step stands there once."""

    def __init__(self, folder: Path | None) -> None:
        self.path = scratch_path(".jsonl") if folder is None else folder / "consumed.jsonl"
        self._digest = blake3.blake3()
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

    @property
    def digest(self) -> str:
        """Hash of what was written."""
        return self._digest.hexdigest()

    def rewind(self, position: int, digest: str | None = None) -> None:
        """Forget what was written after `position`; what is before it must have the hash `digest`."""
        if position > self.position:
            raise self._damaged(f"at least {position} bytes", f"{self.position} bytes")
        self._digest = blake3.blake3()
        with self.path.open("rb") as kept:
            while piece := kept.read(min(1 << 22, position - kept.tell())):
                self._digest.update(piece)
        if digest not in (None, self.digest):
            raise self._damaged(f"the hash {digest}", self.digest)
        self._file.truncate(position)
        self._file.seek(position)

    def _damaged(self, expected: str, found: str) -> TrainingError:
        return TrainingError(
            "the log of consumed rows is not what its checkpoint says",
            where=self.path,
            expected=expected,
            found=found,
            remedy=f"put the file back, or remove the folder {self.path.parent} to train from the start",
        )

    def write(self, step: int, ids: Sequence[str]) -> None:
        """One step's ids."""
        try:
            line = json.dumps({"step": step, "ids": list(ids)}).encode() + b"\n"
            self._file.write(line)
            self._file.flush()
            self._digest.update(line)
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
