"""Accuracy against the number of labels, on seven real sets, over repeated draws of the labels.

Every draw takes k labelled texts of each class (fewer where a class has fewer) and a random sample of the test
texts, the same for all methods; the vectors are MiniLM's. Baselines: words and character n-grams with logistic
regression, and a linear head on the frozen vectors. `self_training` (HAST) adds the head's own confident
predictions on texts without a label whose neighbours agree.

At eight labels a class and with fewer draws, since they cost a hundred times as much, methods that train the
encoder; each sees `texts_of(labels)` texts in all, so that they take about the same time. `tuned` trains encoder
and head together, from the head's solution; `contrastive` tunes the encoder on pairs of the labelled texts first,
SetFit's way; `soft_prompt` (PTEC) trains vectors in front of the text and the head; `predictions` learns first its
own predictions on texts without a label, then the labels; `lite` (LiST's weights, on an encoder with a head)
learns such predictions as far as they pull where the labels do; `taught` learns what SmolLM2 says of the texts
without a label, and `llkd` those of them alone that the teacher is sure of and the student is not. `class_texts`
fits the head on the labelled texts and as many that SmolLM2 wrote after them (not of many classes, where a draw's
texts take it twenty minutes). `zero_shot` is SmolLM2 without any
label, told the class names alone.

Every measured cell is kept in `.work` under a hash of this file, so that a run that was cut off goes on.
"""

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from functools import partial
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
WORK = Path(os.environ.get("TUTELAGE_BENCH_WORK", Path(__file__).resolve().parents[1] / ".work")) / "few_labels"
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
DRAWS, DRAWS_OF_MANY, MANY, TUNED_DRAWS = 10, 5, 20, 2
TEST_ROWS, UNLABELLED = 200, 300
CHARACTERS = 600  # of a text, for every method
# Several baselines of several classes: `transductive` is told the whole test sample at once.
PAIRS = (
    ("linear_head", "tfidf"),
    ("transductive", "linear_head"),
    ("self_training", "linear_head"),
    ("contrastive", "linear_head"),
    ("contrastive", "tuned"),
    ("tuned", "linear_head"),
    ("soft_prompt", "linear_head"),
    ("predictions", "tuned"),
    ("lite", "tuned"),
    ("llkd", "taught"),
    ("class_texts", "linear_head"),
    ("zero_shot", "linear_head"),
)
METHODS = {
    "linear_head": "adapters.linear_head",
    "transductive": "signals.transductive",
    "self_training": "data.label.pseudo",
    "contrastive": "training.objectives.cosine_pairs",
    "tuned": "training.objectives.classification",
    "soft_prompt": "adapters.soft_prompt",
    "predictions": "data.label.pseudo",
    "lite": "training.objectives.meta_weights",
    "llkd": "training.objectives.llkd",
    "class_texts": "data.synthesise.class_texts",
    "zero_shot": "adapters.verbaliser",
}


class Drawn(NamedTuple):
    """The rows of one draw."""

    labelled: Dataset
    test: Dataset
    unlabelled: Dataset


class Models(NamedTuple):
    """The frozen encoder, and the language model that answers and writes."""

    encoder: Any
    language_model: Any


Fit = Callable[[Models, Drawn], np.ndarray]


def few_labels() -> dict[str, Any]:
    """The section `few_labels` of the benchmark of labels; with FEW_LABEL_SETS these sets alone, and kept."""
    if not SHARED.is_dir():
        raise Skip(f"the data sets are not there: {SHARED.name}")
    try:
        models = Models(load_model("minilm"), load_model("smollm2"))
    except ModelError as error:
        raise Skip(error.what) from None
    asked = os.environ.get("FEW_LABEL_SETS")
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in asked.split(",") if asked else SETS:
            found[name] = one_set(name, models)
    if asked:
        raise Skip("only some of the sets were asked for; they are kept")
    return {
        "draws": [DRAWS, DRAWS_OF_MANY, TUNED_DRAWS],
        "test_rows": TEST_ROWS,
        "sets": found,
        **statements(found),
    }


