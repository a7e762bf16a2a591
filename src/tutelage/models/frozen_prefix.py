"""Where only the top layers are trained, what the frozen layers below make of a document is computed once.

The input of the first trained layer, h_F [tokens, d], depends on the document's tokens alone: documents of a pack
are isolated, and are computed so that their bits do not depend on what stands beside them. It is written to a
scratch file as it is (bfloat16: 2 d bytes a token) under the hash of the document's tokens and positions; a pack
whose documents are all there starts at layer F. Other content has another hash and is computed; nothing needs to
be known about rows, order or packs, and a resumed run fills the file again with the same bits.

Left out, with everything computed as before: a parameter, dropout or hook in the frozen part, packs that are not
isolated per document, a layer that is not run in order, and a model for which a trial shows other bits.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from tutelage.core.scratch import scratch_path
from tutelage.models.encode import Encoded
from tutelage.models.packing import collate, forward_inputs
from tutelage.models.states import block_list

# States on disk at most; further documents are computed anew each time.
MOST_BYTES = 16 * 2**30
_ROOM = 0.25  # share of the free disk at most
# Smaller packs are always computed: products of a few rows (below a dozen, measured) add up in another order.
SMALLEST = 64
# What comes after the layers in a body and may be trained too.
_LAST_NORMS = ("norm.", "final_layernorm.", "final_layer_norm.", "ln_f.")


class _Skipped(nn.Module):
    """A frozen layer that is not run, or the last of them, which gives what is known already."""

    def __init__(self, known: Tensor | None = None) -> None:
        super().__init__()
        self.known = known

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden_states if self.known is None else self.known


class FrozenPrefix:
    """The states of the first trained layer by document. `served`: tokens whose frozen layers were not run."""

    def __init__(self, layers: str, depth: int, frozen: Sequence[Tensor]) -> None:
        self.layers, self.depth = layers, depth
        self.served = 0
        self._frozen = frozen
        self._versions = [p._version for p in frozen]
        self._found: dict[bytes, tuple[int, int]] = {}  # place in the file, tokens
        self._file: BinaryIO | None = None
        self._size = 0
        self._most = MOST_BYTES

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """A copy of a model in training goes its own way."""
        return None

    def forward(self, body: Any, run: Any, given: dict[str, Any]) -> Any:
        """The body's forward pass, from layer `depth` on where the states of all documents are known."""
        keys = self._keys(body, given)
        if keys is None:
            return run(**given)
        if not all(key in self._found for key, _, _ in keys):
            with self._recording(body, keys):
                return run(**given)
        shape = (*given["input_ids"].shape, body.config.get_text_config().hidden_size)
        known = torch.zeros(shape, dtype=body.get_input_embeddings().weight.dtype)
        flat = known.view(-1, shape[-1])
        for key, start, length in keys:
            flat[start : start + length] = self._read(key, flat)
        self.served += sum(length for _, _, length in keys)
        layers = getattr(body, self.layers)
        skipped = [_Skipped() for _ in range(self.depth - 1)] + [_Skipped(known)]
        setattr(body, self.layers, nn.ModuleList([*skipped, *list(layers)[self.depth :]]))
        try:
            return run(**given)
        finally:
            setattr(body, self.layers, layers)

    def close(self) -> None:
        """Remove the file."""
        if self._file is not None:
            self._file.close()
            with suppress(OSError):
                self._path.unlink()
        self._file, self._found = None, {}

    def _keys(self, body: Any, given: dict[str, Any]) -> list[tuple[bytes, int, int]] | None:
        """(hash, start, tokens) of each document of the pack; None for a call that is not a training pack."""
        ids, positions, mask = given.get("input_ids"), given.get("position_ids"), given.get("attention_mask")
        layout = getattr(mask, "plan", None)
        if layout is None or ids is None or positions is None or given.get("past_key_values") is not None:
            return None
        if any(unit.prefix for unit in layout.documents) or layout.tokens < SMALLEST:
            return None
        if not (body.training and torch.is_grad_enabled()) or torch._C._are_functorch_transforms_active():
            return None
        if any(_hooked(m) for m in _frozen_modules(body, self.layers, self.depth)):
            return None
        now = [p._version for p in self._frozen]
        if now != self._versions:
            self._versions = now
            self.close()
        tokens = torch.stack([ids.reshape(-1), positions.expand(ids.shape).reshape(-1)], dim=1).numpy()
        return [
            (
                hashlib.blake2b(tokens[u.start : u.start + u.length].tobytes(), digest_size=16).digest(),
                u.start,
                u.length,
            )
            for u in layout.documents
        ]

    @contextmanager
    def _recording(self, body: Any, keys: list[tuple[bytes, int, int]]) -> Iterator[None]:
        """Write down the input of the first trained layer."""

        def write(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            states = (args[0] if args else kwargs["hidden_states"]).detach()
            flat = states.reshape(-1, states.shape[-1])
            for key, start, length in keys:
                if key not in self._found and states.dtype == body.get_input_embeddings().weight.dtype:
                    self._write(key, flat[start : start + length])

        hook = getattr(body, self.layers)[self.depth].register_forward_pre_hook(write, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def _write(self, key: bytes, states: Tensor) -> None:
        data: Any = states.contiguous().view(torch.uint8).numpy()
        if self._size + data.nbytes > self._most:
            return
        try:
            if self._file is None:
                self._path = scratch_path(".states")
                self._file = self._path.open("w+b")
                self._size, self._most = 0, min(MOST_BYTES, int(_ROOM * shutil.disk_usage(self._path.parent).free))
            self._file.seek(self._size)
            self._file.write(data)
        except OSError:
            self._most = 0  # a full disk: what is there stays, nothing more is added
            return
        self._found[key] = (self._size, len(states))
        self._size += data.nbytes

    def _read(self, key: bytes, like: Tensor) -> Tensor:
        assert self._file is not None
        place, length = self._found[key]
        states = torch.empty(length, like.shape[1], dtype=like.dtype)
        self._file.seek(place)
        self._file.readinto(states.view(torch.uint8).numpy())  # type: ignore[attr-defined]
        return states


class _Prefixed(nn.Module):
    """In front of the class of a model's body."""

    frozen_prefix: FrozenPrefix | None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        prefix = self.frozen_prefix
        if prefix is None or args:
            return super().forward(*args, **kwargs)
        return prefix.forward(self, super().forward, kwargs)


@contextmanager
def frozen_prefix(model: Any) -> Iterator[FrozenPrefix | None]:
    """While the block lasts, frozen layers below the trained ones are run once for each document; gives None where
    there are none, or where the bits would not be the same."""
    prefix = _find(model)
    body: Any = model.base_module.base_model
    cls = type(body)
    if prefix is None:
        yield None
        return
    body.__class__ = type(cls.__name__, (_Prefixed, cls), {})
    body.frozen_prefix = prefix
    try:
        if not _same_bits(model, body, prefix):
            body.frozen_prefix = prefix = None
        yield prefix
    finally:
        del body.frozen_prefix
        body.__class__ = cls
        if prefix is not None:
            prefix.close()


def frozen_depth(model: Any) -> int:
    """How many layers at the bottom, with the embeddings, hold no trained parameter; 0 where one lies elsewhere
    than in a layer or after them."""
    if getattr(model, "kind", "") != "causal":
        return 0
    body = model.base_module.base_model
    blocks = list(block_list(model.base_module))
    depth = next((i for i, block in enumerate(blocks) if any(p.requires_grad for p in block.parameters())), 0)
    above = {id(p) for block in blocks[depth:] for p in block.parameters()}
    others = [name for name, p in body.named_parameters() if p.requires_grad and id(p) not in above]
    return depth if all(name.startswith(_LAST_NORMS) for name in others) else 0


def frozen_params(model: Any) -> int:
    """Weights of those layers."""
    depth = frozen_depth(model)
    blocks = list(block_list(model.base_module))[:depth] if depth else []
    return sum(p.numel() for block in blocks for p in block.parameters())


def _find(model: Any) -> FrozenPrefix | None:
    depth = frozen_depth(model)
    if depth == 0 or model.isolation != "documents" or model.device.type != "cpu":
        return None
    body = model.base_module.base_model
    blocks = block_list(model.base_module)
    name = next((name for name, child in body.named_children() if child is blocks), None)
    if name is None:
        return None
    modules = _frozen_modules(body, name, depth)
    if any(_hooked(m) or _drops(m) for m in modules):
        return None
    frozen = [p for m in modules for p in m.parameters(recurse=False) if not p.requires_grad]
    return FrozenPrefix(name, depth, frozen)


def _frozen_modules(body: Any, layers: str, depth: int) -> list[nn.Module]:
    blocks = getattr(body, layers)
    trained = {id(m) for block in list(blocks)[depth:] for m in block.modules()}
    return [m for m in body.modules() if id(m) not in trained and m is not body and m is not blocks]


def _hooked(m: nn.Module) -> bool:
    return bool(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks)


def _drops(m: nn.Module) -> bool:
    rates = [m.p] if isinstance(m, nn.modules.dropout._DropoutNd) else []
    rates += [getattr(m, name, 0.0) for name in ("attention_dropout", "dropout_p", "attn_pdrop")]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _same_bits(model: Any, body: Any, prefix: FrozenPrefix) -> bool:
    """Whether documents have the same states in other packs, and a pack that starts above the same result."""
    drawn = torch.Generator().manual_seed(0)
    vocabulary = body.get_input_embeddings().weight.shape[0]
    documents = [
        Encoded(torch.randint(0, vocabulary, (n,), generator=drawn).tolist(), [True] * n, "")
        for n in (70, 5, 37, 41)
    ]

    def run(chosen: list[Encoded]) -> list[Tensor]:
        batch = collate([chosen], pad_id=model.pad_id)
        with torch.enable_grad():
            inputs = forward_inputs(batch, model.isolation, model.dtype)
            states = body(**inputs).last_hidden_state.detach()[0]
        return list(states.split([len(d) for d in chosen]))

    training = body.training
    body.train()
    try:
        run(documents[:1])
        run(documents[1:])
        above = run(documents)  # from what was found in other packs
        if prefix.served == 0:
            return False
        prefix.close()
        whole = run(documents)
        return all(torch.equal(a, b) for a, b in zip(whole, above))
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError):
        return False
    finally:
        body.train(training)
        prefix.close()
        prefix.served = 0
