"""A decoder layer of the Llama plan as one step of the graph, with its backward pass written out.

a = norm(x);  q, k, v = rope(a W_q^T), rope(a W_k^T), a W_v^T;  x' = x + attention(q, k, v) W_o^T
b = norm(x');  y = x' + (silu(b W_g^T) * b W_u^T) W_d^T;  every W with or without a LoRA part s B A

The library's layer is some sixty operations, each of which keeps its inputs, the float32 copies inside the norms
among them, and writes a tensor that the next one reads back from memory. Here x, x', q, k, v, the attention's
weights and its output, and the two wide products are kept; norms, rotations of gradients and the gated product
are made again, residuals are added by the matrix products, and what can be overwritten is. On two cores that is a
third less time and half the memory of a step. Without gradients the sum that runs through the layers is kept in
float32 (`float_states`), which takes most of the rounding out of a bfloat16 model's losses. Only packs with
per-document attention, on a processor: any other call, and a layer with hooks, dropout or another adapter in it,
goes the library's way.
"""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tutelage.models.attention import LONG, Layout, packed_attention
from tutelage.models.fused import FusedLoraLinear

# Families whose layer is exactly the formula above.
PLANS = tuple(f"transformers.models.{name}.modeling_{name}" for name in ("llama", "mistral", "qwen2"))
_NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Linear(NamedTuple):
    """W [out, in], bias [out], LoRA's A [r, in] and B [out, r], and its scale."""

    weight: Tensor
    bias: Tensor | None
    down: Tensor | None
    up: Tensor | None
    scale: float


class _Plan(NamedTuple):
    """What a layer's pass needs beside tensors with gradients."""

    layer: Any
    given: dict[str, Any]
    layout: Layout
    scales: tuple[float, ...]
    eps: tuple[float, float]
    width: int  # of one head
    scale: float
    own: Any  # the library's forward function of the layer


