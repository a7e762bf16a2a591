"""What the tuners share: a new model around the old weights, and the base's weights left exactly as they were."""

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


def rebuilt(model: Any, module: Any, name: str) -> Any:
    """A model like `model` around another module."""
    return type(model)(module, model.tokenizer, model.template, name=name, isolation=model.isolation)
