"""Linear heads on fixed vectors of texts: fitting, out-of-fold scores, and what is kept of the rows."""

import hashlib
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tutelage.core.errors import InputError
from tutelage.core.labels import GOLD, LabelSpace, label_sources, soft_labels
from tutelage.core.text.rows import text_rows
from tutelage.models.classifier import Features, LinearClassifier, OutOfFold, softmax

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset


# What C is chosen from: a factor of ten is a visible change, and the ends are rarely taken.
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
MOST_TRIED = 500


def labelled_rows(dataset: "Dataset | None", method: str) -> "Dataset":
    """The rows to fit on; raises InputError when there are none."""
    if dataset is None or not dataset.num_rows:
        raise InputError(
            "there are no labelled rows to fit on", where=method, expected="from: rows with text and label"
        )
    return dataset


def fit_head(vectors: Any, probs: np.ndarray, weights: np.ndarray, C: float) -> tuple[np.ndarray, np.ndarray]:
    """(W [classes, d], b [classes]) of multinomial logistic regression with L2 penalty |W|^2 / (2 C).

    A soft label counts as one row for each class, with the row's weight times the probability. A class without any
    row gets b = -infinity: it is never predicted. Raises InputError when all rows have one class.
    """
    from sklearn.linear_model import LogisticRegression

    parts = probs * weights[:, None]
    rows, classes = np.nonzero(parts)
    present = np.unique(classes)
    if len(present) < 2:
        raise InputError(
            "all labelled rows have one class, so there is nothing to tell apart",
            expected="rows of at least two classes",
            found=f"{len(np.unique(rows))} rows",
        )
    short, back = row_space(vectors)
    model = LogisticRegression(C=C, max_iter=1000, tol=1e-5)
    model.fit(short[rows], classes, sample_weight=parts[rows, classes])
    found = np.zeros((probs.shape[1], vectors.shape[1]))
    bias = np.full(probs.shape[1], -np.inf)
    # Two classes: one map, for the second of them.
    mapped = present if len(present) > 2 else present[1:]
    found[mapped] = model.coef_ if back is None else vectors.T.dot((model.coef_ @ back).T).T
    bias[present] = 0.0
    bias[mapped] = model.intercept_
    return found, bias


def row_space(vectors: Any) -> tuple[Any, Any]:
    """(coordinates [rows, r], back [r, rows]) with orthonormal rows of back @ vectors, the basis; (vectors, None)
    where rows are not fewer than columns.

    The best W under an L2 penalty is a combination of the rows, so that fitting in these coordinates gives the
    same classifier, and forty rows of 2^18 n-grams cost what forty numbers cost.
    """
    if vectors.shape[0] >= vectors.shape[1]:
        return vectors, None
    gram = vectors @ vectors.T
    values, turned = np.linalg.eigh(gram.toarray() if hasattr(gram, "toarray") else gram)
    kept = values > values[-1] * 1e-10
    scale, turned = np.sqrt(values[kept]), turned[:, kept]
    return turned * scale, (turned / scale).T


def even_head(base: Any, space: LabelSpace, pooling: str, name: str) -> Any:
    """A `TunedClassifier` on `base` whose head is zero; `pooling` auto: mean for encoders, last for others."""
    from tutelage.models.tuned_classifier import TunedClassifier, linear

    how: Any = pooling if pooling != "auto" else "mean" if base.kind == "encoder" else "last"
    width = int(base.config.get_text_config().hidden_size)
    return TunedClassifier(
        space, base, linear(np.zeros((len(space), width)), np.zeros(len(space))), how, name=name
    )