def one_set(name: str, models: Models) -> dict[str, Any]:
    """Accuracies [draws] and processor seconds of every method at every number of labels."""
    pool, test = read(name)
    classes = sorted({row["label"] for row in pool})
    table: dict[str, Any] = {"classes": len(classes), "rows": len(pool), "accuracy": {}, "seconds": {}}
    kept = Kept(name)
    for k in PER_CLASS:
        scores: dict[str, list[float]] = {}
        spent: dict[str, list[float]] = {}
        for draw in range(DRAWS if len(classes) <= MANY else DRAWS_OF_MANY):
            rows = drawn(pool, test, k, draw)
            for method, fit in fits(k, draw, len(classes)).items():
                accuracy, seconds = kept.measured(f"{k}/{draw}/{method}", partial(fit, models, rows))
                scores.setdefault(method, []).append(accuracy)
                spent.setdefault(method, []).append(seconds)
        table["accuracy"][str(k)] = scores
        table["seconds"][str(k)] = {method: float(np.median(times)) for method, times in spent.items()}
    return table


class Kept:
    """Measured cells of one set, kept on disk as long as this file stays as it is."""

    def __init__(self, name: str) -> None:
        version = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
        self.file = WORK / version / f"{name}.json"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.cells = json.loads(self.file.read_text(encoding="utf-8")) if self.file.exists() else {}

    def measured(self, key: str, measure: Callable[[], np.ndarray]) -> tuple[float, float]:
        """(accuracy, processor seconds) of a cell, measured now if it never was."""
        if key not in self.cells:
            began = time.process_time()
            accuracy = round(float(measure().mean()), 4)
            self.cells[key] = accuracy, round(time.process_time() - began, 2)
            written = self.file.with_suffix(".partial")
            written.write_text(json.dumps(self.cells), encoding="utf-8")
            written.replace(self.file)
        accuracy, seconds = self.cells[key]
        return accuracy, seconds


def fits(k: int, draw: int, classes: int) -> dict[str, Fit]:
    found: dict[str, Fit] = {
        "tfidf": by_words,
        "linear_head": by_vectors,
        "transductive": together,
        "self_training": self_trained,
    }
    if k == 8 and draw < TUNED_DRAWS:
        found |= {
            "contrastive": contrastive,
            "tuned": tuned,
            "soft_prompt": prompted,
            "predictions": predictions,
            "lite": lite,
            "taught": taught,
            "llkd": choosy,
            "zero_shot": without_labels,
        }
        if classes <= MANY:
            found["class_texts"] = with_class_texts
    return found


def texts_of(labelled: Dataset) -> int:
    """Texts that every method which trains the encoder may see."""
    return max(320, 2 * labelled.num_rows)


def by_words(models: Models, rows: Drawn) -> np.ndarray:
    return right(built("adapters.tfidf_classifier").convert({}, rows.labelled, {}), rows.test)


def by_vectors(models: Models, rows: Drawn) -> np.ndarray:
    return right(built("adapters.linear_head").convert({"base": models.encoder}, rows.labelled, {}), rows.test)


def together(models: Models, rows: Drawn) -> np.ndarray:
    blind = placed(models.encoder, rows.test).drop_columns("label")
    support = {"support": placed(models.encoder, rows.labelled)}
    found = score_dataset(built("signals.transductive"), blind, support)
    return np.array(found.column("predicted").to_pylist()) == np.array(rows.test.column("label").to_pylist())


def self_trained(models: Models, rows: Drawn) -> np.ndarray:
    head = built("adapters.linear_head")
    first = head.convert({"base": models.encoder}, rows.labelled, {})
    scored = predicted(first, placed(models.encoder, rows.unlabelled))
    agreed = score_dataset(built("signals.neighbour_agreement", {"k": 14}), scored, {})
    chosen = {"confidence_over": 0.5, "agreement_over": 0.5, "class_weights": True, "weight": 0.2}
    try:
        pseudo = built("data.label.pseudo", chosen).apply(agreed, {"gold": rows.labelled})
    except InputError:
        # Nothing is sure enough: the labels alone.
        return right(first, rows.test)
    return right(head.convert({"base": models.encoder}, with_gold(rows, pseudo), {}), rows.test)