class _Layer(torch.autograd.Function):
    """See the module's formula; x [B, T, d], cos, sin [B T, 1, D]; then 2 norms, seven times W, bias, A, B."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor, plan: _Plan, *tensors: Tensor | None) -> Tensor:
        first, second, linears = _unpack(plan, tensors)
        flat = x.reshape(-1, x.shape[-1])
        n, wide = len(flat), plan.width
        r1 = _rms(flat, plan.eps[0])
        a = _normed(flat, r1, first)
        (q, low_q), (k, low_k), (v, low_v) = (_product(a, linear) for linear in linears[:3])
        q = _rotate(q.view(n, -1, wide), cos, sin)
        k = _rotate(k.view(n, -1, wide), cos, sin)
        v = v.view(n, -1, wide)
        o, weights = _attend(q, k, v, plan.layout, plan.scale)
        o = o.view(n, -1)
        middle, low_o = _product(o, linears[3], flat)
        r2 = _rms(middle, plan.eps[1])
        b = _normed(middle, r2, second)
        (gate, low_g), (up, low_u) = (_product(b, linear) for linear in linears[4:6])
        y, low_d = _product(nn.functional.silu(gate).mul_(up), linears[6], middle)
        lows = (low_q, low_k, low_v, low_o, low_g, low_u, low_d)
        ctx.plan = plan
        ctx.save_for_backward(x, cos, sin, *tensors, r1, q, k, v, o, middle, r2, gate, up, *lows, *weights)
        return y.view(x.shape)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        plan: _Plan = ctx.plan
        x, cos, sin, *rest = ctx.saved_tensors
        tensors, (r1, q, k, v, o, middle, r2, gate, up), lows = rest[:30], rest[30:39], rest[39:46]
        needs = ctx.needs_input_grad
        if torch.is_grad_enabled():
            # Someone differentiates the gradient: the library's own operations can be, these cannot.
            return _library_backward(plan, x, tensors, needs, grads[0])
        first, second, linears = _unpack(plan, tensors)
        wanted = [needs[6 + 4 * i : 10 + 4 * i] for i in range(7)]
        found: list[Any] = [None] * 30
        flat, g = x.reshape(-1, x.shape[-1]), grads[0].reshape(-1, x.shape[-1])
        s = nn.functional.silu(gate)
        made = _gradients(g, s * up, lows[6], linears[6], wanted[6])
        found[26:30], wide = made[1:], made[0]
        of_gate = torch.ops.aten.silu_backward(wide * up, gate)
        of_up = wide.mul_(s)
        b = _normed(middle, r2, second)
        made = _gradients(of_gate, b, lows[4], linears[4], wanted[4])
        found[18:22], of_b = made[1:], made[0]
        found[22:26] = _gradients(of_up, b, lows[5], linears[5], wanted[5], of_b)[1:]
        del s, wide, of_gate, of_up, b
        of_middle, found[1] = _norm_backward(of_b, middle, r2, second, g, needs[5])
        made = _gradients(of_middle, o, lows[3], linears[3], wanted[3])
        found[14:18] = made[1:]
        of_q, of_k, of_v = _attend_backward(made[0].view(q.shape), q, k, v, rest[46:], plan.layout, plan.scale)
        of_q, of_k = _rotate(of_q, cos, sin, back=True), _rotate(of_k, cos, sin, back=True)
        a = _normed(flat, r1, first)
        of_a: Tensor | None = None
        for i, of in enumerate((of_q, of_k, of_v)):
            made = _gradients(
                of.reshape(len(flat), -1), a, lows[i], linears[i], wanted[i], of_a, needs[0] or needs[4]
            )
            found[2 + 4 * i : 6 + 4 * i], of_a = made[1:], made[0]
        of_x = None
        if of_a is not None:
            of_x, found[0] = _norm_backward(of_a, flat, r1, first, of_middle, needs[4])
        return of_x.view(x.shape) if of_x is not None else None, None, None, None, *found


def _unpack(plan: _Plan, tensors: Sequence[Any]) -> tuple[Tensor, Tensor, list[Linear]]:
    at = range(2, len(tensors), 4)
    return tensors[0], tensors[1], [Linear._make((*tensors[i : i + 4], s)) for i, s in zip(at, plan.scales)]


def _library_backward(
    plan: _Plan, x: Tensor, tensors: Sequence[Any], needs: Sequence[bool], grad: Tensor
) -> tuple[Any, ...]:
    """The same gradients through the library's layer, as parts of a graph."""
    y = plan.own(plan.layer, x, **plan.given)
    inputs = [t for t, need in zip((x, None, None, None, *tensors), needs) if need]
    found = iter(torch.autograd.grad(y, inputs, grad, create_graph=True, allow_unused=True))
    return tuple(next(found) if need else None for need in needs)


def _scored(x: Tensor, cos: Tensor, sin: Tensor, plan: _Plan, tensors: Sequence[Any]) -> Tensor:
    """The formula without gradients, [B, T, d] float32: what is added up over the layers is not rounded."""
    first, second, linears = _unpack(plan, tensors)
    total = x.reshape(-1, x.shape[-1]).to(torch.float32, copy=True)
    n, dtype = len(total), first.dtype

    def normed(weight: Tensor, eps: float) -> Tensor:
        return torch.mul(total * _rms(total, eps), weight, out=torch.empty(total.shape, dtype=dtype))

    a = normed(first, plan.eps[0])
    q, k, v = (_product(a, linear)[0].view(n, -1, plan.width) for linear in linears[:3])
    q, k = (_rotate(t.to(cos.dtype), cos, sin).to(dtype) for t in (q, k))
    q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
    total += _product(packed_attention(q, k, v, plan.layout, plan.scale).reshape(n, -1), linears[3])[0]
    b = normed(second, plan.eps[1])
    gate, up = (_product(b, linear)[0] for linear in linears[4:6])
    total += _product(nn.functional.silu(gate, inplace=True).mul_(up), linears[6])[0]
    return total.view(x.shape)


# -- parts --------------------------------------------------------------------------------------------------------


