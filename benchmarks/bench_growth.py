"""How time and memory grow: with documents, tokens, context length and model size.

Every part runs in a process of its own, at five or more sizes that span a factor of 16 or more, after a warm-up at
the smallest. Time is processor seconds, the least of `REPEATS` runs; memory is how far the process's resident size
rises above where it stood before (with documents and tokens a model's does not: it needs room for one pack). The
exponent b of cost = a size^b is the slope of a regression of logarithms, with a 95 % t-interval over the sizes;
`upper half` is the slope over the larger half, where what every call costs shows least. What people scale,
documents and tokens, may not grow faster than linearly: `faster_than_linear` lists what does.

    PARTS="scoring near_dedup" python -m benchmarks growth     # these parts only: the others stay as they were
"""

import gc
import json
import math
import os
import random
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.children import child

RESULTS = Path(__file__).resolve().parent / "results" / "growth.json"
REPEATS = 3
ENOUGH = 8.0  # seconds of one point after which it is not measured again
# What may not grow faster than linearly, with room for caches that overflow: the interval's upper end decides.
LINEAR = 1.1
# What does by its nature.
BY_NATURE = {
    "documents, k-centre, a tenth": "every row taken is compared with all: n times k, and here k is n / 10",
    "documents, default clusters": "there are sqrt(n / 2) clusters, up to 256: linear from 131,072 rows on",
}
WORDS = [f"{first}{middle}{last}" for first in "bcdfglmnprst" for middle in "aeiou" for last in "nrstlk"]


