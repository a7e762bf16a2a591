"""Classifiers: texts in, a probability for every class out.

logits(x) = W f(x) + b with features f (hashed TF-IDF, or the vectors of a frozen encoder or language model), and
p = softmax(logits / T): T is the calibration's temperature, 1 where nothing was calibrated; where a text may
have several labels, p = sigmoid(logits), each for itself, and the answer is every label above 1/2. Below
`threshold` the top probability is too low to answer, and the classifier abstains. Saved as `classifier.json`
beside its arrays; an encoder that can be found again by name (a packaged one) is named, another is saved with it.
"""

import hashlib
import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np

from tutelage.core import json_text
from tutelage.core.errors import ModelError
from tutelage.core.labels import Label, LabelSpace
from tutelage.core.meter import Meter
from tutelage.core.records import Record
from tutelage.models.seam import Model, as_texts, saving

FILE, ARRAYS = "classifier.json", "classifier.safetensors"
_FORMAT = 1


class Calibration(Record):
    """What was learnt about a classifier's confidence: `temperature` T and how it was found. `rows` labelled rows,
    which the classifier was not fitted on, gave an expected calibration error of `ece_before` and `ece_after`."""

    temperature: float
    rows: int
    held_out: str
    ece_before: float
    ece_after: float


class OutOfFold(Record):
    """Scores of rows by classifiers fitted without them: `logits` [rows, classes], `labels` their classes, `rows`
    the hashes of their texts."""

    rows: tuple[str, ...]
    logits: tuple[tuple[float, ...], ...]
    labels: tuple[int, ...]


