"""The peers of the text benchmark, each as its own documentation runs it, in this process and on this core.

datatrove: its whole pipelines from JSON Lines to JSON Lines. rensa and datasketch: from texts in memory, word
5-grams made in Python. dolma and data-juicer have environments of their own (`benchmarks.peers`) and are timed
there without start-up: dolma's native deduper and its taggers, data-juicer's MinHash.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.peers import python

BANDS, ROWS, NGRAM = 14, 8, 5
_DOLMA_PROGRAM = """
import json, os, sys
os.environ["RUST_LOG"] = "error"
from dolma.core.utils import make_variable_name  # imports what a run of its command line imports
from dolma import deduper
for line in sys.stdin:
    before = os.times()
    for step in json.loads(line):
        deduper(step)
    after = os.times()
    print(json.dumps(after.user - before.user + after.system - before.system), flush=True)
"""

_DOLMA_TAGGERS = """
import json, sys, time
from dolma.core.data_types import Document
from dolma.taggers.c4 import C4Tagger
from dolma.taggers.gopher import GopherTagger
taggers = [GopherTagger(), C4Tagger()]
for line in sys.stdin:
    texts = json.load(open(json.loads(line), encoding="utf-8"))
    before = time.process_time()
    for text in texts:
        document = Document(source="s", version="0", id="1", text=text)
        for tagger in taggers:
            tagger.predict(document)
    print(json.dumps(time.process_time() - before), flush=True)
"""

_DATA_JUICER = """
import json, os, sys, tempfile
from datasets import load_dataset
from data_juicer.core.data import NestedDataset
from data_juicer.ops.deduplicator import DocumentMinhashDeduplicator
from loguru import logger
logger.remove()
sys.stdout = sys.stderr
for line in sys.stdin:
    given = json.loads(line)
    before = os.times()
    with tempfile.TemporaryDirectory() as cache:
        data = NestedDataset(load_dataset("json", data_files=given["file"], split="train", cache_dir=cache))
        op = DocumentMinhashDeduplicator(
            tokenization="space", window_size=given["ngram"], num_permutations=given["bands"] * given["rows"],
            jaccard_threshold=0.7, num_bands=given["bands"], num_rows_per_band=given["rows"],
        )
        kept, _ = op.process(data.map(op.compute_hash))
        kept.to_json(cache + "/kept.jsonl")
    after = os.times()
    spent = sum(after[:4]) - sum(before[:4])
    sys.__stdout__.write(json.dumps(spent) + chr(10))
    sys.__stdout__.flush()
"""


def installed(name: str) -> bool:
    """Whether a peer can be used: datatrove with spaCy and orjson, some in an environment of their own."""
    if name in ("dolma", "data_juicer"):
        return python(name.replace("_", "-")) is not None
    needs = {"datatrove": ("datatrove", "spacy", "orjson")}.get(name, (name,))
    return all(find_spec(package) is not None for package in needs)


def run_pipeline(*steps: list[Any], tasks: Sequence[int]) -> None:
    """datatrove's stages one after the other, in this process."""
    from datatrove.executor import LocalPipelineExecutor
    from loguru import logger

    logger.disable("datatrove")
    with tempfile.TemporaryDirectory() as logs:
        for number, (pipeline, count) in enumerate(zip(steps, tasks)):
            LocalPipelineExecutor(pipeline, tasks=count, workers=1, logging_dir=f"{logs}/{number}").run()


def datatrove_exact(file: Path, out: Path) -> None:
    """Its exact deduplication (on bytes with xxhash, its fastest) into JSON Lines below `out`."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.exact_dedup import (
        ExactDedupConfig,
        ExactDedupFilter,
        ExactDedupSignature,
        ExactFindDedups,
    )

    def content(document: Document) -> bytes:
        return document.text.encode()

    config = ExactDedupConfig(content)
    with tempfile.TemporaryDirectory() as work:
        run_pipeline(
            [_reader(file), ExactDedupSignature(f"{work}/sigs", config)],
            [ExactFindDedups(f"{work}/sigs", f"{work}/dups", config)],
            [_reader(file), ExactDedupFilter(f"{work}/dups", config), _writer(out)],
            tasks=(1, 1, 1),
        )


def datatrove_minhash(file: Path, out: Path, seed: int = 1) -> None:
    """Its four stages: what is kept into JSON Lines below `out`, the rest below `out`/removed, with clusters."""
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.utils.hashing import HashConfig

    # SHA-1 as in its FineWeb script; its xxhash takes bytes in newer releases, and it passes strings.
    config = MinhashConfig(NGRAM, BANDS, ROWS, seed, hash_config=HashConfig(hash_fc="sha1"))
    with tempfile.TemporaryDirectory() as work:
        sigs, dups, gone = f"{work}/sigs", f"{work}/dups", f"{work}/gone"
        run_pipeline(
            [_reader(file), MinhashDedupSignature(sigs, config)],
            [MinhashDedupBuckets(sigs, dups, config=config)],
            [MinhashDedupCluster(dups, gone, config, save_cluster_id=True)],
            [
                _reader(file),
                MinhashDedupFilter(gone, _writer(out / "removed"), load_cluster_ids=True),
                _writer(out),
            ],
            tasks=(1, BANDS, 1, 1),
        )


def _reader(file: Path) -> Any:
    from datatrove.pipeline.readers import JsonlReader

    return JsonlReader(str(file.parent), glob_pattern=file.name)


def _writer(folder: Path) -> Any:
    from datatrove.pipeline.writers import JsonlWriter

    return JsonlWriter(str(folder), compression=None)


def written(folder: Path) -> tuple[list[str], dict[str, int]]:
    """(ids, clusters of those that are in one) of what datatrove wrote into a folder."""
    rows = [json.loads(line) for file in sorted(folder.glob("*.jsonl")) for line in file.open(encoding="utf-8")]
    clusters = {row["id"]: row["metadata"].get("minhash_cluster_id", -1) for row in rows}
    return list(clusters), {identifier: cluster for identifier, cluster in clusters.items() if cluster >= 0}


def datatrove_rules(texts: Sequence[str]) -> None:
    """Its Gopher, C4 and FineWeb filters, every filter on every text."""
    from datatrove.data import Document
    from datatrove.pipeline import filters

    steps = [filters.GopherRepetitionFilter(), filters.GopherQualityFilter(), filters.C4QualityFilter()]
    steps.append(filters.FineWebQualityFilter())
    for number, text in enumerate(texts):
        for step in steps:
            step.filter(Document(text=text, id=str(number)))


def shingles(text: str) -> list[str]:
    words = re.findall(r"\w+", text.lower())
    return [" ".join(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]


def datasketch_minhash(texts: Sequence[str]) -> list[int]:
    """Rows kept: those that find no earlier one in the same bands."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(params=(BANDS, ROWS), num_perm=BANDS * ROWS)
    kept = []
    for number, text in enumerate(texts):
        one = MinHash(num_perm=BANDS * ROWS)
        one.update_batch({shingle.encode() for shingle in shingles(text)})
        if not index.query(one):
            kept.append(number)
        index.insert(str(number), one)
    return kept


