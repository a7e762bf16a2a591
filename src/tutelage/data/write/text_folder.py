"""One text file per row, named after the row's id; slashes in an id make folders.

Every part of an id is made a safe file name: characters other than letters, digits, space and `._-+=@#~,()` are
percent-encoded, and so are `..`, names that Windows reserves and trailing dots, so no id can lead out of the
folder. Names that differ only in case get a number. What `data.read.text` reads back is the same texts.
"""

import hashlib
from pathlib import Path, PurePosixPath
from typing import Literal

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Writer
from tutelage.data.write._atomic import new_folder, new_target

CARD = {
    "name": "data.write.text_folder",
    "paper": {"title": "Common practice"},
    "summary": "Writes the text of each row to a file of its own in a new folder.",
    "reads": ["{column}"],
    "needs": [],
    "cost": "one file per row",
    "baseline": None,
    "headline": "Opens with every tool; no row id can write outside of the folder.",
    "version": 1,
}
_SAFE = frozenset("._-+=@#~,() ")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
_LONGEST = 120


def safe_name(part: str) -> str:
    """One part of an id as a file name that is valid on every system and is never `.` or `..`."""
    encoded = "".join(
        c if c.isalnum() or c in _SAFE else "".join(f"%{byte:02X}" for byte in c.encode()) for c in part
    )
    if encoded.split(".")[0].strip().lower() in _RESERVED:
        encoded = "".join(f"%{byte:02X}" for byte in encoded[:1].encode()) + encoded[1:]
    if encoded.endswith((".", " ")):
        encoded = encoded[:-1] + f"%{ord(encoded[-1]):02X}"
    if len(encoded.encode()) > _LONGEST:
        digest = hashlib.blake2b(part.encode(), digest_size=8).hexdigest()
        encoded = encoded.encode()[: _LONGEST - 17].decode(errors="ignore") + "-" + digest
    return encoded


def relative_path(identifier: str, suffix: str) -> PurePosixPath:
    """The path of a row's file inside the folder; an id that ends in `suffix` keeps its name."""
    stem = identifier.removesuffix(suffix)
    parts = [safe_name(part) for part in stem.split("/") if part] or [safe_name("/")]
    return PurePosixPath(*parts[:-1], parts[-1] + suffix)


class TextFolder(Writer):
    """`column` holds the text; `suffix` ends every file name."""

    column: str = "text"
    suffix: Literal[".txt", ".md", ".rst", ".html", ".py"] = ".txt"

    def write(self, dataset: Dataset, path: str) -> list[str]:
        """Write one file per row below the new folder `path`."""
        target = new_target(path, self.name)
        dataset.require(self.column)
        taken: set[str] = set()
        names = []
        with new_folder(target) as folder:
            for row in dataset.rows(["id", self.column]):
                text = row[self.column]
                if not isinstance(text, str):
                    raise InputError(
                        f"column {self.column!r} is not text",
                        where=f"row {row['id']}",
                        expected="text",
                        found=f"{type(text).__name__}: {text!r}",
                        remedy="name the column that holds the text in the field `column`",
                    )
                name = _free(relative_path(row["id"], self.suffix), taken)
                _write(folder, name, text)
                names.append(name)
        return [str(target / name) for name in names]


def _free(path: PurePosixPath, taken: set[str]) -> PurePosixPath:
    number, candidate = 1, path
    while str(candidate).casefold() in taken:
        number += 1
        candidate = path.with_name(f"{path.stem}~{number}{path.suffix}")
    taken.add(str(candidate).casefold())
    return candidate


def _write(folder: Path, name: PurePosixPath, text: str) -> None:
    file = folder / name
    assert file.resolve().is_relative_to(folder.resolve()), f"{name} leaves the folder"
    file.parent.mkdir(parents=True, exist_ok=True)
    # Bytes, so that line ends stay as they are.
    file.write_bytes(text.encode())
