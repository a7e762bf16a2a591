"""Kronecker-factored curvature of linear layers with corrected eigenvalues, and products with its damped inverse.

A linear layer turns inputs a [T, d_in] (with a bias one more input, always 1) into outputs whose gradients for one
sequence are g [T, d_out]; the gradient of its weight is G = g^T a [d_out, d_in]. Over many sequences
  A = mean over tokens of a a^T = Q_A D_A Q_A^T      S = mean over tokens of g g^T = Q_S D_S Q_S^T
  Lambda = mean over sequences of (Q_S^T G Q_A)^2, element by element
  (H + lambda)^-1 V = Q_S [(Q_S^T V Q_A) / (Lambda + lambda)] Q_A^T,  lambda = damping * mean(Lambda)
H is the Fisher information where the labels behind g are drawn from the model itself, the empirical one where they
are the data's. Nothing here depends on how a layer stores its weight, only on what goes in and comes back. Layers
that read the same input share A and what is made of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tutelage.core.errors import ModelError
from tutelage.models import logps
from tutelage.models.encode import Encoded
from tutelage.models.packing import TokenBatch
from tutelage.models.scoring import scoring_batches
from tutelage.models.states import block_list

if TYPE_CHECKING:
    from tutelage.models.causal import CausalLM

Part = Literal["mlp", "attention", "all"]


@dataclass(frozen=True)
class Sequences:
    """The sequences of one batch: their numbers among all, and how many tokens each has, in order."""

    numbers: list[int]
    lengths: list[int]

    def sums(self, values: Tensor) -> Tensor:
        """Sum of [tokens, ...] over each sequence: [sequences, ...]."""
        owner = torch.arange(len(self.lengths)).repeat_interleave(torch.tensor(self.lengths)).to(values.device)
        return values.new_zeros(len(self.lengths), *values.shape[1:]).index_add_(0, owner, values)


# Called for every layer of every batch: name, a [tokens, d_in], g [tokens, d_out], and whose tokens they are.
# Layers that read the same input come one after the other with the same object as a.
Visit = Callable[[str, Tensor, Tensor, Sequences], None]
# One pass over data that calls what it is given.
Pass = Callable[[Visit], None]


@dataclass(frozen=True)
class Factors:
    """Curvature of one layer: `outputs` Q_S [d_out, d_out], `inputs` Q_A [d_in, d_in], `values` Lambda [d_out,
    d_in]."""

    outputs: Tensor
    inputs: Tensor
    values: Tensor

    def solve(self, gradient: Tensor, damping: float) -> Tensor:
        """(H + lambda)^-1 applied to [..., d_out, d_in]; directions without curvature and damping give 0."""
        turned = self.outputs.T @ gradient @ self.inputs
        below = self.values + damping * self.values.mean()
        turned = torch.where(below > 0, turned / below.clamp(min=torch.finfo(below.dtype).tiny), 0.0)
        return self.outputs @ turned @ self.inputs.T


def fit_factors(run: Pass) -> dict[str, Factors]:
    """The factors of every layer that `run` visits; it is run twice."""
    sums: dict[str, Tensor] = {}
    inputs = _Shared()

    def gather(name: str, a: Tensor, g: Tensor, _: Sequences) -> None:
        if name not in sums:
            sums[name] = g.new_zeros(g.shape[1], g.shape[1])
        sums[name].addmm_(g.T, g)
        inputs.add(name, a)

    run(gather)
    # Only the eigenvectors are used, so the two sums need not be divided by the number of tokens.
    right = {owner: _eigenvectors(total) for owner, total in inputs.sums.items()}
    bases = {name: (_eigenvectors(total), right[inputs.owner[name]]) for name, total in sums.items()}
    values = {name: s.new_zeros(len(s), len(a)) for name, (s, a) in bases.items()}
    count = dict.fromkeys(bases, 0)
    turned: list[tuple[Tensor, Tensor]] = []

    def correct(name: str, a: Tensor, g: Tensor, sequences: Sequences) -> None:
        if not turned or turned[0][0] is not a:
            turned[:] = [(a, a @ bases[name][1])]
        pairs = zip((g @ bases[name][0]).split(sequences.lengths), turned[0][1].split(sequences.lengths))
        for left, right in pairs:
            gradient = left.T @ right
            values[name].addcmul_(gradient, gradient)
        count[name] += len(sequences.lengths)

    run(correct)
    return {name: Factors(*bases[name], values[name] / count[name]) for name in bases}


class _Shared:
    """Sums of a^T a, one for all layers that read the same input: `sums` by the first such layer, `owner` of each
    layer."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.owner: dict[str, str] = {}
        self._last: tuple[str, Tensor] | None = None

    def add(self, name: str, a: Tensor) -> None:
        """The input of a layer in one batch."""
        before = self._last[0] if self._last is not None and self._last[1] is a else name
        owner = self.owner.setdefault(name, before)
        if owner != before:
            raise ModelError("a layer shares its input with another one in some batches only", where=name)
        if owner == name:
            if name not in self.sums:
                self.sums[name] = a.new_zeros(a.shape[1], a.shape[1])
            self.sums[name].addmm_(a.T, a)
            self._last = (name, a)


def _eigenvectors(matrix: Tensor) -> Tensor:
    # In float64: small eigenvalues of a sum over many tokens are lost in float32.
    return torch.linalg.eigh(matrix.double())[1].to(matrix.dtype)