class Classifier(Model):
    """The base: a subclass gives `logits`. `labels` is the label space, whose order all arrays follow; `facts` are
    told to people (labels by source, rows); `fitted_on` are hashes of the texts that it was fitted on;
    `multi_label`: a text may have several labels or none."""

    kind = "classifier"
    form = ""

    def __init__(self, labels: LabelSpace, *, name: str = "classifier") -> None:
        super().__init__(name)
        self.labels = labels
        self.calibration: Calibration | None = None
        self.threshold: float | None = None
        self.out_of_fold: OutOfFold | None = None
        self.multi_label = False
        self.facts: dict[str, Any] = {}
        self.fitted_on: frozenset[str] = frozenset()

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """[texts, classes] float64 natural-log scores; minus infinity for a class that was never seen."""
        raise NotImplementedError

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """[texts, classes] float64, calibrated, in the order of `labels`; rows sum to 1 unless `multi_label`."""
        return self.probabilities(self.logits(as_texts(texts, "classifier")))

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of logits."""
        if self.multi_label:
            return 0.5 * (1 + np.tanh(0.5 * logits))
        return softmax(logits / (self.calibration.temperature if self.calibration else 1.0))

    def answers(self, probs: np.ndarray) -> tuple[list[Any], np.ndarray]:
        """(the answer to each row of `probs`, how sure it is [n]): the likeliest class and its probability; of
        label sets the names above 1/2 in order, and the least sure label's max(p, 1 - p)."""
        if not self.multi_label:
            best = probs.argmax(axis=1) if len(probs) else np.zeros(0, dtype=int)
            return [self.labels.names[k] for k in best], probs[np.arange(len(probs)), best]
        chosen = [[name for name, p in zip(self.labels.names, row) if p > 0.5] for row in probs]
        return chosen, np.maximum(probs, 1 - probs).min(axis=1)

    def calibrated(self, calibration: Calibration, threshold: float | None) -> Self:
        """The same classifier with another calibration and threshold."""
        import copy

        made = copy.copy(self)
        made.calibration, made.threshold = calibration, threshold
        return made

    @property
    def fingerprint(self) -> str:
        """Hash of labels, calibration and everything behind the logits."""
        text = json.dumps([self.form, self._settings(), self._parts()], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def save(self, path: str | Path) -> Path:
        """Write `classifier.json` and what belongs to it below `path`; `load_model(path)` gives it back."""
        folder = Path(path)
        with saving(folder):
            parts = self._write(folder)
            text = json.dumps({"format": _FORMAT, "form": self.form, **self._settings(), **parts}, indent=1)
            (folder / FILE).write_text(text, encoding="utf-8")
        return folder

    def _settings(self) -> dict[str, Any]:
        return {
            "labels": [label.model_dump() for label in self.labels.labels],
            "calibration": self.calibration.model_dump() if self.calibration else None,
            "threshold": self.threshold,
            "out_of_fold": self.out_of_fold.model_dump() if self.out_of_fold else None,
            "facts": self.facts,
            "fitted_on": sorted(self.fitted_on),
            **({"multi_label": True} if self.multi_label else {}),
        }

    def _restore(self, settings: dict[str, Any]) -> Self:
        """Take over what `_settings` gave."""
        given = settings["calibration"], settings["out_of_fold"]
        self.calibration = Calibration(**given[0]) if given[0] else None
        self.out_of_fold = OutOfFold(**given[1]) if given[1] else None
        self.threshold, self.facts = settings["threshold"], settings["facts"]
        self.fitted_on = frozenset(settings["fitted_on"])
        self.multi_label = settings.get("multi_label", False)
        return self

    def _parts(self) -> Any:
        """What the logits depend on, as JSON values for the fingerprint."""
        raise NotImplementedError

    def _write(self, folder: Path) -> dict[str, Any]:
        """Write the parts; returns what `classifier.json` must say of them."""
        raise NotImplementedError


class Features(Protocol):
    """Texts as vectors. `config` (JSON values) and the folder it wrote make it again."""

    meter: Meter

    def vectors(self, texts: Sequence[str]) -> Any: ...

    def parts(self) -> Any: ...

    def write(self, folder: Path) -> dict[str, Any]: ...


class TfidfFeatures:
    """Hashed words, word pairs and character 3- to 5-grams of words, TF-IDF weighted: CSR [texts, 2^18], length 1.

    `idf` is NaN in buckets that the fitted texts did not fill, and what falls into these is left out.
    """

    BUCKETS = 2**18

    def __init__(self, idf: np.ndarray) -> None:
        self.idf = idf
        self.meter = Meter()

    @classmethod
    def fit(cls, texts: Sequence[str]) -> "TfidfFeatures":
        counts = cls._counts(texts)
        frequency = np.bincount(counts.indices, minlength=cls.BUCKETS)
        with np.errstate(divide="ignore"):
            idf = np.log((1 + len(texts)) / (1 + frequency)) + 1
        return cls(np.where(frequency > 0, idf, np.nan).astype(np.float32))

    def vectors(self, texts: Sequence[str]) -> Any:
        from scipy import sparse
        from sklearn.preprocessing import normalize

        weighted = self._counts(texts) @ sparse.diags_array(np.nan_to_num(self.idf).astype(np.float64))
        return normalize(sparse.csr_matrix(weighted))

    @classmethod
    def _counts(cls, texts: Sequence[str]) -> Any:
        from scipy import sparse
        from sklearn.feature_extraction.text import HashingVectorizer

        half = cls.BUCKETS // 2
        common = {"n_features": half, "alternate_sign": False, "norm": None}
        words = HashingVectorizer(analyzer="word", ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", **common)
        characters = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), **common)
        return sparse.hstack([words.transform(texts), characters.transform(texts)], format="csr")

    def parts(self) -> Any:
        return ["tfidf", hashlib.blake2b(self.idf.tobytes(), digest_size=16).hexdigest()]

    def write(self, folder: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        save_file({"idf": self.idf}, folder / "features.safetensors")
        return {"kind": "tfidf"}


# Vectors of texts by encoder and text hash, each with what it cost.
_vectors: "weakref.WeakKeyDictionary[Model, dict[bytes, tuple[np.ndarray, float]]]" = weakref.WeakKeyDictionary()
MOST_KEPT = 200_000


class EncoderFeatures:
    """The vectors of a frozen encoder or causal language model (`embed`), length 1: [texts, d] float32.

    Vectors are remembered as long as the encoder lives, by the text's hash, and charged again whenever they are
    used: what a classifier costs does not depend on what was embedded before it.
    """

    def __init__(self, encoder: Model) -> None:
        if type(encoder).embed is Model.embed:
            raise ModelError(
                "this model gives no vectors of texts",
                where=encoder.name,
                expected="an encoder or a causal language model",
                found=f"kind {encoder.kind}",
            )
        self.encoder = encoder
        self.meter = encoder.meter

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        kept = _vectors.setdefault(self.encoder, {})
        keys = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts]
        known = {key: kept[key] for key in keys if key in kept}
        missing = {key: text for key, text in zip(keys, texts) if key not in known}
        if missing:
            before = self.meter.cost
            found = np.asarray(self.encoder.embed(list(missing.values())), dtype=np.float32)
            spent = self.meter.since(before).forward_flops / len(missing)
            lengths = np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
            for key, vector in zip(missing, found / lengths):
                known[key] = (vector, spent)
            if len(kept) + len(missing) <= MOST_KEPT:
                kept.update({key: known[key] for key in missing})
        again = sum(known[key][1] for key in keys if key not in missing)
        self.meter.add(forward_flops=again)
        return np.array([known[key][0] for key in keys], dtype=np.float32)

    def parts(self) -> Any:
        return ["encoder", self.encoder.fingerprint]

    def write(self, folder: Path) -> dict[str, Any]:
        if self.encoder.packaged:
            return {"kind": "encoder", "load": self.encoder.packaged}
        self.encoder.save(folder / "encoder")
        return {"kind": "encoder", "load": None}


