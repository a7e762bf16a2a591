"""LoRA: low-rank updates beside frozen weights.

h = W x + (alpha / r) B A x with W [out, in] frozen, A [r, in] drawn at random and B [out, r] zero, so that the new
model starts equal to the base. Through the `peft` library and saved in its layout; the weights have the base's
precision (the trainer keeps float32 masters), and the base's memory is shared, not copied.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from tutelage.adapters._shared import base_of, rebuilt
from tutelage.core.errors import ConfigError
from tutelage.core.method import Adapter, Inputs

CARD = {
    "name": "adapters.lora",
    "paper": {"title": "LoRA: Low-Rank Adaptation of Large Language Models", "identifier": "arXiv:2106.09685"},
    "summary": "Put trainable low-rank updates beside the frozen weights of a model.",
    "inputs": {"base": "the model to put the adapter on; it is left as it was"},
    "needs": ["train"],
    "cost": "r (in + out) trained weights for each adapted matrix",
    "baseline": None,
    "headline": "close to full fine-tuning at a fraction of the memory, and forgets less",
    "version": 1,
}


class Lora(Adapter):
    """`rank` r, `alpha` (scale alpha / r), `dropout` on the adapter's input, `targets`: all linear layers but the
    head, or names of modules; `top_layers`: the last so many layers alone, instead of all."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] = "all-linear"
    top_layers: int | None = Field(default=None, ge=1)
    seed: int = 0

    def convert(self, models: Mapping[str, Any], dataset: Any, inputs: Inputs) -> Any:
        """The base with a fresh adapter; raises ConfigError when no module matches `targets`."""
        import torch
        from peft import LoraConfig, get_peft_model

        from tutelage.models.peft_io import frozen_view

        base = base_of(models, self.name, ("causal", "encoder"))
        if hasattr(base.module, "peft_config"):
            raise ConfigError(
                "the model has an adapter already",
                where=f"{self.name}: base",
                found=base.name,
                remedy="merge it first (adapters.merge), or train that adapter on",
            )
        config = LoraConfig(
            task_type="CAUSAL_LM" if base.kind == "causal" else "FEATURE_EXTRACTION",
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]
            lora_dropout=self.dropout,
            target_modules=self.targets if isinstance(self.targets, str) else list(self.targets),
        )
        if self.top_layers is not None:
            config = self._of_top(config, base)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(inputs.get("seed", self.seed)))
            try:
                module = get_peft_model(frozen_view(base.module), config, autocast_adapter_dtype=False)
            except ValueError as error:
                linear = sorted({n.split(".")[-1] for n, m in base.module.named_modules() if hasattr(m, "weight")})
                raise ConfigError(
                    "the adapter fits no module of the model",
                    where=f"{self.name}: targets",
                    expected="all-linear, or some of " + ", ".join(linear),
                    found=f"{self.targets} ({str(error).splitlines()[0]})",
                ) from None
        module.to(base.device).eval()
        return rebuilt(base, module, f"{base.name}+lora")

    def _of_top(self, config: Any, base: Any) -> Any:
        """The configuration for the last layers only, which PEFT wants with the names of the modules in them."""
        import torch

        from tutelage.models.states import block_list

        blocks = list(block_list(base.base_module))
        first = len(blocks) - (self.top_layers or 0)
        if first < 0:
            raise ConfigError(
                "a model has fewer layers than get an adapter",
                where=f"{self.name}: top_layers",
                expected=f"at most {len(blocks)}",
                found=self.top_layers,
            )
        config.layers_to_transform = list(range(first, len(blocks)))
        if self.targets == "all-linear":
            config.target_modules = {n for n, m in blocks[-1].named_modules() if isinstance(m, torch.nn.Linear)}
        return config
