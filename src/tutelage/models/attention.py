"""Per-document attention for packed rows, as one attention implementation of transformers ("tutelage").

A pack travels as its segment ids in a 4-D integer "mask" [B, 1, 1, T], which transformers hands through to the
attention function untouched. Each document attends to itself alone: documents of like length are gathered into
a small dense batch and softmax(q k^T * scale + causal) v is computed there, which on a processor is several
times faster than one masked T x T attention, and gives each document the same bits whatever its neighbours
hold. A float or boolean mask (generation, padding) is passed on to the ordinary implementation.
"""

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "tutelage"
# Above this many tokens half of a dense score matrix, what lies ahead, is worth not computing.
LONG = 512
# A processor does so faster in pieces of this many queries, each with all before it as its prefix, than by the
# fused kernel, whose backward pass is slow there; but the pieces keep their weights, and above the second number
# that is too much memory.
PIECE, FUSED_FROM = 256, 2048
# Without gradients nothing is kept, whatever the length, and shorter pieces leave more of what lies ahead out.
SCORED = 128


@dataclass(frozen=True)
class Unit:
    """Queries [start, start + length) see themselves causally, and all keys of their prefix, if any: those of
    [before_start, before_start + before), then those of [prefix_start, prefix_start + prefix)."""

    start: int
    length: int
    prefix_start: int = 0
    prefix: int = 0
    before_start: int = 0
    before: int = 0

    @property
    def seen(self) -> int:
        """How many keys the prefix has."""
        return self.before + self.prefix


@dataclass
class _Bucket:
    """Units of like length as one dense batch: rows to gather for queries and keys, and the additive mask."""

    queries: Tensor  # [n, L] token index; padding rows repeat a valid one
    keys: Tensor  # [n, P + L]
    mask: Tensor  # [1 or n, L, P + L] float, 0 or -inf
    lengths: list[int]
    prefixes: list[int]
    causal_only: bool
    even: bool  # all prefixes are equally long


class Layout:
    """Where the documents of a pack lie in the flattened tokens, with the gather plans built once per pack."""

    def __init__(self, units: list[Unit], tokens: int, device: torch.device) -> None:
        self.tokens, self.documents = tokens, units
        units = [piece for unit in units for piece in _pieces(unit)] if device.type == "cpu" else units
        self.buckets = [_bucket(group, device) for group in _groups(units)]
        # Row of the concatenated bucket outputs that holds each token; padding tokens point at an extra zero row.
        rows = sum(b.queries.numel() for b in self.buckets)
        back = torch.full((tokens,), rows, dtype=torch.long)
        at = 0
        for bucket in self.buckets:
            width = bucket.queries.shape[1]
            flat = bucket.queries.cpu()
            for i, length in enumerate(bucket.lengths):
                back[flat[i, :length]] = torch.arange(at + i * width, at + i * width + length)
            at += flat.numel()
        self.back = back.to(device)

    @functools.cached_property
    def places(self) -> list[Tensor]:
        """[n, L] per bucket: the token of each query, and the number of tokens where a row is padding."""
        found = []
        for bucket in self.buckets:
            beyond = torch.arange(bucket.queries.shape[1])[None] >= torch.tensor(bucket.lengths)[:, None]
            found.append(bucket.queries.masked_fill(beyond.to(bucket.queries.device), self.tokens))
        return found


def segment_units(segments: Tensor) -> list[Unit]:
    """Units of a [B, T] segment tensor, positions counted in the flattened B*T tokens; negative = padding."""
    flat = segments.reshape(-1).tolist()
    width = segments.shape[-1]
    units = []
    start = 0
    for i in range(1, len(flat) + 1):
        if i == len(flat) or flat[i] != flat[start] or i % width == 0:
            if flat[start] >= 0:
                units.append(Unit(start, i - start))
            start = i
    return units


def pack_mask(segments: Tensor, units: list[Unit] | None = None) -> Tensor:
    """The integer tensor [B, 1, 1, T] to pass as `attention_mask`; `units` for a layout with shared prefixes."""
    mask = segments.to(torch.int32)[:, None, None, :]
    mask.plan = Layout(units or segment_units(segments), segments.numel(), segments.device)  # type: ignore[attr-defined]
    return mask


