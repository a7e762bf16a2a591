"""One vector per document of a batch, with gradients: what `embed` gives, or the state that has seen all of it.

mean: the average of a document's states over the tokens that `embed` averages (an encoder's last layer with its
special tokens; the layer of a causal model that `CausalLM.embed` takes, without the start token; never those of
a soft prompt), not scaled.
last: the final state of a document's last token, the only one of a causal model that has seen the whole text.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from tutelage.core.errors import InputError
from tutelage.models.encode import Encoded, lead
from tutelage.models.packing import TokenBatch

Pooling = Literal["mean", "last"]
BEGINS = "begins"


def encode_whole(
    model: Any, text: str, max_length: int, *, example_id: str = "", facts: dict[str, float] | None = None
) -> Encoded:
    """A text to be pooled, cut to `max_length` tokens, none of them trained as a token; `facts` are numbers of the
    document, which `document_values` finds again in a batch. A soft prompt stands before everything else and is
    part of `max_length`. Raises InputError for a text without tokens or without room."""
    encoder = model.kind == "encoder"
    head = list(model.soft_ids) if encoder else lead(model)
    special = model.tokenizer.num_special_tokens_to_add() if encoder else 0
    room = max_length - len(head)
    if room <= special:
        raise InputError(
            "there is no room for the text",
            where=f"row {example_id}",
            expected=f"max_length of at least {len(head) + special + 1}, start tokens and soft prompt included",
            found=max_length,
        )
    if encoder:
        whole = head + list(model.tokenizer(text, verbose=False)["input_ids"])
        ids = head + list(model.tokenizer(text, truncation=True, max_length=room, verbose=False)["input_ids"])
    else:
        whole = head + list(model.tokenize([text])[0])
        ids = whole[:max_length]
    if len(ids) <= len(head):
        raise InputError(
            "a text without any token cannot be embedded",
            where=f"row {example_id}",
            found=repr(text),
            remedy="drop empty rows first",
        )
    n = len(ids)
    columns = {name: [float(value)] * n for name, value in (facts or {}).items()}
    columns[BEGINS] = [1.0] * len(head) + [0.0] * (n - len(head))
    return Encoded(ids, [False] * n, example_id, cut=len(whole) - n, columns=columns)


def owners(batch: TokenBatch) -> tuple[Tensor, int]:
    """([B * T] number of each token's document, rows in order, that of padding one beyond the last; documents)."""
    counts = [len(row) for row in batch.example_ids]
    offsets = torch.tensor([0, *counts[:-1]], device=batch.segment_ids.device).cumsum(0)
    index = (batch.segment_ids + offsets[:, None]).masked_fill(batch.segment_ids < 0, sum(counts))
    return index.reshape(-1), sum(counts)


def last_positions(batch: TokenBatch) -> Tensor:
    """[documents]: the flattened position of each document's last token."""
    index, count = owners(batch)
    at = torch.arange(len(index), device=index.device)
    return torch.zeros(count + 1, dtype=at.dtype, device=at.device).scatter_reduce(0, index, at, "amax")[:count]


def document_values(batch: TokenBatch, name: str) -> Tensor:
    """[documents] float32: the number that each document was encoded with."""
    return batch.columns[name].reshape(-1)[last_positions(batch)]


def pooled(model: Any, batch: TokenBatch, how: Pooling = "mean") -> Tensor:
    """[documents, d] float32, documents in the order of the batch; differentiable where gradients are enabled."""
    if how == "last":
        states = model.final_hidden(batch)
        return states.reshape(-1, states.shape[-1])[last_positions(batch)].float()
    states = _embedding_states(model, batch)
    index, count = owners(batch)
    index = torch.where(batch.columns[BEGINS].reshape(-1) > 0, count, index)
    flat = states.reshape(-1, states.shape[-1]).float()
    sums = flat.new_zeros(count + 1, flat.shape[-1]).index_add(0, index, flat)
    sizes = flat.new_zeros(count + 1).index_add(0, index, torch.ones_like(flat[:, 0]))
    return sums[:count] / sizes[:count, None]


def _embedding_states(model: Any, batch: TokenBatch) -> Tensor:
    """[B, T, d]: the states that the model's `embed` averages."""
    if model.kind == "encoder":
        return model.final_hidden(batch)
    from tutelage.models.states import capture

    return capture(model, batch, round(2 * model.config.get_text_config().num_hidden_layers / 3))
