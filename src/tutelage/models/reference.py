"""A frozen reference model beside the one that is trained, and how far the two have come apart.

Three back-ends: `AdapterOff`, the model itself with its adapter switched off (no second copy; the base must be
frozen); `FrozenCopy`, the weights as they were when it was made; and log-probabilities computed once and stored
with the rows (`signals.reference_logps`), known again by `token_key`. `token_kl` is the divergence over the full
vocabulary, per token, in blocks of positions, so that no [batch, sequence, vocabulary] tensor ever exists:
  forward  KL(q || p) = sum_v q_v (log q_v - log p_v)     reverse  KL(p || q) = sum_v p_v (log p_v - log q_v)
with p the trained model and q the reference.
"""

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tutelage.core.errors import ConfigError, TrainingError
from tutelage.models import logps, peft_io
from tutelage.models.encode import Encoded
from tutelage.models.packing import TokenBatch

if TYPE_CHECKING:
    from tutelage.models.causal import CausalLM

Direction = Literal["forward", "reverse"]


class Reference(Protocol):
    """A frozen model that predicts the same tokens."""

    def logps(self, batch: TokenBatch) -> Tensor:
        """[B, T] float32 log-probabilities of the labelled tokens, 0 elsewhere; no gradient."""

    def states(self, batch: TokenBatch) -> Tensor:
        """[B, T, d or V]: what `logits` takes; no gradient."""

    def logits(self, states: Tensor) -> Tensor:
        """[n, V] float32 of [n, d or V] states; no gradient."""


class AdapterOff:
    """The base below the adapter of `model`. Raises ConfigError where there is no adapter or the base is trained
    too, TrainingError where a base weight was changed afterwards (merged, resized, trained)."""

    def __init__(self, model: "CausalLM") -> None:
        if not peft_io.is_adapted(model.module):
            raise ConfigError(
                "a model without an adapter is not its own reference",
                where=model.name,
                expected="a model with an adapter",
                remedy="put an adapter on it (adapters.lora), or use reference: copy",
            )
        self._model = model
        marks = peft_io.adapter_marks(model.module)
        self._base = {
            name: parameter
            for name, parameter in model.module.named_parameters()
            if not any(mark in name for mark in marks)
        }
        trained = [name for name, parameter in self._base.items() if parameter.requires_grad]
        if trained:
            raise ConfigError(
                "the base is trained, so it cannot be the reference",
                where=model.name,
                expected="frozen weights below the adapter",
                found=f"{len(trained)} trained, the first is {trained[0]}",
                remedy="use reference: copy",
            )
        self._versions = {name: (id(p), p._version) for name, p in self._base.items()}

    @contextmanager
    def _off(self) -> Iterator[None]:
        self._check()
        # Switching an adapter off and on again marks all of it as trained.
        marks = [(parameter, parameter.requires_grad) for parameter in self._model.module.parameters()]
        try:
            with self._model.scoring(), self._model.module.disable_adapter():
                yield
        finally:
            for parameter, mark in marks:
                parameter.requires_grad_(mark)

    def _check(self) -> None:
        now = dict(self._model.module.named_parameters())
        for name, version in self._versions.items():
            found = now.get(name)
            if found is None or (id(found), found._version) != version:
                raise TrainingError(
                    "the reference has changed",
                    where=name,
                    expected="base weights as they were at the start",
                    found="a missing or replaced tensor" if found is None or id(found) != version[0] else "writes",
                    remedy="use reference: copy where the base is merged, resized or trained",
                )

    def logps(self, batch: TokenBatch) -> Tensor:
        with self._off():
            return self._model.token_logps(batch)

    def states(self, batch: TokenBatch) -> Tensor:
        with self._off():
            return head_states(self._model, batch)

    def logits(self, states: Tensor) -> Tensor:
        layer = self._model.base_module.get_output_embeddings()
        if type(layer) is nn.Linear:  # no adapter on the head: nothing to switch
            with torch.no_grad():
                return state_logits(self._model, states)
        with self._off():
            return state_logits(self._model, states)


class FrozenCopy:
    """The model as it is now. Weights that are frozen in it are shared, trained ones copied; what the copy
    computes is charged to the model."""

    def __init__(self, model: "CausalLM") -> None:
        memo: dict[int, Any] = {}
        for parameter in model.module.parameters():
            if type(parameter) is nn.Parameter and not parameter.requires_grad:
                memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
        module = copy.deepcopy(model.module, memo)
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        self._model = model.around(module, f"{model.name} (reference)")
        self._model.meter = model.meter
        module.eval()

    @torch.no_grad()
    def logps(self, batch: TokenBatch) -> Tensor:
        return self._model.token_logps(batch)

    @torch.no_grad()
    def states(self, batch: TokenBatch) -> Tensor:
        return head_states(self._model, batch)

    @torch.no_grad()
    def logits(self, states: Tensor) -> Tensor:
        return state_logits(self._model, states)


def head_states(model: Any, batch: TokenBatch) -> Tensor:
    """[B, T, d] final states, or [B, T, V] logits of a model whose head is not recognised."""
    found: Tensor = logps.own_logits(model, batch) if model.head is None else model.final_hidden(batch)
    return found


def state_logits(model: Any, states: Tensor) -> Tensor:
    """[n, V] float32 logits of `head_states`."""
    found: Tensor = states.float() if model.head is None else model.head(states)
    return found


def token_kl(
    model: Any, reference: Reference, batch: TokenBatch, mask: Tensor, direction: Direction = "forward"
) -> Tensor:
    """[B, T] float32: the divergence of the predictions of the tokens in `mask`, 0 elsewhere; differentiable in
    `model`. `mask` [B, T] may hold no first token of a segment."""
    rows, columns = mask.nonzero(as_tuple=True)
    theirs = reference.states(batch)[rows, columns - 1]
    ours = head_states(model, batch)[rows, columns - 1]
    parts = []
    step = logps.TOKENS // 4
    for at in range(0, len(rows), step):
        given = (model, reference, ours[at : at + step], theirs[at : at + step], direction)
        parts.append(
            checkpoint(_kl_block, *given, use_reentrant=False) if torch.is_grad_enabled() else _kl_block(*given)
        )
    found = torch.cat(parts) if parts else ours.new_zeros(0, dtype=torch.float32)
    return found.new_zeros(batch.shape).index_put((rows, columns), found)


def _kl_block(model: Any, reference: Reference, ours: Tensor, theirs: Tensor, direction: Direction) -> Tensor:
    log_q = torch.log_softmax(reference.logits(theirs), dim=1)
    log_p = torch.log_softmax(state_logits(model, ours), dim=1)
    first, second = (log_q, log_p) if direction == "forward" else (log_p, log_q)
    return (first.exp() * (first - second)).sum(1)


def sampled_kl(ours: Tensor, theirs: Tensor) -> Tensor:
    """exp(d) - d - 1 with d = `theirs` - `ours`, log-probabilities of the same tokens: never negative, and on
    tokens drawn from the trained model an unbiased estimate of KL(p || q)."""
    d = theirs - ours
    return torch.exp(d) - d - 1


def token_key(documents: Sequence[Encoded]) -> str:
    """Hash of what a row becomes (token ids and which are trained): stored log-probabilities belong to exactly
    these tokens, so another tokenizer, template, truncation or objective does not find them."""
    digest = hashlib.blake2b(digest_size=16)
    for document in documents:
        digest.update(np.array([len(document), *document.ids], dtype="<i8").tobytes())
        digest.update(bytes(document.trained))
    return digest.hexdigest()
