"""Merge an adapter into its base: a plain model that needs no adapter library.

W' = W + (alpha / r) B A, added in float32 and rounded once to the model's precision, so that merging loses no more
than storing the result does.
"""

from collections.abc import Mapping
from typing import Any, Literal

from tutelage.adapters._shared import base_of, rebuilt
from tutelage.core.errors import ConfigError
from tutelage.core.method import Adapter, Inputs

CARD = {
    "name": "adapters.merge",
    "paper": {"title": "LoRA: Low-Rank Adaptation of Large Language Models", "identifier": "arXiv:2106.09685"},
    "summary": "Merge a model's adapter into its weights, in float32.",
    "inputs": {"base": "the model with the adapter; a model without one is copied"},
    "needs": ["train"],
    "cost": "one copy of the model in float32",
    "baseline": None,
    "headline": "the same function without the adapter's cost at inference",
    "version": 1,
}


class Merge(Adapter):
    """`dtype`: precision of the result; `same` keeps the model's, `float32` keeps every bit of the sum."""

    dtype: Literal["same", "float32"] = "same"

    def convert(self, models: Mapping[str, Any], dataset: Any, inputs: Inputs) -> Any:
        """A plain model that computes what the adapted one does; the input is left as it was."""
        import copy

        import torch

        base = base_of(models, self.name)
        module = copy.deepcopy(base.module).float()
        if hasattr(module, "merge_and_unload"):
            try:
                module = module.merge_and_unload(safe_merge=True)
            except ValueError as error:
                raise ConfigError(
                    "the adapter cannot be merged",
                    where=f"{self.name}: {base.name}",
                    expected="finite weights",
                    found=str(error).splitlines()[0],
                ) from None
        for parameter in module.parameters():
            # Weights only: a cast of the whole module would round buffers such as rotary frequencies too.
            if self.dtype == "same":
                parameter.data = parameter.data.to(base.dtype)
            parameter.requires_grad_(True)
        module.to(torch.device(base.device)).eval()
        return rebuilt(base, module, base.name.removesuffix("+lora"))
