"""Filters and deduplication of text in megabytes per second, beside datatrove and datasketch where installed.

Everything on one list of texts that is in memory already, in one process and one thread, in turns: rules (all
columns and the Gopher bounds) against datatrove's Gopher, C4 and FineWeb filters, each on every text;
near-duplicates (signatures, bands, exact check, clusters) against datasketch (signatures and bands) and datatrove
(signatures alone, which is most of its time); exact duplicates and n-gram decontamination by themselves. Ratios
are ours over theirs. Texts are the JSONL and Parquet files with a column `text` below the folder that
BENCH_TEXT_DATA names, else made on the spot.
"""

import os
import random
import re
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

from benchmarks.skip import Skip

ROUNDS = 3
SIZE = 400_000  # bytes; the slowest peer takes seconds for a megabyte, four times over
VARIABLE = "BENCH_TEXT_DATA"


def bench() -> dict[str, Any]:
    from tutelage.core.apply import apply_transform, score_dataset
    from tutelage.core.dataset import Dataset
    from tutelage.core.discovery import build

    texts, source = corpus()
    data = Dataset.from_rows({"id": f"t{i:06}", "text": text} for i, text in enumerate(texts))
    items = Dataset.from_rows({"id": f"e{i}", "text": text[:600]} for i, text in enumerate(texts[::50]))
    size = sum(len(text.encode()) for text in texts) / 1e6

    def rules() -> None:
        scored = score_dataset(build("signals.heuristic_rules"), data, {})  # type: ignore[arg-type]
        apply_transform(build("data.filter.rules"), scored, {})  # type: ignore[arg-type]

    def decontamination() -> None:
        score_dataset(build("signals.ngram_overlap"), data, {"evaluation": items})  # type: ignore[arg-type]

    peers = {"rules": filters(texts), "near_duplicates": signatures(texts)}
    ours: dict[str, Callable[[], object]] = {
        "rules": rules,
        "exact_dedup": lambda: apply_transform(build("data.dedup.exact"), data, {}),  # type: ignore[arg-type]
        "near_duplicates": lambda: apply_transform(build("data.dedup.near"), data, {}),  # type: ignore[arg-type]
        "decontamination": decontamination,
    }
    found = {name: in_turns({"ours": function, **peers.get(name, {})}, size) for name, function in ours.items()}
    absent = [name for name in ("datatrove", "datasketch") if find_spec(name) is None]
    return {"texts": len(texts), "megabytes": round(size, 2), "source": source, "not_installed": absent, **found}


def corpus() -> tuple[list[str], str]:
    """About `SIZE` bytes of texts, with a tenth of edited copies, and where they are from."""
    rng = random.Random(0)
    folder = os.environ.get(VARIABLE)
    pool = read(Path(folder)) if folder else made(rng)
    rng.shuffle(pool)
    texts: list[str] = []
    total = 0
    while pool and total < SIZE:
        texts.append(pool.pop())
        total += len(texts[-1].encode())
        if len(texts) % 10 == 0:
            words = rng.choice(texts).split(" ")
            for at in rng.sample(range(len(words)), len(words) // 50):
                words[at] = "edited"
            texts.append(" ".join(words))
    return texts, f"files below ${VARIABLE}" if folder else "made from the interpreter's help topics"


def read(folder: Path) -> list[str]:
    """The texts of all JSONL and Parquet files below a folder, until there are enough."""
    from tutelage.core.discovery import build

    texts: list[str] = []
    total = 0
    for file in sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.parquet")]):
        rows = build("data.read.auto").read(str(file))  # type: ignore[attr-defined]
        if "text" not in rows.column_names:
            continue
        texts += [text for text in rows.column("text").to_pylist() if isinstance(text, str)]
        total += rows.column("text").nbytes
        if total > 2 * SIZE:
            break
    if not texts:
        raise Skip(f"no JSONL or Parquet file with a column text below {folder}, which {VARIABLE} names")
    return texts


def made(rng: random.Random) -> list[str]:
    """Texts of sentences drawn from the help topics, in their order with gaps, so that words are distributed as in
    prose and texts do not repeat each other."""
    sentences = [s for name in sorted(topics) for s in re.split(r"(?<=[.:])\s+", topics[name]) if len(s) > 20]
    vocabulary = re.findall(r"[a-z]{3,}", " ".join(sentences))
    texts, total = [], 0
    while total < 2 * SIZE:
        picked = rng.sample(sentences, rng.randint(3, 40))
        # Every fifth word is another one, or texts would share sentences.
        words = [rng.choice(vocabulary) if rng.random() < 0.2 else word for word in " ".join(picked).split(" ")]
        texts.append(re.sub(r"\. ", ".\n", " ".join(words)))
        total += len(texts[-1])
    return texts


def filters(texts: list[str]) -> dict[str, Callable[[], object]]:
    """datatrove's filters over the same texts, every filter on every text."""
    if find_spec("datatrove") is None or find_spec("spacy") is None:
        return {}
    from datatrove.data import Document
    from datatrove.pipeline import filters as theirs

    steps = [theirs.GopherRepetitionFilter(), theirs.GopherQualityFilter(), theirs.C4QualityFilter()]
    steps.append(theirs.FineWebQualityFilter())

    def datatrove() -> None:
        for number, text in enumerate(texts):
            for step in steps:
                step.filter(Document(text=text, id=str(number)))

    return {"datatrove": datatrove}


def signatures(texts: list[str]) -> dict[str, Callable[[], object]]:
    """112 permutations of word 5-grams and 14 bands of 8 rows by the peers that are installed."""
    found: dict[str, Callable[[], object]] = {}
    if find_spec("datasketch") is not None:
        from datasketch import MinHash, MinHashLSH

        def datasketch() -> None:
            index = MinHashLSH(params=(14, 8), num_perm=112)
            for number, text in enumerate(texts):
                words = re.findall(r"\w+", text.lower())
                one = MinHash(num_perm=112)
                one.update_batch({" ".join(words[i : i + 5]).encode() for i in range(len(words) - 4)})
                index.query(one)
                index.insert(str(number), one)

        found["datasketch"] = datasketch
    if find_spec("datatrove") is not None and find_spec("spacy") is not None:
        from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
        from datatrove.utils.hashing import HashConfig

        # SHA-1 as in its FineWeb script; its xxhash takes bytes in newer releases, and it passes strings.
        hashing = HashConfig(hash_fc="sha1")
        config = MinhashConfig(num_buckets=14, hashes_per_bucket=8, hash_config=hashing)
        step = MinhashDedupSignature("memory://signatures", config)

        def datatrove() -> None:
            for text in texts:
                shingles = step.get_shingles(text)
                if len(shingles):
                    step.get_signature(shingles)

        found["datatrove"] = datatrove
    return found


def in_turns(functions: dict[str, Callable[[], object]], size: float) -> dict[str, Any]:
    """Medians over rounds, in an order that turns with every round, after one warm-up of each."""
    for function in functions.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for number in range(ROUNDS):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            functions[name]()
            seconds[name].append(round(time.perf_counter() - start, 4))
    speed = {name: round(size / statistics.median(values), 2) for name, values in seconds.items()}
    ratios = {f"ratio_to_{name}": round(speed["ours"] / speed[name], 1) for name in names if name != "ours"}
    return {"megabytes_per_second": speed, **ratios, "seconds": seconds}
