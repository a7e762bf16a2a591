"""LoRA layers that do their arithmetic in four matrix products a pass, and no full-width temporaries.

y = x W^T + b + s (x A^T) B^T, with W frozen. The library's layer makes the low-rank part as a tensor of the size
of y, scales it and adds it; here both passes accumulate into the frozen layer's product:
forward y += s (x A^T) B^T; backward dx = g W + s (g B) A, dA = s (g B)^T x, dB = s g^T (x A^T).
The layers stay PEFT's (a subclass of its class): saving, merging and disabling are untouched, and any case but
plain LoRA (dropout in training, several adapters, variants, hooks on the parts, mixed precision) goes PEFT's way.
"""

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn


class _LoraProduct(torch.autograd.Function):
    """See the module's formula; x [n, in], W [out, in], A [r, in], B [out, r]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        low = torch.mm(x, down.T)
        y = nn.functional.linear(x, weight, bias)
        ctx.save_for_backward(x, weight, down, up, low)
        ctx.scale = scale
        return y.addmm_(low, up.T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, down, up, low = ctx.saved_tensors
        grad = grads[0]
        lower = torch.mm(grad, up).mul_(ctx.scale)
        for_x = torch.mm(grad, weight).addmm_(lower, down) if ctx.needs_input_grad[0] else None
        for_down = torch.mm(lower.T, x) if ctx.needs_input_grad[3] else None
        for_up = torch.mm(grad.T, low).mul_(ctx.scale) if ctx.needs_input_grad[4] else None
        return for_x, None, None, for_down, for_up, None


class FusedLoraLinear(Linear):
    """PEFT's LoRA layer with the forward pass above where that is the same function."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        name = self._plain_adapter(x) if not args and not kwargs else None
        if name is None:
            return super().forward(x, *args, **kwargs)
        base = self.get_base_layer()
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        flat = x.reshape(-1, x.shape[-1])
        y = _LoraProduct.apply(flat, base.weight, base.bias, down, up, float(self.scaling[name]))
        return y.view(*x.shape[:-1], y.shape[-1])

    def _plain_adapter(self, x: Tensor) -> str | None:
        """The one active adapter if this is plain LoRA on a frozen linear layer, else None."""
        base = self.get_base_layer()
        names = [name for name in self.active_adapters if name in self.lora_A]
        if self.disable_adapters or self.merged or len(names) != 1 or type(base) is not nn.Linear:
            return None
        name = names[0]
        dropout = self.lora_dropout[name]
        if name in self.lora_variant or not (isinstance(dropout, nn.Identity) or not self.training):
            return None
        parts = (base, self.lora_A[name], self.lora_B[name])
        hooked = any(
            m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in parts
        )
        frozen = not base.weight.requires_grad and (base.bias is None or not base.bias.requires_grad)
        same = all(m.weight.dtype == x.dtype for m in parts) and self.lora_B[name].bias is None
        plain = frozen and same and not hooked and not torch.is_autocast_enabled(x.device.type)
        return name if plain else None


def fuse_lora(module: nn.Module) -> int:
    """Give every plain LoRA layer of a PEFT model the fused forward pass; returns how many there are."""
    layers = [m for m in module.modules() if type(m) is Linear]
    for layer in layers:
        layer.__class__ = FusedLoraLinear
    return len(layers)
