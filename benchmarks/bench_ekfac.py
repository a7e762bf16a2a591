"""Influence with EK-FAC in units of one plain training epoch, beside kronfluence where it is installed.

A Llama of 1.4 million weights, 512 documents of 32 tokens or 128 of 128, 8 queries, labels drawn from the model.
An epoch is a forward and a backward pass over the documents with gradients of all weights, in the same packs. Ours
and theirs fit the factors of the linear layers outside attention on all documents and score all of them. On one
core, in turns, processor seconds, medians of three rounds. Scores are compared with labels of the data on both
sides, since drawn ones differ.
"""

import statistics
import tempfile
from importlib.util import find_spec
from pydoc_data.topics import topics
from typing import Any

from benchmarks.bench_text import in_turns, one_core

SHAPES = ((512, 32), (128, 128))  # documents, tokens of each
QUERIES = 8
DAMPING = 0.1


def bench() -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    return {"one_core": one_core(), "queries": QUERIES} | {
        f"{documents}_documents_of_{tokens}_tokens": measure(documents, tokens) for documents, tokens in SHAPES
    }


def measure(documents: int, tokens: int) -> dict[str, Any]:
    model, rows, queries = material(documents, tokens)
    runs: dict[str, Any] = {
        "ours": (lambda: none(ours(model, rows, queries, "sampled")), 1.0),
        "plain_epoch": (lambda: plain_epoch(model, rows), 1.0),
    }
    agreement = None
    if find_spec("kronfluence") is not None:
        runs["kronfluence"] = (lambda: none(kronfluence(model, rows, queries, sampled=True)), 1.0)
        agreement = rank_correlations(
            ours(model, rows, queries, "data", detail=True), kronfluence(model, rows, queries, sampled=False)
        )
    found = in_turns(runs)
    middle = {name: statistics.median(values) for name, values in found["processor_seconds"].items()}
    return {
        "weights": sum(p.numel() for p in model.module.parameters()),
        "plain_epochs": {name: round(value / middle["plain_epoch"], 2) for name, value in middle.items()},
        "ratio_to_kronfluence": round(middle["kronfluence"] / middle["ours"], 2) if agreement else None,
        "rank_correlation_with_kronfluence": agreement,
        "processor_seconds": found["processor_seconds"],
        "wall_seconds": found["wall_seconds"],
    }


def material(documents: int, tokens: int) -> tuple[Any, Any, Any]:
    """(model, rows, queries): texts of which both sides see the first `tokens` tokens."""
    from tutelage.core.dataset import Dataset
    from tutelage.models.toy import tiny_causal_lm

    whole = "\n".join(topics[name] for name in sorted(topics))
    size = 4 * tokens
    texts = [whole[i * size : (i + 1) * size] for i in range(documents + QUERIES)]
    model = tiny_causal_lm("llama", texts=texts[:50], layers=6, width=160, max_length=tokens)
    rows = Dataset.from_rows({"id": f"t{i}", "text": text} for i, text in enumerate(texts[:documents]))
    queries = Dataset.from_rows({"id": f"q{i}", "text": text} for i, text in enumerate(texts[documents:]))
    return model, rows, queries


def encoded(model: Any, rows: Any) -> Any:
    from tutelage.signals._encoded import encoded_set

    return encoded_set(next(iter(rows.shards())), model, model.max_length, "the benchmark")


def ours(model: Any, rows: Any, queries: Any, labels: str, detail: bool = False) -> Any:
    """Influences of all rows; with `detail` for every query by itself [rows, queries]."""
    import numpy as np

    from tutelage.core.apply import score_dataset
    from tutelage.core.discovery import build

    fields = {"labels": labels, "fit_rows": len(rows), "max_length": model.max_length, "damping": DAMPING}
    if detail:
        fields |= {"detail": "query", "query_rank": 10_000}
    method = build("signals.ekfac_influence", fields)
    inputs = {"model": model, "queries": queries}
    found = score_dataset(method, rows, inputs)  # type: ignore[arg-type]
    return np.array(found.column("ekfac_query").to_pylist()) if detail else None


def plain_epoch(model: Any, rows: Any) -> None:
    from tutelage.models.curvature import label_logps
    from tutelage.models.scoring import scoring_batches

    for _, batch in scoring_batches(model, encoded(model, rows)):
        label_logps(model, batch, None).sum().backward()
    model.module.zero_grad(set_to_none=True)


def kronfluence(model: Any, rows: Any, queries: Any, sampled: bool) -> Any:
    """Scores [queries, rows] of the reference library over the same tokens and layers of an equal model."""
    import copy

    import torch
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from torch.utils.data import TensorDataset

    sets = [TensorDataset(torch.tensor([e.ids for e in encoded(model, part)])) for part in (rows, queries)]
    task = _task(model)
    prepared = prepare_model(_logits(copy.deepcopy(model.module)), task)
    size = 1024 // model.max_length  # documents of one of our packs
    with tempfile.TemporaryDirectory() as folder:
        analyzer = Analyzer("ekfac", prepared, task, cpu=True, output_dir=folder, disable_tqdm=True)
        analyzer.fit_all_factors(
            "factors",
            sets[0],
            per_device_batch_size=size,
            factor_args=FactorArguments(strategy="ekfac", use_empirical_fisher=not sampled),
        )
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            query_dataset=sets[1],
            train_dataset=sets[0],
            per_device_query_batch_size=QUERIES,
            per_device_train_batch_size=size,
            score_args=ScoreArguments(damping_factor=None),
        )
        return analyzer.load_pairwise_scores("scores")["all_modules"].numpy()


def _logits(inner: Any) -> Any:
    from torch import nn

    class Logits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, ids: Any) -> Any:
            return self.inner(input_ids=ids).logits

    return Logits()


def _task(model: Any) -> Any:
    import torch
    from kronfluence.task import Task
    from torch import nn

    from tutelage.models.curvature import linear_layers

    names = [f"inner.model.layers.{name}" for name in linear_layers(model, "mlp")[0]]

    class Language(Task):
        def compute_train_loss(self, batch: Any, model: Any, sample: bool = False) -> Any:
            logits = model(batch[0])[:, :-1].flatten(0, 1)
            labels = batch[0][:, 1:].flatten()
            if sample:
                with torch.no_grad():
                    labels = torch.multinomial(torch.softmax(logits, 1), 1)[:, 0]
            return nn.functional.cross_entropy(logits, labels, reduction="sum")

        def compute_measurement(self, batch: Any, model: Any) -> Any:
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self) -> list[str]:
            return names

    return Language()


def rank_correlations(ours: Any, theirs: Any) -> dict[str, float]:
    """Spearman's correlation over the rows, per query: the lowest and the mean."""
    from scipy.stats import spearmanr

    each = [float(spearmanr(ours[:, query], theirs[query]).statistic) for query in range(QUERIES)]
    return {"lowest": round(min(each), 4), "mean": round(sum(each) / len(each), 4)}


def none(_: object) -> None:
    return None
