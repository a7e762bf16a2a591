"""The gradient of one optimiser step, micro-batch by micro-batch, and measurements that leave no trace on it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from tutelage.core.method import Objective, RunningUpdate
from tutelage.core.records import Cost
from tutelage.models.packing import TokenBatch
from tutelage.training import _checkpoint as checkpoints
from tutelage.training._optim import Optimizer


class Watcher(Protocol):
    """An evaluator that looks at where in the run it is asked."""

    def watch(self, model: Any, share: float) -> Mapping[str, float]: ...


Evaluator = tuple[str, Callable[[Any], Mapping[str, float]] | Watcher]


def accumulate(
    model: Any,
    micro: Sequence[TokenBatch],
    objective: Objective,
    update: RunningUpdate,
    optimizer: Optimizer,
    token_flops: float,
) -> tuple[Tensor, float]:
    """Leave the gradient of the summed loss in `optimizer`; returns the loss sum of each micro-batch (float64) and
    the weight of all. `token_flops` are charged per token for the backward pass."""
    optimizer.clear()
    sums, weight = [], 0.0
    for batch in micro:
        batch = batch.to(model.device)
        update.before_micro_batch(model, batch)
        loss = objective.loss(model, batch)
        with optimizer.folding():
            update.backward(model, loss)
        model.meter.add(backward_flops=token_flops * batch.n_tokens, trained_tokens=batch.n_tokens)
        sums.append(loss.sum.detach().double())
        weight += float(loss.weight)
    return torch.stack(sums), weight


def recompute_activations(model: Any) -> None:
    """Turn gradient checkpointing on: less memory for one more forward pass."""
    model.base_module.gradient_checkpointing_enable({"use_reentrant": False})
    model.base_module.enable_input_require_grads()


def measure(model: Any, evaluators: Sequence[Evaluator], share: float) -> tuple[dict[str, float], Cost]:
    """Metrics as `<name>/<metric>` and their cost, in evaluation mode; random states are put back. An evaluator
    with a method `watch` is also told the spent share of the budget."""
    random, paid = checkpoints.random_state(), model.meter.cost
    model.module.eval()
    try:
        found = {
            f"{name}/{metric}": float(value)
            for name, evaluator in evaluators
            for metric, value in _ask(evaluator, model, share).items()
        }
    finally:
        model.module.train()
        checkpoints.set_random_state(random)
    return found, model.meter.since(paid)


def _ask(
    evaluator: Callable[[Any], Mapping[str, float]] | Watcher, model: Any, share: float
) -> Mapping[str, float]:
    return evaluator(model) if callable(evaluator) else evaluator.watch(model, share)
