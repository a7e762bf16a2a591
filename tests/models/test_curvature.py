"""Kronecker-factored curvature against dense matrices, autograd and exact retraining."""

import numpy as np
import pytest
import torch
from torch import nn

from tutelage.core.errors import ModelError
from tutelage.models.curvature import (
    Factors,
    Sequences,
    drawn,
    fit_factors,
    label_logps,
    linear_layers,
    model_pass,
    tapped,
)
from tutelage.models.encode import Encoded, encode_text
from tutelage.models.packing import collate
from tutelage.models.toy import tiny_causal_lm

MUTATIONS = [
    (
        "src/tutelage/models/curvature.py",
        "values[name].addcmul_(gradient, gradient)",
        "values[name].add_(gradient)",
    ),
    ("src/tutelage/models/curvature.py", "damping * self.values.mean()", "damping"),
    ("src/tutelage/models/curvature.py", "values[name] / count[name]", "values[name]"),
    ("src/tutelage/models/curvature.py", "self.sums[name].addmm_(a.T, a)", "self.sums[name].add_(a.shape[1])"),
    ("src/tutelage/models/curvature.py", "if bias else a)]", "if False else a)]"),
    ("src/tutelage/models/curvature.py", "if full else g[keep]", "if full else g.flip(1)[keep]"),
    ("src/tutelage/models/curvature.py", "full = bool(keep.all())", "full = True"),
    ("src/tutelage/models/curvature.py", "parameter.requires_grad_(mark)", "pass"),
    ("src/tutelage/models/curvature.py", "if owner != before:", "if False:"),
    ("src/tutelage/models/curvature.py", "or turned[0][0] is not a:", ":"),
    ("src/tutelage/models/curvature.py", "self._last[1] is a else name", "False else name"),
    ("src/tutelage/models/curvature.py", "return output if started else None", "return None"),
    ("src/tutelage/models/curvature.py", "targets = torch.cat(parts) if parts else targets", "pass"),
]
TEXTS = ["The quick brown fox jumps", "over the lazy dog, again and again", "x y", "Numbers 1 2 3 and words"]


def encoded(model, texts=TEXTS):
    return [encode_text(model, text, max_length=64) for text in texts]


