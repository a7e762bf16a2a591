"""Vectors of text beside sentence-transformers, and what an active round costs once they are there.

`embedding`: abstracts through MiniLM, ours at its automatic precision and theirs in float32, in turns on one
thread each, three rounds after a warm-up; `cosine` compares the vectors text by text. `active_round`: 20,000 short
questions with their vectors known; one round fits a head on 154 labels, scores the pool and chooses ten rows, by
margin and by clusters of uncertain rows.
"""

import statistics
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_text import in_turns, processor_seconds
from benchmarks.labels.few_labels import SHARED
from benchmarks.skip import Skip
from tutelage.core.apply import apply_transform, score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.models.classifier import EncoderFeatures
from tutelage.models.load import load_model

THREADS = 1
ABSTRACTS = 160
POOL = 20_000
LABELS_PER_CLASS = 2
ASKED = 10


def bench() -> dict[str, Any]:
    import torch

    from tutelage.core.errors import ModelError
    from tutelage.models.fetch import packaged

    if not SHARED.is_dir():
        raise Skip(f"the data sets are not there: {SHARED.name}")
    try:
        folder = packaged("minilm")
    except ModelError as error:
        raise Skip(error.what) from None
    torch.set_num_threads(THREADS)
    return {"threads": THREADS, "embedding": embedding(folder), "active_round": active_round()}


def embedding(folder: Path) -> dict[str, Any]:
    texts = column("medical_abstracts_test/test.parquet", "text")[:ABSTRACTS]
    encoder: Any = load_model("minilm")
    runs: dict[str, Any] = {"ours": (lambda: none(encoder.embed(texts)), 1.0)}
    found: dict[str, Any] = {
        "texts": len(texts),
        "mean_tokens": round(
            float(
                np.mean(
                    [
                        len(ids)
                        for ids in encoder.tokenizer(texts, truncation=True, max_length=encoder.max_length)[
                            "input_ids"
                        ]
                    ]
                )
            ),
            1,
        ),
        "ours_in": "bfloat16" if encoder.half else "float32",
    }
    if find_spec("sentence_transformers") is None:
        found["not_installed"] = ["sentence-transformers"]
        timed = in_turns(runs)
    else:
        from sentence_transformers import SentenceTransformer

        theirs = SentenceTransformer(str(folder), device="cpu")
        theirs.max_seq_length = encoder.max_length
        asked = {"normalize_embeddings": True, "show_progress_bar": False, "batch_size": 32}
        runs["sentence_transformers"] = (lambda: none(theirs.encode(texts, **asked)), 1.0)
        cosine = (np.asarray(encoder.embed(texts)) * theirs.encode(texts, **asked)).sum(axis=1)
        found["peers"] = {"sentence-transformers": version("sentence-transformers")}
        found["cosine"] = {"lowest": round(float(cosine.min()), 5), "mean": round(float(cosine.mean()), 5)}
        timed = in_turns(runs)
        for unit in ("processor_seconds", "wall_seconds"):
            middle = {name: statistics.median(values) for name, values in timed[unit].items()}
            found[f"ratio_by_{unit}"] = round(middle["sentence_transformers"] / middle["ours"], 2)
    texts_per_second = {
        name: round(len(texts) / statistics.median(values), 1) for name, values in timed["wall_seconds"].items()
    }
    times = {unit: timed[unit] for unit in ("processor_seconds", "wall_seconds")}
    return {**found, "texts_per_second": texts_per_second, **times}


def active_round() -> dict[str, Any]:
    """Seconds of a round; embedding the pool is not in them."""
    questions = build("data.read.auto").read(str(SHARED / "banking77" / "train.parquet")).rows(["text", "label"])  # type: ignore[attr-defined]
    labelled = taken(list(questions), LABELS_PER_CLASS)
    texts = column("banking77/train.parquet", "text") + column("hwu64/train.jsonl", "text")
    texts += column("banking77/test.jsonl", "text") + column("hwu64/test.jsonl", "text")
    texts += [f"Please tell me: {text}" for text in texts[: max(0, POOL - len(texts))]]
    encoder: Any = load_model("minilm")
    # What scoring the pool leaves behind: the vectors, by the text's hash.
    vectors = EncoderFeatures(encoder).vectors(texts[:POOL])
    pool = Dataset.from_rows(
        {"id": f"p{n}", "text": text, "embedding": vector.tolist()}
        for n, (text, vector) in enumerate(zip(texts, vectors))
    )
    head: Any = build("adapters.linear_head")
    found: dict[str, Any] = {"pool": pool.num_rows, "labels": labelled.num_rows, "asked": ASKED}
    for name in ("data.select.uncertain", "data.select.cluster_uncertain"):
        select: Any = build(name, {"budget": {"rows": ASKED}, "columns": ["predicted_probs"]}
                            if name.endswith(".uncertain") else {"budget": {"rows": ASKED}})  # fmt: skip
        wall, processor = time.perf_counter(), processor_seconds()
        classifier = head.convert({"base": encoder}, labelled, {})
        fitted = time.perf_counter()
        scored = score_dataset(build("signals.class_probabilities"), pool, {"model": classifier})  # type: ignore[arg-type]
        told = time.perf_counter()
        chosen = apply_transform(select, scored, {})
        assert chosen.num_rows == ASKED
        found[name] = {
            "seconds": round(time.perf_counter() - wall, 2),
            "processor_seconds": round(processor_seconds() - processor, 2),
            "of_it_fitting": round(fitted - wall, 2),
            "of_it_scoring": round(told - fitted, 2),
        }
    return found


def taken(rows: list[dict[str, Any]], each: int) -> Dataset:
    """The first rows of every class."""
    counts: dict[str, int] = {}
    kept = []
    for row in rows:
        counts[row["label"]] = counts.get(row["label"], 0) + 1
        if counts[row["label"]] <= each:
            kept.append(row)
    return Dataset.from_rows(kept)


def column(file: str, name: str) -> list[str]:
    return build("data.read.auto").read(str(SHARED / file)).column(name).to_pylist()  # type: ignore[attr-defined]


def none(_: object) -> None:
    return None
