"""A file of JSON Lines of any size, and what is done with it in a process of its own that reports its peak memory.

Documents are sentences of Python's help topics drawn at random. Of every twenty one comes again as it is, one with
a sentence exchanged, and one holds thirteen words of an evaluation item, which are random words.
"""

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

ITEMS, ITEM_WORDS, PLANTED_WORDS = 200, 40, 13
PROGRAM = """
import json, sys, time
from pathlib import Path
from tutelage.core import dataset_builder, shards
from tutelage.core.apply import apply_transform, score_dataset
from tutelage.core.discovery import build

file, items, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
if limit:
    shards.BYTES_IN_MEMORY = dataset_builder.BYTES_PER_SHARD = limit

def peak(name="VmHWM"):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

stages, before, start = [], peak("VmRSS"), time.perf_counter()

def stage(name, rows_in, data):
    global start
    dropped = data.dropped.num_rows
    assert rows_in is None or rows_in == data.num_rows + dropped, (name, rows_in, data.num_rows, dropped)
    seconds = round(time.perf_counter() - start, 1)
    stages.append({"stage": name, "rows_in": rows_in, "rows_kept": data.num_rows, "rows_dropped": dropped,
                   "seconds": seconds, "peak_bytes": peak()})
    start = time.perf_counter()
    return data

reader = build("data.read.jsonl")
data = stage("data.read.jsonl", None, reader.read(file))
assert data.num_rows == data.report["in"]
evaluation = reader.read(items)
for scorer, transform, inputs in (
    (None, build("data.dedup.exact"), {}),
    (None, build("data.dedup.near"), {}),
    (build("signals.heuristic_rules"), build("data.filter.rules"), {}),
    (build("signals.ngram_overlap", {"n": 13}),
     build("data.filter.where", {"column": "contaminated", "negate": True}), {"evaluation": evaluation}),
):
    rows = data.num_rows
    if scorer is not None:
        data = score_dataset(scorer, data, inputs)
        stage(scorer.name, None, data)
    data = stage(transform.name, rows, apply_transform(transform, data, {}))
print(json.dumps({"start_bytes": before, "peak_bytes": peak(), "stages": stages, "rows": data.num_rows}))
"""


def generate(file: Path, size: int, seed: int = 0) -> dict[str, int]:
    """Write about `size` bytes to `file`, and the items beside it (.items); the number of rows of each kind."""
    rng = random.Random(seed)
    sentences = [_escaped(s) for t in sorted(topics) for s in re.split(r"(?<=[.:])\s+", topics[t]) if len(s) > 20]
    vocabulary = ["".join(rng.choices("bcdfghklmnprst", k=6)) for _ in range(5000)]
    items = [rng.choices(vocabulary, k=ITEM_WORDS) for _ in range(ITEMS)]
    with file.with_suffix(".items").open("w", encoding="utf-8") as out:
        out.writelines(
            json.dumps({"id": f"e{i}", "text": " ".join(words)}) + "\n" for i, words in enumerate(items)
        )
    counts = dict.fromkeys(("rows", "exact_copies", "near_copies", "planted"), 0)
    recent: list[list[str]] = []
    written = 0
    with file.open("w", encoding="utf-8", buffering=1 << 20) as out:
        while written < size:
            place = counts["rows"] % 23
            document = rng.choices(sentences, k=rng.randint(15, 45))
            if place == 20:
                document, counts["exact_copies"] = rng.choice(recent), counts["exact_copies"] + 1
            elif place == 21:
                document, counts["near_copies"] = list(rng.choice(recent)), counts["near_copies"] + 1
                document[rng.randrange(len(document))] = rng.choice(sentences)
            elif place == 22:
                item, first = rng.choice(items), rng.randrange(ITEM_WORDS - PLANTED_WORDS + 1)
                document.insert(rng.randrange(len(document)), " ".join(item[first : first + PLANTED_WORDS]) + ".")
                counts["planted"] += 1
                recent = []
            else:
                recent.append(document)
            text = "\\n".join(document)
            written += out.write(f'{{"id": "r{counts["rows"]:08}", "text": "{text}"}}\n')
            counts["rows"] += 1
    return counts


def _escaped(sentence: str) -> str:
    return json.dumps(sentence)[1:-1]


def process(file: Path, limit: int = 0) -> dict[str, Any]:
    """The report of the stages in a process of its own; `limit` lowers what a dataset holds in memory (bytes)."""
    command = [sys.executable, "-c", PROGRAM, str(file), str(file.with_suffix(".items")), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.strip().splitlines()[-1])