class TestAgainstDenseMatrices:
    """A linear layer under squared loss, inputs and residuals independent: here the factored form is exact."""

    def exact(self, bias):
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(7, 4, generator=generator, dtype=torch.float64) @ torch.diag(
            torch.tensor([3.0, 1, 0.3, 2]).double()
        )
        layer = nn.Linear(4, 3, bias=bias).double()
        # Every input meets every unit residual: the mean of g g^T is I / 3 and independent of a.
        unit = torch.eye(3, dtype=torch.float64)

        def run(visit):
            sequences = Sequences(list(range(21)), [1] * 21)
            with tapped({"layer": layer}, lambda name, a, g: visit(name, a, g, sequences)):
                out = layer(x.repeat_interleave(3, 0))
                (out * unit.repeat(7, 1)).sum().backward()

        a = torch.cat([x, x.new_ones(7, 1)], 1) if bias else x
        return fit_factors(run)["layer"], a.T @ a / 7

    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize("damping", [0.1, 1.0])
    def test_equals_the_damped_inverse(self, bias, damping):
        factors, second = self.exact(bias)
        n = len(second)
        dense = torch.kron(torch.eye(3, dtype=torch.float64) / 3, second)
        mean = torch.diagonal(dense).mean()
        gradient = torch.randn(3, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        expected = torch.linalg.solve(
            dense + damping * mean * torch.eye(3 * n, dtype=torch.float64), gradient.reshape(-1)
        )
        assert (factors.solve(gradient, damping).reshape(-1) - expected).abs().max() < 1e-12

    def test_corrected_eigenvalues_are_the_diagonal_of_the_fisher_in_the_factors_basis(self):
        """Sequences of several tokens, where A times S is only an approximation: the diagonal is exact."""
        generator = torch.Generator().manual_seed(3)
        a = torch.randn(30, 4, generator=generator, dtype=torch.float64)
        g = torch.randn(30, 3, generator=generator, dtype=torch.float64) * a[:, :1]
        sequences = Sequences(list(range(6)), [5] * 6)
        factors = fit_factors(lambda visit: visit("layer", a, g, sequences))["layer"]
        flat = torch.stack([(y.T @ x).reshape(-1) for x, y in zip(a.split(5), g.split(5))])
        fisher = flat.T @ flat / 6
        basis = torch.kron(factors.outputs, factors.inputs)
        assert torch.allclose((basis.T @ fisher @ basis).diagonal(), factors.values.reshape(-1))
        second = a.T @ a
        turned = factors.inputs.T @ second @ factors.inputs
        assert torch.allclose(turned, torch.diag(turned.diagonal()), atol=1e-9)

    def test_directions_without_curvature_and_damping_give_nothing(self):
        factors = Factors(torch.eye(2), torch.eye(2), torch.tensor([[1.0, 0.0], [2.0, 4.0]]))
        assert factors.solve(torch.ones(2, 2), 0.0).tolist() == [[1.0, 0.0], [0.5, 0.25]]


def test_ranks_rows_as_exact_retraining_does():
    """Least squares: the change of a query's loss when one row is left out, solved exactly for every row."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 6)) * np.array([5, 3, 1, 1, 0.5, 0.2])
    y = x @ rng.normal(size=6) + rng.normal(size=60)
    query, wanted = rng.normal(size=6) * np.array([5, 3, 1, 1, 0.5, 0.2]), 2.0

    def fitted(keep):
        return np.linalg.lstsq(x[keep], y[keep], rcond=None)[0]

    everything = np.ones(60, dtype=bool)

    def query_logp(weights):
        return -0.5 * (query @ weights - wanted) ** 2

    exact = []
    for row in range(60):
        without = everything.copy()
        without[row] = False
        exact.append(query_logp(fitted(everything)) - query_logp(fitted(without)))
    weights = torch.tensor(fitted(everything))
    inputs = torch.tensor(x)
    labels = torch.randn(60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sequences = Sequences(list(range(60)), [1] * 60)
    # The Fisher information of a Gaussian model: residuals drawn from the model itself.
    factors = fit_factors(lambda visit: visit("layer", inputs, labels[:, None], sequences))["layer"]
    gradient = torch.tensor((wanted - query @ weights.numpy()) * query)[None]
    rows = torch.tensor(y - x @ weights.numpy())[:, None] * inputs
    from scipy.stats import spearmanr

    found = spearmanr(rows @ factors.solve(gradient, 0.001)[0], exact).statistic
    identity = spearmanr(rows @ gradient[0], exact).statistic
    assert found > 0.9 and found > identity + 0.05


class TestModelPass:
    @pytest.mark.parametrize("arch", ["llama", "gpt2"])
    @pytest.mark.parametrize("part", ["mlp", "attention", "all"])
    @pytest.mark.parametrize("isolation", ["documents", "padding"])
    def test_gradients_equal_autograd_for_every_document(self, arch, part, isolation):
        model = tiny_causal_lm(arch)
        model.use_isolation(isolation)
        documents = encoded(model)
        layers, others = linear_layers(model, part)
        assert layers and not others
        found = {}

        def visit(name, a, g, sequences):
            pieces = zip(sequences.numbers, a.split(sequences.lengths), g.split(sequences.lengths))
            for number, left, right in pieces:
                found[name, number] = right.T @ left

        model_pass(model, documents, layers)(visit)
        for number, document in enumerate(documents):
            model.module.zero_grad()
            model.token_logps(collate([[document]])).sum().backward()
            for name, layer in layers.items():
                weight = layer.weight.grad if isinstance(layer, nn.Linear) else layer.weight.grad.T
                expected = weight if layer.bias is None else torch.cat([weight, layer.bias.grad[:, None]], 1)
                assert torch.allclose(found[name, number], expected, rtol=1e-3, atol=1e-5)
        assert {name for name, _ in found} == set(layers)

    def test_leaves_the_model_as_it_was(self):
        model = tiny_causal_lm()
        before = model.fingerprint
        next(model.module.parameters()).requires_grad_(False)
        model.module.train()
        marks = [p.requires_grad for p in model.module.parameters()]
        paid = model.meter.cost
        model_pass(model, encoded(model), linear_layers(model, "all")[0], seed=0)(lambda *_: None)
        assert [p.requires_grad for p in model.module.parameters()] == marks
        assert model.fingerprint == before and model.module.training
        assert all(p.grad is None for p in model.module.parameters())
        assert not any(m._forward_hooks for m in model.module.modules())
        assert model.meter.since(paid).backward_flops > 0

    def test_labels_are_drawn_from_the_predictions(self):
        """The mean gradient over labels from the model is zero; over the data's it is not."""
        model = tiny_causal_lm(vocab_size=260)
        documents = encoded(model) * 60
        layers = dict(list(linear_layers(model, "mlp")[0].items())[:1])

        def mean(seed):
            found = []
            model_pass(model, documents, layers, seed)(lambda name, a, g, _: found.append(g.T @ a))
            return float(sum(found).norm())

        assert mean(0) < 0.25 * mean(None)
        assert model.head is not None  # found out while the layers are watched
        assert mean(0) == mean(0) and mean(0) != mean(1)

    def test_an_unrecognised_head_gives_the_same(self):
        model = tiny_causal_lm()
        batch = collate([encoded(model)])
        expected = label_logps(model, batch, None).detach()
        drawn_labels = label_logps(model, batch, torch.Generator().manual_seed(0)).detach()
        model._head_key = (id(model.base_module.get_output_embeddings()), nn.Linear)
        model._head = None
        assert model.head is None
        assert torch.allclose(label_logps(model, batch, None).detach(), expected, atol=1e-4)
        again = label_logps(model, batch, torch.Generator().manual_seed(0)).detach()
        assert again.shape == drawn_labels.shape


def test_drawn_tokens_have_the_frequencies_of_the_softmax():
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0, -40.0]]).repeat(20_000, 1)
    counts = torch.bincount(drawn(logits, torch.Generator().manual_seed(0)), minlength=5) / 20_000
    assert (counts - torch.softmax(logits[0], 0)).abs().max() < 0.015
    assert counts[4] == 0


