"""A copy of a model to train: what is trained is copied, what is frozen is shared."""

import copy
from typing import Any

from torch import nn

from tutelage.core.errors import ConfigError
from tutelage.models.peft_io import HEAD, adapter_marks
from tutelage.models.states import block_list


def trainable_copy(model: Any, top_layers: int | None = None) -> Any:
    """A model like `model` whose trainable weights are its own and whose frozen weights share memory with it.

    Where an adapter is on the model, its weights (and those of a classifier's head) are trained alone; without
    one, all weights are, or those of the last `top_layers` layers (and of a classifier's head). Raises ConfigError
    where there are not so many layers, or an adapter.
    """
    # An adapter loaded for use is marked as frozen, so flags say nothing.
    adapter: Any = next((m for m in model.module.modules() if hasattr(m, "peft_config")), None)
    adapted = adapter is not None
    marks = (*adapter_marks(adapter), f"{HEAD}.") if adapted else ()
    top = None if top_layers is None else _weights_of_top(model, top_layers, adapted)
    memo: dict[int, Any] = {}
    for name, parameter in model.module.named_parameters():
        trained = any(mark in name for mark in marks) if adapted else top is None or id(parameter) in top
        trained = trained or (top is not None and f"{HEAD}." in name)
        if type(parameter) is not nn.Parameter and not trained:
            continue  # a quantised weight copies itself with its scales
        data = parameter.detach().clone() if trained else parameter.detach()
        memo[id(parameter)] = nn.Parameter(data, requires_grad=trained)
    module = copy.deepcopy(model.module, memo)
    return model.around(module)


def _weights_of_top(model: Any, count: int, adapted: bool) -> set[int]:
    if adapted:
        raise ConfigError(
            "the layers that an adapter trains are chosen when it is made",
            where="top_layers",
            expected="a model without an adapter",
            found=model.name,
            remedy="use adapters.lora with top_layers, and none here",
        )
    blocks = list(block_list(model.base_module))
    if count > len(blocks):
        raise ConfigError(
            "a model has fewer layers than are to be trained",
            where="top_layers",
            expected=f"at most {len(blocks)}",
            found=count,
        )
    return {id(p) for block in blocks[len(blocks) - count :] for p in block.parameters()}