def linear_layers(model: "CausalLM", part: Part) -> tuple[dict[str, nn.Module], list[str]]:
    """(linear layers of a model's blocks by name, other modules with matrices, which are left out).

    `part` mlp is everything outside modules that are called attention. The output head is in no block.
    """
    found: dict[str, nn.Module] = {}
    others = []
    for name, module in block_list(model.base_module).named_modules():
        inside = any("attn" in piece or "attention" in piece for piece in name.lower().split("."))
        if part != "all" and inside != (part == "attention"):
            continue
        if type(module) in (nn.Linear, Conv1D):
            found[name] = module
        elif any(p.ndim >= 2 for p in module.parameters(recurse=False)):
            others.append(f"{name} ({type(module).__name__})")
    return found, others


@contextmanager
def tapped(layers: Mapping[str, Any], seen: Callable[[str, Tensor, Tensor], None]) -> Iterator[None]:
    """While open, every backward pass calls `seen(name, a, g)` for each layer with its inputs (and 1 for a bias)
    [..., d_in] and the gradients of its outputs [..., d_out]. Layers called with the same tensor, one after the
    other, get the same object as a. Gradients begin at the first of the layers: nothing before it is passed."""
    last: list[tuple[Tensor, bool, Tensor]] = []

    def with_one(given: Tensor, bias: bool) -> Tensor:
        if not last or last[0][0] is not given or last[0][1] != bias:
            a = given.detach()
            last[:] = [(given, bias, torch.cat([a, a.new_ones(*a.shape[:-1], 1)], dim=-1) if bias else a)]
        return last[0][2]

    def hook(name: str) -> Callable[..., Tensor | None]:
        def forward(module: Any, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            a = with_one(args[0], module.bias is not None)
            started = torch.is_grad_enabled() and not output.requires_grad
            if started:
                # Of a copy, since what needs gradients itself must not be changed in place afterwards.
                output = output.detach().requires_grad_().clone()
            if output.requires_grad:
                output.register_hook(lambda g: seen(name, a, g.detach()))
            return output if started else None

        return forward

    handles = [module.register_forward_hook(hook(name)) for name, module in layers.items()]
    try:
        yield
    finally:
        last.clear()
        for handle in handles:
            handle.remove()


@contextmanager
def differentiated(model: "CausalLM") -> Iterator[None]:
    """Evaluation mode without gradients of weights; with `tapped`, the cheapest backward pass there is."""
    modes = [(module, module.training) for module in model.module.modules()]
    marks = [(parameter, parameter.requires_grad) for parameter in model.module.parameters()]
    model.module.eval()
    for parameter, _ in marks:
        parameter.requires_grad_(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        for parameter, mark in marks:
            parameter.requires_grad_(mark)
        for module, training in modes:
            module.training = training


def model_pass(
    model: "CausalLM", documents: Sequence[Encoded], layers: Mapping[str, Any], seed: int | None = None
) -> Pass:
    """A pass over documents: g is the gradient of each one's summed log-probability of its labels, in float32.

    The labels are those of the documents, or with `seed` drawn from the model's own predictions (another draw each
    time the pass is made).
    """
    draws = None if seed is None else torch.Generator().manual_seed(seed)

    def run(visit: Visit) -> None:
        with differentiated(model):
            for numbers, batch in scoring_batches(model, documents):
                keep = batch.segment_ids >= 0
                full = bool(keep.all())
                last: list[tuple[Tensor, Tensor]] = []
                sequences = Sequences(numbers, [length for row in batch.lengths for length in row])

                def seen(name: str, a: Tensor, g: Tensor) -> None:
                    if a.shape[:-1] != keep.shape:  # noqa: B023
                        raise ModelError("a layer does not see every token once", where=f"{model.name}: {name}")
                    if not last or last[0][0] is not a:  # noqa: B023
                        last[:] = [(a, (a.flatten(0, 1) if full else a[keep]).float())]  # noqa: B023
                    g = g.flatten(0, 1) if full else g[keep]  # noqa: B023
                    visit(name, last[0][1], g.float(), sequences)  # noqa: B023

                with tapped(layers, seen):
                    label_logps(model, batch, draws).sum().backward()
                model.meter.add(backward_flops=2.0 * model.active_params * batch.n_tokens)

    return run


def label_logps(model: "CausalLM", batch: TokenBatch, draws: torch.Generator | None) -> Tensor:
    """[labels] log-probabilities of the batch's labels, or with `draws` of labels drawn from the predictions."""
    rows, columns = batch.response_mask.nonzero(as_tuple=True)
    targets = batch.input_ids[rows, columns]
    if model.head is None:
        logits = logps.own_logits(model, batch)[rows, columns - 1].float()
        targets = targets if draws is None else drawn(logits, draws)
        return torch.log_softmax(logits, dim=1).gather(1, targets[:, None])[:, 0]
    hidden = model.final_hidden(batch)[rows, columns - 1]
    if draws is not None:
        with torch.no_grad():
            parts = [drawn(model.head(h), draws) for h in hidden.split(logps.TOKENS)]
        targets = torch.cat(parts) if parts else targets
    return logps.head_logps(model.head, hidden, targets)


@torch.no_grad()
def drawn(logits: Tensor, draws: torch.Generator) -> Tensor:
    """[n] one token for each row of `logits` [n, V], drawn from its softmax by inverting the cumulative sum."""
    summed = torch.softmax(logits, dim=1).cumsum(1)
    points = torch.rand(len(logits), 1, generator=draws).to(summed.device) * summed[:, -1:]
    return torch.searchsorted(summed, points, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
