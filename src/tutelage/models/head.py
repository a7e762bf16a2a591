"""How a model turns its final hidden states into logits: one linear map, sometimes scaled or softly capped.

z = cap * tanh(scale * (W h + b) / cap), with scale 1 and no cap for most models. The form is read from the
configuration and then compared with the model's own logits on a few tokens; a model it does not fit goes through
its own forward pass, whose logits are then the only ones trusted.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Where architectures keep the factor on their logits; a divisor is inverted.
_FACTORS = (("logit_scale", 1), ("logits_scaling", -1), ("lm_head_multiplier", 1))


@dataclass(frozen=True)
class Head:
    """`module` is the output layer; `linear`: it is one plain linear map, so the fused path applies."""

    module: Any
    scale: float = 1.0
    cap: float | None = None
    linear: bool = True

    def __call__(self, hidden: Tensor) -> Tensor:
        """Hidden states [n, d] -> logits [n, V] float32."""
        logits = self.module(hidden).float()
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.cap is not None:
            logits = torch.tanh(logits / self.cap) * self.cap
        return logits


@torch.no_grad()
def find_head(base: Any) -> Head | None:
    """The head of a transformers causal model, or None where its logits come from something else."""
    module = base.get_output_embeddings()
    if module is None or not hasattr(base, "base_model"):
        return None
    config = base.config.get_text_config()
    scale = 1.0
    for name, power in _FACTORS:
        value = getattr(config, name, None)
        if isinstance(value, int | float) and value:
            scale = float(value) ** power
    cap = getattr(config, "final_logit_softcapping", None)
    # A layer with hooks or of a derived class (an adapter on the head) may compute more than W h + b.
    linear = type(module) is nn.Linear and not module._forward_hooks and not module._forward_pre_hooks
    head = Head(module, scale, float(cap) if cap else None, linear and not cap)
    return head if _agrees(base, head) else None


def _agrees(base: Any, head: Head) -> bool:
    """Whether the head gives the model's own logits on eight tokens."""
    device = next(base.parameters()).device
    ids = torch.arange(8, device=device)[None] % base.config.get_text_config().vocab_size
    modes = [(m, m.training) for m in base.modules()]
    base.eval()
    try:
        hidden = base.base_model(input_ids=ids, use_cache=False).last_hidden_state
        own = base(input_ids=ids, use_cache=False).logits[0].float()
        ours = head(hidden[0])
    except (RuntimeError, AttributeError, TypeError):
        return False
    finally:
        for m, mode in modes:
            m.training = mode
    tolerance = 1e-5 if own.dtype == hidden.dtype else 2e-2
    return own.shape == ours.shape and bool((own - ours).abs().max() <= tolerance * own.abs().max().clamp(min=1.0))