def additive_mask(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """[B, 1, T, T]: 0 where a token may look (causal and same segment), the lowest number of `dtype` elsewhere."""
    length = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    mask = torch.zeros(segments.shape[0], 1, length, length, dtype=dtype, device=segments.device)
    return mask.masked_fill_(~(same & causal)[:, None], torch.finfo(dtype).min)


def _pieces(unit: Unit) -> list[Unit]:
    """A long unit as several, each with the tokens before it as prefix; another as it is."""
    trains = torch.is_grad_enabled()
    piece, longest = (PIECE, LONG) if trains else (SCORED, SCORED)
    if unit.before or (trains and unit.prefix) or unit.length <= longest or (trains and unit.length > FUSED_FROM):
        return [unit]
    cuts = range(0, unit.length, piece)
    own = (unit.prefix_start, unit.prefix)
    return [Unit(unit.start + at, min(piece, unit.length - at), unit.start, at, *own) for at in cuts]


def even_width(length: int) -> int:
    """The next multiple of 16, above 128 of an eighth to a quarter of the length: a document is computed in one
    width whatever stands beside it in its pack, so that its states have the same bits in every pack."""
    step = max(16, 1 << max((length - 1).bit_length() - 3, 0))
    return -(-length // step) * step


def _groups(units: list[Unit]) -> list[list[Unit]]:
    """Those of one width (and prefix) together where gradients are wanted. Else sorted by length, and cut where
    padding to the longest of the group would waste more than a quarter."""
    ordered = sorted(units, key=lambda u: (u.length, u.seen, u.start))
    groups: list[list[Unit]] = []
    if torch.is_grad_enabled():
        alike: dict[tuple[int, int], list[Unit]] = {}
        for unit in ordered:
            alike.setdefault((even_width(unit.length), unit.seen), []).append(unit)
        return list(alike.values())
    for unit in ordered:
        first = groups[-1][0] if groups else None
        near = first is not None and unit.length <= max(first.length * 1.25, first.length + 8)
        # What is computed in vain for the prefix of a short unit costs less than another batch of its own.
        slack = max(16, first.seen // 4) if first is not None and unit.length < SCORED // 2 else 16
        near = near and first is not None and abs(unit.seen - first.seen) <= slack
        if near:
            groups[-1].append(unit)
        else:
            groups.append([unit])
    return groups


def _bucket(group: list[Unit], device: torch.device) -> _Bucket:
    width = max(u.length for u in group)
    width = even_width(width) if torch.is_grad_enabled() else width
    prefix = max(u.seen for u in group)
    queries = torch.empty(len(group), width, dtype=torch.long)
    keys = torch.zeros(len(group), prefix + width, dtype=torch.long)
    for i, unit in enumerate(group):
        own = unit.start + torch.arange(width).clamp_(max=unit.length - 1)
        queries[i] = own
        keys[i, prefix:] = own
        keys[i, : unit.before] = unit.before_start + torch.arange(unit.before)
        keys[i, unit.before : unit.seen] = unit.prefix_start + torch.arange(unit.prefix)
    hidden = torch.ones(width, width, dtype=torch.bool).triu(1)
    if prefix:
        # Left-aligned prefixes: slots beyond a unit's own prefix are hidden from all its queries.
        beyond = torch.arange(prefix)[None, :] >= torch.tensor([u.seen for u in group])[:, None]
        hidden = torch.cat([beyond[:, None, :].expand(-1, width, -1), hidden.expand(len(group), -1, -1)], dim=2)
    else:
        hidden = hidden[None]
    mask = torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))
    lengths, prefixes = [u.length for u in group], [u.seen for u in group]
    return _Bucket(
        queries.to(device),
        keys.to(device),
        mask.to(device),
        lengths,
        prefixes,
        causal_only=not prefix,
        even=len(set(prefixes)) == 1,
    )


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function registered with transformers; q [B, H, T, D], k and v [B, Hkv, T, D] -> [B, T, H, D]."""
    if attention_mask is None or attention_mask.dtype != torch.int32:
        if kwargs.get("softcap"):
            return _dense(query, key, value, attention_mask, scaling, kwargs["softcap"], dropout), None
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return out, None
    layout = getattr(attention_mask, "plan", None)
    if layout is None or layout.back.device != query.device:
        layout = pack_mask(attention_mask[:, 0, 0].to(query.device)).plan  # type: ignore[attr-defined]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return packed_attention(
        query, key, value, layout, scale, kwargs.get("softcap"), kwargs.get("sliding_window"), dropout
    ), None


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scale: float,
    softcap: float | None = None,
    window: int | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of every unit of `layout` to itself and its prefix; q [B, H, T, D] -> [B, T, H, D]."""
    B, H, T, D = query.shape
    kv_heads = key.shape[1]
    groups = H // kv_heads
    q = query.transpose(0, 1).reshape(H, B * T, D)
    k = key.transpose(0, 1).reshape(kv_heads, B * T, D)
    v = value.transpose(0, 1).reshape(kv_heads, B * T, value.shape[-1])
    found = []
    for bucket in layout.buckets:
        n, width = bucket.queries.shape
        qb = q.index_select(1, bucket.queries.reshape(-1)).view(kv_heads, groups, n, width, D)
        kb = k.index_select(1, bucket.keys.reshape(-1)).view(kv_heads, n, -1, D)
        vb = v.index_select(1, bucket.keys.reshape(-1)).view(kv_heads, n, -1, v.shape[-1])
        short_window = window is not None and window < bucket.keys.shape[1]
        if width > LONG and bucket.causal_only and not softcap and not short_window and not dropout:
            out = nn.functional.scaled_dot_product_attention(
                qb.reshape(H, n, width, D).transpose(0, 1),
                kb[:, None].expand(-1, groups, -1, -1, -1).reshape(H, n, width, D).transpose(0, 1),
                vb[:, None].expand(-1, groups, -1, -1, -1).reshape(H, n, width, -1).transpose(0, 1),
                is_causal=True,
                scale=scale,
            ).transpose(0, 1)
        else:
            # The query heads of one key head are rows of one product: its keys are read once, not once a head.
            rows = (qb * scale).transpose(1, 2).reshape(kv_heads * n, groups * width, D)
            scores = torch.bmm(rows, kb.flatten(0, 1).transpose(1, 2))
            if softcap:
                scores = torch.tanh(scores / softcap) * softcap
            mask = (_windowed(bucket, window) if short_window else bucket.mask).to(scores.dtype)
            # A prefix as long as it is wide hides nothing: only what lies ahead is left to add.
            even = bucket.even and not short_window and not torch.is_grad_enabled()
            ahead = slice(mask.shape[-1] - width if even else 0, None)
            scores.view(kv_heads, n, groups, width, -1)[..., ahead].add_(mask[:, None, :, ahead])
            weights = torch.softmax(scores, dim=-1)
            if dropout:
                weights = nn.functional.dropout(weights, dropout)
            out = torch.bmm(weights, vb.flatten(0, 1)).view(kv_heads, n, groups, width, -1).transpose(1, 2)
        found.append(out.reshape(H, n * width, -1))
    found.append(q.new_zeros(H, 1, v.shape[-1]))
    joined = torch.cat(found, dim=1).index_select(1, layout.back)
    return joined.view(H, B, T, -1).permute(1, 2, 0, 3)


def _dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float | None,
    softcap: float,
    dropout: float,
) -> Tensor:
    """Softly capped attention under an ordinary mask (the fused kernel has none): [B, H, T, D] -> [B, T, H, D]."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = torch.matmul(query, key.transpose(-1, -2)) * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = torch.tanh(scores / softcap) * softcap
    if mask is None:
        # Queries are the last positions of the keys; transformers leaves the mask out only when it is causal.
        shown = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device)
        mask = shown.tril(scores.shape[-1] - scores.shape[-2])
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    else:
        scores = scores + mask
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    if dropout:
        weights = nn.functional.dropout(weights, dropout)
    return torch.matmul(weights, value).transpose(1, 2)


def _windowed(bucket: _Bucket, window: int | None) -> Tensor:
    """The bucket's mask with keys `window` or more positions back hidden as well (sliding-window layers)."""
    assert window is not None
    width = bucket.queries.shape[1]
    prefix = bucket.keys.shape[1] - width
    place = torch.arange(width)[None] + torch.tensor(bucket.prefixes)[:, None]
    keys = torch.cat([torch.arange(prefix)[None].expand(len(place), -1), place], dim=1)
    far = place[:, :, None] - keys[:, None, :] >= window
    return bucket.mask.expand(len(place), -1, -1).masked_fill(far.to(bucket.mask.device), float("-inf"))


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
