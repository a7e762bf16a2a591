"""Hidden states of a chosen layer: the forward pass stops there, texts are packed, results come in input order."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tutelage.core.errors import ModelError
from tutelage.models.encode import Encoded, lead
from tutelage.models.packing import TokenBatch, forward_inputs
from tutelage.models.scoring import scoring_batches

if TYPE_CHECKING:
    from tutelage.models.causal import CausalLM


class _Stop(Exception):
    """Raised by the hook: what was asked for has been computed."""


def layer_states(model: "CausalLM", texts: Sequence[str], layer: int) -> list[np.ndarray]:
    """Per text [tokens, d] float32; see `CausalLM.hidden_states`."""
    head = lead(model)
    width = model.config.get_text_config().hidden_size
    found = [np.zeros((0, width), dtype=np.float32) for _ in texts]
    documents, owner = [], []
    for i, ids in enumerate(model.tokenize(texts)):
        if ids:
            full = (head + ids)[: model.max_length]
            documents.append(Encoded(full, [False] * len(full), ""))
            owner.append(i)
    for chosen, batch in scoring_batches(model, documents):
        values = capture(model, batch, layer)[batch.segment_ids >= 0].float().cpu().numpy()
        at = 0
        for i in chosen:
            found[owner[i]] = values[at + len(head) : at + len(documents[i])].copy()
            at += len(documents[i])
    return found


def capture(model: "CausalLM", batch: TokenBatch, layer: int) -> Tensor:
    """[B, T, d]: the output of layer `layer` of a batch; 0 = embeddings, the last = after the final norm."""
    layers = block_list(model.base_module)
    if not 0 <= layer <= len(layers):
        raise ModelError("there is no such layer", where=model.name, expected=f"0 to {len(layers)}", found=layer)
    share = (layer + 1) / (len(layers) + 1)
    model.meter.add(forward_flops=2.0 * model.active_params * batch.n_tokens * share)
    inputs = forward_inputs(batch, model.isolation, model.dtype)
    if layer == len(layers):
        return model.base_module.base_model(**inputs).last_hidden_state
    seen: list[Tensor] = []

    def stop(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])
        raise _Stop

    hook = layers[layer].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model.base_module.base_model(**inputs)
    except _Stop:
        return seen[0]
    finally:
        hook.remove()
    raise ModelError("a model did not run its layers in order", where=model.name)


def block_list(base: Any) -> torch.nn.ModuleList:
    """The list of transformer blocks of a causal model; raises ModelError where there is no single one."""
    depth = base.config.get_text_config().num_hidden_layers
    lists = [m for m in base.base_model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == depth]
    if not lists:
        raise ModelError("a model has no list of layers", where=type(base).__name__)
    return lists[0]
