"""Packs of whole documents that do not see each other, and the proof at load time that they do not.

Best-fit decreasing puts documents into rows of `max_length` tokens; positions restart at 0 in each document and
the first token of each is never trained. Isolation is per-document attention (`models.attention`), an explicit
4-D additive mask, or, for a model that fails both self-tests, one document per row (padding).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from tutelage.core.errors import InputError
from tutelage.models import attention
from tutelage.models.encode import Encoded

if TYPE_CHECKING:
    from tutelage.models.causal import CausalLM

Isolation = Literal["documents", "mask", "padding"]
IGNORE = -100


@dataclass(frozen=True)
class TokenBatch:
    """A batch of packed rows. All tensors are [B, T].

    `labels` equals `input_ids` where trained, -100 elsewhere (position t is predicted from t-1 of its segment);
    `response_mask` is the same as booleans; `segment_ids` count the documents of a row from 0, -1 is padding;
    `example_ids[b][s]` names segment s of row b; `lengths[b][s]` is its token count; `columns` are the documents'
    own numbers per token, 0 where a document has none.
    """

    input_ids: Tensor
    labels: Tensor
    response_mask: Tensor
    token_weight: Tensor
    position_ids: Tensor
    segment_ids: Tensor
    example_ids: tuple[tuple[str, ...], ...]
    lengths: tuple[tuple[int, ...], ...]
    columns: dict[str, Tensor] = field(default_factory=dict)

    @property
    def n_tokens(self) -> int:
        """Real tokens, padding not counted."""
        return sum(sum(row) for row in self.lengths)

    @property
    def n_trained(self) -> int:
        """Tokens with a label."""
        return int(self.response_mask.sum())

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and padded length."""
        rows, length = self.input_ids.shape
        return rows, length

    def to(self, device: torch.device | str) -> "TokenBatch":
        """The same batch on another device."""
        moved = {
            name: getattr(self, name).to(device)
            for name in (
                "input_ids",
                "labels",
                "response_mask",
                "token_weight",
                "position_ids",
                "segment_ids",
            )
        }
        columns = {name: column.to(device) for name, column in self.columns.items()}
        return replace(self, **moved, columns=columns)

    def rows(self, start: int, stop: int) -> "TokenBatch":
        """A batch of some of the rows (for halving a micro-batch)."""
        return TokenBatch(
            self.input_ids[start:stop],
            self.labels[start:stop],
            self.response_mask[start:stop],
            self.token_weight[start:stop],
            self.position_ids[start:stop],
            self.segment_ids[start:stop],
            self.example_ids[start:stop],
            self.lengths[start:stop],
            {name: column[start:stop] for name, column in self.columns.items()},
        )


def best_fit(lengths: Sequence[int], max_length: int) -> list[list[int]]:
    """Best-fit decreasing: bins of item indices whose lengths sum to at most `max_length`.

    Raises InputError for an item longer than `max_length`.
    """
    for i, length in enumerate(lengths):
        if length > max_length:
            raise InputError(
                "a document is longer than a pack",
                where=f"item {i}",
                expected=f"at most {max_length} tokens",
                found=f"{length} tokens",
                remedy="truncate or split it first (models.encode does both)",
            )
    free: list[list[int]] = [[] for _ in range(max_length + 1)]  # open bins by free space
    bins: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[i]
        space = next((s for s in range(length, max_length + 1) if free[s]), None)
        if space is None:
            bins.append([i])
            free[max_length - length].append(len(bins) - 1)
        else:
            chosen = free[space].pop()
            bins[chosen].append(i)
            free[space - length].append(chosen)
    return bins


