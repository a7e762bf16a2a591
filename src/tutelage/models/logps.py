"""The only place where logits become log-probabilities.

log p(x_t | x_<t) = z_t[x_t] - log sum_v exp z_t[v], z_t = (W h_{t-1} + b) / temperature, in float32. Only
positions with a label are computed, and the head is applied in blocks of positions x vocabulary that stay in the
processor's cache, so no [batch, sequence, vocabulary] tensor ever exists. Where the head is one linear map, the
same pass also accumulates J_t = d log p / d h = (W[x_t] - sum_v p_v W[v]) / temperature, [tokens, d]: backward is
then one product with the incoming gradient, whatever the weights of the tokens, and only a trained head computes
its logits twice.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tutelage.models import attention
from tutelage.models.head import Head
from tutelage.models.packing import TokenBatch, forward_inputs

if TYPE_CHECKING:
    from tutelage.models.causal import CausalLM

# Measured on a 2-core server: 256 x 4,096 runs at nine tenths of the bare matrix product's speed.
TOKENS = 256
WORDS = 4096


class TokenStats(NamedTuple):
    """Per token [B, T] float32, 0 where there is no label: `logp`; `entropy` in nats of the predictive
    distribution; `margin` p(1st) - p(2nd); `rank` of the true token, 1 = most likely."""

    logp: Tensor
    entropy: Tensor
    margin: Tensor
    rank: Tensor


def token_logps(model: "CausalLM", batch: TokenBatch, temperature: float = 1.0) -> Tensor:
    """[B, T] float32: log p of token t given its segment's tokens before t, where t has a label, else 0.

    Differentiable where gradients are enabled; the gradient may be weighted per token in any way.
    """
    rows, columns = batch.response_mask.nonzero(as_tuple=True)
    head = model.head
    targets = batch.input_ids[rows, columns]
    if head is None:
        logits = own_logits(model, batch)[rows, columns - 1]
        found = _logps(logits.float() / temperature, targets)
    else:
        hidden = model.final_hidden(batch)[rows, columns - 1]
        found = head_logps(head, hidden, targets, temperature)
    return found.new_zeros(batch.shape).index_put((rows, columns), found)


def head_logps(head: Head, hidden: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """[n] float32 log-probabilities of `targets` [n] under the head's logits of `hidden` [n, d]."""
    if not len(targets):
        return hidden.sum(1, dtype=torch.float32)
    if head.linear:
        weight, bias = head.module.weight, head.module.bias
        return _LinearLogps.apply(hidden, weight, bias, targets, head.scale / temperature)
    parts = []
    for at in range(0, len(targets), TOKENS):
        here = slice(at, at + TOKENS)
        if torch.is_grad_enabled():
            parts.append(
                checkpoint(_head_chunk, head, hidden[here], targets[here], temperature, use_reentrant=False)
            )
        else:
            parts.append(_head_chunk(head, hidden[here], targets[here], temperature))
    return torch.cat(parts)


def own_logits(model: "CausalLM", batch: TokenBatch) -> Tensor:
    """[B, T, V] from the model's own forward pass, for heads that are not recognised."""
    model.charge_forward(batch.n_tokens)
    inputs = forward_inputs(batch, model.isolation, model.dtype)
    return model.module(**inputs).logits


