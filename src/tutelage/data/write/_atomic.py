"""Writing files completely or not at all: a temporary name beside the target, flushed, then renamed."""

import gzip
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from tutelage.core.errors import ConfigError, StoreError


def new_target(path: str | None, writer: str) -> Path:
    """`path` as a Path that does not exist yet; nothing is ever overwritten."""
    if not path:
        raise ConfigError(f"{writer} needs a path", expected="a new file or folder", remedy="give the step a path")
    target = Path(path)
    if target.exists() or target.is_symlink():
        raise StoreError(
            "the target exists, and nothing is overwritten",
            where=target,
            expected="a path where nothing is",
            found="a folder" if target.is_dir() else "a file",
            remedy="choose another path, or remove it",
        )
    return target


@contextmanager
def _building(target: Path) -> Iterator[Path]:
    """A temporary name beside `target` that becomes it at the end; removed when anything fails."""
    building = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield building
        if target.exists():
            raise StoreError(
                "the target appeared while it was written", where=target, remedy="choose another path"
            )
        building.rename(target)
    except OSError as error:
        raise StoreError(
            "the data could not be written",
            where=target,
            expected="a place that can be written, with enough room",
            found=error.strerror or str(error),
            remedy="free space or choose another path; nothing was left behind",
        ) from None
    finally:
        _remove(building)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def new_file(target: Path) -> Iterator[BinaryIO]:
    """A binary stream, compressed by the suffix of `target` (.gz, .zst), that becomes `target` when complete."""
    with _building(target) as building, building.open("xb") as raw:
        suffix = target.suffix.lower()
        if suffix == ".gz":
            # No name and no time inside: equal data gives equal bytes.
            with gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as packed:
                yield packed  # type: ignore[misc]
        elif suffix == ".zst":
            with pa.CompressedOutputStream(pa.PythonFile(raw, "w"), "zstd") as packed_zst:
                yield _Unclosed(packed_zst)  # type: ignore[misc]
            # Arrow closes the file below it; open it again to flush it to the disk.
            with building.open("rb+") as again:
                os.fsync(again.fileno())
        else:
            yield raw
        if not raw.closed:
            raw.flush()
            os.fsync(raw.fileno())


class _Unclosed(io.RawIOBase):
    """A Python stream over an Arrow stream."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return self._stream.write(data)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` when complete."""
    with _building(target) as building:
        building.mkdir()
        yield building