def even_size(lengths: Sequence[int], max_length: int) -> int:
    """The smallest size of a pack, in sixteenths from even shares to `max_length`, that needs no more packs."""
    count = len(best_fit(lengths, max_length))
    least = max(-(-sum(lengths) // count), max(lengths))
    sizes = (least + (max_length - least) * part // 16 for part in range(16))
    return next((size for size in sizes if len(best_fit(lengths, size)) == count), max_length)


def pack(
    documents: Sequence[Encoded],
    max_length: int,
    *,
    rows: int = 1,
    pad_id: int = 0,
    isolation: Isolation = "documents",
    together: Sequence[int] | None = None,
) -> list[TokenBatch]:
    """Batches of `rows` packs of at most `max_length` tokens; with `isolation="padding"` one document per row.

    `together`: sizes of groups of consecutive documents that share a batch, where they stand side by side in their
    order (by default every document is alone). A group of more than `rows` padded documents is a batch of its own.
    """
    ends = list(accumulate([1] * len(documents) if together is None else together))
    groups = [documents[end - size : end] for end, size in zip(ends, [b - a for a, b in pairwise([0, *ends])])]
    if isolation == "padding":
        order = sorted(range(len(groups)), key=lambda i: (-max(len(d) for d in groups[i]), i))
        batches: list[list[Sequence[Encoded]]] = []
        for i in order:
            if not batches or len(batches[-1]) + len(groups[i]) > rows:
                batches.append([])
            batches[-1] += [[document] for document in groups[i]]
    else:
        bins = best_fit([sum(len(d) for d in group) for group in groups], max_length)
        packs = [[document for i in b for document in groups[i]] for b in bins]
        batches = [list(packs[at : at + rows]) for at in range(0, len(packs), rows)]
    return [collate(batch, pad_id=pad_id) for batch in batches]


def collate(packs: Sequence[Sequence[Encoded]], *, pad_id: int = 0, side: str = "right") -> TokenBatch:
    """One batch of the given packs, each a sequence of documents, padded to the longest (`side` right or left)."""
    length = max((sum(len(d) for d in pack_) for pack_ in packs), default=0)
    if length == 0:
        raise InputError("a batch has no tokens", expected="at least one document with tokens", found="none")
    shape = (len(packs), length)
    ids = torch.full(shape, pad_id, dtype=torch.long)
    labels = torch.full(shape, IGNORE, dtype=torch.long)
    weight = torch.ones(shape, dtype=torch.float32)
    positions = torch.zeros(shape, dtype=torch.long)
    segments = torch.full(shape, -1, dtype=torch.long)
    columns = {
        name: torch.zeros(shape, dtype=torch.float32)
        for name in sorted({name for pack_ in packs for d in pack_ for name in d.columns or ()})
    }
    for b, documents in enumerate(packs):
        at = length - sum(len(d) for d in documents) if side == "left" else 0
        for s, document in enumerate(documents):
            n = len(document)
            here = slice(at, at + n)
            ids[b, here] = torch.tensor(document.ids, dtype=torch.long)
            trained = torch.tensor(document.trained, dtype=torch.bool)
            trained[:1] = False
            labels[b, here] = torch.where(trained, ids[b, here], IGNORE)
            if document.weights is not None:
                weight[b, here] = torch.tensor(document.weights, dtype=torch.float32)
            positions[b, here] = torch.arange(n)
            segments[b, here] = s
            for name, values in (document.columns or {}).items():
                columns[name][b, here] = torch.tensor(values, dtype=torch.float32)
            at += n
    return TokenBatch(
        ids,
        labels,
        labels != IGNORE,
        weight,
        positions,
        segments,
        tuple(tuple(d.example_id for d in pack_) for pack_ in packs),
        tuple(tuple(len(d) for d in pack_) for pack_ in packs),
        columns,
    )


def per_segment(values: Tensor, batch: TokenBatch) -> Tensor:
    """Sum [B, T] values over each segment: [documents], rows in order, segments in order within a row."""
    counts = [len(row) for row in batch.example_ids]
    offsets = torch.tensor([0, *counts[:-1]], device=values.device).cumsum(0)
    index = (batch.segment_ids + offsets[:, None]).masked_fill(batch.segment_ids < 0, sum(counts))
    summed = torch.zeros(sum(counts) + 1, dtype=values.dtype, device=values.device)
    return summed.index_add(0, index.reshape(-1), values.reshape(-1))[:-1]


def forward_inputs(batch: TokenBatch, isolation: Isolation, dtype: torch.dtype) -> dict[str, Any]:
    """The keyword arguments of a transformers forward pass for this batch under this isolation."""
    if isolation == "documents":
        mask = attention.pack_mask(batch.segment_ids)
    elif isolation == "mask":
        mask = attention.additive_mask(batch.segment_ids, dtype)
    else:
        mask = (batch.segment_ids >= 0).long()
    return {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        "attention_mask": mask,
        "use_cache": False,
    }


@torch.no_grad()
def self_test(model: "CausalLM") -> str | None:
    """None if packs are isolated under the model's current isolation, else what is wrong.

    (1) In any precision: changing one document of a pack leaves the others' states bit for bit as they were.
    (2) Packed equals each document on its own through the architecture's own attention: within 1e-5 of the
    largest state in float32, 5e-2 in bfloat16 (which catches a feature of the attention that was left out).
    """
    config = model.config.get_text_config()
    if getattr(config, "attention_chunk_size", None):
        return "its attention works in chunks of positions"
    # A window on some layers shows only in a document longer than it; wider ones are taken on trust.
    window = getattr(config, "sliding_window", None) or 0
    middle = window + 5 if 0 < window <= 1024 else 13
    generator = torch.Generator().manual_seed(0)
    lengths = (9, middle, 6, middle)
    drawn = [torch.randint(0, config.vocab_size, (n,), generator=generator).tolist() for n in lengths]
    documents = [Encoded(ids, [False] * len(ids), "") for ids in drawn[:3]]
    changed = [documents[0], Encoded(drawn[3], [False] * middle, ""), documents[2]]

    def states(packs: list[list[Encoded]]) -> Tensor:
        batch = collate(packs, pad_id=model.pad_id).to(model.device)
        inputs = forward_inputs(batch, model.isolation, model.dtype)
        return model.base_module.base_model(**inputs).last_hidden_state.float()

    try:
        together, other = states([documents])[0], states([changed])[0]
        outside = torch.ones(len(together), dtype=torch.bool, device=together.device)
        outside[9 : 9 + middle] = False
        if not torch.equal(together[outside], other[outside]):
            return "changing one document of a pack changes the others"
        tolerance = (1e-5 if model.dtype == torch.float32 else 5e-2) * float(together.abs().max())
        with model.own_attention():
            alone = torch.cat(
                [
                    model.base_module.base_model(
                        input_ids=torch.tensor([d.ids], device=model.device), use_cache=False
                    )
                    .last_hidden_state[0]
                    .float()
                    for d in documents
                ]
            )
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        return f"packs cannot be computed ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    worst = float((together - alone).abs().max())
    if not worst <= tolerance:
        return f"a packed document differs from the same document alone by {worst:.2g}"
    return None


def choose_isolation(model: "CausalLM") -> Isolation:
    """The fastest isolation that passes the self-test: per-document attention, an explicit mask, else padding."""
    reasons = []
    tried: tuple[Isolation, ...] = ("documents", "mask")
    for isolation in tried:
        model.use_isolation(isolation)
        reason = self_test(model)
        if reason is None:
            return isolation
        reasons.append(f"{isolation}: {reason}")
    model.use_isolation("padding")
    warnings.warn(
        f"{model.name}: documents cannot be packed, one is padded per row instead ({'; '.join(reasons)})",
        stacklevel=3,
    )
    return "padding"
