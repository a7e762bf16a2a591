"""training.fit, `rates`: weights named by a part of their names move at their own multiple of the rate."""

import pytest
import torch

from toy.training_bed import Stop, dataset, model, same, stop_at, train, weights
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError
from tutelage.training._optim import Optimizer, rates_of

MUTATIONS = [
    ("src/tutelage/training/_optim.py", 'rate * group["multiplier"]', "rate"),
    ("src/tutelage/training/_optim.py", "rates_of(self.weights, rates or {})", "rates_of(self.weights, {})"),
    (
        "src/tutelage/training/_optim.py",
        "for key in reversed(keys) if key in name",
        "for key in keys if key in name",
    ),
    (
        "src/tutelage/training/_optim.py",
        '"weight_decay": weight_decay if is_decayed else 0.0',
        '"weight_decay": weight_decay',
    ),
    ("src/tutelage/training/fit.py", "rates=dict(self.rates),", ""),
]
STEP = {"step_tokens": 100, "micro_tokens": 64, "max_length": 128, "learning_rate": 1e-2, "budget": {"tokens": 90}}


def test_the_longest_key_decides_and_a_stray_one_is_an_error():
    names = ["body.layer.weight", "body.layer.bias", "head.weight"]
    found = rates_of(names, {"layer": 0.5, "layer.bias": 3.0})
    assert found == {"body.layer.weight": 0.5, "body.layer.bias": 3.0, "head.weight": 1.0}
    with pytest.raises(ConfigError, match="not trained"):
        rates_of(names, {"adapter": 0.5})
    with pytest.raises(ConfigError, match="greater than 0"):
        build("training.fit", {"rates": {"head": 0.0}})


def test_each_group_is_torch_adamw_at_its_own_rate():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    start = [p.detach().clone() for p in module.parameters()]
    optimizer = Optimizer(module, learning_rate=0.1, weight_decay=0.3, rates={"1.": 0.25})
    gradients = [torch.randn_like(p) for p in start]
    for parameter, gradient in zip(module.parameters(), gradients):
        parameter.grad = gradient.clone()
    assert optimizer.step(0.5) == 0.05
    for parameter, begun, gradient, rate in zip(module.parameters(), start, gradients, (1, 1, 0.25, 0.25)):
        alone = begun.clone().requires_grad_()
        decay = 0.3 if alone.ndim == 2 else 0.0
        alone.grad = gradient
        torch.optim.AdamW([alone], lr=0.05 * rate, weight_decay=decay, betas=(0.9, 0.95)).step()
        assert torch.equal(alone.detach(), parameter.detach())


def test_one_step_of_a_run_moves_the_named_weights_less():
    one = model("llama")
    before = weights(one)
    plain, slow = (
        weights(build("training.fit", {**STEP, "weight_decay": 0.0, "rates": rates}).train(one, dataset())[0])
        for rates in ({}, {"mlp": 0.1})
    )
    for name in before:
        share = ((slow[name] - before[name]).norm() / (plain[name] - before[name]).norm()).item()
        assert share == pytest.approx(0.1 if "mlp" in name else 1.0, rel=1e-2), name


def test_resume_with_rates_is_exact(tmp_path):
    def run(**options):
        one = model()
        return one, train(one, settings={"rates": {"mlp": 0.1}, "checkpoint_seconds": 0.0}, **options)

    whole, record = run()
    with pytest.raises(Stop):
        run(checkpoint_dir=tmp_path, on_event=stop_at(2))
    again, resumed = run(checkpoint_dir=tmp_path)
    assert resumed.resumed_at == 1 and resumed.losses == record.losses and same(weights(again), weights(whole))
