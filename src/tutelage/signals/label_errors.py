"""Labels that are probably wrong: rows that judges, none of which learned from the row, would label otherwise.

p_i is the mean over judges of the class probabilities of row i: a classifier of words and character n-grams (or
of an encoder's vectors) fitted here without the row's fold, judges that were never fitted on these rows (a
teacher), and predictions made elsewhere, for which the fold must be given. `confident` (confident learning): t_j
= mean p_ij over rows labelled j; of the classes with p_ij >= t_j the likeliest is what the row is, and the row
is suspect when that is not its label. `disagree`: suspect when argmax_j p_ij is not the label. Either way the
confidence p_i,suggested must reach `least_confidence`. The state holds the confident joint: counts of rows by
label and by what they are; off the diagonal are the errors it sees.
"""

import warnings
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.labels import LabelSpace
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import uniform
from tutelage.core.text.rows import text_rows

CARD = {
    "name": "signals.label_errors",
    "paper": {
        "title": "Confident Learning: Estimating Uncertainty in Dataset Labels",
        "identifier": "arXiv:1911.00068",
    },
    "summary": "Finds labels that are probably wrong, by judges that did not learn from the row.",
    "reads": ["text", "label", "classes?"],
    "writes": ["label_suspect", "label_error_confidence", "suggested_label"],
    "inputs": {
        "labels?": "rows with the classes: label, description, aliases",
        "encoder?": "the model whose vectors the out-of-fold classifier uses in place of n-grams",
    },
    "needs": ["train"],
    "cost": "one small fit for each fold, and what the judges cost",
    "baseline": "signals.class_probabilities",
    "headline": "every test set that people looked at this way had wrong labels; look before you train or report",
    "version": 1,
}

# Differences of probabilities below this are rounding.
SLACK = 1e-6