def contrastive(models: Models, rows: Drawn) -> np.ndarray:
    texts = texts_of(rows.labelled)
    pairs = built("data.recipes.label_pairs", {"cap": texts // 2}).apply(rows.labelled, {})
    count = min(pairs.num_rows, texts // 2)
    body = trained(models.encoder, pairs, "training.objectives.cosine_pairs", count, 2e-5)
    return by_vectors(models._replace(encoder=body), rows)


def tuned(models: Models, rows: Drawn) -> np.ndarray:
    start = headed(models.encoder, rows)
    return right(classified(start, rows.labelled, texts_of(rows.labelled)), rows.test)


def prompted(models: Models, rows: Drawn) -> np.ndarray:
    prompt = built("adapters.soft_prompt", {"length": 20}).convert({"base": models.encoder}, rows.labelled, {})
    # The head learns at the rate it has in `tuned`.
    fields = {"rates": {"classifier_head": 5e-5 / 3e-3}}
    made = classified(headed(prompt, rows), rows.labelled, texts_of(rows.labelled), 3e-3, fields)
    return right(made, rows.test)


def predictions(models: Models, rows: Drawn) -> np.ndarray:
    """A third of the texts each: the labels, what the model then says of other texts, the labels again."""
    start, third = headed(models.encoder, rows), texts_of(rows.labelled) // 3
    first = classified(start, rows.labelled, third)
    pseudo = built("data.label.pseudo", {"weight_cap": None}).apply(
        predicted(first, rows.unlabelled), {"gold": rows.labelled}
    )
    second = classified(start, pseudo, third)
    return right(classified(second, rows.labelled, third, 2.5e-5), rows.test)


def lite(models: Models, rows: Drawn) -> np.ndarray:
    """Half of the texts for the teacher; weights cost three times their rows, and a gold text is beside each."""
    start, texts = headed(models.encoder, rows), texts_of(rows.labelled)
    first = classified(start, rows.labelled, texts // 2)
    soft = built("data.label.pseudo", {"target": "soft", "weight_cap": None})
    pseudo = soft.apply(predicted(first, rows.unlabelled), {"gold": rows.labelled})
    beside = built("data.recipes.gold_beside").apply(pseudo, {"gold": rows.labelled, "seed": 0})
    objective = "training.objectives.meta_weights"
    return right(trained(start, beside, objective, max(16, texts // 12), 5e-5), rows.test)


def taught(models: Models, rows: Drawn) -> np.ndarray:
    return from_teacher(models, rows, "training.objectives.classification")


def choosy(models: Models, rows: Drawn) -> np.ndarray:
    return from_teacher(models, rows, "training.objectives.llkd")


def from_teacher(models: Models, rows: Drawn, objective: str) -> np.ndarray:
    """Half of the texts are the teacher's, half the labelled ones, last."""
    said = predicted(asked_by_name(models, rows), rows.unlabelled)
    adopt = {"column": "predicted", "probs": "predicted_probs", "source": "teacher:smollm2"}
    told = built("data.label.adopt", adopt).apply(said, {})
    half = texts_of(rows.labelled) // 2
    start = built("adapters.classification_head").convert({"base": models.encoder}, rows.labelled, {})
    return right(classified(trained(start, told, objective, half, 5e-5), rows.labelled, half), rows.test)


def with_class_texts(models: Models, rows: Drawn) -> np.ndarray:
    fields = {"prompt": "examples", "rounds": 2, "max_new_tokens": 40}
    roles = {"writer": models.language_model, "encoder": models.encoder}
    made = built("data.synthesise.class_texts", fields).apply(rows.labelled, roles)
    both = with_gold(rows, made) if made.num_rows else rows.labelled
    return right(built("adapters.linear_head").convert({"base": models.encoder}, both, {}), rows.test)


def without_labels(models: Models, rows: Drawn) -> np.ndarray:
    return right(asked_by_name(models, rows), rows.test)


def asked_by_name(models: Models, rows: Drawn) -> Any:
    """Words are the class names; what the classes mean in a set with coded names, no one told it."""
    classes = sorted(set(rows.labelled.column("label").to_pylist()))
    words = {name: [name.replace("_", " ").lower()] for name in classes}
    fields = {"patterns": ["{text}\n\nThis text is about", "{text}\n\nLabel:"], "words": words}
    return built("adapters.verbaliser", fields).convert({"base": models.language_model}, None, {})


def headed(model: Any, rows: Drawn) -> Any:
    """The model with a head that solves the labelled rows."""
    start = {"start": "fitted", "pooling": "mean"}
    return built("adapters.classification_head", start).convert({"base": model}, rows.labelled, {})


def classified(
    model: Any, data: Dataset, texts: int, rate: float = 5e-5, fields: dict[str, Any] | None = None
) -> Any:
    return trained(model, data, "training.objectives.classification", texts, rate, fields)


def trained(
    model: Any, data: Dataset, objective: str, rows: int, rate: float, more: dict[str, Any] | None = None
) -> Any:
    from tutelage.runs.components import build_method

    fields = {
        "objective": {"use": objective},
        "learning_rate": rate,
        "step_tokens": 1024,
        "budget": {"rows": rows},
        **(more or {}),
    }
    fit: Any = build_method("training.fit", fields, lambda key: key)
    return fit.train(model, data, {"seed": 0})[0]


def predicted(classifier: Any, rows: Dataset) -> Dataset:
    return score_dataset(built("signals.class_probabilities"), rows, {"model": classifier})


def with_gold(rows: Drawn, made: Dataset) -> Dataset:
    """The labelled rows, and rows that a machine labelled or wrote, with their weights."""
    columns = ("id", "text", "label", "label_weight", "label_source")
    gold = [
        {**row, "label_weight": 1.0, "label_source": "gold"} for row in rows.labelled.rows(["id", "text", "label"])
    ]
    return Dataset.from_rows([*gold, *({name: row[name] for name in columns} for row in made.rows())])


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
        found.append([{**row, "id": f"{part}-{row['id']}", "text": row["text"][:CHARACTERS]} for row in rows])
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
    """Differences at eight labels a class: over the sets as a random effect, and for each set over its draws where
    there are at least three."""
    rows = []
    for method, against in PAIRS:
        means = []
        for name, table in found.items():
            scores = table["accuracy"]["8"]
            if method not in scores:
                continue
            gaps = np.array(scores[method]) - np.array(scores[against][: len(scores[method])])
            means.append(float(gaps.mean()))
            if len(gaps) >= 3:
                rows.append(comparison(name, method, against, gaps))
        over = comparison(f"{len(means)} sets", method, against, np.array(means))
        rows.append(
            {**over, "seeds": TUNED_DRAWS if len(gaps) == TUNED_DRAWS else DRAWS_OF_MANY, "sets": len(means)}
        )
    for row, p in zip(rows, holm([row.pop("p") for row in rows])):
        row["adjusted_p"] = float(p)
        row["verdict"] = "undecided" if p >= 0.05 else "better" if row["difference"] > 0 else "worse"
    return {"comparisons": rows}


def comparison(name: str, method: str, against: str, gaps: np.ndarray) -> dict[str, Any]:
    low, high = interval(gaps)
    error = float(gaps.std(ddof=1) / np.sqrt(len(gaps)))
    covers = "sets and draws" if name.endswith(" sets") else "items+labels"
    return {
        "bed": f"labels/{name}, 8 a class",
        "method": METHODS[method],
        "arm": method,
        "against": against,
        "step": "accuracy",
        "metric": "accuracy",
        "primary": True,
        "difference": float(gaps.mean()),
        "interval": {"lo": low, "hi": high, "level": 0.95, "covers": covers},
        "p": float(stats.ttest_1samp(gaps, 0.0).pvalue) if error > 0 else 1.0,
        "smallest_detectable": error * float(stats.t.isf(0.025, len(gaps) - 1) + stats.t.isf(0.2, len(gaps) - 1)),
        "seeds": len(gaps),
        # At equal labels; what they cost in seconds stands in the table.
        "cost_ratio": 1.0,
    }


def interval(values: np.ndarray) -> tuple[float, float]:
    half = float(stats.t.isf(0.025, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half