def texts(count: int, words: int, seed: int = 0) -> list[str]:
    """Documents of about `words` words: a tenth exact copies of earlier ones, a tenth with a few words changed."""
    draw = random.Random(seed)
    made: list[str] = []
    for number in range(count):
        kind = draw.random() if number > 10 else 1.0
        if kind < 0.1:
            made.append(made[draw.randrange(number)])
        elif kind < 0.2:
            parts = made[draw.randrange(number)].split()
            for _ in range(max(1, len(parts) // 50)):
                parts[draw.randrange(len(parts))] = draw.choice(WORDS)
            made.append(" ".join(parts))
        else:
            made.append(" ".join(draw.choices(WORDS, k=draw.randint(words // 2, words + words // 2))))
    return made


def dataset(rows: Sequence[str], **columns: Any) -> Any:
    import pyarrow as pa

    from tutelage.core.dataset import Dataset

    ids = [f"d{i}" for i in range(len(rows))]
    return Dataset.from_table(pa.table({"id": ids, "text": list(rows), **columns}))


# -- the parts: axis -> (sizes, size -> what is timed) ------------------------------------------------------------

Made = Callable[[int], Callable[[], Any]]
Axes = dict[str, tuple[Any, ...]]


def model_of(width: int = 64, layers: int = 4, context: int = 512) -> Any:
    from tutelage.models.toy import tiny_causal_lm

    return tiny_causal_lm("llama", texts(50, 60), vocab_size=1024, layers=layers, width=width, max_length=context)


def weights(width: int) -> int:
    """Those that multiply every token."""
    return int(model_of(width=width).active_params)


def scoring() -> Axes:
    """`score_texts`: documents of 60 words; documents of 256 tokens, so many in all; 8,192 tokens in documents as
    long as the context (what attention adds); a model of four layers."""
    model, long = model_of(), model_of(context=16384)
    pool = texts(2048, 60)
    text = " ".join(texts(400, 60, seed=1))

    def some(count: int) -> Callable[[], Any]:
        return lambda: model.score_texts(pool[:count])

    def cut(length: int, total: int) -> list[str]:
        ids = long.tokenize([text])[0]
        return [long.tokenizer.decode(ids[:length])] * max(1, total // length)

    def tokens(length: int) -> Callable[[], Any]:
        given = cut(256, length)
        return lambda: long.score_texts(given, window=512)

    def context(length: int) -> Callable[[], Any]:
        given = cut(length - 8, 8192)
        return lambda: long.score_texts(given, window=length)

    def size(width: int) -> Callable[[], Any]:
        wide, given = model_of(width=width), pool[:32]
        return lambda: wide.score_texts(given)

    return {
        "documents": ([64, 128, 256, 512, 1024, 2048], some),
        "tokens": ([4096, 8192, 16384, 32768, 65536], tokens),
        "context at equal tokens": ([256, 512, 1024, 2048, 4096], context),
        "model weights": ([64, 128, 256, 512, 1024], size, weights),
    }


def training() -> Axes:
    """`training.fit`: one pass over documents of 60 words; so many tokens of 2,048 of them; 8,192 tokens in
    documents as long as the context (what attention adds); a model of four layers."""
    from tutelage.core.discovery import build

    def fit(model: Any, rows: Any, spent: int, length: int) -> Callable[[], Any]:
        fields = {
            "objective": {"use": "training.objectives.causal_lm"},
            "budget": {"tokens": spent},
            "step_tokens": 4096,
            "max_length": length,
            "micro_tokens": max(length, 2048),
        }
        method: Any = build("training.fit", fields)
        return lambda: method.train(model, rows, {"seed": 0}, progress=False)

    small, long = model_of(), model_of(context=4096)
    pool = texts(2048, 60)
    counts = small.count_tokens(pool)

    def documents(count: int) -> Callable[[], Any]:
        return fit(small, dataset(pool[:count]), int(counts[:count].sum()), 512)

    def tokens(spent: int) -> Callable[[], Any]:
        return fit(small, dataset(pool), spent, 512)

    def context(length: int) -> Callable[[], Any]:
        ids = long.tokenize([" ".join(texts(400, 60, seed=1))])[0]
        rows = [long.tokenizer.decode(ids[at : at + length - 8]) for at in range(0, 8192, length)]
        return fit(long, dataset(rows), 8000, length)

    def size(width: int) -> Callable[[], Any]:
        return fit(model_of(width=width), dataset(pool[:64]), 4096, 512)

    return {
        "documents": ([32, 64, 128, 256, 512, 1024], documents),
        "tokens": ([4096, 8192, 16384, 32768, 65536], tokens),
        "context at equal tokens": ([128, 256, 512, 1024, 2048], context),
        "model weights": ([64, 128, 256, 512, 1024], size, weights),
    }


def dedup(name: str) -> Axes:
    from tutelage.core.discovery import build

    method: Any = build(name)

    def documents(count: int) -> Callable[[], Any]:
        rows = dataset(texts(count, 60))
        return lambda: len(method.apply(rows, {"seed": 0}))

    def words(length: int) -> Callable[[], Any]:
        rows = dataset(texts(1000, length))
        return lambda: len(method.apply(rows, {"seed": 0}))

    return {
        "documents": ([2000, 4000, 8000, 16000, 32000, 64000], documents),
        "tokens of a document": ([40, 80, 160, 320, 640, 1280], words),
    }


def exact_dedup() -> Axes:
    """`data.dedup.exact`: documents of 60 words; 1,000 documents of so many words."""
    return dedup("data.dedup.exact")


def near_dedup() -> Axes:
    """`data.dedup.near`: documents of 60 words; 1,000 documents of so many words."""
    return dedup("data.dedup.near")


def selection() -> Axes:
    """Of so many rows a tenth by score; 100 by distance (greedy k-centre); a tenth by distance, which is n times k
    by its nature; 64 clusters and a tenth spread over them; as many clusters as the default asks for."""
    from tutelage.core.apply import score_dataset
    from tutelage.core.discovery import build

    draw = np.random.default_rng(0)
    points = (draw.normal(size=(50, 16))[draw.integers(0, 50, 64000)] + draw.normal(size=(64000, 16)) / 2).tolist()
    scores = draw.normal(size=64000).tolist()

    def rows(count: int) -> Any:
        return dataset(["a text"] * count, embedding=points[:count], score=scores[:count], n_tokens=[3] * count)

    def chosen(use: str, budget: Callable[[int], int], **fields: Any) -> Made:
        def made(count: int) -> Callable[[], Any]:
            method: Any = build(use, {**fields, "budget": {"rows": budget(count)}})
            given = rows(count)
            return lambda: len(method.apply(given, {"seed": 0}))

        return made

    def clusters(number: int | None) -> Made:
        def made(count: int) -> Callable[[], Any]:
            scorer: Any = build("signals.clusters", {"clusters": number, "restarts": 1})
            method: Any = build("data.select.cluster_balanced", {"budget": {"rows": count // 10}})
            given = rows(count)

            def run() -> int:
                state = scorer.fit(given, {"seed": 0})
                return len(method.apply(score_dataset(scorer, given, {"seed": 0}, state), {"seed": 0}))

            return run

        return made

    sizes = [2000, 4000, 8000, 16000, 32000, 64000]
    return {
        "documents, top k": (
            sizes,
            chosen("data.select.top_k", lambda n: n // 10, column="score", direction="higher"),
        ),
        "documents, k-centre, 100 rows": (sizes, chosen("data.select.k_centre", lambda n: 100)),
        "documents, k-centre, a tenth": (sizes[:5], chosen("data.select.k_centre", lambda n: n // 10)),
        "documents, 64 clusters": (sizes, clusters(64)),
        "documents, default clusters": (sizes, clusters(None)),
    }


PARTS: dict[str, Callable[[], Axes]] = {
    "scoring": scoring,
    "training": training,
    "exact_dedup": exact_dedup,
    "near_dedup": near_dedup,
    "selection": selection,
}


# -- measuring ----------------------------------------------------------------------------------------------------


def bench() -> dict[str, Any]:
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    asked = os.environ.get("PARTS", "").split() or list(PARTS)
    found = {name: part for name, part in before.get("parts", {}).items() if name not in asked}
    for name in asked:
        found[name] = child([sys.executable, "-m", "benchmarks.bench_growth", name])
    return {
        "repeats": REPEATS,
        "may_be": LINEAR,
        "faster_than_linear": faster(found),
        "parts": {name: found[name] for name in PARTS if name in found},
    }


def faster(parts: dict[str, Any]) -> dict[str, str]:
    """Axes of documents and tokens whose exponent may lie above what is allowed, and why."""
    found = {}
    for name, part in parts.items():
        for axis, measured in part["axes"].items():
            for what in ("time", "memory"):
                if axis.startswith(("documents", "tokens")) and (measured[what] or {"hi": 0})["hi"] > LINEAR:
                    among = measured[what]
                    seen = f"{what} {among['exponent']} ({among['lo']} to {among['hi']})"
                    found[f"{name}: {axis}"] = f"{seen}: {BY_NATURE.get(axis, 'the interval is wide')}"
    return found


def part(name: str) -> dict[str, Any]:
    """What a child does: every axis of one part."""
    warnings.simplefilter("ignore")
    make = PARTS[name]
    return {
        "what": " ".join((make.__doc__ or "").split()),
        "axes": {axis: measured(*of) for axis, of in make().items()},
    }


def measured(given: Sequence[int], make: Made, size_of: Callable[[int], int] = int) -> dict[str, Any]:
    make(given[0])()
    points = [point(make(size)) for size in given]
    sizes = [size_of(size) for size in given]
    seconds, rises = [p[0] for p in points], [p[1] for p in points]
    return {
        "sizes": list(sizes),
        "seconds": [float(f"{s:.4g}") for s in seconds],
        "megabytes": [round(r / 1e6, 1) for r in rises],
        "time": exponent(sizes, seconds),
        "time, upper half": exponent(sizes[len(sizes) // 2 - 1 :], seconds[len(sizes) // 2 - 1 :]),
        # Where even the largest size takes next to nothing, there is no growth to be seen.
        "memory": exponent(sizes, rises) if min(rises) > 2e6 else None,
    }


def point(run: Callable[[], Any]) -> tuple[float, float]:
    """(processor seconds, bytes of resident memory above the start) of one call; the least of several."""
    seconds, rises = [], []
    for _ in range(REPEATS):
        gc.collect()
        _trim()
        start = _resident("VmRSS")
        _forget_peak()
        before = time.process_time()
        run()
        seconds.append(time.process_time() - before)
        rises.append(_resident("VmHWM") - start)
        if sum(seconds) > ENOUGH:
            break
    return min(seconds), max(0, min(rises))


def exponent(sizes: Sequence[int], values: Sequence[float]) -> dict[str, float]:
    """Slope of log(value) over log(size), with its 95 % t-interval."""
    from scipy import stats

    x, y = np.log(np.asarray(sizes, dtype=float)), np.log(np.maximum(np.asarray(values, dtype=float), 1e-9))
    fit = stats.linregress(x, y)
    half = float(stats.t.ppf(0.975, len(x) - 2) * fit.stderr) if len(x) > 2 else math.nan
    return {
        "exponent": round(float(fit.slope), 3),
        "lo": round(fit.slope - half, 3),
        "hi": round(fit.slope + half, 3),
    }


def _resident(field: str) -> int:
    """Bytes; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _forget_peak() -> None:
    from tutelage.training._progress import forget_peak

    forget_peak()


def _trim() -> None:
    from tutelage.runs.compute import _give_back

    _give_back()


if __name__ == "__main__":
    print(json.dumps(part(sys.argv[1])))
