"""The gradient of each document's summed loss, taken apart from one batched backward pass.

A linear layer with inputs A [T, in] and gradients G [T, out] at its output has the gradient G^T A, an embedding
table E^T G with one-hot rows E. So the gradient of a matrix is a sum of products left^T right (two for a table
that is also the head), and its squared length is the sum over pairs of products i, j of all entries of
(left_i left_j^T) o (right_i right_j^T), which costs T^2 and never makes the matrix; where 2 T^2 >= rows x columns
the matrix is made.
Other modules (norms, biases) get a small backward pass per document. Documents of a pack do not see each other, so
the gradient at a document's tokens is that of its own loss, provided that the loss of a batch is a sum over its
documents: `check_gradients` compares with one document at a time and with plain autograd.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tutelage.core.errors import ModelError
from tutelage.models.encode import Encoded
from tutelage.models.logps import own_logits
from tutelage.models.packing import TokenBatch, collate
from tutelage.models.scoring import scoring_batches
from tutelage.models.seam import Model

if TYPE_CHECKING:
    from tutelage.models.causal import CausalLM

Parameters = Literal["all", "head", "adapter"]
# (log-probabilities [B, T] of the labelled tokens, the batch) -> the loss of the batch.
Loss = Callable[[Tensor, TokenBatch], Tensor]
# Logits of one batch, so that their float32 copies stay within a few gigabytes.
LOGITS = 1 << 27


class Product(NamedTuple):
    """left^T right: `left` [T, rows], or [T] int64 where its rows are one-hot; `right` [T, columns]."""

    left: Tensor
    right: Tensor


@dataclass
class Gradient:
    """One document's gradient of one parameter of `shape`: the sum of `products` and `dense`."""

    shape: torch.Size
    products: list[Product] = field(default_factory=list)
    dense: Tensor | None = None

    def square(self) -> float:
        """Squared length."""
        tokens = sum(len(product.right) for product in self.products)
        if self.dense is None and 2 * tokens**2 < self.shape.numel():
            return self._gram()
        return float(_exact(self.tensor()).square().sum())

    def tensor(self) -> Tensor:
        """The gradient itself, float32."""
        device = self.products[0].right.device if self.dense is None else self.dense.device
        total = torch.zeros(self.shape, device=device)
        if self.dense is not None:
            total += self.dense.float()
        for left, right in self.products:
            if left.dim() == 1:
                total.index_add_(0, left, right.float())
            else:
                total.addmm_(left.float().T, right.float())
        return total

    def _gram(self) -> float:
        total = 0.0
        for i, (left, right) in enumerate(self.products):
            for j, (other, opposite) in enumerate(self.products[: i + 1]):
                product = _overlap(left, other) * (_exact(right) @ _exact(opposite).T)
                total += float(product.sum()) * (1 if i == j else 2)
        return total


def summed_loss(logps: Tensor, batch: TokenBatch) -> Tensor:
    """- sum over labelled tokens of weight x log-probability."""
    return -(logps * batch.token_weight).sum()