def rensa_minhash(texts: Sequence[str]) -> list[int]:
    """Rows kept by its deduplicator (R-MinHash with LSH, candidates checked by estimated similarity)."""
    from rensa import RMinHashDeduplicator

    found = RMinHashDeduplicator(threshold=0.7, num_perm=BANDS * ROWS, use_lsh=True, num_bands=BANDS, seed=42)
    keep = found.add_pairs((str(number), shingles(text)) for number, text in enumerate(texts))
    return [number for number, kept in enumerate(keep) if kept]


class Worker:
    """A process of a peer's own interpreter; it answers a line of JSON with its processor seconds."""

    def __init__(self, peer: str, program: str) -> None:
        self.process = subprocess.Popen(
            [str(python(peer)), "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, given: Any) -> float:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(given) + "\n")
        self.process.stdin.flush()
        return float(json.loads(self.process.stdout.readline()))


class DataJuicer:
    """Its MinHash deduplication from JSON Lines to JSON Lines, at our bands."""

    def __init__(self, file: Path) -> None:
        self.worker = Worker("data-juicer", _DATA_JUICER)
        self.given = {"file": str(file), "ngram": NGRAM, "bands": BANDS, "rows": ROWS}

    def run(self) -> float:
        """Processor seconds."""
        return self.worker.ask(self.given)


class DolmaRules:
    """Its Gopher and C4 taggers over texts in memory; they write no tags, so that less is done than by others."""

    def __init__(self, texts: Sequence[str], work: Path) -> None:
        self.worker = Worker("dolma", _DOLMA_TAGGERS)
        self.file = work / "dolma_rules.json"
        self.file.write_text(json.dumps(list(texts)), encoding="utf-8")

    def run(self) -> float:
        """Processor seconds."""
        return self.worker.ask(str(self.file))


class Dolma:
    """Its deduper, as decontamination: a Bloom filter of the items' n-grams, then the corpus against it."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.worker = Worker("dolma", _DOLMA_PROGRAM)

    def run(self, work: Path) -> float:
        """Processor seconds for `documents/items.jsonl` and `documents/corpus.jsonl` below `work`."""
        (work / "bloom.bin").unlink(missing_ok=True)
        steps = [self._step(work, "items", False), self._step(work, "corpus", True)]
        return self.worker.ask(steps)

    def _step(self, work: Path, name: str, known: bool) -> dict[str, Any]:
        ngram = {"ngram_length": self.n, "stride": 0, "overlap_threshold": 1e-6, "skip_short_paragraphs": True}
        return {
            "documents": [str(work / "documents" / f"{name}.jsonl")],
            "work_dir": {"input": str(work), "output": str(work)},
            "dedupe": {
                "name": "found",
                "paragraphs": {"attribute_name": "found", "by_ngram": ngram, "paragraph_separator": "\n"},
                "skip_empty": True,
                "min_length": 0,
                "min_words": 0,
                "num_partitions": 1,
                "partition_index": 0,
                "file_partition": False,
                "document_dir": "documents",
            },
            "bloom_filter": {
                "file": str(work / "bloom.bin"),
                "read_only": known,
                "size_in_bytes": 0,
                "estimated_doc_count": 1_000_000,
                "desired_false_positive_rate": 1e-6,
            },
            "is_s3_volume": False,
            "processes": 1,
            "compression": {"input": None, "output": None},
        }


def dolma_marked(work: Path) -> set[str]:
    """Ids of the rows in which it found an n-gram of the items."""
    marks = (work / "attributes" / "found" / "corpus.jsonl").open(encoding="utf-8")
    rows = map(json.loads, marks)
    return {row["id"] for row in rows if any(span[2] > 0 for span in row["attributes"].get("found", ()))}