def _rms(x: Tensor, eps: float) -> Tensor:
    """[n, 1] float32: 1 / sqrt(mean of squares + eps)."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
    return norm.square_().div_(x.shape[1]).add_(eps).rsqrt_()


def _normed(x: Tensor, r: Tensor, weight: Tensor) -> Tensor:
    return torch.mul(x, r, out=torch.empty_like(x)).mul_(weight)


def _norm_backward(
    g: Tensor, x: Tensor, r: Tensor, weight: Tensor, residual: Tensor, trained: bool
) -> tuple[Tensor, Tensor | None]:
    """(residual + gradient of x, gradient of the weight or None): g_x = r g w - x r^3 mean(g w x)."""
    for_weight = (x * r * g).sum(0).to(weight.dtype) if trained else None
    scaled = g * weight.float()
    slope = (scaled * x).sum(1, keepdim=True).mul_(r.pow(3) / x.shape[1])
    scaled.mul_(r).sub_(x * slope)
    return torch.add(residual, scaled, out=torch.empty_like(x)), for_weight


def _product(x: Tensor, linear: Linear, onto: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """(x W^T + bias + s (x A^T) B^T, on top of `onto`; x A^T where there is an A)."""
    if onto is None:
        y = nn.functional.linear(x, linear.weight, linear.bias)
    else:
        y = torch.addmm(onto, x, linear.weight.T)
        y = y if linear.bias is None else y.add_(linear.bias)
    if linear.down is None or linear.up is None:
        return y, None
    low = torch.mm(x, linear.down.T)
    return y.addmm_(low, linear.up.T, alpha=linear.scale), low


def _gradients(
    g: Tensor,
    x: Tensor,
    low: Tensor | None,
    linear: Linear,
    wanted: Sequence[bool],
    onto: Tensor | None = None,
    for_input: bool = True,
) -> tuple[Any, ...]:
    """Gradients of (x, on top of `onto` and into it; W; bias; A; B) from that of the product."""
    of_x = None
    if for_input:
        of_x = torch.mm(g, linear.weight) if onto is None else onto.addmm_(g, linear.weight)
    of_weight = torch.mm(g.T, x) if wanted[0] else None
    of_bias = g.sum(0) if wanted[1] else None
    if linear.down is None or linear.up is None:
        return of_x, of_weight, of_bias, None, None
    lower = torch.mm(g, linear.up).mul_(linear.scale)
    if of_x is not None:
        of_x.addmm_(lower, linear.down)
    of_down = torch.mm(lower.T, x) if wanted[2] else None
    of_up = torch.mm(g.T, low).mul_(linear.scale) if wanted[3] and low is not None else None
    return of_x, of_weight, of_bias, of_down, of_up


def _rotate(x: Tensor, cos: Tensor, sin: Tensor, back: bool = False) -> Tensor:
    """Rotary positions of [n, heads, D]: x cos + (-x2, x1) sin; `back`: the transpose of that map."""
    half = x.shape[-1] // 2
    out = x * cos
    x1, x2, out1, out2 = x[..., :half], x[..., half:], out[..., :half], out[..., half:]
    for1, for2 = (sin[..., half:], sin[..., :half]) if back else (sin[..., :half], sin[..., half:])
    out1.addcmul_(x2, for1, value=1 if back else -1)
    out2.addcmul_(x1, for2, value=-1 if back else 1)
    return out


def _gathered(x: Tensor, index: Tensor, groups: int) -> Tensor:
    """[n, heads, D] at [m, L] tokens -> [m heads / groups, groups L, D]: the rows of one key head side by side."""
    m, length = index.shape
    taken = x.index_select(0, index.reshape(-1)).view(m, length, -1, groups, x.shape[-1])
    return taken.permute(0, 2, 3, 1, 4).reshape(-1, groups * length, x.shape[-1])


def _scattered(rows: Tensor, index: Tensor, groups: int) -> Tensor:
    """The inverse: [m heads / groups, groups L, D] -> [m L, heads, D]."""
    m, length = index.shape
    laid = rows.view(m, -1, groups, length, rows.shape[-1]).permute(0, 3, 1, 2, 4)
    return laid.reshape(m * length, -1, rows.shape[-1])


def _attend(q: Tensor, k: Tensor, v: Tensor, layout: Layout, scale: float) -> tuple[Tensor, list[Tensor]]:
    """Attention of every document to itself, [n, heads, D], and the weights of each bucket."""
    groups = q.shape[1] // k.shape[1]
    out, kept = q.new_zeros(len(q) + 1, *q.shape[1:]), []
    for bucket, places in zip(layout.buckets, layout.places):
        rows = _gathered(q, bucket.queries, groups).mul_(scale)
        scores = torch.bmm(rows, _gathered(k, bucket.keys, 1).transpose(1, 2))
        m, length = bucket.queries.shape
        scores.view(m, -1, groups, length, scores.shape[-1]).add_(bucket.mask.to(q.dtype)[:, None, None])
        weights = torch.softmax(scores, dim=-1)
        rows = torch.bmm(weights, _gathered(v, bucket.keys, 1))
        out.index_copy_(0, places.reshape(-1), _scattered(rows, bucket.queries, groups))
        kept.append(weights)
    return out[:-1], kept


def _attend_backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, kept: Sequence[Tensor], layout: Layout, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v."""
    groups = q.shape[1] // k.shape[1]
    g = torch.cat([g, g.new_zeros(1, *g.shape[1:])])
    of_q, of_k, of_v = (t.new_zeros(len(t) + 1, *t.shape[1:]) for t in (q, k, v))
    # Tokens that are the prefix of others are keys more than once.
    once = all(bucket.causal_only for bucket in layout.buckets)
    for bucket, places, weights in zip(layout.buckets, layout.places, kept):
        keys = _gathered(k, bucket.keys, 1)
        of_out = _gathered(g, places, groups)
        of_values = torch.bmm(weights.transpose(1, 2), of_out)
        of_weights = torch.bmm(of_out, _gathered(v, bucket.keys, 1).transpose(1, 2))
        of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_rows = torch.bmm(of_scores, keys).mul_(scale)
        of_keys = torch.bmm(of_scores.transpose(1, 2), _gathered(q, bucket.queries, groups)).mul_(scale)
        of_q.index_copy_(0, places.reshape(-1), _scattered(of_rows, places, groups))
        for total, part in ((of_k, of_keys), (of_v, of_values)):
            laid = _scattered(part, bucket.keys, 1)
            if once:
                total.index_copy_(0, places.reshape(-1), laid)
            else:
                total.index_add_(0, bucket.keys.reshape(-1), laid)
    return of_q[:-1], of_k[:-1], of_v[:-1]