def example_gradients(
    model: "CausalLM", documents: Sequence[Encoded], parameters: Parameters = "all", loss: Loss = summed_loss
) -> Iterator[tuple[int, dict[str, Gradient]]]:
    """(index of a document, its gradients by parameter name), long documents first.

    `parameters`: all of them; those of the output `head` alone, which needs no backward pass through the body (a
    table that is also the embedding is then taken as the head only); or those of the LoRA `adapter`. The gradients
    hold views of the batch: use each before the next is asked for. Raises ModelError for a model without them.
    """
    wanted = _wanted(model, parameters)
    limit = max(1, LOGITS // model.config.get_text_config().vocab_size)
    order = sorted(range(len(documents)), key=lambda i: -len(documents[i]))
    while order:
        size, count = 0, 0
        while count < len(order) and (not count or size + len(documents[order[count]]) <= limit):
            size += len(documents[order[count]])
            count += 1
        group, order = order[:count], order[count:]
        for chosen, batch in scoring_batches(model, [documents[i] for i in group]):
            for i, gradients in zip(chosen, _of_batch(model, batch, wanted, parameters, loss)):
                yield group[i], gradients


def check_gradients(model: Model, parameters: Parameters = "all", loss: Loss = summed_loss) -> None:
    """Compare two short documents in one batch with each alone and with plain autograd.

    Raises ModelError where the model has no such parameters, where the loss of a batch is no sum over its
    documents (a mean, say), or where the architecture's gradients cannot be taken apart.
    """
    from tutelage.models.causal import CausalLM

    if not isinstance(model, CausalLM):
        raise ModelError(
            f"a model of kind {model.kind!r} has no gradients",
            where=model.name,
            expected="a causal language model",
        )
    wanted = _wanted(model, parameters)
    generator = torch.Generator().manual_seed(0)
    words = model.config.get_text_config().vocab_size
    documents = [
        Encoded(torch.randint(0, words, (n,), generator=generator).tolist(), [False] + [True] * (n - 1), "")
        for n in (5, 7)
    ]

    def squares(chosen: list[Encoded]) -> list[dict[str, float]]:
        packs = [[document] for document in chosen] if model.isolation == "padding" else [chosen]
        batch = collate(packs, pad_id=model.pad_id).to(model.device)
        gradients = _of_batch(model, batch, wanted, parameters, loss)
        found = [{name: gradient.square() for name, gradient in one.items()} for one in gradients]
        if not all(math.isfinite(sum(one.values())) for one in found):
            raise ModelError(
                "the model's gradients are not finite",
                where=model.name,
                found="NaN or infinity for a few random words",
                remedy="the weights are broken (check the training loss), or the precision is too low",
            )
        return found

    together, tolerance = squares(documents), 1e-3 if model.dtype == torch.float32 else 0.1
    for document, found in zip(documents, together):
        (alone,) = squares([document])
        if not _close(found, alone, tolerance):
            raise ModelError(
                "the loss of a batch is not the sum of its documents' losses",
                where=model.name,
                expected="the same gradient of a document whatever else is in its batch",
                found=f"squared lengths {sum(found.values()):.6g} and {sum(alone.values()):.6g} (alone)",
                remedy="do not divide the loss by the size of the batch",
            )
        plain = _autograd(model, document, wanted, parameters, loss)
        if not _close(alone, plain, tolerance):
            worst = max(plain, key=lambda name: abs(plain[name] - alone.get(name, 0.0)))
            raise ModelError(
                "this architecture's gradients cannot be taken apart by document",
                where=f"{model.name}, {worst}",
                expected=f"squared length {plain[worst]:.6g}",
                found=f"{alone.get(worst, 0.0):.6g}",
                remedy="use the parameters of the head or of an adapter",
            )


class _Wanted(NamedTuple):
    names: dict[int, str]  # id of a parameter -> name
    modules: list[nn.Module]  # whose calls are captured


class _Call(NamedTuple):
    module: nn.Module
    given: Tensor  # [B * T, ...]
    gradient: Tensor  # [B * T, ...]


def _wanted(model: "CausalLM", parameters: Parameters) -> _Wanted:
    named = dict(model.module.named_parameters())
    head = model.base_module.get_output_embeddings()
    if parameters == "head":
        own = set() if head is None else {id(p) for p in head.parameters(recurse=False)}
        named = {name: p for name, p in named.items() if id(p) in own}
    elif parameters == "adapter":
        named = {name: p for name, p in named.items() if "lora_" in name}
    if not named or any(not p.is_floating_point() for p in named.values()):
        raise ModelError(
            f"the model has no {parameters} parameters with a gradient",
            where=model.name,
            expected={"adapter": "a LoRA adapter", "head": "an output layer"}.get(
                parameters, "no quantised weights"
            ),
            remedy="choose other parameters, or another model",
        )
    names = {id(p): name for name, p in named.items()}
    candidates = [head] if parameters == "head" else list(model.module.modules())
    return _Wanted(names, [m for m in candidates if any(id(p) in names for p in m.parameters(recurse=False))])


def _of_batch(
    model: "CausalLM", batch: TokenBatch, wanted: _Wanted, parameters: Parameters, loss: Loss
) -> list[dict[str, Gradient]]:
    """The gradients of the batch's documents, rows in order."""
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []

    def capture(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if len(args) != 1 or kwargs or not isinstance(output, Tensor):
            raise _not_apart(model, module, wanted)
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        calls.append((module, args[0].detach(), output))
        return output

    with model.scoring(), torch.enable_grad(), _marked(model, ()):
        hooks = [module.register_forward_hook(capture, with_kwargs=True) for module in wanted.modules]
        try:
            logps = _token_logps(model, batch)
        finally:
            for hook in hooks:
                hook.remove()
        outputs = [output for _, _, output in calls]
        gradients = torch.autograd.grad(loss(logps, batch), outputs, allow_unused=True)
    called = {id(p) for module, _, _ in calls for p in module.parameters(recurse=False)}
    for module in wanted.modules:
        if any(id(p) in wanted.names and id(p) not in called for p in module.parameters(recurse=False)):
            raise _not_apart(model, module, wanted)
    # Through the body: 2 P for the states, and as much again for the gradients of all weights.
    factor = 2.0 if parameters == "adapter" else 4.0
    size = model.active_params
    if parameters == "head":
        factor, size = 2.0, sum(p.numel() for m in wanted.modules for p in m.parameters(recurse=False))
    model.meter.add(backward_flops=factor * size * batch.n_tokens)
    flat = []
    for (module, given, _), gradient in zip(calls, gradients):
        if gradient is not None:
            flat.append(_Call(module, _flat(model, module, given, batch), _flat(model, module, gradient, batch)))
    found = []
    for row, lengths in enumerate(batch.lengths):
        at = row * batch.shape[1]
        for length in lengths:
            found.append(_of_document(flat, slice(at, at + length), wanted))
            at += length
    return found


def _of_document(calls: list[_Call], here: slice, wanted: _Wanted) -> dict[str, Gradient]:
    found: dict[str, Gradient] = {}
    for module, given, gradient in calls:
        own = {n: p for n, p in module.named_parameters(recurse=False) if id(p) in wanted.names}
        x, g = given[here], gradient[here]
        product = _product(module, x, g)
        for part, parameter in own.items():
            into = found.setdefault(wanted.names[id(parameter)], Gradient(parameter.shape))
            if part == "weight" and product is not None:
                into.products.append(product)
                continue
            if part == "bias" and product is not None:
                dense = g.float().sum(0)
            else:
                dense = _local(module, parameter, x, g)
            into.dense = dense if into.dense is None else into.dense + dense
    return found


def _product(module: nn.Module, x: Tensor, g: Tensor) -> Product | None:
    """The gradient of `module.weight` as a product, or None for a module of another kind."""
    if type(module) is nn.Linear:
        return Product(g, x)
    if type(module).__name__ == "Conv1D":
        return Product(x, g)
    if type(module) is nn.Embedding and module.max_norm is None and not module.scale_grad_by_freq:
        # Autograd gives the padding word no gradient, also where it stands as an ordinary token.
        kept: Any = slice(None) if module.padding_idx is None else x != module.padding_idx
        return Product(x[kept], g[kept])
    return None


def _local(module: nn.Module, parameter: Tensor, x: Tensor, g: Tensor) -> Tensor:
    """The gradient of a parameter from the module's own backward pass over one document."""
    mark = parameter.requires_grad
    with torch.enable_grad():
        parameter.requires_grad_(True)
        try:
            output = module.forward(x[None])
            (found,) = torch.autograd.grad(output, parameter, g[None])
        finally:
            parameter.requires_grad_(mark)
    return found


def _autograd(
    model: "CausalLM", document: Encoded, wanted: _Wanted, parameters: Parameters, loss: Loss
) -> dict[str, float]:
    """Squared length of every gradient of one document by an ordinary backward pass that keeps no gradient."""
    named = {name: p for name, p in model.module.named_parameters() if id(p) in wanted.names}
    batch = collate([[document]], pad_id=model.pad_id).to(model.device)
    found = dict.fromkeys(named, 0.0)
    held = {name: p.grad for name, p in named.items()}

    def watch(name: str) -> Callable[[Tensor], None]:
        def measured(parameter: Tensor) -> None:
            assert parameter.grad is not None
            found[name] = float(_exact(parameter.grad).square().sum())
            parameter.grad = None

        return measured

    with model.scoring(), torch.enable_grad(), _marked(model, tuple(named.values())):
        hooks = [p.register_post_accumulate_grad_hook(watch(name)) for name, p in named.items()]
        if parameters == "head":
            table = model.base_module.get_input_embeddings()
            hooks.append(table.register_forward_hook(lambda _module, _args, output: output.detach()))
        try:
            for parameter in named.values():
                parameter.grad = None
            loss(model.token_logps(batch), batch).backward()
        finally:
            for hook in hooks:
                hook.remove()
            for name, parameter in named.items():
                parameter.grad = held[name]
    return found


def _token_logps(model: "CausalLM", batch: TokenBatch) -> Tensor:
    """`CausalLM.token_logps` through the model's own output layer, whose call can be captured."""
    rows, columns = batch.response_mask.nonzero(as_tuple=True)
    logits = own_logits(model, batch)[rows, columns - 1].float()
    found = logits.gather(1, batch.input_ids[rows, columns][:, None])[:, 0] - logits.logsumexp(1)
    return found.new_zeros(batch.shape).index_put((rows, columns), found)


@contextmanager
def _marked(model: "CausalLM", learning: Sequence[Tensor]) -> Iterator[None]:
    """Only `learning` have `requires_grad` while the block lasts."""
    marks = [(p, p.requires_grad) for p in model.module.parameters()]
    chosen = {id(p) for p in learning}
    try:
        for parameter, _ in marks:
            if parameter.is_floating_point():
                parameter.requires_grad_(id(parameter) in chosen)
        yield
    finally:
        for parameter, mark in marks:
            parameter.requires_grad_(mark)


def _flat(model: "CausalLM", module: nn.Module, value: Tensor, batch: TokenBatch) -> Tensor:
    rows, length = batch.shape
    if value.shape[:2] == (rows, length):
        return value.flatten(0, 1)
    if value.shape[0] == rows * length:
        return value
    raise ModelError(
        "this architecture's gradients cannot be taken apart by document",
        where=f"{model.name}, {type(module).__name__}",
        expected=f"tensors [{rows}, {length}, ...]",
        found=tuple(value.shape),
        remedy="use the parameters of the head or of an adapter",
    )


def _not_apart(model: "CausalLM", module: nn.Module, wanted: _Wanted) -> ModelError:
    names = [wanted.names[id(p)] for p in module.parameters(recurse=False) if id(p) in wanted.names]
    return ModelError(
        "this architecture's gradients cannot be taken apart by document",
        where=f"{model.name}, {', '.join(names)}",
        expected="a module that is called with one tensor and returns one",
        found=type(module).__name__,
        remedy="use the parameters of the head or of an adapter",
    )


def _overlap(left: Tensor, other: Tensor) -> Tensor:
    """left other^T [T, T'], either of which may be one-hot."""
    if left.dim() == 1 and other.dim() == 1:
        return _exact((left[:, None] == other[None, :]).float())
    if left.dim() == 1:
        return _exact(other[:, left]).T
    if other.dim() == 1:
        return _exact(left[:, other])
    return _exact(left) @ _exact(other).T


def _exact(value: Tensor) -> Tensor:
    """float64, where the device has it: the terms of a squared length cancel."""
    return value.float() if value.device.type == "mps" else value.double()


def _close(one: dict[str, float], other: dict[str, float], tolerance: float) -> bool:
    total = max(sum(one.values()), sum(other.values()), 1e-30)
    return all(abs(one.get(n, 0.0) - other.get(n, 0.0)) <= tolerance * total for n in {*one, *other})
