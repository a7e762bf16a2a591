"""signals.gradient_sketch: unbiased inner products with the stated error, against gradients by plain autograd."""

import numpy as np
import pytest
import torch

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset, embedding_matrix
from tutelage.core.errors import ConfigError, InputError, ModelError
from tutelage.models.toy import tiny_causal_lm
from tutelage.signals.gradient_sketch import CountSketch, GradientSketch, buckets

PROOF = {"signals.gradient_sketch": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/gradient_sketch.py", "flat.float() * signs", "flat.float()"),
    ("src/tutelage/signals/gradient_sketch.py", "hash64(seed, name)", "hash64(0, name)"),
    ("src/tutelage/signals/gradient_sketch.py", "hash64(seed, name)", "hash64(seed, '')"),
    ("src/tutelage/signals/gradient_sketch.py", "np.arange(1, size + 1, dtype", "np.ones(size, dtype"),
    ("src/tutelage/signals/gradient_sketch.py", "(self.dimensions, self.seed)", "(self.dimensions, 0)"),
]
TEXTS = ["The quick brown fox.", "The quick brown dog.", "def add(first, second)", "x"]


@pytest.fixture(scope="module")
def model():
    return tiny_causal_lm(width=16, layers=1)


def sketches(model, texts, **fields):
    data = Dataset.from_rows({"id": f"r{i}", "text": t} for i, t in enumerate(texts))
    found = score_dataset(GradientSketch(**fields), data, {"model": model})
    return embedding_matrix(found.column("gradient_sketch")), found.column("gradient_flag").to_pylist()


def gradients(model, keep=lambda name: True):
    """[texts, P] float64 by a backward pass each."""
    chosen = [p for name, p in model.module.named_parameters() if keep(name)]
    rows = []
    for text in TEXTS:
        ids = torch.tensor([[model.bos_id, *model.tokenize([text])[0], model.eos_id]])
        with model.own_attention():
            loss = model.module(input_ids=ids, labels=ids).loss * (ids.shape[1] - 1)
        rows.append(torch.cat([g.double().reshape(-1) for g in torch.autograd.grad(loss, chosen)]).numpy())
    return np.array(rows)


def variance(g, f, k):
    return (g @ g * (f @ f) + (g @ f) ** 2 - 2 * (g**2 @ f**2)) / k


def test_inner_products_over_seeds_are_those_of_the_gradients():
    rng = np.random.default_rng(0)
    g, f = (0.5 + rng.normal(size=(2, 900))) * rng.gamma(0.5, size=900)
    f = f + 0.5 * g
    parts = [{"a": torch.tensor(v[:500].reshape(20, 25)), "b": torch.tensor(v[500:])} for v in (g, f)]
    products = []
    for seed in range(400):
        made = CountSketch(64, seed)
        u, v = (made.sketch(one).astype(float) for one in parts)
        products.append(u @ v)
    error = np.sqrt(variance(g, f, 64))
    assert abs(np.mean(products) - g @ f) < 3 * error / np.sqrt(400)
    assert np.std(products) == pytest.approx(error, rel=0.12)
    assert error <= np.sqrt(2 / 64) * np.linalg.norm(g) * np.linalg.norm(f)


def test_rows_sketch_their_gradient(model):
    exact = gradients(model)
    products = exact @ exact.T
    found = np.array([(lambda z: z @ z.T)(sketches(model, TEXTS, seed=s)[0].astype(float)) for s in range(40)])
    error = np.array([[np.sqrt(variance(g, f, 4096)) for f in exact] for g in exact])
    assert (np.abs(found.mean(0) - products) < 4 * error / np.sqrt(40)).all()
    assert (np.abs(found[0] - products) < 5 * error).all()
    # A large sketch tells the related row from the unrelated one.
    assert found[0][0, 1] > found[0][0, 2]


def test_as_many_buckets_as_it_takes_is_the_gradient_itself(model):
    # With far more buckets than parameters hardly any two share one, so lengths are kept. (At seed 0 two of the
    # largest entries do share one: hence the median.)
    exact = np.linalg.norm(gradients(model), axis=1)
    lengths = [np.linalg.norm(sketches(model, TEXTS, dimensions=2_000_000, seed=s)[0], axis=1) for s in range(3)]
    assert np.allclose(np.median(lengths, axis=0), exact, rtol=1e-3)


def test_the_head_alone():
    model = tiny_causal_lm("qwen2", width=16, layers=1)
    exact = gradients(model, lambda name: "lm_head" in name)
    found, _ = sketches(model, TEXTS, parameters="head", dimensions=500_000)
    assert np.allclose(found @ found.T, exact @ exact.T, rtol=0.05, atol=0.02 * (exact**2).sum(1).max())
    with pytest.raises(ModelError, match="no adapter parameters"):
        sketches(model, TEXTS, parameters="adapter")


def test_buckets_are_even_and_differ_by_seed_and_name():
    places, signs = buckets("layer.weight", 64_000, 64, 0)
    counts = np.bincount(places, minlength=64)
    assert ((counts - 1000) ** 2 / 1000).sum() < 110  # chi-square, 63 degrees of freedom, p about 0.0002
    assert abs(signs.sum()) < 4 * 64_000**0.5 and set(signs.tolist()) == {-1, 1}
    for other in (buckets("layer.weight", 64_000, 64, 1), buckets("other.weight", 64_000, 64, 0)):
        assert (places == other[0]).mean() < 0.03 and abs((signs == other[1]).mean() - 0.5) < 0.02


def test_rows_without_a_gradient_and_repetition(model):
    found, flags = sketches(model, ["", TEXTS[0], TEXTS[2]], max_length=5, dimensions=32)
    assert not found[0].any() and found[1].any() and found.shape == (3, 32)
    assert flags[0] == "a text is empty" and flags[2] == "cut to 5 tokens"
    assert np.array_equal(found, sketches(model, ["", TEXTS[0], TEXTS[2]], max_length=5, dimensions=32)[0])
    other, _ = sketches(model, ["", TEXTS[0], TEXTS[2]], max_length=5, dimensions=32, seed=1)
    assert not np.allclose(found[1], other[1])
    with pytest.raises(InputError, match="nothing to train on"):
        data = Dataset.from_rows([{"id": "a", "other": "b"}])
        score_dataset(GradientSketch(), data, {"model": model})
    with pytest.raises(ConfigError, match="dimensions"):
        GradientSketch(dimensions=0)
