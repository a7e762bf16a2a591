"""Filters and deduplication of text beside datatrove, data-juicer, rensa, datasketch, dolma, where installed.

Everything runs on one core, ours and theirs, in turns; seconds are processor seconds (user and system, child
processes included), so that what others do on the machine changes them little; medians of three rounds after a
warm-up. Slow peers get a smaller slice; megabytes per second are of the text that each was given, ratios are ours
over theirs. `from_jsonl` reads JSON Lines and, where rows are dropped, writes them, as datatrove does; dolma only
writes marks. `agreement` compares results, not speed.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.text import agreement, peers
from benchmarks.text.corpus import Corpus, corpus, write

ROUNDS = 3
SIZE = float(os.environ.get("BENCH_TEXT_MEGABYTES", "24"))
SLICE = 1.0  # megabytes for datatrove's rules and MinHash, and datasketch
AGREEMENT_SLICE = 4.0  # megabytes on which clusters are compared with datatrove's
NGRAM = 13
PEERS = ("datatrove", "data_juicer", "rensa", "datasketch", "dolma")
# (what it runs, megabytes that it runs over): seconds are measured around it, or are what it returns.
Run = tuple[Callable[[], float | None], float]


def bench() -> dict[str, Any]:
    core = one_core()
    whole = corpus(SIZE)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found = {
            "rules": in_turns(_rules(whole, whole.slice(SLICE), work)),
            "exact_dedup_from_jsonl": in_turns(_exact(whole, work)),
            "near_duplicates_from_jsonl": in_turns(_near_from_jsonl(whole, whole.slice(SLICE), work)),
            "near_duplicates_in_memory": in_turns(_near_in_memory(whole, whole.slice(SLICE))),
            "decontamination_from_jsonl": in_turns(_decontamination(whole, work)),
            "agreement": agreement.check(whole, whole.slice(AGREEMENT_SLICE), work, NGRAM),
        }
    return {
        "texts": len(whole.rows),
        "megabytes": round(whole.megabytes, 2),
        "source": whole.source,
        "one_core": core,
        "peers": {name: _version(name) for name in PEERS if peers.installed(name)},
        "not_installed": [name for name in PEERS if not peers.installed(name)],
        **found,
    }


def one_core() -> bool:
    """Binds this process and its children to one core, the last one; False where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    return True


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return "in an interpreter of its own"


def _rules(whole: Corpus, part: Corpus, work: Path) -> dict[str, Run]:
    from tutelage.core.apply import apply_transform, score_dataset
    from tutelage.core.discovery import build

    data = agreement.dataset(whole)

    def ours() -> None:
        scored = score_dataset(build("signals.heuristic_rules"), data, {})  # type: ignore[arg-type]
        apply_transform(build("data.filter.rules"), scored, {})  # type: ignore[arg-type]

    runs: dict[str, Run] = {"ours": (ours, whole.megabytes)}
    if peers.installed("datatrove"):
        runs["datatrove"] = (lambda: peers.datatrove_rules(part.texts), part.megabytes)
    if peers.installed("dolma"):
        runs["dolma"] = (peers.DolmaRules(part.texts, work).run, part.megabytes)
    return runs


def _exact(whole: Corpus, work: Path) -> dict[str, Run]:
    file = whole.write(work / "exact.jsonl")

    def ours(strict: bool) -> None:
        with tempfile.TemporaryDirectory() as out:
            agreement.from_jsonl(file, Path(out) / "kept.jsonl", "data.dedup.exact", strict=strict)

    def theirs() -> None:
        with tempfile.TemporaryDirectory() as out:
            peers.datatrove_exact(file, Path(out))

    runs: dict[str, Run] = {
        "ours": (lambda: ours(True), whole.megabytes),
        "ours_any_case_and_space": (lambda: ours(False), whole.megabytes),
    }
    if peers.installed("datatrove"):
        runs["datatrove"] = (theirs, whole.megabytes)
    return runs


def _near_from_jsonl(whole: Corpus, part: Corpus, work: Path) -> dict[str, Run]:
    file = whole.write(work / "near.jsonl")
    small = part.write(work / "near_slice.jsonl")

    def ours() -> None:
        with tempfile.TemporaryDirectory() as out:
            agreement.from_jsonl(file, Path(out) / "kept.jsonl", "data.dedup.near")

    def theirs() -> None:
        with tempfile.TemporaryDirectory() as out:
            peers.datatrove_minhash(small, Path(out))

    runs: dict[str, Run] = {"ours": (ours, whole.megabytes)}
    if peers.installed("datatrove"):
        runs["datatrove"] = (theirs, part.megabytes)
    if peers.installed("data_juicer"):
        larger = whole.slice(AGREEMENT_SLICE)
        runs["data_juicer"] = (peers.DataJuicer(larger.write(work / "near_larger.jsonl")).run, larger.megabytes)
    return runs


def _near_in_memory(whole: Corpus, part: Corpus) -> dict[str, Run]:
    from tutelage.core.apply import apply_transform
    from tutelage.core.discovery import build

    data = agreement.dataset(whole)
    texts = whole.texts

    def ours() -> None:
        apply_transform(build("data.dedup.near"), data, {})  # type: ignore[arg-type]

    runs: dict[str, Run] = {"ours": (ours, whole.megabytes)}
    if peers.installed("rensa"):
        runs["rensa"] = (lambda: _none(peers.rensa_minhash(texts)), whole.megabytes)
    if peers.installed("datasketch"):
        runs["datasketch"] = (lambda: _none(peers.datasketch_minhash(part.texts)), part.megabytes)
    return runs


def _none(_: object) -> None:
    return None


def _decontamination(whole: Corpus, work: Path) -> dict[str, Run]:
    folder = work / "documents"
    folder.mkdir()
    file, items = whole.write(folder / "corpus.jsonl"), write(folder / "items.jsonl", whole.items)
    runs: dict[str, Run] = {"ours": (lambda: _none(agreement.contaminated(file, items, NGRAM)), whole.megabytes)}
    if peers.installed("dolma"):
        dolma = peers.Dolma(NGRAM)
        runs["dolma"] = (lambda: dolma.run(work), whole.megabytes)
    return runs


def processor_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def in_turns(runs: dict[str, Run]) -> dict[str, Any]:
    """Medians over rounds, in an order that turns with every round, after one warm-up of each."""
    for function, _ in runs.values():
        function()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    walls: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for number in range(ROUNDS):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            wall, start = time.perf_counter(), processor_seconds()
            told = runs[name][0]()
            seconds[name].append(round(processor_seconds() - start if told is None else told, 4))
            walls[name].append(round(time.perf_counter() - wall, 4))
    speed = {name: round(runs[name][1] / statistics.median(values), 2) for name, values in seconds.items()}
    ratios = {
        f"ratio_to_{name}": round(speed["ours"] / speed[name], 1) for name in names if not name.startswith("ours")
    }
    megabytes = {name: round(size, 2) for name, (_, size) in runs.items()}
    return {
        "megabytes_per_second": speed,
        **ratios,
        "megabytes": megabytes,
        "processor_seconds": seconds,
        "wall_seconds": walls,
    }