def test_layers_that_read_one_input_share_its_factor():
    model = tiny_causal_lm("llama", layers=2)
    layers, _ = linear_layers(model, "all")
    factors = fit_factors(model_pass(model, encoded(model), layers))
    for block in ("0", "1"):
        gate, up, down, query, key = (
            factors[f"{block}.{name}"].inputs
            for name in ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "self_attn.q_proj", "self_attn.k_proj")
        )
        assert gate is up and query is key
        assert gate.shape == query.shape and not torch.equal(gate, query) and down.shape != gate.shape


def test_an_input_shared_in_one_batch_only_is_refused():
    a, b = torch.randn(4, 3), torch.randn(4, 3)

    def run(visit):
        for second in (a, b):
            visit("first", a, torch.randn(4, 2), Sequences([0], [4]))
            visit("second", second, torch.randn(4, 2), Sequences([0], [4]))

    with pytest.raises(ModelError, match="some batches only"):
        fit_factors(run)


def test_what_is_no_linear_layer_is_listed():
    model = tiny_causal_lm()

    class Odd(nn.Linear):
        pass

    block = model.base_module.model.layers[0]
    block.mlp.up_proj.__class__ = Odd
    layers, others = linear_layers(model, "mlp")
    assert others == ["0.mlp.up_proj (Odd)"] and "0.mlp.gate_proj" in layers and len(layers) == 5


def test_factors_and_scores_equal_kronfluence(tmp_path):
    """The reference library on the same model, documents of one length, labels of the data in both."""
    pytest.importorskip("kronfluence")
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    model = tiny_causal_lm("llama", layers=2, width=16)
    layers, _ = linear_layers(model, "mlp")
    names = {name: f"inner.model.layers.{name}" for name in layers}
    tokens = torch.randint(0, 300, (24, 12), generator=torch.Generator().manual_seed(0))

    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, ids):
            return self.inner(input_ids=ids).logits

    class Language(Task):
        def compute_train_loss(self, batch, model, sample=False):
            logits = model(batch[0])[:, :-1]
            return nn.functional.cross_entropy(logits.flatten(0, 1), batch[0][:, 1:].flatten(), reduction="sum")

        def compute_measurement(self, batch, model):
            return self.compute_train_loss(batch, model)

        def get_influence_tracked_modules(self):
            return list(names.values())

    train, queries = torch.utils.data.TensorDataset(tokens[:20]), torch.utils.data.TensorDataset(tokens[20:])
    wrapped = prepare_model(Wrapped(tiny_causal_lm("llama", layers=2, width=16).module), Language())
    analyzer = Analyzer("ekfac", wrapped, Language(), cpu=True, output_dir=str(tmp_path), disable_tqdm=True)
    analyzer.fit_all_factors(
        "f",
        train,
        per_device_batch_size=4,
        factor_args=FactorArguments(strategy="ekfac", use_empirical_fisher=True),
    )
    analyzer.compute_pairwise_scores(
        "s",
        "f",
        query_dataset=queries,
        train_dataset=train,
        per_device_query_batch_size=4,
        per_device_train_batch_size=4,
        score_args=ScoreArguments(damping_factor=None),
    )
    expected = analyzer.load_pairwise_scores("s")["all_modules"]

    documents = [Encoded(row.tolist(), [False] + [True] * 11, "") for row in tokens]
    factors = fit_factors(model_pass(model, documents[:20], layers))
    theirs = analyzer.load_lambda_matrices("f")["lambda_matrix"]
    for name, factor in factors.items():
        assert float(factor.values.sum()) == pytest.approx(float(theirs[names[name]].sum()) / 20, rel=1e-3)
    found = torch.zeros(4, 20)
    gradients = {}

    def keep(name, a, g, sequences):
        for number, left, right in zip(sequences.numbers, a.split(sequences.lengths), g.split(sequences.lengths)):
            gradients[name, number] = right.T @ left

    model_pass(model, documents, layers)(keep)
    for name in layers:
        for query in range(4):
            solved = factors[name].solve(gradients[name, 20 + query], 0.1)
            found[query] += torch.stack([(solved * gradients[name, row]).sum() for row in range(20)])
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
