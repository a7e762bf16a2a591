"""A copy of a model to train: what is trained is copied, what is frozen is shared."""

import copy
from typing import Any

from torch import nn

from tutelage.models.peft_io import HEAD, adapter_marks


def trainable_copy(model: Any) -> Any:
    """A model like `model` whose trainable weights are its own and whose frozen weights share memory with it.

    Where an adapter is on the model, its weights (and those of a classifier's head) are trained alone; without
    one, all weights are.
    """
    # An adapter loaded for use is marked as frozen, so flags say nothing.
    adapter: Any = next((m for m in model.module.modules() if hasattr(m, "peft_config")), None)
    adapted = adapter is not None
    marks = (*adapter_marks(adapter), f"{HEAD}.") if adapted else ()
    memo: dict[int, Any] = {}
    for name, parameter in model.module.named_parameters():
        trained = any(mark in name for mark in marks) if adapted else True
        if type(parameter) is not nn.Parameter and not trained:
            continue  # a quantised weight copies itself with its scales
        data = parameter.detach().clone() if trained else parameter.detach()
        memo[id(parameter)] = nn.Parameter(data, requires_grad=trained)
    module = copy.deepcopy(model.module, memo)
    return model.around(module)
