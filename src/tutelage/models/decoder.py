"""What a step of generation computes, for decoders of the Llama plan, in few operations.

The rows of a batch hold keys and values in buffers that grow by copies only now and then, each row from its own
slot 0, so that rows come and go at any time and no token is padding. What all prompts begin with is kept once:
softmax(q [K_shared; K_row]^T) [V_shared; V_row] with one product for all rows over the shared part. Equal prompts
are computed once. States are added up in float32 whatever the precision of the weights, which together with
`generation.greedy` keeps a bfloat16 model close to its float32 self.

For longer work on a processor the bfloat16 weights are copied once into the layout that the matrix products want
(`Product`), the projections of one input side by side. Everything is read from the transformers module at each
call, so training in between is seen. `fits` says whether a module is of this plan: its parts are there, nothing is
hooked into them, and on a few tokens the states equal the module's own; any other module generates through
transformers' cache.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tutelage.models import attention
from tutelage.models.attention import Unit
from tutelage.models.fused import FusedLoraLinear
from tutelage.models.head import Head

if TYPE_CHECKING:
    from tutelage.models.causal import CausalLM

# Tokens of new prompts that go through the model at once: activations stay in a processor's cache.
FILL_CPU, FILL_GPU = 1024, 16384
# Buffers grow by this many slots. Attention goes over all slots, because a product over a part of a buffer would
# copy that part first, and every new width costs a compilation.
GROW = 32
# Rows times new tokens from which copying the weights pays.
WORTH_PACKING = 512
# A share of the free memory that copied weights may take.
PACKED_SHARE = 0.25
# The longest sequence of the proof.
TRIED = 21
# Rotary positions that depend on a token's place alone, not on how long the text is.
_STEADY_ROPE = {"default", "linear", "llama3", "yarn"}
_EXTRA_NORMS = ("pre_feedforward_layernorm", "post_feedforward_layernorm", "post_mlp_layernorm")


class Product:
    """The linear layers of one input as one product, [n, in] -> [n, sum of out]."""

    def __init__(self, modules: Sequence[nn.Module], rows: int) -> None:
        self.modules = modules
        plain = [_plain(module) for module in modules] if rows else [None]
        self.packed: Tensor | None = None
        if any(part is None for part in plain):
            return
        parts = [part for part in plain if part is not None]
        weight = torch.cat(tuple(base.weight for base, _ in parts))
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        biased = any(base.bias is not None for base, _ in parts)
        biases: list[Tensor] = [
            weight.new_zeros(base.out_features) if base.bias is None else base.bias for base, _ in parts
        ]
        self.bias = torch.cat(biases) if biased else None
        loras = [lora for _, lora in parts]
        # y += (x [A_1; A_2 ..]^T) B^T with the B_i on the diagonal of B.
        self.down = torch.cat([lora[0] for lora in loras if lora]) if any(loras) else None
        self.up = torch.block_diag(
            *(lora[1] if lora else weight.new_zeros(base.out_features, 0) for base, lora in parts)
        )

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed is None:
            found = [module(x) for module in self.modules]
            return found[0] if len(found) == 1 else torch.cat(found, dim=-1)
        y = torch.ops.mkldnn._linear_pointwise(x.contiguous(), self.packed, self.bias, "none", [], "")
        return y if self.down is None else y.addmm_(torch.mm(x, self.down.T), self.up.T)


def _plain(module: nn.Module) -> tuple[nn.Linear, tuple[Tensor, Tensor] | None] | None:
    """(frozen layer, LoRA's A and scaled B or None) of a layer that is W x + b + s B A x, else None."""
    if type(module) is nn.Linear:
        return module, None
    if type(module) is FusedLoraLinear:
        base: Any = module.get_base_layer()
        name = module._plain_adapter(base.weight.new_zeros(0))
        if name is not None:
            down: Any = module.lora_A[name].weight
            up: Any = module.lora_B[name].weight
            return base, (down, up * module.scaling[name])
    return None


class LeanDecoder:
    """Rows of prompts and their completions; `fill` adds rows, `step` adds a token to each, `keep` drops rows."""

    refills = True

    def __init__(self, model: "CausalLM", prefix: Sequence[int], *, rows: int, tokens: int) -> None:
        """`prefix`: the ids that every prompt begins with; `rows` at a time, and `tokens` steps in all, are the
        work that is expected."""
        base = model.base_module
        config = base.config.get_text_config()
        self.body: Any = base.base_model
        self.device, self.dtype = model.device, model.dtype
        self.heads, self.kv = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        head = model.head
        assert head is not None
        pack = rows if tokens >= WORTH_PACKING and _packs(model) else 0
        self.layers = [_layer(layer, pack) for layer in self.body.layers]
        self.scale = float(self.body.layers[0].self_attn.scaling)
        self.head = replace(head, module=Product([head.module], pack)) if pack else head
        self.lengths: list[int] = []  # of each row, without the shared prefix
        self.capacity = 0
        # Per layer: keys transposed [rows, kv, D, slots], values [rows, kv, slots, D]; zeros where nothing is yet.
        self.keys = [self._zeros(0, self.kv, self.width, 0) for _ in self.layers]
        self.values = [self._zeros(0, self.kv, 0, self.width) for _ in self.layers]
        self.prefix = len(prefix)
        self.shared: list[tuple[Tensor, Tensor]] = []  # per layer [kv, P, D], once
        self.forwarded = len(prefix)
        if prefix:
            self._forward(torch.tensor(prefix), torch.arange(self.prefix), self._attend_prefix)

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    # -- rows ---------------------------------------------------------------------------------------------

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""
        self._arrange(rows, 0, self.capacity)

    def _arrange(self, rows: Sequence[int] | None, new: int, capacity: int) -> None:
        """Buffers with the chosen rows (None: all), `new` empty ones after them, and room for `capacity` slots."""
        used = min(max(self.lengths, default=0), capacity)
        chosen = None if rows is None else torch.tensor(rows, dtype=torch.long, device=self.device)
        count = len(self.lengths) if rows is None else len(rows)
        for i, (k, v) in enumerate(zip(self.keys, self.values)):
            keys = self._zeros(count + new, self.kv, self.width, capacity)
            values = self._zeros(count + new, self.kv, capacity, self.width)
            k, v = k[..., :used], v[:, :, :used]
            keys[:count, ..., :used] = k if chosen is None else k.index_select(0, chosen)
            values[:count, :, :used] = v if chosen is None else v.index_select(0, chosen)
            self.keys[i], self.values[i] = keys, values
        self.lengths = self.lengths if rows is None else [self.lengths[row] for row in rows]
        self.capacity = capacity

    def fill(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """New rows after the present ones; (logits [prompts, V], final states [prompts, d]), both float32."""
        rest = [tuple(prompt[self.prefix :]) for prompt in prompts]
        longest = max(len(ids) for ids in rest)
        first = len(self.lengths)
        self._arrange(None, len(rest), max(self.capacity, _room(longest)))
        self.lengths += [len(ids) for ids in rest]
        found: dict[tuple[int, ...], Tensor] = {}
        limit = FILL_CPU if self.device.type == "cpu" else FILL_GPU
        group: list[tuple[int, ...]] = []
        unique = list(dict.fromkeys(rest))
        for i, ids in enumerate(unique):
            group.append(ids)
            if i + 1 == len(unique) or sum(map(len, group)) + len(unique[i + 1]) > limit:
                rows = {one: [first + r for r, ids in enumerate(rest) if ids == one] for one in group}
                found.update(zip(group, self._fill(group, rows)))
                group = []
        return self._logits(torch.stack([found[ids] for ids in rest]))

    def _fill(self, group: list[tuple[int, ...]], rows: dict[tuple[int, ...], list[int]]) -> Tensor:
        """The last states of these sequences, whose keys and values go into their rows."""
        lengths = [len(ids) for ids in group]
        starts = [sum(lengths[:i]) for i in range(len(group))]
        flat = torch.tensor([token for ids in group for token in ids])
        slots = torch.cat([torch.arange(n) for n in lengths])
        # A key of the shared beginning stands before those of the group.
        units = [Unit(self.prefix + start, n, 0, self.prefix) for start, n in zip(starts, lengths)]
        layout = attention.Layout(units, self.prefix + len(flat), self.device)
        goes = [
            (row, slot, start + slot)
            for ids, start in zip(group, starts)
            for row in rows[ids]
            for slot in range(len(ids))
        ]
        to_row, to_slot, source = torch.tensor(goes, device=self.device).T

        def attend(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            self.keys[i][to_row, :, :, to_slot] = k[source].to(self.dtype)
            self.values[i][to_row, :, to_slot] = v[source].to(self.dtype)
            q, k, v = (x.transpose(0, 1)[None].float() for x in (q, k, v))
            if self.prefix:
                shared_k, shared_v = self.shared[i]
                k, v = torch.cat([shared_k.float()[None], k], 2), torch.cat([shared_v.float()[None], v], 2)
                q = torch.cat([q.new_zeros(1, self.heads, self.prefix, self.width), q], 2)
            return attention.packed_attention(q, k, v, layout, 1.0)[0, self.prefix :]

        self.forwarded += len(flat)
        states = self._forward(flat, self.prefix + slots, attend)
        return states[torch.tensor([start + n - 1 for start, n in zip(starts, lengths)], device=self.device)]

    def _attend_prefix(self, i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.shared.append((k.transpose(0, 1).to(self.dtype), v.transpose(0, 1).to(self.dtype)))
        layout = attention.Layout([Unit(0, self.prefix)], self.prefix, self.device)
        q, k, v = (x.transpose(0, 1)[None].float() for x in (q, k, v))
        return attention.packed_attention(q, k, v, layout, 1.0)[0]

    def step(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """One token [rows] for each row; what comes after it, as `fill` gives it."""
        count = len(self.lengths)
        longest = max(self.lengths) + 1
        if longest > self.capacity:
            self._arrange(None, 0, _room(longest))
        slots = torch.tensor(self.lengths, device=self.device)
        rows = torch.arange(count, device=self.device)
        places = torch.arange(self.capacity, device=self.device)
        mask = torch.zeros(count, 1, 1, self.capacity, device=self.device)
        mask.masked_fill_((places > slots[:, None])[:, None, None], float("-inf"))
        groups, P = self.heads // self.kv, self.prefix

        def attend(i: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.keys[i], self.values[i]
            keys[rows, :, :, slots] = k.to(self.dtype)
            values[rows, :, slots] = v.to(self.dtype)
            own = q.to(self.dtype).view(count, self.kv, groups, self.width)
            scores = torch.matmul(own, keys).float().add_(mask)
            if not P:
                return torch.matmul(torch.softmax(scores, -1).to(self.dtype), values)
            shared_k, shared_v = self.shared[i]
            by_head = own.transpose(0, 1).reshape(self.kv, count * groups, self.width)
            before = torch.bmm(by_head, shared_k.transpose(1, 2)).float()
            before = before.view(self.kv, count, groups, P).transpose(0, 1)
            weights = torch.softmax(torch.cat([before, scores], -1), -1).to(self.dtype)
            out = torch.matmul(weights[..., P:], values)
            by_head = weights[..., :P].transpose(0, 1).reshape(self.kv, count * groups, P)
            return out + torch.bmm(by_head, shared_v).view(self.kv, count, groups, self.width).transpose(0, 1)

        self.forwarded += count
        states = self._forward(tokens, self.prefix + slots, attend)
        self.lengths = [n + 1 for n in self.lengths]
        return self._logits(states)

    # -- the model ----------------------------------------------------------------------------------------

    def _logits(self, states: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(states.to(self.dtype)), states

    def _forward(
        self, ids: Tensor, positions: Tensor, attend: Callable[[int, Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Final states [n, d] float32 of tokens [n]; `attend(layer, q, k, v)` with q [n, H, D] scaled and k, v
        [n, kv, D] looks up what came before."""
        n, turned = len(ids), self.heads + self.kv
        h = self.body.embed_tokens(ids.to(self.device)).float()
        cos, sin = self.body.rotary_emb(h, positions[None].to(self.device))
        # Rotated: x cos + (second half, first half) x sin with the first half negative; queries scaled besides.
        half = self.width // 2
        sin = torch.cat([-sin[..., :half], sin[..., half:]], -1)
        scale = torch.ones(turned, 1, device=self.device)
        scale[: self.heads] = self.scale
        cos, sin = (x[0, :, None] * scale for x in (cos, sin))
        for i, layer in enumerate(self.layers):
            x = layer["norm"](h).to(self.dtype)
            qkv = layer["qkv"](x).view(n, turned + self.kv, self.width)
            qk = qkv[:, :turned].float()
            if layer["q_norm"] is not None:
                qk = torch.cat([layer["q_norm"](qk[:, : self.heads]), layer["k_norm"](qk[:, self.heads :])], 1)
            qk = (qk * cos).addcmul_(qk.roll(half, -1), sin)
            seen = attend(i, qk[:, : self.heads], qk[:, self.heads :], qkv[:, turned:])
            h = h + layer["out"](seen.reshape(n, -1).to(self.dtype))
            gate, up = layer["gate_up"](layer["second_norm"](h).to(self.dtype)).chunk(2, -1)
            h = h + layer["down"](layer["act"](gate) * up)
        return self.body.norm(h)


def _layer(layer: Any, pack: int) -> dict[str, Any]:
    of, mlp = layer.self_attn, layer.mlp
    return {
        "norm": layer.input_layernorm,
        "qkv": Product([of.q_proj, of.k_proj, of.v_proj], pack),
        "q_norm": getattr(of, "q_norm", None),
        "k_norm": getattr(of, "k_norm", None),
        "out": Product([of.o_proj], pack),
        "second_norm": layer.post_attention_layernorm,
        "gate_up": Product([mlp.gate_proj, mlp.up_proj], pack),
        "down": Product([mlp.down_proj], pack),
        "act": mlp.act_fn,
    }


def _room(slots: int) -> int:
    return math.ceil(slots / GROW) * GROW


def _packs(model: "CausalLM") -> bool:
    """Whether this processor has the packed product, and the memory for a second copy of the weights."""
    if model.device.type != "cpu" or model.dtype != torch.bfloat16 or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    try:
        import psutil
    except ImportError:
        return False
    return 2 * model.active_params < PACKED_SHARE * psutil.virtual_memory().available


def facts(model: "CausalLM") -> str | None:
    """What decides whether this module can be run by its parts, as a text; None where something hooks into it."""
    kinds = []
    for module in model.base_module.modules():
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module):
            return None
        kinds.append(type(module).__qualname__)
    settings = model.config.get_text_config().to_dict()
    return json.dumps([kinds, settings, str(model.dtype), str(model.device)], sort_keys=True, default=str)


@torch.no_grad()
def fits(model: "CausalLM") -> bool:
    """The proof: on four rows with a common beginning, added at two times, one leaving early and two equal, final
    states within 1e-4 of the largest of the module's own (5e-2 below float32)."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    layers = getattr(model.base_module.base_model, "layers", None)
    if (
        model.head is None
        or not isinstance(layers, nn.ModuleList)
        or torch.is_autocast_enabled(model.device.type)
        or any(hasattr(layers[0], name) for name in _EXTRA_NORMS)
        or any(getattr(config, name, None) for name in ("attention_chunk_size", "attn_logit_softcapping"))
        or rope.get("rope_type", "default") not in _STEADY_ROPE
    ):
        return False
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (40,), generator=generator).tolist()
    shared, ends = ids[:3], ids[30:34]
    prompts = [shared + ids[5:22], shared + ids[8:9], shared + ids[9:14], shared + ids[9:14]]
    try:
        decoder = LeanDecoder(model, shared, rows=4, tokens=0)
        found = [*decoder.fill(prompts[:2])[1]]
        decoder.step(torch.tensor(ends[:2]))
        decoder.keep([1])
        found += [*decoder.fill(prompts[2:])[1]]
        found += [*decoder.step(torch.tensor(ends[1:4]))[1]]
        rows = [*prompts, prompts[1] + [ends[1], ends[1]], prompts[2] + [ends[2]], prompts[3] + [ends[3]]]
        with model.own_attention():
            own = torch.stack(
                [
                    model.base_module.base_model(
                        input_ids=torch.tensor([row], device=model.device), use_cache=False
                    ).last_hidden_state[0, -1]
                    for row in rows
                ]
            ).float()
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError):
        return False
    tolerance = (1e-4 if model.dtype == torch.float32 else 5e-2) * float(own.abs().max())
    return float((torch.stack(found) - own).abs().max()) <= tolerance


def can_run(model: "CausalLM", length: int) -> bool:
    """`fits`, asked again only when the module or its configuration has changed; texts of up to `length` tokens
    must lie in a sliding window, if there is one."""
    now = facts(model)
    window = getattr(model.config.get_text_config(), "sliding_window", None)
    if now is None or (window is not None and window < max(length, TRIED)):
        return False
    known: tuple[str, bool] | None = getattr(model, "_lean", None)
    if known is None or known[0] != now:
        known = (now, fits(model))
        model._lean = known  # type: ignore[attr-defined]
    return known[1]


def exact_scores(head: Head, states: Tensor, tokens: Tensor) -> Tensor:
    """[n, k] float32: W[token] h + b of the k tokens of each row, not rounded; states [n, d], tokens [n, k]."""
    scores = torch.bmm(head.module.weight[tokens].float(), states.float()[:, :, None])[:, :, 0]
    bias = head.module.bias
    return scores if bias is None else scores + bias[tokens].float()
