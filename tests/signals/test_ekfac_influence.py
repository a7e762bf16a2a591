"""signals.ekfac_influence against gradients by autograd and dense products, and against what training does."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from toy.lookup_model import LookupModel
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.models.curvature import fit_factors, linear_layers, model_pass
from tutelage.models.encode import encode_row
from tutelage.models.packing import collate
from tutelage.models.toy import tiny_causal_lm
from tutelage.runs import payload
from tutelage.signals.ekfac_influence import EkfacInfluence

PROOF = {"signals.ekfac_influence": ["consistent", "verified"]}
MUTATIONS = [
    (
        "src/tutelage/signals/ekfac_influence.py",
        "factors[name].solve(gradient / n_queries",
        "factors[name].solve(gradient",
    ),
    (
        "src/tutelage/signals/ekfac_influence.py",
        "factors[name].solve(gradient / n_queries, method.damping)",
        "gradient",
    ),
    ("src/tutelage/signals/ekfac_influence.py", "total.sum(axis=1)", "-total.sum(axis=1)"),
    ("src/tutelage/signals/ekfac_influence.py", 'self.seed if self.labels == "sampled" else None', "None"),
    (
        "src/tutelage/signals/ekfac_influence.py",
        "(u[:, :rank] * s[:rank], v[:rank].T)",
        "(u[:, :rank], v[:rank].T)",
    ),
]
TEXTS = ["The quick brown fox jumps", "over the lazy dog, again and again", "x y", "", "Numbers 1 2 3 and words"]
QUERIES = [
    {"id": "q0", "prompt": "The quick", "completion": " brown fox"},
    {"id": "q1", "prompt": "a", "completion": " dog"},
]


@pytest.fixture(scope="module")
def model():
    return tiny_causal_lm("gpt2", layers=1, width=16)


def rows(texts=TEXTS):
    return Dataset.from_rows({"id": f"r{i}", "text": text} for i, text in enumerate(texts))


def score(model, data=None, queries=QUERIES, **fields):
    inputs = {"model": model, "queries": Dataset.from_rows(queries)}
    return score_dataset(EkfacInfluence(**fields), rows() if data is None else data, inputs)


def dense_gradients(model, row, layers):
    """{layer: gradient [d_out, d_in (+ 1)] of the row's summed log-probability} by autograd."""
    model.module.zero_grad()
    model.token_logps(collate([[encode_row(row, model, 512)]])).sum().backward()
    found = {}
    for name, layer in layers.items():
        weight = layer.weight.grad if isinstance(layer, torch.nn.Linear) else layer.weight.grad.T
        found[name] = weight if layer.bias is None else torch.cat([weight, layer.bias.grad[:, None]], 1)
    model.module.zero_grad()
    return {name: value.clone() for name, value in found.items()}


@pytest.mark.parametrize(("part", "labels"), [("mlp", "sampled"), ("all", "data")])
def test_equals_the_formula_with_gradients_by_autograd(model, part, labels):
    layers, _ = linear_layers(model, part)
    sample = [encode_row({"text": text}, model, 512) for text in TEXTS if text]
    order = {"sampled": 3, "data": None}[labels]
    factors = fit_factors(model_pass(model, sample, layers, order))
    asked = [dense_gradients(model, query, layers) for query in QUERIES]
    found = score(model, layers=part, labels=labels, damping=0.2, seed=3, detail="query", query_rank=64)
    by_query = found.column("ekfac_query").to_pylist()
    for number, text in enumerate(TEXTS):
        if not text:
            assert np.isnan(found.numpy("ekfac_influence")[number]) and by_query[number] is None
            assert found.column("influence_flag")[number].as_py() == "a text is empty"
            continue
        own = dense_gradients(model, {"text": text}, layers)
        expected = [
            sum(float((factors[name].solve(q[name], 0.2) * own[name]).sum()) for name in layers) for q in asked
        ]
        assert by_query[number] == pytest.approx(expected, rel=2e-3, abs=1e-4)
        assert found.numpy("ekfac_influence")[number] == pytest.approx(np.mean(expected), rel=2e-3, abs=1e-4)


def test_details_add_up_to_the_whole(model):
    whole = score(model).numpy("ekfac_influence")
    for detail in ("layer", "token"):
        found = score(model, detail=detail)
        sums = [np.nan if v is None else sum(v) for v in found.column(f"ekfac_{detail}").to_pylist()]
        assert np.allclose(sums, whole, rtol=1e-4, atol=1e-6, equal_nan=True)
    lengths = [None if v is None else len(v) for v in found.column("ekfac_token").to_pylist()]
    assert lengths[0] == len(encode_row({"text": TEXTS[0]}, model, 512))


def test_more_directions_per_query_come_closer(model):
    def by_query(rank):
        found = score(model, detail="query", query_rank=rank).column("ekfac_query").to_pylist()
        return np.array([values for values in found if values])

    full = by_query(64)
    errors = [np.abs(by_query(rank) - full).max() for rank in (1, 14, 16)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and np.array_equal(by_query(99), full)


def test_training_on_a_row_of_high_influence_raises_the_query_most():
    """One small step on each row alone, against the order that influence predicts."""
    from scipy.stats import spearmanr

    model = tiny_causal_lm(layers=1, width=16, seed=4)
    texts = [
        f"{a} fox {b} over {c}" for a in ("The", "A", "no") for b in ("ran", "jumps", "12") for c in ("dogs", "it")
    ]
    query = {"id": "q", "prompt": "The quick brown", "completion": " fox jumps"}
    found = score(model, rows(texts), [query], layers="all", damping=100.0).numpy("ekfac_influence")
    asked = collate([[encode_row(query, model, 512)]])
    layers, _ = linear_layers(model, "all")
    with torch.no_grad():
        before = float(model.token_logps(asked).double().sum())
    change = []
    for text in texts:
        steps = dense_gradients(model, {"text": text}, layers)
        with torch.no_grad():
            for name, layer in layers.items():
                layer.weight += 1e-3 * steps[name]
            change.append(float(model.token_logps(asked).double().sum()) - before)
            for name, layer in layers.items():
                layer.weight -= 1e-3 * steps[name]
    assert spearmanr(found, change).statistic > 0.9


def test_the_sample_the_labels_and_the_cut_matter(model):
    plain = score(model).numpy("ekfac_influence")
    for other in ({"seed": 9}, {"labels": "data"}, {"fit_rows": 2}, {"max_length": 6}, {"damping": 3.0}):
        assert not np.allclose(plain, score(model, **other).numpy("ekfac_influence"), equal_nan=True), other


def test_the_state_can_be_stored(model, tmp_path):
    method = EkfacInfluence(detail="query")
    inputs = {"model": model, "queries": Dataset.from_rows(QUERIES)}
    state = method.fit(rows(), inputs)
    payload.save_state(state, tmp_path)
    kept = score_dataset(method, rows(), inputs, payload.load_state(tmp_path))
    assert kept.hash == score_dataset(method, rows(), inputs, state).hash


def test_an_adapter_counts_as_merged(model):
    from tutelage.adapters.lora import Lora

    base = tiny_causal_lm(layers=1, width=16)
    adapted = Lora(rank=2).convert({"base": base}, None, {"seed": 0})
    paid = adapted.meter.cost
    found = score(adapted).numpy("ekfac_influence")
    assert np.allclose(found, score(base).numpy("ekfac_influence"), rtol=1e-3, atol=1e-5, equal_nan=True)
    assert adapted.meter.since(paid).flops > 0


def test_mistakes_are_named(model):
    with pytest.raises(ConfigError, match="damping"):
        EkfacInfluence(damping=-0.1)
    with pytest.raises(ConfigError, match="needs a causal language model"):
        score(LookupModel())
    with pytest.raises(InputError, match="no row can be learnt from"):
        score(model, queries=[{"id": "q", "text": ""}])
    with pytest.raises(InputError, match="no text"):
        score(model, Dataset.from_table(pa.table({"id": ["a"], "number": [1]})))


def test_modules_left_out_are_listed():
    model = tiny_causal_lm(layers=2, width=16)

    class Odd(torch.nn.Linear):
        pass

    model.base_module.model.layers[0].mlp.up_proj.__class__ = Odd
    with pytest.warns(UserWarning, match=r"leaves out 0.mlp.up_proj \(Odd\)"):
        score(model)
    for layer in model.base_module.model.layers:
        for module in (layer.mlp.up_proj, layer.mlp.gate_proj, layer.mlp.down_proj):
            module.__class__ = Odd
    with pytest.raises(ConfigError, match="no linear layer"):
        score(model)
