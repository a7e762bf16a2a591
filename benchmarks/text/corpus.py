"""The texts of the benchmarks of filters and deduplication: real ones, with planted copies and contamination.

Real texts are the JSONL and Parquet files with a column `text` below the folder that BENCH_TEXT_DATA names, else
below `../shared/data` where that exists, and (without BENCH_TEXT_DATA) sources and documentation of the running
Python, cut at blank lines into documents of about two kilobytes. Of every twenty documents one comes again as it
is and two with a word in a hundred changed, clear of any threshold; every fiftieth holds thirteen words
of an evaluation item.
"""

import json
import os
import random
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

from benchmarks.skip import Skip

VARIABLE = "BENCH_TEXT_DATA"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
DOCUMENT = 2000  # characters after which a document ends at the next blank line
SHORTEST = 200  # characters; sentences are no documents
ITEMS, ITEM_WORDS, PLANTED_WORDS = 400, 60, 13


@dataclass(frozen=True)
class Corpus:
    """Rows (id, text) in order, evaluation items (id, text), ids of the rows that hold a piece of one, and where
    the texts are from."""

    rows: list[tuple[str, str]]
    items: list[tuple[str, str]]
    planted: frozenset[str]
    source: str

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.rows]

    @property
    def megabytes(self) -> float:
        return megabytes(self.texts)

    def slice(self, size: float) -> "Corpus":
        """The first rows that make `size` megabytes, with all items."""
        total, count = 0.0, 0
        while count < len(self.rows) and total < size * 1e6:
            total += len(self.rows[count][1].encode())
            count += 1
        rows = self.rows[:count]
        planted = self.planted & {identifier for identifier, _ in rows}
        return Corpus(rows, self.items, planted, self.source)

    def write(self, file: Path) -> Path:
        """The rows as JSON Lines."""
        return write(file, self.rows)


def write(file: Path, rows: Iterable[tuple[str, str]]) -> Path:
    with file.open("w", encoding="utf-8") as out:
        for identifier, text in rows:
            out.write(json.dumps({"id": identifier, "text": text}, ensure_ascii=False) + "\n")
    return file


def megabytes(texts: Iterable[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def corpus(size: float, seed: int = 0) -> Corpus:
    """About `size` megabytes, copies included; less where there is less."""
    rng = random.Random(seed)
    pool, source = real_texts()
    rng.shuffle(pool)
    items = [(f"e{i}", " ".join(text.split()[:ITEM_WORDS])) for i, text in enumerate(_items(pool))]
    rows: list[tuple[str, str]] = []
    planted: set[str] = set()
    total = 0
    for text in with_copies(pool, rng):
        identifier = f"t{len(rows):07}"
        if len(rows) % 50 == 49:
            text = plant(text, items[len(planted) % len(items)][1], rng)
            planted.add(identifier)
        rows.append((identifier, text))
        total += len(text.encode())
        if total >= size * 1e6:
            break
    return Corpus(rows, items, frozenset(planted), source)


def with_copies(texts: Iterable[str], rng: random.Random) -> Iterator[str]:
    """The texts; after every twenty of them one again as it is and two with a word in a hundred changed."""
    recent: list[str] = []
    for text in texts:
        yield text
        recent.append(text)
        if len(recent) == 20:
            yield rng.choice(recent)
            yield edited(rng.choice(recent), rng)
            yield edited(rng.choice(recent), rng)
            recent = []


def edited(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    for at in rng.sample(range(len(words)), -(-len(words) // 100)):
        words[at] = "edited"
    return " ".join(words)


def plant(text: str, item: str, rng: random.Random) -> str:
    """The text with thirteen words of the item as a line of their own in its midst."""
    words = item.split()
    first = rng.randrange(len(words) - PLANTED_WORDS + 1)
    lines = text.split("\n")
    lines.insert(rng.randrange(len(lines) + 1), " ".join(words[first : first + PLANTED_WORDS]))
    return "\n".join(lines)


def _items(pool: list[str]) -> list[str]:
    """Takes texts of enough plain words out of the pool."""
    plain = [i for i in range(len(pool)) if _plain(pool[i])][:ITEMS]
    found = [pool[i] for i in plain]
    for i in reversed(plain):
        del pool[i]
    return found


def _plain(text: str) -> bool:
    words = text.split()[:ITEM_WORDS]
    return len(words) == ITEM_WORDS and all(word.strip(".,;:()'\"").isalpha() for word in words)


def real_texts() -> tuple[list[str], str]:
    """(texts, where they are from)."""
    folder = os.environ.get(VARIABLE)
    if folder:
        return read(Path(folder)), f"files below ${VARIABLE}"
    if SHARED.is_dir():
        return read(SHARED) + installed(), "files below ../shared/data, and the Python that runs this"
    return installed(), "sources and documentation of the Python that runs this"


def read(folder: Path) -> list[str]:
    """The distinct texts of all JSONL and Parquet files below a folder, the short ones of a file together."""
    from tutelage.core.discovery import build
    from tutelage.core.errors import TutelageError

    texts: list[str] = []
    for file in sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.parquet")]):
        try:
            rows = build("data.read.auto").read(str(file))  # type: ignore[attr-defined]
        except TutelageError:
            continue
        if "text" in rows.column_names:
            found = rows.column("text").to_pylist()
            texts += [t for t in dict.fromkeys(found) if isinstance(t, str) and len(t) >= SHORTEST]
    if not texts:
        raise Skip(f"no JSONL or Parquet file with a column text below {folder}")
    return list(dict.fromkeys(texts))


def installed() -> list[str]:
    """Documents of the standard library's sources and of the help topics."""
    root = Path(sysconfig.get_path("stdlib"))
    files = [f for f in sorted(root.rglob("*.py")) if "site-packages" not in f.parts]
    found = [part for name in sorted(topics) for part in documents(topics[name])]
    for file in files:
        try:
            found += documents(file.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue
    return list(dict.fromkeys(found))


def documents(text: str) -> Iterator[str]:
    """The text cut at the first blank line after every `DOCUMENT` characters."""
    start = 0
    while start < len(text):
        end = text.find("\n\n", start + DOCUMENT)
        end = len(text) if end < 0 else end + 2
        part = text[start:end].strip("\n")
        # Half characters in a source's tests of itself cannot be stored.
        if len(part) >= SHORTEST and _storable(part):
            yield part
        start = end


def _storable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
