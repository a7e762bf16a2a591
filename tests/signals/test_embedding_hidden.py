"""signals.embedding_hidden against hidden states taken from transformers directly."""

import numpy as np
import pytest
import torch

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset, embedding_matrix
from tutelage.core.errors import InputError
from tutelage.models.toy import tiny_causal_lm
from tutelage.signals.embedding_hidden import EmbeddingHidden

PROOF = {"signals.embedding_hidden": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/embedding_hidden.py", 'vectors - state["mean"]', "vectors"),
    ("src/tutelage/models/text_vectors.py", "states.mean(axis=0)", "states[-1]"),
]
TEXTS = ["the quick brown fox", "a lazy dog sleeps in the sun", "numbers 1 2 3", "x"]


@pytest.fixture(scope="module")
def model():
    return tiny_causal_lm()


def embed(model, texts, **fields):
    data = Dataset.from_rows({"id": f"r{i}", "text": t} for i, t in enumerate(texts))
    return embedding_matrix(score_dataset(EmbeddingHidden(**fields), data, {"model": model}).column("embedding"))


@pytest.mark.parametrize("layer", [None, 1, 2])
def test_equals_transformers(model, layer):
    raw = []
    for text in TEXTS:
        ids = torch.tensor([[model.bos_id, *model.tokenize([text])[0]]])
        with torch.no_grad():
            states = model.module(input_ids=ids, output_hidden_states=True).hidden_states
        raw.append(states[round(2 * 2 / 3) if layer is None else layer][0, 1:].mean(0).numpy())
    expected = np.array(raw) - np.mean(raw, axis=0)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert np.allclose(embed(model, TEXTS, layer=layer), expected, atol=1e-4)


def test_empty_rows_are_zero_and_do_not_disturb(model):
    found = embed(model, [TEXTS[0], "", *TEXTS[1:]])
    assert not found[1].any()
    assert np.allclose(np.delete(found, 1, axis=0), embed(model, TEXTS), atol=1e-5)
    with pytest.raises(InputError, match="no text to embed"):
        embed(model, ["", ""])


def test_the_mean_may_come_from_a_sample_of_rows(model):
    whole = embed(model, TEXTS)
    samples = [embed(model, TEXTS, fit_rows=2, seed=seed) for seed in range(4)]
    assert all(not np.allclose(sample, whole, atol=1e-3) for sample in samples)
    assert len({sample.tobytes() for sample in samples}) > 1
    assert np.array_equal(samples[0], embed(model, TEXTS, fit_rows=2, seed=0))
