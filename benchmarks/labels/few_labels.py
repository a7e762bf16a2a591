"""Accuracy against the number of labels, on six real sets, over repeated draws of the labels.

Every draw takes k labelled texts of each class (fewer where a class has fewer) and a random sample of the test
texts, the same for all methods; the vectors are MiniLM's. Baselines: words and character n-grams with logistic
regression, and a linear head on the frozen vectors. `self_training` adds the head's own confident predictions on
texts without a label whose neighbours agree. On sets of at most three classes, at eight labels a class and
with fewer draws, since they cost a hundred times as much: `contrastive` tunes the encoder on pairs of the labelled
texts first, SetFit's way; `tuned` trains encoder and head together, from the head's solution, on as many texts as
the pairs have; `soft_prompt` trains vectors in front of the text and the head, on as many again. `zero_shot` is
SmolLM2 without any label, told the class names alone.
"""

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from benchmarks.skip import Skip
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import InputError, ModelError
from tutelage.core.stats.families import holm
from tutelage.models.classifier import EncoderFeatures
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
# Of many classes every draw has many labels, and costs as many times more.
DRAWS, DRAWS_OF_MANY, MANY, TUNED_DRAWS = 10, 5, 20, 3
TEST_ROWS, UNLABELLED = 200, 300
# Several baselines of several classes: `transductive` is told the whole test sample at once.
PAIRS = (
    ("linear_head", "tfidf"),
    ("transductive", "linear_head"),
    ("self_training", "linear_head"),
    ("contrastive", "linear_head"),
    ("contrastive", "tuned"),
    ("tuned", "linear_head"),
    ("soft_prompt", "linear_head"),
    ("zero_shot", "linear_head"),
)
METHODS = {
    "linear_head": "adapters.linear_head",
    "transductive": "signals.transductive",
    "self_training": "data.label.pseudo",
    "contrastive": "training.objectives.cosine_pairs",
    "tuned": "training.objectives.classification",
    "soft_prompt": "adapters.soft_prompt",
    "zero_shot": "adapters.verbaliser",
}


class Drawn(NamedTuple):
    """The rows of one draw."""

    labelled: Dataset
    test: Dataset
    unlabelled: Dataset


Fit = Callable[[Any, Drawn], np.ndarray]


def few_labels() -> dict[str, Any]:
    """The section `few_labels` of the benchmark of labels."""
    if not SHARED.is_dir():
        raise Skip(f"the data sets are not there: {SHARED.name}")
    try:
        encoder, language_model = load_model("minilm"), load_model("smollm2")
    except ModelError as error:
        raise Skip(error.what) from None
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in SETS:
            found[name] = one_set(name, encoder, language_model)
    return {
        "draws": [DRAWS, DRAWS_OF_MANY, TUNED_DRAWS],
        "test_rows": TEST_ROWS,
        "sets": found,
        **statements(found),
    }


def one_set(name: str, encoder: Any, language_model: Any) -> dict[str, Any]:
    """Accuracies [draws] and seconds of every method at every number of labels."""
    pool, test = read(name)
    classes = sorted({row["label"] for row in pool})
    table: dict[str, Any] = {"classes": len(classes), "rows": len(pool), "accuracy": {}, "seconds": {}}
    for k in PER_CLASS:
        scores: dict[str, list[float]] = {}
        spent: dict[str, list[float]] = {}
        for draw in range(DRAWS if len(classes) <= MANY else DRAWS_OF_MANY):
            rows = drawn(pool, test, k, draw)
            for method, fit in fits(len(classes), k, draw).items():
                began = time.perf_counter()
                hits = fit(language_model if method == "zero_shot" else encoder, rows)
                scores.setdefault(method, []).append(round(float(hits.mean()), 4))
                spent.setdefault(method, []).append(round(time.perf_counter() - began, 2))
        table["accuracy"][str(k)] = scores
        table["seconds"][str(k)] = {method: float(np.median(times)) for method, times in spent.items()}
    return table


def fits(classes: int, k: int, draw: int) -> dict[str, Fit]:
    found: dict[str, Fit] = {
        "tfidf": by_words,
        "linear_head": by_vectors,
        "transductive": together,
        "self_training": self_trained,
    }
    if classes <= 3 and k == 8 and draw < TUNED_DRAWS:
        found |= {"contrastive": contrastive, "tuned": tuned, "soft_prompt": prompted, "zero_shot": without_labels}
    return found


def by_words(encoder: Any, rows: Drawn) -> np.ndarray:
    return right(built("adapters.tfidf_classifier").convert({}, rows.labelled, {}), rows.test)


def by_vectors(encoder: Any, rows: Drawn) -> np.ndarray:
    return right(built("adapters.linear_head").convert({"base": encoder}, rows.labelled, {}), rows.test)


