"""Gradients of single documents: equal to plain autograd one by one, for every kind of layer and isolation."""

import numpy as np
import pytest
import torch

from tutelage.core.errors import ModelError
from tutelage.models import example_gradients as module
from tutelage.models.encode import Encoded
from tutelage.models.example_gradients import Gradient, Product, check_gradients, example_gradients
from tutelage.models.ngram import NGramLM
from tutelage.models.packing import collate, self_test
from tutelage.models.toy import tiny_causal_lm

MUTATIONS = [
    ("src/tutelage/models/example_gradients.py", "(1 if i == j else 2)", "1"),
    ("src/tutelage/models/example_gradients.py", "return Product(x, g)", "return Product(g, x)"),
    ("src/tutelage/models/example_gradients.py", "x != module.padding_idx", "x == x"),
    ("src/tutelage/models/example_gradients.py", "if not _close(found, alone, tolerance)", "if False"),
    ("src/tutelage/models/example_gradients.py", "if not _close(alone, plain, tolerance)", "if False"),
    ("src/tutelage/models/example_gradients.py", "_exact(other[:, left]).T", "_exact(other[:, left])"),
    ("src/tutelage/models/example_gradients.py", "parameter.requires_grad_(mark)\n    return", "pass\n    return"),
]
ARCHS = ["llama", "gpt2", "qwen2", "gemma", "gemma2"]


def documents_of(model, lengths=(11, 20, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for n in lengths:
        ids = torch.randint(0, model.config.vocab_size, (n,), generator=generator).tolist()
        found.append(Encoded(ids, [t >= 2 for t in range(n)], "", weights=[0.5 + t % 3 for t in range(n)]))
    # The padding word as an ordinary token: autograd gives the table no gradient for it.
    found[0].ids[5] = model.pad_id
    return found


def plain(model, document, names=None):
    """Gradients by name of one document through transformers' own forward pass, one backward pass each."""
    named = {n: p for n, p in model.module.named_parameters() if names is None or n in names}
    for p in model.module.parameters():
        p.requires_grad_(any(p is q for q in named.values()))
    with model.own_attention():
        logits = model.module(torch.tensor([document.ids])).logits[0].float()
    logps = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(document.ids)[1:, None])[:, 0]
    weight = torch.tensor(document.weights[1:]) * torch.tensor(document.trained[1:])
    found = torch.autograd.grad(-(logps * weight).sum(), list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found)}


def sharpened(arch, isolation=None, **fields):
    model = tiny_causal_lm(arch, **fields)
    with torch.no_grad():
        model.module.get_output_embeddings().weight.mul_(5)
    if isolation:
        model.use_isolation(isolation)
    return model


def compare(model, parameters="all", documents=None):
    documents = documents or documents_of(model)
    seen = []
    for i, found in example_gradients(model, documents, parameters):
        seen.append(i)
        squares = {name: gradient.square() for name, gradient in found.items()}
        tensors = {name: gradient.tensor() for name, gradient in found.items()}
        expected = plain(model, documents[i], set(found) if parameters != "all" else None)
        assert set(found) <= set(expected)
        total = sum(float(g.double().square().sum()) for g in expected.values())
        assert sum(squares.values()) == pytest.approx(total, rel=1e-5)
        for name, gradient in expected.items():
            mine = tensors.get(name, torch.zeros_like(gradient))
            assert torch.allclose(mine, gradient, atol=1e-5 * total**0.5), name
            assert squares.get(name, 0.0) == pytest.approx(float(gradient.square().sum()), abs=1e-5 * total)
    assert sorted(seen) == list(range(len(documents)))


@pytest.mark.parametrize("isolation", ["documents", "mask", "padding"])
@pytest.mark.parametrize("arch", ARCHS)
def test_equals_autograd_one_by_one(arch, isolation):
    model = sharpened(arch, isolation)
    with model.scoring():
        if self_test(model):
            pytest.skip("documents are not kept apart this way in this architecture, and no model is run so")
    compare(model)


@pytest.mark.parametrize("gram", [True, False])
def test_both_ways_to_the_length_agree(gram, monkeypatch):
    # By products of tokens and by making the matrix, whatever would be cheaper.
    def square(self):
        return self._gram() if gram and self.dense is None else float(self.tensor().double().square().sum())

    monkeypatch.setattr(Gradient, "square", square)
    compare(sharpened("llama"))


def test_products_by_hand():
    rng = np.random.default_rng(0)
    dense = Product(*(torch.tensor(rng.normal(size=(3, n)), dtype=torch.float32) for n in (40, 30)))
    hot = Product(torch.tensor([7, 7, 39, 0]), torch.tensor(rng.normal(size=(4, 30)), dtype=torch.float32))
    for products in ([dense], [hot], [dense, hot], [hot, dense]):
        gradient = Gradient(torch.Size([40, 30]), products)
        expected = np.zeros((40, 30))
        for left, right in products:
            rows = np.eye(40)[left.numpy()] if left.dim() == 1 else left.numpy()
            expected += rows.T @ right.numpy()
        assert np.allclose(gradient.tensor().numpy(), expected, atol=1e-5)
        assert gradient._gram() == pytest.approx((expected**2).sum(), rel=1e-6)
        assert gradient.square() == pytest.approx((expected**2).sum(), rel=1e-6)


