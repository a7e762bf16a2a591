"""What the tuners share: a new model around the old weights, and the base's weights left exactly as they were."""

import copy
from collections.abc import Mapping
from typing import Any

from tutelage.core.errors import ConfigError


def base_of(models: Mapping[str, Any], method: str) -> Any:
    """The model called `base`, which must be a causal language model with weights."""
    base = models.get("base")
    if base is None or getattr(base, "kind", "") != "causal":
        raise ConfigError(
            "this adapter needs a causal language model with weights",
            where=f"{method}: base",
            expected="a CausalLM",
            found="none" if base is None else f"kind {getattr(base, 'kind', type(base).__name__)}",
            remedy="load a model folder and pass it as base",
        )
    return base


def frozen_view(module: Any) -> Any:
    """A module tree of its own whose parameters share memory with `module`'s and need no gradient.

    Wrapping its layers changes nothing in `module`; only weights added later take memory. Quantised weights are
    copied, because they know how to do it and change their layout when used.
    """
    from torch import nn

    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach(), requires_grad=False)
        for p in module.parameters()
        if type(p) is nn.Parameter
    }
    memo.update({id(b): b for b in module.buffers()})
    return copy.deepcopy(module, memo)


def rebuilt(model: Any, module: Any, name: str) -> Any:
    """A model like `model` around another module."""
    return type(model)(module, model.tokenizer, model.template, name=name, isolation=model.isolation)
