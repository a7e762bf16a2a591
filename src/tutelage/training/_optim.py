"""AdamW over float32 weights, whatever precision the model computes in.

A trainable parameter in bfloat16 gets a float32 master: gradients are summed into the master's, the optimiser
moves the master, and the model gets the rounded copy. So small updates are not lost to bfloat16, and the forward
pass needs no autocast and no cast per layer. Rounding to the nearest would lose them after all: the steps of a
short training are smaller than half the distance of two bfloat16 numbers, and a weight that starts on one would
stay there. So weights are rounded up as often as they are near the next number ("Revisiting BFloat16 Training",
stochastic rounding), by a pattern that is the same in every step: what moves is the mean of many weights.
Parameters already in float32 are their own master. Weight decay acts on matrices only: not on biases, norms and
embedding tables. `rates` multiply the learning rate of the weights whose names contain a key (the longest of
several).
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tutelage.core.errors import ConfigError, TrainingError
from tutelage.models.frozen_prefix import frozen_params


class Optimizer:
    """AdamW with masters. `weights` maps parameter names to the float32 tensors that the optimiser moves."""

    def __init__(
        self,
        module: nn.Module,
        *,
        learning_rate: float,
        weight_decay: float,
        rates: Mapping[str, float] | None = None,
        betas: tuple[float, float] = (0.9, 0.95),
    ) -> None:
        self._parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.weights: dict[str, Tensor] = {
            name: p if p.dtype in (torch.float32, torch.float64) else p.detach().float().requires_grad_()
            for name, p in self._parameters.items()
        }
        if not self.weights:
            raise TrainingError(
                "the model has no trainable parameter",
                where=type(module).__name__,
                remedy="put an adapter on it (adapters.lora), or train it in full",
            )
        tables = {id(m.weight) for m in module.modules() if isinstance(m, nn.Embedding)}
        decayed = {n for n, p in self._parameters.items() if p.ndim >= 2 and id(p) not in tables}
        own = rates_of(self.weights, rates or {})
        grouped: dict[tuple[bool, float], list[str]] = {}
        for is_decayed in (True, False):
            for name in self.weights:
                if (name in decayed) == is_decayed:
                    grouped.setdefault((is_decayed, own[name]), []).append(name)
        groups = [
            {
                "params": [self.weights[name] for name in names],
                "weight_decay": weight_decay if is_decayed else 0.0,
                "multiplier": multiplier,
            }
            for (is_decayed, multiplier), names in grouped.items()
        ]
        self._names = [name for names in grouped.values() for name in names]
        self._peak = learning_rate
        # One pass over each weight instead of ten, where there is such a kernel.
        one_pass = all(w.device.type in ("cpu", "cuda") for w in self.weights.values())
        self._adam = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=one_pass)
        # Where masters keep their gradients from step to step, taken at once: between the activations of a pack it
        # would leave holes, and what is given back has to be fetched again.
        self._room = {n: torch.empty_like(w) for n, w in self.weights.items() if w is not self._parameters[n]}

    @property
    def n_trained(self) -> int:
        """Trainable weights."""
        return sum(w.numel() for w in self.weights.values())

    @contextmanager
    def folding(self) -> Iterator[None]:
        """While the block lasts, a backward pass hands each gradient to its master as soon as it is complete, so
        that there is never more than one in the model's precision."""
        hooks = [
            parameter.register_post_accumulate_grad_hook(functools.partial(self._fold, name))
            for name, parameter in self._parameters.items()
            if self.weights[name] is not parameter
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def fold(self) -> None:
        """Move the gradients of one micro-batch into the masters."""
        for name, parameter in self._parameters.items():
            if self.weights[name] is not parameter and parameter.grad is not None:
                self._fold(name, parameter)

    def _fold(self, name: str, parameter: Tensor) -> None:
        master = self.weights[name]
        assert parameter.grad is not None
        if master.grad is not None:
            master.grad.add_(parameter.grad)
        else:
            master.grad = self._room[name].copy_(parameter.grad)
        parameter.grad = None

    def gradients(self) -> dict[str, Tensor]:
        """Summed gradients by name, to be edited in place; parameters without one are left out."""
        return {name: w.grad for name, w in self.weights.items() if w.grad is not None}

    def clear(self) -> None:
        """Forget all gradients."""
        for name, parameter in self._parameters.items():
            parameter.grad = None
            self.weights[name].grad = None

    def finish(self, divisor: float, clip: float | None) -> float:
        """Divide the summed gradients, clip their norm once; returns the norm before clipping."""
        found = list(self.gradients().values())
        torch._foreach_div_(found, divisor)
        norm = torch.nn.utils.get_total_norm(found)
        if clip is not None:
            scale = torch.clamp(clip / (norm + 1e-6), max=1.0)
            torch._foreach_mul_(found, scale.to(found[0].device))
        return float(norm)

    def step(self, multiplier: float) -> float:
        """Move the weights at `multiplier` times the peak rate; returns it, before the weights' own factors."""
        rate = self._peak * multiplier
        for group in self._adam.param_groups:
            group["lr"] = rate * group["multiplier"]
        self._adam.step()
        self.publish()
        return rate

    @torch.no_grad()
    def publish(self) -> None:
        """Give the model the rounded masters."""
        for name, parameter in self._parameters.items():
            master = self.weights[name]
            if master is parameter:
                continue
            if parameter.dtype == torch.bfloat16:
                parameter.copy_(rounded(master))
            else:
                parameter.copy_(master)

    def state_dict(self) -> dict[str, Any]:
        state = self._adam.state_dict()["state"]
        return {
            "weights": dict(self.weights),
            "moments": {self._names[index]: values for index, values in state.items()},
        }

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(state["weights"][name])
        index = {name: i for i, name in enumerate(self._names)}
        self._adam.load_state_dict(
            {
                "state": {index[name]: values for name, values in state["moments"].items()},
                "param_groups": self._adam.state_dict()["param_groups"],
            }
        )
        self.publish()


def rounded(weights: Tensor) -> Tensor:
    """float32 `weights` in bfloat16, rounded so that the mean of many keeps its value.

    bfloat16 is the upper half of float32's bits. What is added to the lower half before it is cut off is spread
    evenly over all its values, so that a carry is as likely as the lower half is large. A value that bfloat16 has
    stays as it is.
    """
    bits = weights.contiguous().view(torch.int32).view(-1)
    found = torch.empty(bits.shape, dtype=torch.int16, device=bits.device)
    pattern = _pattern(bits.device)
    for piece, target in zip(bits.split(len(pattern)), found.split(len(pattern)), strict=True):
        target.copy_((piece + pattern[: len(piece)]).bitwise_right_shift_(16))
    return found.view(torch.bfloat16).view(weights.shape)


@functools.cache
def _pattern(device: torch.device) -> Tensor:
    """Even draws from 0 .. 65535; as many as a prime, so that it does not repeat with the rows of a matrix."""
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 1 << 16, (262139,), generator=draws, dtype=torch.int32).to(device)


