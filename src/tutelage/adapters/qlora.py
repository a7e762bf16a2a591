"""QLoRA: low-rank updates beside weights held in four bits.

h = dequantise(Q) x + (alpha / r) B A x, Q the NF4 codes of W in blocks of 64 with one scale a block (the scales
quantised once more), A [r, in] random and B [out, r] zero. Through bitsandbytes and peft; the adapter is saved
alone in the PEFT layout and also works on the base in full precision.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from tutelage.adapters._shared import base_of, rebuilt
from tutelage.adapters.lora import Lora
from tutelage.core.errors import ConfigError
from tutelage.core.method import Adapter, Inputs

CARD = {
    "name": "adapters.qlora",
    "paper": {"title": "QLoRA: Efficient Finetuning of Quantized LLMs", "identifier": "arXiv:2305.14314"},
    "summary": "Low-rank updates beside weights held in four bits, for models that do not fit otherwise.",
    "inputs": {"base": "the model to quantise and put the adapter on; it is left as it was"},
    "needs": ["train", "qlora"],
    "cost": "a quarter of the weights' memory; slower than LoRA, since weights are dequantised in every pass",
    "baseline": "adapters.lora",
    "headline": "the memory of four-bit weights with nearly the quality of 16-bit fine-tuning",
    "version": 1,
}


class Qlora(Adapter):
    """`rank`, `alpha`, `dropout`, `targets`: as in LoRA. `double_quantise`: quantise the block scales too."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: str | tuple[str, ...] = "all-linear"
    double_quantise: bool = True
    seed: int = 0

    def convert(self, models: Mapping[str, Any], dataset: Any, inputs: Inputs) -> Any:
        """The quantised base with a fresh adapter; raises ConfigError where the device or the library cannot."""
        base = base_of(models, self.name)
        if base.device.type not in ("cpu", "cuda"):
            raise ConfigError(
                "four-bit weights are not available on this device",
                where=f"{self.name}: base",
                expected="cpu or cuda",
                found=base.device.type,
                remedy="use adapters.lora, or load the model on another device",
            )
        try:
            import bitsandbytes
        except (ImportError, RuntimeError, OSError) as error:
            raise ConfigError(
                "four-bit weights need bitsandbytes",
                where=self.name,
                found=str(error).splitlines()[0],
                remedy="pip install 'tutelage[qlora]', or use adapters.lora",
            ) from None
        from tutelage.models.peft_io import frozen_view

        quantised = rebuilt(base, frozen_view(base.module), base.name)
        _quantise(quantised.module, bitsandbytes, self.double_quantise, base.device, base.dtype)
        lora = Lora(**{name: getattr(self, name) for name in Lora.model_fields if name in type(self).model_fields})
        found = lora.convert({"base": quantised}, dataset, inputs)
        return rebuilt(base, found.module, f"{base.name}+qlora")


def _quantise(module: Any, bitsandbytes: Any, double: bool, device: Any, dtype: Any) -> None:
    """Replace every linear layer but the head by its NF4 form."""
    from torch import nn

    head = module.get_output_embeddings()
    for parent in list(module.modules()):
        for name, layer in parent.named_children():
            if type(layer) is not nn.Linear or layer is head:
                continue
            four = bitsandbytes.nn.Linear4bit(
                layer.in_features,
                layer.out_features,
                bias=layer.bias is not None,
                compute_dtype=dtype,
                compress_statistics=double,
                quant_type="nf4",
            )
            four.weight = bitsandbytes.nn.Params4bit(
                layer.weight.detach().clone(), requires_grad=False, compress_statistics=double, quant_type="nf4"
            )
            if layer.bias is not None:
                four.bias = layer.bias
            # Its processor kernel for inference repacks the weights for good and then passes no gradient to x.
            four.support_avx512bf16_for_cpu = False
            setattr(parent, name, four.to(device))
