"""Linear classifiers: features, calibration, saving."""

import json

import numpy as np
import pytest

from toy.labelled import labelled
from tutelage.core.discovery import build
from tutelage.core.errors import ModelError
from tutelage.core.labels import LabelSpace
from tutelage.models.classifier import (
    Calibration,
    EncoderFeatures,
    LinearClassifier,
    TfidfFeatures,
    softmax,
)
from tutelage.models.load import load_model
from tutelage.models.ngram import NGramLM
from tutelage.models.toy import tiny_causal_lm, tiny_encoder

MUTATIONS = [
    ("src/tutelage/models/classifier.py", "softmax(logits / (self", "softmax(logits * (self"),
    (
        "src/tutelage/models/classifier.py",
        "np.where(frequency > 0, idf, np.nan)",
        "np.where(frequency > 1, idf, np.nan)",
    ),
    ("src/tutelage/models/classifier.py", "        self.meter.add(forward_flops=again)\n", ""),
    ("src/tutelage/models/classifier.py", "found / lengths", "found"),
]
TEXTS = ["a cat and a dog", "a saw and a drill", "the old horse", "the new nail"]


def classifier(features=None, calibration=None):
    features = features or TfidfFeatures.fit(TEXTS)
    d = features.vectors(TEXTS).shape[1]
    rng = np.random.default_rng(0)
    made = LinearClassifier(
        LabelSpace(["animals", "tools"]), features, rng.normal(size=(2, d)), np.array([0.1, 0.0])
    )
    return made.calibrated(calibration, 0.7) if calibration else made


def test_softmax_takes_classes_that_were_never_seen():
    assert softmax(np.array([[0.0, -np.inf, np.log(3)]])).tolist() == [[0.25, 0.0, 0.75]]
    assert softmax(np.array([[-np.inf, -np.inf]])).tolist() == [[0.5, 0.5]]
    assert softmax(np.array([[1000.0, 0.0]])).tolist() == [[1.0, 0.0]]


def test_tfidf_equals_scikit_learn_with_a_vocabulary():
    from scipy import sparse
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    ours = TfidfFeatures.fit(TEXTS).vectors(TEXTS)
    parts = [
        TfidfVectorizer(analyzer="word", ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", norm=None),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), norm=None),
    ]
    theirs = normalize(sparse.hstack([part.fit_transform(TEXTS) for part in parts], format="csr"))
    assert np.allclose((ours @ ours.T).toarray(), (theirs @ theirs.T).toarray(), atol=1e-6)
    # What the fitted texts did not hold says nothing about a class.
    assert TfidfFeatures.fit(TEXTS).vectors(["zzz qqq"]).nnz == 0


def test_a_temperature_moves_probabilities_and_no_decision():
    warm = Calibration(temperature=3.0, rows=9, held_out="held-out rows", ece_before=0.2, ece_after=0.1)
    plain, calibrated = classifier(), classifier(calibration=warm)
    assert np.allclose(calibrated.predict_proba(TEXTS), softmax(plain.logits(TEXTS) / 3.0))
    assert (calibrated.predict_proba(TEXTS).argmax(1) == plain.predict_proba(TEXTS).argmax(1)).all()
    assert calibrated.fingerprint != plain.fingerprint
    assert plain.predict_proba([]).shape == (0, 2)


@pytest.mark.parametrize("kind", ["tfidf", "encoder"])
def test_saved_and_read_back_it_gives_the_same_probabilities(kind, tmp_path):
    features = TfidfFeatures.fit(TEXTS) if kind == "tfidf" else EncoderFeatures(tiny_encoder(texts=TEXTS))
    warm = Calibration(temperature=2.0, rows=9, held_out="out of fold", ece_before=0.2, ece_after=0.1)
    made = classifier(features, warm)
    made.facts, made.fitted_on = {"rows": 4}, frozenset(["00ff"])
    read = load_model(made.save(tmp_path / kind), dtype="float32")
    assert read.kind == "classifier" and read.labels == made.labels and read.threshold == 0.7
    assert np.allclose(read.predict_proba(TEXTS), made.predict_proba(TEXTS), atol=1e-6)
    assert (read.facts, read.fitted_on, read.calibration) == (made.facts, made.fitted_on, made.calibration)
    assert read.embed(TEXTS).shape == made.embed(TEXTS).shape
    assert read.n_params == made.n_params


def test_vectors_are_remembered_and_charged_as_if_they_were_not():
    encoder = tiny_encoder(texts=TEXTS)
    features = EncoderFeatures(encoder)
    assert np.allclose(np.linalg.norm(features.vectors(TEXTS), axis=1), 1.0, atol=1e-5)
    first = encoder.meter.cost
    again = features.vectors(TEXTS[::-1])
    second = encoder.meter.since(first)
    assert second.forward_flops == pytest.approx(first.forward_flops) and second.scored_tokens == 0
    assert np.allclose(again[::-1], features.vectors(TEXTS))


def test_vectors_have_length_one_whatever_the_model_gives():
    vectors = EncoderFeatures(tiny_causal_lm(texts=TEXTS)).vectors(TEXTS)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_a_model_without_vectors_is_refused():
    with pytest.raises(ModelError, match="no vectors"):
        EncoderFeatures(NGramLM(2))


def test_damaged_files_are_one_clear_error(tmp_path):
    folder = classifier().save(tmp_path / "c")
    (folder / "classifier.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="not a saved classifier"):
        load_model(folder)
    settings = json.loads((folder / "classifier.json").read_text())
    (folder / "classifier.json").write_text(json.dumps({**settings, "format": 99}))
    with pytest.raises(ModelError, match="format 99"):
        load_model(folder)


def test_two_heads_share_one_packaged_encoder_in_memory(tmp_path, monkeypatch):
    encoder = tiny_encoder(texts=TEXTS)
    encoder.packaged = "minilm"
    monkeypatch.setattr("tutelage.models.fetch.packaged", lambda name: encoder.save(tmp_path / name))
    folder = build("adapters.linear_head").convert({"base": encoder}, labelled(4), {}).save(tmp_path / "h")
    assert not (folder / "encoder").exists(), "a packaged encoder is named"
    one, two = load_model(folder), load_model(folder)
    assert one.features.encoder is two.features.encoder
    other = load_model(folder, dtype="float32")
    assert other.features.encoder is not one.features.encoder
