"""What every model has whose weights lie here, in a module of transformers, perhaps below an adapter."""

from typing import Any

import torch

from tutelage.models.seam import Model


class TorchModel(Model):
    """A model with weights. `module` is the transformers (or PEFT) module."""

    module: Any

    @property
    def base_module(self) -> Any:
        """The transformers model below a PEFT wrapper (adapters act in place), or the module itself."""
        return self.module.get_base_model() if hasattr(self.module, "get_base_model") else self.module

    @property
    def config(self) -> Any:
        return self.base_module.config

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return self.base_module.get_input_embeddings().weight.dtype
