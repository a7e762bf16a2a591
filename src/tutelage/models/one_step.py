"""What one optimiser step would do: take it on a batch, look, and put every weight back bit for bit.

With g the gradient of the mean loss per token, clipped to norm c, and moments m, v after t steps, AdamW gives
  m' = b1 m + (1 - b1) g,  v' = b2 v + (1 - b2) g^2,  w' = (1 - r d) w - r (m' / (1 - b1^(t+1))) /
  (sqrt(v' / (1 - b2^(t+1))) + eps)
with rate r and decay d (on matrices outside embeddings), and one of SGD w' = (1 - r d) w - r g. The moments are
never moved by a probe. A model without an optimiser's state gets it from `warm`: the moments that a run at rate 0
over some batches would have.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tutelage.core.errors import ModelError
from tutelage.models import peft_io
from tutelage.models.packing import TokenBatch

if TYPE_CHECKING:
    from tutelage.models.causal import CausalLM

BETAS = (0.9, 0.95)
EPS = 1e-8


class OneStep:
    """Steps on the trained weights of `model`: its adapter's where it has one, else all. It must compute in
    float32, because a step moves a loss by some 1e-4. `clip` 0 never clips."""

    def __init__(
        self,
        model: "CausalLM",
        *,
        optimizer: Literal["adamw", "sgd"] = "adamw",
        learning_rate: float,
        weight_decay: float = 0.0,
        clip: float = 0.0,
    ) -> None:
        if any(p.dtype not in (torch.float32, torch.float64) for p in model.module.parameters()):
            raise ModelError("one step is too small to be seen in this precision", where=model.name,
                             expected="float32", found=model.dtype)  # fmt: skip
        self.model, self.optimizer, self.clip = model, optimizer, clip
        self.rate, self.decay = learning_rate, weight_decay
        self.weights = trained_weights(model)
        tables = {id(m.weight) for m in model.module.modules() if isinstance(m, nn.Embedding)}
        self._decayed = {name for name, p in self.weights.items() if p.ndim >= 2 and id(p) not in tables}
        self.moments: dict[str, tuple[Tensor, Tensor]] = {}
        self.steps = 0

    def warm(self, batches: Sequence[TokenBatch]) -> None:
        """The moments of a run at rate 0 over `batches`."""
        for batch in batches:
            for name, g in self.gradient(batch).items():
                m, v = self.moments.get(name, (torch.zeros_like(g), torch.zeros_like(g)))
                self.moments[name] = (torch.lerp(m, g, 1 - BETAS[0]), torch.lerp(v, g * g, 1 - BETAS[1]))
            self.steps += 1

    def gradient(self, batch: TokenBatch) -> dict[str, Tensor]:
        """The clipped gradient of the mean loss per token, by weight, in evaluation mode."""
        with _trainable(self.model, self.weights):
            batch = batch.to(self.model.device)
            loss = -self.model.token_logps(batch).sum() / batch.n_trained
            found = torch.autograd.grad(loss, list(self.weights.values()), allow_unused=True)
        trained = min(sum(p.numel() for p in self.weights.values()), self.model.active_params)
        self.model.meter.add(backward_flops=2.0 * (self.model.active_params + trained) * batch.n_tokens)
        gradients = {name: torch.zeros_like(p) if g is None else g.detach()
                     for (name, p), g in zip(self.weights.items(), found)}  # fmt: skip
        if self.clip:
            norm = torch.nn.utils.get_total_norm(list(gradients.values()))
            scale = torch.clamp(self.clip / (norm + 1e-6), max=1.0)
            gradients = {name: g * scale for name, g in gradients.items()}
        return gradients

    @contextmanager
    def taken(self, batch: TokenBatch) -> Iterator[None]:
        """The model as it would be after one step on `batch`, while the block lasts."""
        gradients = self.gradient(batch)
        before = {name: p.detach().clone() for name, p in self.weights.items()}
        try:
            with torch.no_grad():
                for name, p in self.weights.items():
                    p.mul_(1 - self.rate * self.decay * (name in self._decayed)).sub_(
                        self._move(name, gradients[name])
                    )
            yield
        finally:
            with torch.no_grad():
                for name, p in self.weights.items():
                    p.copy_(before[name])

    def _move(self, name: str, g: Tensor) -> Tensor:
        if self.optimizer == "sgd":
            return self.rate * g
        m, v = self.moments.get(name, (torch.zeros_like(g), torch.zeros_like(g)))
        steps = self.steps + 1
        m = torch.lerp(m, g, 1 - BETAS[0]) / (1 - BETAS[0] ** steps)
        v = torch.lerp(v, g * g, 1 - BETAS[1]).sqrt_().div_(math.sqrt(1 - BETAS[1] ** steps))
        return self.rate * m / v.add_(EPS)

    def state(self) -> dict[str, Any]:
        """The moments as arrays."""
        moments = {name: [m.cpu().numpy(), v.cpu().numpy()] for name, (m, v) in self.moments.items()}
        return {"steps": self.steps, "moments": moments}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave."""
        self.steps = int(state["steps"])
        self.moments = {
            name: tuple(torch.from_numpy(np.array(part)).to(self.model.device) for part in pair)  # type: ignore[misc]
            for name, pair in state["moments"].items()
        }


def trained_weights(model: "CausalLM") -> dict[str, nn.Parameter]:
    """Name -> weight of what training would move: the adapter alone where there is one."""
    named = dict(model.module.named_parameters())
    if not peft_io.is_adapted(model.module):
        return named
    marks = peft_io.adapter_marks(model.module)
    return {name: p for name, p in named.items() if any(mark in name for mark in marks)}


def mean_loss(model: "CausalLM", batches: Sequence[TokenBatch]) -> float:
    """Nats per trained token over all batches, summed in float64, in evaluation mode."""
    total, count = 0.0, 0
    with model.scoring():
        for batch in batches:
            total -= float(model.token_logps(batch.to(model.device)).double().sum())
            count += batch.n_trained
    return total / count


def in_float32(model: "CausalLM") -> "CausalLM":
    """The model itself if it computes in float32, else a copy that does; both are charged alike."""
    if all(p.dtype in (torch.float32, torch.float64) for p in model.module.parameters()):
        return model
    copy = model.copy()
    copy.module.float()
    copy.meter = model.meter
    return copy


@contextmanager
def _trainable(model: "CausalLM", weights: Mapping[str, nn.Parameter]) -> Iterator[None]:
    """Evaluation mode with gradients for `weights` alone; flags and modes are put back."""
    marks = [(p, p.requires_grad) for p in model.module.parameters()]
    wanted = {id(p) for p in weights.values()}
    try:
        with model.scoring(), torch.enable_grad():
            for p, _ in marks:
                p.requires_grad_(id(p) in wanted)
            yield
    finally:
        for p, mark in marks:
            p.requires_grad_(mark)
