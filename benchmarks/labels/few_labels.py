"""Accuracy against the number of labels, on six real sets, over repeated draws of the labels.

Every draw takes k labelled texts of each class (fewer where a class has fewer) and a random sample of the test
texts, the same for all methods; the vectors are MiniLM's. Baselines: words and character n-grams with logistic
regression, and a linear head on the frozen vectors. `contrastive` tunes the encoder on pairs of the labelled texts
first, SetFit's way, on sets of at most six classes and with fewer draws, since it costs a hundred times as much.
"""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.skip import Skip
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ModelError
from tutelage.core.stats.families import holm
from tutelage.models.load import load_model

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
# Name -> (file with labelled texts to draw from, file to test on; None: the rest of the first).
SETS = {
    "banking77": ("train.parquet", "test.jsonl"),
    "hwu64": ("train.jsonl", "test.jsonl"),
    "youtube_spam_ws": ("train.jsonl", "test.jsonl"),
    "afrisenti_hausa_annotators": ("all.parquet", None),
    "sentence_polarity": ("train.parquet", "test.jsonl"),
    "medical_abstracts_test": ("test.parquet", None),
    "legalbench_fewshot": ("train.jsonl", None),
}
PER_CLASS = (4, 8, 16)
DRAWS, TUNED_DRAWS = 10, 3
TEST_ROWS = 400
# Several baselines of several classes: `transductive` is told the whole test sample at once.
PAIRS = (("linear_head", "tfidf"), ("transductive", "linear_head"), ("contrastive", "linear_head"))
METHODS = {
    "linear_head": "adapters.linear_head",
    "transductive": "signals.transductive",
    "contrastive": "training.objectives.cosine_pairs",
}
Fit = Callable[[Any, Dataset, Dataset], np.ndarray]


def few_labels() -> dict[str, Any]:
    """The section `few_labels` of the benchmark of labels."""
    if not SHARED.is_dir():
        raise Skip(f"the data sets are not there: {SHARED.name}")
    try:
        encoder = load_model("minilm")
    except ModelError as error:
        raise Skip(error.what) from None
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in SETS:
            found[name] = one_set(name, encoder)
    return {"draws": DRAWS, "test_rows": TEST_ROWS, "sets": found, **statements(found)}


def one_set(name: str, encoder: Any) -> dict[str, Any]:
    """Accuracies [draws] and seconds of every method at every number of labels."""
    pool, test = read(name)
    classes = sorted({row["label"] for row in pool})
    table: dict[str, Any] = {"classes": len(classes), "rows": len(pool), "accuracy": {}, "seconds": {}}
    for k in PER_CLASS:
        scores: dict[str, list[float]] = {}
        spent: dict[str, list[float]] = {}
        for draw in range(DRAWS):
            labelled, asked = drawn(pool, test, k, draw)
            for method, fit in fits(len(classes), k, draw).items():
                began = time.perf_counter()
                right = fit(encoder, labelled, asked)
                scores.setdefault(method, []).append(round(float(right.mean()), 4))
                spent.setdefault(method, []).append(round(time.perf_counter() - began, 2))
        table["accuracy"][str(k)] = scores
        table["seconds"][str(k)] = {method: float(np.median(times)) for method, times in spent.items()}
    return table


def fits(classes: int, k: int, draw: int) -> dict[str, Fit]:
    found: dict[str, Fit] = {"tfidf": by_words, "linear_head": by_vectors, "transductive": together}
    if classes <= 6 and k == 8 and draw < TUNED_DRAWS:
        found["contrastive"] = tuned
    return found


def by_words(encoder: Any, labelled: Dataset, test: Dataset) -> np.ndarray:
    return right(build("adapters.tfidf_classifier").convert({}, labelled, {}), test)  # type: ignore[attr-defined]


def by_vectors(encoder: Any, labelled: Dataset, test: Dataset) -> np.ndarray:
    return right(build("adapters.linear_head").convert({"base": encoder}, labelled, {}), test)  # type: ignore[attr-defined]


def together(encoder: Any, labelled: Dataset, test: Dataset) -> np.ndarray:
    from tutelage.core.apply import score_dataset
    from tutelage.models.classifier import EncoderFeatures

    def placed(rows: Dataset) -> Dataset:
        vectors = EncoderFeatures(encoder).vectors(rows.column("text").to_pylist())
        return Dataset.from_rows(
            {"id": row["id"], "label": row["label"], "embedding": vector.tolist()}
            for row, vector in zip(rows.rows(), vectors)
        )

    blind = placed(test).drop_columns("label")
    found = score_dataset(build("signals.transductive"), blind, {"support": placed(labelled)})  # type: ignore[arg-type]
    return np.array(found.column("predicted").to_pylist()) == np.array(test.column("label").to_pylist())