# -- the layer ----------------------------------------------------------------------------------------------------


class _Fused(nn.Module):
    """In front of a layer's class: the pass above where it is the same function."""

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        found = self._plan(hidden_states, kwargs)
        if found is None:
            own = _weights_dtype(self)
            if hidden_states.dtype != own and not torch.is_grad_enabled():
                hidden_states = hidden_states.to(own)
                kwargs["position_embeddings"] = tuple(t.to(own) for t in kwargs["position_embeddings"])
            return super().forward(hidden_states, **kwargs)
        plan, tensors = found
        cos, sin = (t.reshape(-1, 1, plan.width) for t in kwargs["position_embeddings"])
        if not torch.is_grad_enabled():
            return _scored(hidden_states, cos, sin, plan, tensors)
        made: Tensor = _Layer.apply(hidden_states, cos, sin, plan, *tensors)
        return made

    def _plan(self, x: Tensor, given: dict[str, Any]) -> tuple[_Plan, list[Tensor | None]] | None:
        """How to compute this call and from which weights, or None where the library's way is another function."""
        layer: Any = self
        rope, layout = given.get("position_embeddings"), getattr(given.get("attention_mask"), "plan", None)
        if rope is None or layout is None or given.get("past_key_values") is not None:
            return None
        if torch._C._are_functorch_transforms_active() or x.dtype == torch.float64:
            return None
        if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or layout.back.device != x.device:
            return None
        core = layer.self_attn
        longest = max(
            (a + b for found in layout.buckets for a, b in zip(found.lengths, found.prefixes)), default=0
        )
        window = getattr(core, "sliding_window", None)
        if (window is not None and window < longest) or (self.training and core.attention_dropout):
            return None
        if any(bucket.causal_only and bucket.queries.shape[1] > LONG for bucket in layout.buckets):
            return None
        if rope[0].shape != (*x.shape[:2], core.head_dim) or any(
            _hooked(m) for m in self.modules() if m is not self
        ):
            return None
        parts = [getattr(core if i < 4 else layer.mlp, name) for i, name in enumerate(_NAMES)]
        dtype = x.dtype if torch.is_grad_enabled() else _weights_dtype(layer)
        linears = [linear for linear in map(_linear, parts) if linear is not None and linear.weight.dtype == dtype]
        norms = (layer.input_layernorm, layer.post_attention_layernorm)
        if len(linears) < len(parts) or any(norm.weight.dtype != dtype for norm in norms):
            return None
        if layer.mlp.act_fn.__class__.__name__ not in ("SiLU", "SiLUActivation"):
            return None
        eps = (norms[0].variance_epsilon, norms[1].variance_epsilon)
        scales = tuple(linear.scale for linear in linears)
        library: Any = type(self).__mro__[2]
        plan = _Plan(self, given, layout, scales, eps, core.head_dim, core.scaling, library.forward)
        return plan, [norms[0].weight, norms[1].weight, *(t for linear in linears for t in linear[:4])]