def folds_of(classes: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """[rows] the fold of each row: every class is dealt out evenly, in a random order."""
    rng = np.random.default_rng(seed)
    found = np.zeros(len(classes), dtype=np.int64)
    dealt = 0
    for kind in np.unique(classes):
        chosen = rng.permutation(np.flatnonzero(classes == kind))
        found[chosen] = (np.arange(len(chosen)) + dealt) % folds
        dealt += len(chosen)
    return found


def out_of_fold(
    vectors: Any,
    probs: np.ndarray,
    weights: np.ndarray,
    gold: np.ndarray,
    hashes: list[str],
    settings: Mapping[str, Any],
) -> OutOfFold | None:
    """Logits of the `gold` rows (bool [rows], texts hashed to `hashes`) by heads fitted without their fold.

    The other rows are in every fit. Rows of a class that lost some to the fold count more, so that every fit has
    the classes in the shares of all rows: with a few labels a class the held-out class would never be answered.

    Rows that are the only one of their class are left out: without them the class is unknown. None when fewer than
    two rows are left.
    """
    classes = probs.argmax(axis=1)
    counts = np.bincount(classes[gold], minlength=probs.shape[1])
    asked = np.flatnonzero(gold & (counts[classes] >= 2))
    if len(asked) < 2:
        return None
    fold = np.full(len(classes), -1)
    fold[asked] = folds_of(classes[asked], settings["folds"], settings["seed"])
    logits = np.zeros((len(classes), probs.shape[1]))
    shares = weights @ probs
    for number in np.unique(fold[asked]):
        held = fold == number
        left = weights[~held] @ probs[~held]
        up = np.divide(shares, left, out=np.ones_like(shares), where=left > 0)
        w, b = fit_head(vectors[~held], probs[~held] * up, weights[~held], settings["C"])
        logits[held] = np.asarray(vectors[held] @ w.T) + b
    # A class without rows is as good as impossible; the file that keeps these numbers knows no infinity.
    found = np.maximum(logits[asked], -50.0)
    return OutOfFold(
        rows=tuple(hashes[row] for row in asked),
        logits=tuple(tuple(row) for row in found.tolist()),
        labels=tuple(classes[asked].tolist()),
    )


def choose_strength(
    vectors: Any, probs: np.ndarray, weights: np.ndarray, gold: np.ndarray, settings: Mapping[str, Any]
) -> float:
    """The C of `STRENGTHS` with the least mean -log p(label) out of fold, on at most `MOST_TRIED` gold rows, the
    smallest of equals; the middle where there are too few rows to tell."""
    rng = np.random.default_rng(settings["seed"])
    tried = np.sort(rng.permutation(np.flatnonzero(gold))[:MOST_TRIED])
    best, least = STRENGTHS[1], np.inf
    for C in STRENGTHS:
        names = [""] * len(tried)
        own = np.ones(len(tried), dtype=bool)
        found = out_of_fold(vectors[tried], probs[tried], weights[tried], own, names, {**settings, "C": C})
        if found is None:
            break
        said = softmax(np.array(found.logits))[np.arange(len(found.labels)), list(found.labels)]
        loss = float(-np.log(np.maximum(said, 1e-300)).mean())
        if loss < least - 1e-9:
            best, least = C, loss
    return best


def linear_classifier(
    dataset: "Dataset",
    space: LabelSpace,
    features: Callable[[list[str]], Features],
    settings: Mapping[str, Any],
    name: str,
) -> LinearClassifier:
    """A head on `features(texts)`, with its out-of-fold scores and what it was fitted on.

    `settings`: C (None: chosen out of fold), folds, seed. Raises InputError for rows without a label or with text
    that has two gold labels.
    """
    texts = [text for _, text in text_rows(dataset)]
    probs, weights = soft_labels(dataset, space)
    _refuse_conflicts(dataset, texts)
    made = features(texts)
    vectors = made.vectors(texts)
    gold = gold_rows(dataset)
    if settings["C"] is None:
        settings = {**settings, "C": choose_strength(vectors, probs, weights, gold, settings)}
    w, b = fit_head(vectors, probs, weights, settings["C"])
    classifier = LinearClassifier(space, made, w, b, name=name)
    absent = [label for label, bias in zip(space.names, b) if np.isinf(bias)]
    if absent:
        warnings.warn(f"no labelled row is of class {', '.join(absent)}: it will never be predicted", stacklevel=3)
    hashes = [text_hash(text) for text in texts]
    classifier.out_of_fold = out_of_fold(vectors, probs, weights, gold, hashes, settings)
    counts = np.bincount(probs.argmax(axis=1), minlength=len(space))
    classifier.facts = {
        "rows": len(texts),
        "C": settings["C"],
        "labels_by_source": label_sources(dataset),
        "rows_by_class": dict(zip(space.names, counts.tolist())),
        "absent": absent,
    }
    classifier.fitted_on = frozenset(hashes)
    return classifier


def gold_rows(dataset: "Dataset") -> np.ndarray:
    """bool [rows]: rows whose label a person gave."""
    columns = [name for name in ("label", "label_source") if name in dataset.column_names]
    return np.array(
        [
            row.get("label") is not None and (row.get("label_source") or GOLD) == GOLD
            for row in dataset.rows(columns)
        ],
        dtype=bool,
    )


def text_hash(text: str) -> str:
    """16 hex digits of a text whose white space is evened out."""
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _refuse_conflicts(dataset: "Dataset", texts: list[str]) -> None:
    seen: dict[str, tuple[str, str]] = {}
    gold = gold_rows(dataset)
    columns = [name for name in ("id", "label") if name in dataset.column_names]
    for row, text, counts in zip(dataset.rows(columns), texts, gold):
        if not counts:
            continue
        other, label = seen.setdefault(text_hash(text), (row["id"], row["label"]))
        if label != row["label"]:
            raise InputError(
                "two rows with one text have different gold labels",
                where=f"rows {other} and {row['id']}",
                expected="one label for one text",
                found=f"{label!r} and {row['label']!r}",
                remedy="settle which is right, and drop or correct the other",
            )