@pytest.mark.parametrize("arch", ["gpt2", "qwen2"])
def test_small_batches_give_the_same(arch, monkeypatch):
    monkeypatch.setattr(module, "LOGITS", 12 * 384)
    compare(sharpened(arch))


def test_the_head_alone_leaves_the_table_out():
    model = sharpened("qwen2")
    compare(model, "head")
    # For one predicted token the length is |p - onehot(y)| |h|, also where the head is the table as well.
    model = sharpened("llama")
    ids = [5, 9, 17]
    ((_, found),) = example_gradients(model, [Encoded(ids, [False, False, True], "")], "head")
    with model.own_attention(), torch.no_grad():
        hidden = model.base_module.base_model(torch.tensor([ids[:2]])).last_hidden_state[0, 1]
        error = model.module(torch.tensor([ids[:2]])).logits[0, 1].softmax(0)
    error[17] -= 1
    (gradient,) = found.values()
    assert gradient.square() ** 0.5 == pytest.approx(float(error.norm() * hidden.norm()), rel=1e-5)


def test_the_adapter_alone():
    from peft import LoraConfig, get_peft_model

    base = sharpened("llama")
    torch.manual_seed(0)
    config = LoraConfig(r=3, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    model = base.around(get_peft_model(base.copy().module, config))
    compare(model, "adapter")
    found = dict(example_gradients(model, documents_of(model), "adapter"))
    assert len(found[0]) == 2 * 2 * 2 and all("lora_" in name for name in found[0])
    check_gradients(model, "adapter")
    compare(model, "all")
    with pytest.raises(ModelError, match="no adapter parameters"):
        check_gradients(base, "adapter")


@pytest.mark.parametrize("parameters", ["all", "head"])
@pytest.mark.parametrize("arch", ARCHS)
def test_the_check_passes_and_leaves_the_model_alone(arch, parameters):
    model = tiny_causal_lm(arch)
    first = next(model.module.parameters())
    first.grad = torch.ones_like(first)
    last = list(model.module.parameters())[-1].requires_grad_(False)
    model.module.train()
    fingerprint, spent = model.fingerprint, model.meter.cost
    check_gradients(model, parameters)
    list(example_gradients(model, documents_of(model), parameters))
    assert model.fingerprint == fingerprint and model.module.training
    assert torch.equal(first.grad, torch.ones_like(first)) and first.requires_grad and not last.requires_grad
    assert all(p.grad is None for p in model.module.parameters() if p is not first)
    assert not any(m._forward_hooks for m in model.module.modules())
    assert model.meter.since(spent).backward_flops > 0


def test_a_mean_over_the_batch_is_refused():
    model = tiny_causal_lm()

    def mean(logps, batch):
        return -logps.sum() / batch.n_trained

    with pytest.raises(ModelError, match="not the sum of its documents"):
        check_gradients(model, loss=mean)


def test_architectures_that_cannot_be_taken_apart_are_refused():
    class Pair(torch.nn.Linear):
        """Called with more than one argument."""

        def forward(self, x, twice=False):
            return super().forward(x)

    model = tiny_causal_lm()
    mlp = model.base_module.base_model.layers[0].mlp
    mlp.up_proj = Pair(mlp.up_proj.in_features, mlp.up_proj.out_features, bias=False)
    check_gradients(model)
    mlp.forward = lambda x: mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x, twice=True))
    with pytest.raises(ModelError, match=r"(?s)cannot be taken apart.*up_proj"):
        check_gradients(model)
    check_gradients(model, "head")

    # Weights that are also used outside of their layer's call: part of their gradient would be missed.
    def leaking(x):
        inner = mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)
        return mlp.down_proj(inner) + torch.nn.functional.linear(x, mlp.gate_proj.weight[: x.shape[-1]])

    mlp.forward = leaking
    with pytest.raises(ModelError, match=r"(?s)cannot be taken apart.*gate_proj"):
        check_gradients(model)

    # Weights of a layer that is never called.
    mlp.forward = lambda x: mlp.down_proj(torch.nn.functional.linear(x, mlp.gate_proj.weight) * mlp.up_proj(x))
    with pytest.raises(ModelError, match=r"(?s)cannot be taken apart.*gate_proj"):
        check_gradients(model)


def test_broken_weights_are_named_as_such():
    model = tiny_causal_lm()
    with torch.no_grad():
        model.module.get_input_embeddings().weight[7] = float("nan")
    with pytest.raises(ModelError, match="gradients are not finite"):
        check_gradients(model)


def test_models_without_gradients_are_refused():
    with pytest.raises(ModelError, match="has no gradients"):
        check_gradients(NGramLM(2))


def test_a_batch_of_documents_is_one_forward_pass():
    model = tiny_causal_lm()
    documents = documents_of(model)
    spent = model.meter.cost
    list(example_gradients(model, documents))
    cost = model.meter.since(spent)
    tokens = collate([documents]).n_tokens
    assert cost.forward_flops == 2 * model.active_params * tokens and cost.backward_flops == 2 * cost.forward_flops