def _weights_dtype(layer: Any) -> torch.dtype:
    dtype: torch.dtype = layer.input_layernorm.weight.dtype
    return dtype


def _linear(module: nn.Module) -> Linear | None:
    """A plain linear layer, or one below plain LoRA; None for anything else."""
    if type(module) is nn.Linear:
        return Linear(module.weight, module.bias, None, None, 0.0)
    if type(module) is not FusedLoraLinear:
        return None
    base: Any = module.get_base_layer()
    name = module._plain_adapter(base.weight)
    if name is None:
        return None
    down: Any = module.lora_A[name]
    up: Any = module.lora_B[name]
    return Linear(base.weight, base.bias, down.weight, up.weight, float(module.scaling[name]))


def _hooked(m: nn.Module) -> bool:
    return bool(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks)


@functools.cache
def _fused_class(cls: type) -> type:
    return type(f"Fused{cls.__name__}", (_Fused, cls), {})


def float_states(base: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a forward pass without gradients, with float32 embeddings in the tokens' place where the
    layers are of the plan: positions and states are then float32 all the way."""
    layers, table = getattr(base.base_model, "layers", None), base.get_input_embeddings()
    packed = getattr(inputs["attention_mask"], "plan", None) is not None
    if torch.is_grad_enabled() or not packed or not layers or not all(isinstance(m, _Fused) for m in layers):
        return inputs
    if table.weight.dtype not in (torch.bfloat16, torch.float16):
        return inputs
    rest = {name: value for name, value in inputs.items() if name != "input_ids"}
    return {**rest, "inputs_embeds": table(inputs["input_ids"]).float()}


@contextmanager
def fused_layers(module: nn.Module) -> Iterator[int]:
    """Layers of the plan compute as above while the block lasts; gives how many there are."""
    layers: list[tuple[Any, Any]] = [
        (m, type(m))
        for m in module.modules()
        if type(m).__module__ in PLANS and type(m).__name__.endswith("DecoderLayer")
    ]
    for layer, cls in layers:
        layer.__class__ = _fused_class(cls)
    try:
        yield len(layers)
    finally:
        for layer, cls in layers:
            layer.__class__ = cls