def rates_of(names: Iterable[str], rates: Mapping[str, float]) -> dict[str, float]:
    """Name -> the factor of its learning rate; raises ConfigError for a key that no name contains."""
    names = list(names)
    for key in rates:
        if not any(key in name for name in names):
            raise ConfigError(
                "a rate is for weights that are not trained",
                where=f"rates: {key}",
                expected="part of the name of a trained weight",
                found=", ".join(names[:6]) + (", ..." if len(names) > 6 else ""),
            )
    keys = sorted(rates, key=len)
    return {name: next((rates[key] for key in reversed(keys) if key in name), 1.0) for name in names}


def backward_flops(model: Any, recomputed: bool) -> float:
    """FLOPs per token of the backward pass: 2 P for activations, down to the lowest trained layer, 2 P_trained for
    weights, 2 P more when the forward pass is made again (gradient checkpointing)."""
    tables = {id(m.weight) for m in model.module.modules() if isinstance(m, nn.Embedding)}
    head = getattr(model.base_module.get_output_embeddings(), "weight", None)
    trained = sum(
        p.numel() for p in model.module.parameters() if p.requires_grad and (id(p) not in tables or p is head)
    )
    passed = model.active_params * (2 if recomputed else 1) - (0 if recomputed else frozen_params(model))
    return 2.0 * passed + 2.0 * trained