def thresholds(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """t [C]: mean probability of class j over the rows labelled j; 2 (never reached) for a class without rows."""
    classes = probs.shape[1]
    return np.array([probs[labels == j, j].mean() if (labels == j).any() else 2.0 for j in range(classes)])


def confident_class(probs: np.ndarray, least: np.ndarray) -> np.ndarray:
    """[n] the likeliest class among those with p_ij >= t_j; -1 where there is none."""
    passed = probs >= least - SLACK
    return np.where(passed.any(axis=1), np.where(passed, probs, -1.0).argmax(axis=1), -1)


def confident_joint(labels: np.ndarray, found: np.ndarray, classes: int) -> np.ndarray:
    """[C, C] counts of rows labelled i (rows) that are confidently j (columns); rows of no class are left out."""
    known = found >= 0
    flat = np.bincount(labels[known] * classes + found[known], minlength=classes * classes)
    return flat.reshape(classes, classes)


class LabelErrors(Scorer):
    """`judges` are columns of probabilities from models that were never fitted on these rows; `probs` is one
    from a model that was, and `fold` the column that says without which fold; `out_of_fold` adds the classifier
    fitted here, with `folds` and `C`. Probabilities are in the order of `classes`."""

    rule: Literal["confident", "disagree"] = "confident"
    least_confidence: float = Field(default=0.0, ge=0, le=1)
    judges: tuple[str, ...] = ()
    probs: str | None = None
    fold: str | None = None
    out_of_fold: bool = True
    folds: int = Field(default=5, ge=2)
    C: float = Field(default=1.0, gt=0)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        """Judges every row with a label. Raises InputError for probabilities that are in-sample as far as anybody
        knows, and for rows of a single class."""
        space = LabelSpace.of(dataset, inputs.get("labels"))
        texts = dict(text_rows(dataset))
        names = ["id", "label", *self.judges, *(name for name in (self.probs, self.fold) if name)]
        names += ["classes"] if len(names) > 2 and "classes" in dataset.column_names else []
        dataset.require(*[name for name in names if name != self.fold])
        self._check_folds(dataset)
        rows = [row for row in dataset.rows(names) if row["label"] is not None]
        labels = np.array([space.index(row["label"], f"row {row['id']}, field label") for row in rows])
        if len(np.unique(labels)) < 2:
            raise InputError(
                "all labelled rows have one class, so none can be told from another",
                where="column label",
                expected="at least two classes",
                found=f"{len(rows)} rows",
            )
        given = [self._column(rows, name, space) for name in (*self.judges, *([self.probs] if self.probs else []))]
        if self.out_of_fold:
            given.append(self._predict([texts[row["id"]] for row in rows], labels, len(space), inputs))
        if not given:
            raise ConfigError(
                "there is nobody to judge the labels",
                where=f"{self.name}: judges",
                expected="judges, probs with fold, or out_of_fold: true",
                found="none of them",
            )
        stacked = np.stack(given)
        # A judge that has nothing to say of a row is left out there.
        spoken = np.isfinite(stacked).all(axis=2)
        judged = spoken.any(axis=0)
        mean = np.where(spoken[..., None], stacked, 0.0).sum(axis=0) / np.maximum(spoken.sum(axis=0), 1)[:, None]
        found = np.full(len(rows), -1)
        if self.rule == "confident":
            found[judged] = confident_class(mean[judged], thresholds(labels[judged], mean[judged]))
        else:
            found[judged] = mean[judged].argmax(axis=1)
        confidence = np.where(found >= 0, mean[np.arange(len(rows)), found], np.nan)
        suspect = (found >= 0) & (found != labels) & (confidence >= self.least_confidence)
        joint = confident_joint(labels, found, len(space))
        return {
            "ids": [row["id"] for row in rows],
            "found": found,
            "confidence": confidence,
            "suspect": suspect,
            "classes": list(space.names),
            "joint": joint,
            "not_judged": int((~judged).sum()),
        }

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        place = {identifier: row for row, identifier in enumerate(state["ids"])}
        rows = [place.get(identifier) for identifier in shard.column("id").to_pylist()]
        found, names = np.asarray(state["found"]), state["classes"]
        known = [row is not None and found[row] >= 0 for row in rows]
        return {
            "label_suspect": pa.array(
                [None if row is None else bool(state["suspect"][row]) for row in rows], pa.bool_()
            ),
            "label_error_confidence": pa.array(
                [float(state["confidence"][row]) if fine else None for row, fine in zip(rows, known)], pa.float64()
            ),
            "suggested_label": pa.array(
                [names[found[row]] if fine else None for row, fine in zip(rows, known)], pa.string()
            ),
        }

    def _check_folds(self, dataset: Dataset) -> None:
        if self.probs is None:
            return
        there = self.fold is not None and self.fold in dataset.column_names
        values = dataset.column(self.fold).to_pylist() if there and self.fold else []
        if len(set(values)) < 2 or None in values:
            raise InputError(
                "needs out-of-fold probabilities",
                where=f"{self.name}: probs {self.probs!r}",
                expected="in column `fold`, for every row, the fold that its model was fitted without",
                found=f"{self.fold!r}, with {len(set(values))} different values",
                remedy="let this step predict (leave probs out), or give judges that never saw these rows",
            )

    def _column(self, rows: list[dict[str, Any]], name: str, space: LabelSpace) -> np.ndarray:
        """[n, C] in the order of `space`; NaN where the judge has nothing to say."""
        found = np.full((len(rows), len(space)), np.nan)
        for number, row in enumerate(rows):
            if row[name] is None:
                continue
            classes, where = row.get("classes") or (), f"row {row['id']}, field {name}"
            values = np.asarray(row[name], dtype=np.float64)
            if len(classes) != len(values) or abs(values.sum() - 1) > 1e-3 or (values < 0).any():
                raise InputError(
                    "a judge's opinion is no distribution over the classes",
                    where=where,
                    expected="one probability for each of the column classes, summing to 1",
                    found=f"{row[name]} of {list(classes)}",
                )
            found[number] = 0.0
            for one, value in zip(classes, values):
                found[number, space.index(one, f"row {row['id']}, field classes")] += value
        return found

    def _predict(self, texts: list[str], labels: np.ndarray, classes: int, inputs: Inputs) -> np.ndarray:
        """[n, C] by classifiers fitted without the row's fold; NaN for the only rows of their class."""
        from sklearn.linear_model import LogisticRegression

        from tutelage.models.classifier import EncoderFeatures, TfidfFeatures

        # By text: copies of a row are in one fold with it, and teach nothing about it.
        fold = np.floor(uniform(self.seed, texts) * self.folds).astype(np.int64)
        encoder = inputs.get("encoder")
        found = np.full((len(texts), classes), np.nan)
        for number in np.unique(fold):
            held = np.flatnonzero(fold == number)
            kept = np.flatnonzero(fold != number)
            if len(np.unique(labels[kept])) < 2:
                continue
            teach = [texts[i] for i in kept]
            features: Any = EncoderFeatures(encoder) if encoder is not None else TfidfFeatures.fit(teach)
            known, asked = features.vectors(teach), features.vectors([texts[i] for i in held])
            if encoder is None:
                # Only n-grams that occur are given to the solver, whose work grows with their number.
                used = np.unique(known.indices)
                known, asked = known[:, used], asked[:, used]
            model = LogisticRegression(C=self.C, max_iter=1000).fit(known, labels[kept])
            probs = np.zeros((len(held), classes))
            probs[:, model.classes_] = model.predict_proba(asked)
            told = np.isin(labels[held], model.classes_)
            found[held[told]] = probs[told]
        lost = int(np.isnan(found).any(axis=1).sum())
        if lost:
            warnings.warn(
                f"{self.name}: {lost} rows are alone in their class or fold and are not judged", stacklevel=3
            )
        return found