def together(encoder: Any, rows: Drawn) -> np.ndarray:
    blind = placed(encoder, rows.test).drop_columns("label")
    found = score_dataset(built("signals.transductive"), blind, {"support": placed(encoder, rows.labelled)})
    return np.array(found.column("predicted").to_pylist()) == np.array(rows.test.column("label").to_pylist())


def self_trained(encoder: Any, rows: Drawn) -> np.ndarray:
    head = built("adapters.linear_head")
    first = head.convert({"base": encoder}, rows.labelled, {})
    scored = score_dataset(
        built("signals.class_probabilities"), placed(encoder, rows.unlabelled), {"model": first}
    )
    agreed = score_dataset(built("signals.neighbour_agreement", {"k": 14}), scored, {})
    chosen = {"confidence_over": 0.5, "agreement_over": 0.5, "class_weights": True, "weight": 0.2}
    try:
        pseudo = built("data.label.pseudo", chosen).apply(agreed, {"gold": rows.labelled})
    except InputError:
        # Nothing is sure enough: the labels alone.
        return right(first, rows.test)
    columns = ("id", "text", "label", "label_weight", "label_source")
    gold = [
        {**row, "label_weight": 1.0, "label_source": "gold"} for row in rows.labelled.rows(["id", "text", "label"])
    ]
    both = Dataset.from_rows([*gold, *({name: row[name] for name in columns} for row in pseudo.rows())])
    return right(head.convert({"base": encoder}, both, {}), rows.test)


def contrastive(encoder: Any, rows: Drawn) -> np.ndarray:
    pairs = label_pairs(rows.labelled)
    body = trained(encoder, pairs, "training.objectives.cosine_pairs", pairs.num_rows, 2e-5)
    return by_vectors(body, rows)


def tuned(encoder: Any, rows: Drawn) -> np.ndarray:
    return headed(encoder, rows, 5e-5)


def prompted(encoder: Any, rows: Drawn) -> np.ndarray:
    prompt = built("adapters.soft_prompt", {"length": 20}).convert({"base": encoder}, rows.labelled, {})
    return headed(prompt, rows, 3e-3, {"classifier_head": 0.0033})


def headed(model: Any, rows: Drawn, rate: float, rates: dict[str, float] | None = None) -> np.ndarray:
    """A head on the model, both trained from the head's solution on as many texts as all pairs have."""
    start = {"start": "fitted", "pooling": "mean"}
    classifier = built("adapters.classification_head", start).convert({"base": model}, rows.labelled, {})
    texts = 2 * label_pairs(rows.labelled).num_rows
    return right(trained(classifier, rows.labelled, "training.objectives.classification", texts, rate), rows.test)


def trained(model: Any, data: Dataset, objective: str, budget: int, rate: float) -> Any:
    from tutelage.runs.components import build_method

    fields = {
        "objective": {"use": objective},
        "learning_rate": rate,
        "step_tokens": 1024,
        "budget": {"rows": budget},
    }
    fit: Any = build_method("training.fit", fields, lambda key: key)
    return fit.train(model, data, {"seed": 0})[0]


def label_pairs(labelled: Dataset) -> Dataset:
    return built("data.recipes.label_pairs").apply(labelled, {})


def without_labels(language_model: Any, rows: Drawn) -> np.ndarray:
    """Words are the class names; what the classes mean in a set with coded names, no one told it."""
    classes = sorted(set(rows.labelled.column("label").to_pylist()))
    words = {name: [name.replace("_", " ").lower()] for name in classes}
    fields = {"patterns": ["{text}\n\nThis text is about", "{text}\n\nLabel:"], "words": words}
    return right(built("adapters.verbaliser", fields).convert({"base": language_model}, None, {}), rows.test)


def placed(encoder: Any, rows: Dataset) -> Dataset:
    """The rows with their vectors, and with a label where they have one."""
    vectors = EncoderFeatures(encoder).vectors(rows.column("text").to_pylist())
    return Dataset.from_rows({**row, "embedding": vector.tolist()} for row, vector in zip(rows.rows(), vectors))


def built(name: str, fields: dict[str, Any] | None = None) -> Any:
    return build(name, fields)


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


def drawn(pool: list[dict[str, Any]], test: list[dict[str, Any]] | None, k: int, draw: int) -> Drawn:
    """k labelled rows of each class, rows to test on and rows without a label: by the draw's number."""
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
        else:
            rest.append(row)
    asked = rest if test is None else [test[i] for i in np.random.default_rng(draw).permutation(len(test))]
    asked = [row for row in asked if row["text"] not in texts][:TEST_ROWS]
    # From the end: where there is no file to test on, `asked` is the beginning.
    tested = {row["text"] for row in asked}
    others = [row for row in rest[-UNLABELLED:] if row["text"] not in tested]
    return Drawn(
        Dataset.from_rows(row for rows in taken.values() for row in rows),
        Dataset.from_rows(asked),
        Dataset.from_rows({"id": row["id"], "text": row["text"]} for row in others),
    )


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
