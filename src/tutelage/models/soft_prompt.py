"""Trained vectors in front of every document, as tokens that the vocabulary does not have.

The P vectors of a prompt are the token ids V ... V + P - 1, V the rows of the embedding table. They are encoded
with a document like its own tokens, so that packs, positions, masks, lengths and costs know nothing of them; only
the table does, which gives vector i for id V + i. That is what PEFT's prompt tuning computes for one document (its
vectors stand before the start token, too), and it is PEFT's layout on disk; PEFT's own forward pass puts its
vectors before a whole row, and a row here may hold many documents.
"""

from typing import Any

import torch
from torch import Tensor, nn

# What the parameters of a PEFT prompt are called.
PROMPT = "prompt_encoder"


class _Spliced(nn.Embedding):
    """Put before a table's own class: ids beyond its rows are the prompt's."""

    # In a tuple, because the prompt is registered elsewhere and has one name.
    spliced: tuple[nn.Embedding]

    def forward(self, input: Tensor) -> Tensor:
        rows = self.weight.shape[0]
        soft = input >= rows
        found = super().forward(input.masked_fill(soft, 0))
        values = self.spliced[0]((input - rows).clamp(min=0))
        return torch.where(soft[..., None], values.to(found.dtype), found)


def is_soft(module: Any) -> bool:
    """Whether a module is a PEFT model with a prompt of its own vectors."""
    return any(config.is_prompt_learning for config in getattr(module, "peft_config", {}).values())


def soft_ids(module: Any) -> list[int]:
    """The ids of a model's prompt, in order; none without one."""
    if not is_soft(module):
        return []
    rows = module.get_base_model().get_input_embeddings().weight.shape[0]
    return list(range(rows, rows + module.active_peft_config.num_virtual_tokens))


def splice(module: Any) -> None:
    """Let the embedding table of a PEFT model (changed in place) give the vectors of its prompt."""
    table = module.get_base_model().get_input_embeddings()
    table.spliced = (module.prompt_encoder[module.active_adapter].embedding,)
    table.__class__ = type(f"Spliced{type(table).__name__}", (_Spliced, type(table)), {})