@torch.no_grad()
def choice_logps(
    model: "CausalLM",
    batch: TokenBatch,
    units: list[attention.Unit],
    predictors: list[int],
    targets: Tensor,
) -> tuple[Tensor, Tensor]:
    """(log p [n] float32, likeliest token [n]) of `targets` [n], each predicted by the state at a flattened
    position of `batch`; `units` is the attention layout under "documents" isolation. A state is put through the
    head once, however many targets it predicts.
    """
    model.charge_forward(batch.n_tokens)
    inputs = forward_inputs(batch, model.isolation, model.dtype)
    if model.isolation == "documents":
        inputs["attention_mask"] = attention.pack_mask(batch.segment_ids, units)
    head = model.head
    states = model.module(**inputs).logits if head is None else model.final_states(inputs)
    unique, index = torch.unique(torch.tensor(predictors, device=states.device), return_inverse=True)
    rows = states.reshape(-1, states.shape[-1])[unique]
    found = torch.empty(len(targets), device=states.device)
    best = torch.empty(len(targets), dtype=torch.long, device=states.device)
    for at in range(0, len(rows), TOKENS // 4):
        logits = rows[at : at + TOKENS // 4].float() if head is None else head(rows[at : at + TOKENS // 4])
        sums, top = logits.logsumexp(1), logits.argmax(1)
        here = ((index >= at) & (index < at + len(logits))).nonzero()[:, 0]
        local = index[here] - at
        rounded = logits[local, targets[here]]
        true = rounded
        if head is not None and head.linear and rows.dtype != torch.float32:
            layer = head.module
            true = _exact_logits(rows[index[here]], layer.weight, layer.bias, targets[here]) * head.scale
        # The exact logit also takes the rounded one's place in the sum, so that p stays below 1.
        total = sums[local] + torch.log1p((true - sums[local]).exp() - (rounded - sums[local]).exp())
        found[here] = true - total
        best[here] = top[local]
    return found, best


def _logps(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)


def _head_chunk(head: Head, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    return _logps(head(hidden) / temperature, targets)


class _LinearLogps(torch.autograd.Function):
    """log softmax(scale * (W h + b))[target] for n states, over blocks of positions and of the vocabulary."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, scale: float
    ) -> Tensor:
        n, V = len(targets), weight.shape[0]
        want = any(ctx.needs_input_grad[:3])
        logps = torch.empty(n, dtype=torch.float32, device=hidden.device)
        sums = torch.empty(n, dtype=torch.float32, device=hidden.device)
        jacobian = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        for at in range(0, n, TOKENS):
            here = slice(at, min(at + TOKENS, n))
            h = hidden[here]
            top = torch.full((len(h),), -torch.inf, device=hidden.device)
            total = torch.zeros(len(h), device=hidden.device)
            mean = torch.zeros(h.shape, device=hidden.device) if jacobian is not None else None
            for v in range(0, V, WORDS):
                block = weight[v : v + WORDS]
                z = _scaled(h, block, bias, v, scale)
                higher = torch.maximum(top, z.amax(1))
                shrink = torch.exp(top - higher)
                z.sub_(higher[:, None]).exp_()
                total.mul_(shrink).add_(z.sum(1))
                if mean is not None:
                    mean.mul_(shrink[:, None]).add_(torch.mm(z.to(block.dtype), block).float())
                top = higher
            rows = weight[targets[here]]
            true = _exact_logits(h, weight, bias, targets[here]) * scale
            if weight.dtype != torch.float32:
                # The target's logit is exact here but was rounded in the sum: put the exact one in, so that
                # p <= 1 and a confident prediction is not off by half a unit in the last place of bfloat16.
                rounded = (true / scale).to(weight.dtype).float() * scale
                change = torch.exp(true - top) - torch.exp(rounded - top)
                total = (total + change).clamp_(min=torch.finfo(torch.float32).tiny)
                if mean is not None:
                    mean.addcmul_(change[:, None], rows.float())
            sums[here] = top + total.log()
            logps[here] = true - sums[here]
            if mean is not None and jacobian is not None:
                jacobian[here] = ((rows.float() - mean / total[:, None]) * scale).to(jacobian.dtype)
        if want:
            ctx.save_for_backward(hidden, weight, bias, targets, sums, jacobian)
            ctx.scale = scale
        return logps

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, sums, jacobian = ctx.saved_tensors
        grad = grads[0]
        for_hidden = jacobian * grad[:, None].to(jacobian.dtype) if jacobian is not None else None
        for_weight = for_bias = None
        if ctx.needs_input_grad[1] or (bias is not None and ctx.needs_input_grad[2]):
            for_weight = torch.zeros_like(weight)
            for_bias = torch.zeros_like(bias) if bias is not None else None
            for v in range(0, weight.shape[0], WORDS):
                block = weight[v : v + WORDS]
                z = _scaled(hidden, block, bias, v, ctx.scale)
                # d(sum of grad * logp)/dz = grad * (onehot - p)
                z.sub_(sums[:, None]).exp_().mul_(-grad[:, None])
                inside = ((targets >= v) & (targets < v + len(block))).nonzero()[:, 0]
                z[inside, targets[inside] - v] += grad[inside]
                z.mul_(ctx.scale)
                for_weight[v : v + WORDS] = torch.mm(z.to(hidden.dtype).T, hidden)
                if for_bias is not None:
                    for_bias[v : v + WORDS] = z.sum(0)
        return for_hidden, for_weight, for_bias, None, None


def _exact_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """[n] float32 logit of each state's target: a bfloat16 product would round it to 8 bits."""
    true = (hidden.float() * weight[targets].float()).sum(1)
    return true if bias is None else true + bias[targets].float()


def _scaled(hidden: Tensor, block: Tensor, bias: Tensor | None, start: int, scale: float) -> Tensor:
    """Logits [n, words] float32 of one block of the vocabulary, a fresh tensor."""
    z = torch.mm(hidden, block.T)
    z = z.float() if z.dtype != torch.float32 else z
    if bias is not None:
        z.add_(bias[start : start + len(block)].float())
    return z.mul_(scale) if scale != 1.0 else z


@torch.no_grad()
def token_stats(model: "CausalLM", batch: TokenBatch, temperature: float = 1.0) -> TokenStats:
    """Log-probability, entropy, margin and rank of every labelled token, chunked like `token_logps`."""
    rows, columns = batch.response_mask.nonzero(as_tuple=True)
    targets = batch.input_ids[rows, columns]
    head = model.head
    if head is None:
        states = own_logits(model, batch)[rows, columns - 1]
    else:
        states = model.final_hidden(batch)[rows, columns - 1]
    found = torch.zeros(4, len(targets), device=states.device)
    # One row of logits needs several copies here: smaller chunks keep them in the cache.
    step = TOKENS // 4
    for at in range(0, len(targets), step):
        here = slice(at, at + step)
        logits = states[here].float() if head is None else head(states[here])
        logits = logits / temperature
        true = logits.gather(1, targets[here, None])
        logp = torch.log_softmax(logits, dim=1)
        p = logp.exp()
        best = p.topk(min(2, p.shape[1]), dim=1).values
        found[0, here] = logp.gather(1, targets[here, None])[:, 0]
        # p is never exactly 0 times infinity: where it underflows, entr gives 0.
        found[1, here] = -(p * logp.clamp(min=torch.finfo(torch.float32).min)).sum(1)
        found[2, here] = best[:, 0] - best[:, -1] if p.shape[1] > 1 else best[:, 0]
        found[3, here] = (logits > true).sum(1) + 1
    out = torch.zeros(4, *batch.shape, device=states.device)
    out[:, rows, columns] = found
    return TokenStats(out[0], out[1], out[2], out[3])