class LinearClassifier(Classifier):
    """`features` and a linear map: `weights` [classes, d] and `bias` [classes] float64."""

    form = "linear"

    def __init__(
        self,
        labels: LabelSpace,
        features: Features,
        weights: np.ndarray,
        bias: np.ndarray,
        *,
        name: str = "classifier",
    ) -> None:
        super().__init__(labels, name=name)
        self.features, self.weights, self.bias = features, weights, bias
        self.meter = features.meter

    @property
    def n_params(self) -> int:
        """Parameters of the head alone."""
        return int(self.weights.size + self.bias.size)

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        if not len(texts):
            return np.zeros((0, len(self.labels)))
        return np.asarray(self.features.vectors(texts) @ self.weights.T, dtype=np.float64) + self.bias

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        found = self.features.vectors(as_texts(texts, "classifier"))
        return np.asarray(found.todense() if hasattr(found, "todense") else found, dtype=np.float32)

    def _parts(self) -> Any:
        digest = hashlib.blake2b(self.weights.tobytes(), digest_size=16)
        digest.update(self.bias.tobytes())
        return [self.features.parts(), digest.hexdigest()]

    def _write(self, folder: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        save_file({"weights": self.weights, "bias": self.bias}, folder / ARRAYS)
        return {"features": self.features.write(folder)}


# Packaged models that are in memory, for the classifiers around them; the one used last stays there for the next.
_shared: "weakref.WeakValueDictionary[tuple[str, str, str], Model]" = weakref.WeakValueDictionary()
_last: list[Model] = []


def share(model: Model, device: str, dtype: str) -> None:
    """Let classifiers that are read from now on use this model, if it is a packaged one, instead of loading it."""
    if model.packaged:
        _shared[model.packaged, device, dtype] = model


def inner_model(packaged: str | None, folder: Path, device: str, dtype: str) -> Model:
    """The model inside a saved classifier: a packaged one, shared with others, or that in `folder`."""
    from tutelage.models.load import load_model

    if packaged is None:
        return load_model(folder, device=device, dtype=dtype)
    model = _shared.get((packaged, device, dtype)) or load_model(packaged, device=device, dtype=dtype)
    share(model, device, dtype)
    _last[:] = [model]
    return model


def load_classifier(folder: Path, device: str = "auto", dtype: str = "auto") -> Classifier:
    """The classifier that `save` wrote; raises ModelError when a file is absent, damaged or of a later format."""
    try:
        settings = json_text.loads((folder / FILE).read_bytes())
        if settings["format"] != _FORMAT:
            raise ValueError(f"format {settings['format']}, this version reads {_FORMAT}")
        labels = LabelSpace([Label(**label) for label in settings["labels"]])
        if settings["form"] == "prompt":
            from tutelage.models.prompt_classifier import PromptClassifier

            return PromptClassifier.read(folder, labels, settings, (device, dtype))._restore(settings)
        if settings["form"] == "tuned":
            from tutelage.models.tuned_classifier import TunedClassifier

            return TunedClassifier.read(folder, labels, settings, (device, dtype))._restore(settings)
        if settings["form"] != LinearClassifier.form:
            raise ValueError(f"form {settings['form']!r} is not known")
        arrays = arrays_of(folder / ARRAYS)
        made = LinearClassifier(
            labels, _features(folder, settings["features"], device, dtype), arrays["weights"], arrays["bias"],
            name=folder.name,
        )  # fmt: skip
        return made._restore(settings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            "not a saved classifier",
            where=folder,
            expected=f"{FILE} and {ARRAYS} as they were saved",
            found=error,
            remedy="train or save it again",
        ) from error


def _features(folder: Path, config: dict[str, Any], device: str, dtype: str) -> Features:
    if config["kind"] == "tfidf":
        return TfidfFeatures(arrays_of(folder / "features.safetensors")["idf"])
    return EncoderFeatures(inner_model(config["load"], folder / "encoder", device, dtype))


def arrays_of(file: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file.name}: {error}") from error


def softmax(logits: np.ndarray) -> np.ndarray:
    """Rows of exp(z - max) / sum; a row of minus infinities alone is even."""
    top = logits.max(axis=1, keepdims=True) if logits.size else logits
    shifted = np.exp(np.where(np.isfinite(top), logits - np.where(np.isfinite(top), top, 0), 0.0))
    return shifted / np.maximum(shifted.sum(axis=1, keepdims=True), 1e-300)
