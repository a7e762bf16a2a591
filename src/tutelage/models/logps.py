"""The only place where logits become log-probabilities.

log p(x_t | x_<t) = (z_t[x_t] - logsumexp_v z_t[v]), z_t = (W h_{t-1} + b) / temperature, in float32. The final
hidden states are multiplied by the head in chunks of positions, so no [batch, sequence, vocabulary] tensor ever
exists; only positions with a label are computed. A model whose head does more than one linear map (soft caps,
scales) is recognised by comparing this path with its own logits, and then goes through its own forward.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from tutelage.models.packing import TokenBatch

if TYPE_CHECKING:
    from tutelage.models.causal import CausalLM

# Rows of logits computed at once: 256 x 49,152 float32 are 50 MB.
CHUNK = 256


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
    hidden, logits = predictions(model, batch, rows, columns)
    targets = batch.input_ids[rows, columns]
    found = logits(hidden, targets, temperature)
    out = found.new_zeros(batch.shape)
    return out.index_put((rows, columns), found)


def predictions(model: "CausalLM", batch: TokenBatch, rows: Tensor, columns: Tensor) -> tuple[Tensor, Any]:
    """Hidden states that predict the tokens at (rows, columns), and a function of them giving log-probabilities."""
    states = model.final_hidden(batch)
    hidden = states[rows, columns - 1]
    head = model.head

    def logps(hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
        parts = []
        for at in range(0, len(targets), CHUNK):
            piece = (hidden[at : at + CHUNK], targets[at : at + CHUNK], temperature)
            if torch.is_grad_enabled() and hidden.requires_grad:
                parts.append(torch.utils.checkpoint.checkpoint(_chunk, head, *piece, use_reentrant=False))
            else:
                parts.append(_chunk(head, *piece))
        return torch.cat(parts) if parts else hidden.sum(dtype=torch.float32)[None][:0]

    return hidden, logps


def _chunk(head: Any, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    logits = head(hidden).float() / temperature
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)


@torch.no_grad()
def token_stats(model: "CausalLM", batch: TokenBatch, temperature: float = 1.0) -> TokenStats:
    """Log-probability, entropy, margin and rank of every labelled token, chunked like `token_logps`."""
    rows, columns = batch.response_mask.nonzero(as_tuple=True)
    hidden = model.final_hidden(batch)[rows, columns - 1]
    targets = batch.input_ids[rows, columns]
    found = torch.zeros(4, len(targets), device=hidden.device)
    for at in range(0, len(targets), CHUNK):
        logits = model.head(hidden[at : at + CHUNK]).float() / temperature
        true = logits.gather(1, targets[at : at + CHUNK, None])
        logp = torch.log_softmax(logits, dim=1)
        p = logp.exp()
        best = p.topk(min(2, p.shape[1]), dim=1).values
        here = slice(at, at + CHUNK)
        found[0, here] = logp.gather(1, targets[at : at + CHUNK, None])[:, 0]
        found[1, here] = torch.special.entr(p).sum(1)
        found[2, here] = best[:, 0] - best[:, -1]
        found[3, here] = (logits > true).sum(1) + 1
    out = torch.zeros(4, *batch.shape, device=hidden.device)
    out[:, rows, columns] = found
    return TokenStats(out[0], out[1], out[2], out[3])
