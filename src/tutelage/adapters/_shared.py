"""What the tuners share: a new model around the old weights, and the base's weights left exactly as they were."""

from collections.abc import Mapping
from typing import Any

from tutelage.core.errors import ConfigError


def base_of(models: Mapping[str, Any], method: str, kinds: tuple[str, ...] = ("causal",)) -> Any:
    """The model called `base`, which must be of one of `kinds` (a causal language model or an encoder)."""
    base = models.get("base")
    if base is None or getattr(base, "kind", "") not in kinds:
        wanted = " or ".join(
            {"causal": "a causal language model", "encoder": "an encoder"}[kind] for kind in kinds
        )
        raise ConfigError(
            f"this adapter needs {wanted} with weights",
            where=f"{method}: base",
            expected=f"a model of kind {' or '.join(kinds)}",
            found="none" if base is None else f"kind {getattr(base, 'kind', type(base).__name__)}",
            remedy="load a model folder and pass it as base",
        )
    return base


def rebuilt(model: Any, module: Any, name: str) -> Any:
    """A model like `model` around another module."""
    if model.kind == "encoder":
        return model.around(module, name)
    return type(model)(module, model.tokenizer, model.template, name=name, isolation=model.isolation)
