"""What every objective returns, and how values of tokens become one sum and one weight.

With token values l_it, mask m_it, n_i = sum_t m_it and B documents with n_i > 0, the modes are
  token:    sum_it m_it l_it                 / sum_i n_i
  sequence: sum_i (1/n_i) sum_t m_it l_it    / B
  constant: sum_it m_it l_it                 / (B * length)
  sum:      sum_it m_it l_it                 / B
An objective returns numerator and denominator of its micro-batch; the trainer adds both over the whole optimiser
step and divides once, so that accumulation never changes the objective.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from tutelage.core.errors import ConfigError, suggest

if TYPE_CHECKING:
    from torch import Tensor

Aggregation = Literal["token", "sequence", "constant", "sum"]
MODES = ("token", "sequence", "constant", "sum")


@dataclass(frozen=True)
class Loss:
    """`sum`: scalar tensor to differentiate; `weight`: what the step's total is divided by; `metrics`: sums to
    log, divided by the same weight; `per_example` [documents]: each document's part of `sum`, in order."""

    sum: "Tensor"
    weight: float
    metrics: dict[str, float] = field(default_factory=dict)
    per_example: "Tensor | None" = None


def aggregate(
    values: "Tensor", mask: "Tensor", documents: "Tensor", *, mode: str = "token", length: int = 0
) -> tuple["Tensor", float]:
    """Per-document numerators [documents] and the denominator of one micro-batch.

    `values` float, `mask` bool and `documents` integer share one shape; `documents` numbers each token's document
    from 0 (masked tokens may hold anything). `length` is the constant of mode "constant", in tokens.
    """
    if mode not in MODES:
        raise ConfigError(f"there is no aggregation {mode!r}", where="mode", remedy=suggest(mode, MODES))
    if mode == "constant" and length < 1:
        raise ConfigError(
            "aggregation constant needs a length", where="length", expected="at least 1 token", found=length
        )
    flat, kept, owner = values.reshape(-1), mask.reshape(-1), documents.reshape(-1)
    count = int(owner[kept].max()) + 1 if bool(kept.any()) else 0
    sums = flat.new_zeros(count).index_add(0, owner[kept], flat[kept])
    sizes = flat.new_zeros(count).index_add(0, owner[kept], flat.new_ones(int(kept.sum())))
    filled = int((sizes > 0).sum())
    if mode == "token":
        return sums, float(sizes.sum())
    if mode == "sequence":
        return sums / sizes.clamp(min=1.0), float(filled)
    return sums, float(filled * length if mode == "constant" else filled)


def documents_of(batch: Any) -> "Tensor":
    """[B, T]: the number of each token's document, counted over the rows of a `TokenBatch`; -1 is padding."""
    import torch

    counts = torch.tensor([0] + [len(row) for row in batch.example_ids[:-1]], device=batch.segment_ids.device)
    return torch.where(batch.segment_ids >= 0, batch.segment_ids + counts.cumsum(0)[:, None], -1)


def cross_entropy(model: Any, batch: Any, *, mode: str = "token", length: int = 0) -> Loss:
    """-log p of the labelled tokens times their weights, aggregated over the documents of the batch."""
    values = -model.token_logps(batch) * batch.token_weight
    per_example, weight = aggregate(values, batch.response_mask, documents_of(batch), mode=mode, length=length)
    return Loss(per_example.sum(), weight, per_example=per_example)