def tuned(encoder: Any, labelled: Dataset, test: Dataset) -> np.ndarray:
    pairs = build("data.recipes.label_pairs").apply(labelled, {})  # type: ignore[attr-defined]
    fit = {
        "objective": {"use": "training.objectives.cosine_pairs"},
        "learning_rate": 2e-5,
        "step_tokens": 1024,
        "budget": {"rows": pairs.num_rows},
    }
    from tutelage.runs.components import build_method

    trainer: Any = build_method("training.fit", fit, lambda key: key)
    body, _ = trainer.train(encoder, pairs, {"seed": 0})
    return by_vectors(body, labelled, test)


def right(classifier: Any, test: Dataset) -> np.ndarray:
    probs = classifier.predict_proba(test.column("text").to_pylist())
    said = np.array(classifier.labels.names)[probs.argmax(axis=1)]
    return said == np.array(test.column("label").to_pylist())


def read(name: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """(rows to draw labels from, rows to test on or None) with id, text, label; classes of under ten rows go."""
    found = []
    for part in SETS[name]:
        if part is None:
            found.append(None)
            continue
        rows = build("data.read.auto").read(str(SHARED / name / part)).rows(["id", "text", "label"])  # type: ignore[attr-defined]
        found.append([{**row, "id": f"{part}-{row['id']}", "text": row["text"][:1500]} for row in rows])
    counts: dict[str, int] = {}
    for row in found[0]:
        counts[row["label"]] = counts.get(row["label"], 0) + 1
    usual = {label for label, count in counts.items() if count >= 40 and label != "NO_MAJORITY"}
    kept = [None if part is None else [row for row in part if row["label"] in usual] for part in found]
    return kept[0] or [], kept[1]


def drawn(
    pool: list[dict[str, Any]], test: list[dict[str, Any]] | None, k: int, draw: int
) -> tuple[Dataset, Dataset]:
    """k labelled rows of each class, and the rows to test on: by the draw's number."""
    rng = np.random.default_rng([draw, k])
    taken: dict[str, list[dict[str, Any]]] = {}
    texts = set()
    rest = []
    for number in rng.permutation(len(pool)):
        row = pool[number]
        mine = taken.setdefault(row["label"], [])
        if len(mine) < k and row["text"] not in texts:
            mine.append(row)
            texts.add(row["text"])
        elif test is None:
            rest.append(row)
    asked = rest if test is None else [test[i] for i in np.random.default_rng(draw).permutation(len(test))]
    asked = [row for row in asked if row["text"] not in texts][:TEST_ROWS]
    return Dataset.from_rows(row for rows in taken.values() for row in rows), Dataset.from_rows(asked)


def statements(found: dict[str, Any]) -> dict[str, Any]:
    """Differences at eight labels a class: for each set over its draws, and over the sets as a random effect."""
    rows, over = [], {}
    for method, against in PAIRS:
        means = []
        for name, table in found.items():
            scores = table["accuracy"]["8"]
            if method not in scores:
                continue
            gaps = np.array(scores[method]) - np.array(scores[against][: len(scores[method])])
            means.append(float(gaps.mean()))
            rows.append(comparison(name, method, against, gaps))
        low, high = interval(np.array(means))
        over[f"{method} - {against}"] = {
            "sets": len(means),
            "mean": round(float(np.mean(means)), 4),
            "interval": [round(low, 4), round(high, 4)],
            "covers": "sets and draws" if len(means) >= 6 else "these sets: too few for the method",
        }
    for row, p in zip(rows, holm([row.pop("p") for row in rows])):
        row["adjusted_p"] = float(p)
        row["verdict"] = "undecided" if p >= 0.05 else "better" if row["difference"] > 0 else "worse"
    return {"over_sets_at_8": over, "comparisons": rows}


def comparison(name: str, method: str, against: str, gaps: np.ndarray) -> dict[str, Any]:
    low, high = interval(gaps)
    error = float(gaps.std(ddof=1) / np.sqrt(len(gaps)))
    return {
        "bed": f"labels/{name}, 8 a class",
        "method": METHODS[method],
        "arm": method,
        "against": against,
        "step": "accuracy",
        "metric": "accuracy",
        "primary": True,
        "difference": float(gaps.mean()),
        "interval": {"lo": low, "hi": high, "level": 0.95, "covers": "items+labels"},
        "p": float(stats.ttest_1samp(gaps, 0.0).pvalue) if error > 0 else 1.0,
        "smallest_detectable": error * float(stats.t.isf(0.025, len(gaps) - 1) + stats.t.isf(0.2, len(gaps) - 1)),
        "seeds": len(gaps),
        # At equal labels; what they cost in seconds stands in the table.
        "cost_ratio": 1.0,
    }


def interval(values: np.ndarray) -> tuple[float, float]:
    half = float(stats.t.isf(0.025, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half
