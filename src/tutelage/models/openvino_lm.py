"""`OpenVinoLM`: a causal language model whose completions come from openvino-genai, an engine for processors.

The model is written to a GGUF file with float16 weights, which the engine reads; everything but `generate`
(scores, states, training on a copy) stays with the module. Its arithmetic is of the module's precision. On two
cores it completes a batch in bfloat16 some 1.7 times as fast as `models.decoder`, with text further from that of
float32; in float32 it is as fast as `models.decoder` is in bfloat16. For architectures that `models.gguf_writer`
knows.

    pip install openvino-genai
    model = OpenVinoLM(load_model("smollm2"))            # in a recipe: {load: smollm2, engine: openvino}
"""

import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import torch

from tutelage.core.errors import ModelError
from tutelage.models import generation
from tutelage.models.causal import CausalLM
from tutelage.models.export import export_model
from tutelage.models.seam import Generation, Model, as_texts

# Tokens of new prompts that the engine computes between two steps of the others.
BATCHED_TOKENS = 1024


class OpenVinoLM(CausalLM):
    """The same module, tokenizer and template as `model`; only `generate` is the engine's. Seeds and their places,
    end tokens, stop strings and limits mean the same, the numbers drawn are the engine's own."""

    def __init__(self, model: CausalLM) -> None:
        super().__init__(model.module, model.tokenizer, model.template, name=model.name, isolation=model.isolation)
        self.meter = model.meter
        if self.device.type != "cpu":
            raise ModelError(
                "the engine runs on the processor", where=self.name, expected="device: cpu", found=self.device.type
            )
        self._engine: Any = None
        self._of: list[int] = []
        self._start()

    @property
    def fingerprint(self) -> str:
        """Other arithmetic gives other text: the module's fingerprint and the engine's version."""
        facts = [super().fingerprint, "openvino-genai", _library().__version__]
        return blake3.blake3(json.dumps(facts).encode()).hexdigest(length=16)

    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int | Sequence[int] = 0,
        batch_size: int = 64,
        *,
        on_text: Callable[[str], None] | None = None,
    ) -> list[Generation]:
        """As `CausalLM.generate`; a completion that is watched while it grows (`on_text`) is the module's."""
        if on_text is not None:
            return super().generate(prompts, max_new_tokens, temperature, stop, seed, batch_size, on_text=on_text)
        limits = generation.Limits(max_new_tokens, tuple(stop))
        encoded = generation.encoded(self, as_texts(prompts, "generate"), limits, temperature, batch_size)
        if self._versions() != self._of:
            self._start()  # the weights were trained meanwhile
        made: list[list[int]] = []
        for at in range(0, len(encoded), batch_size):
            chosen = range(at, min(at + batch_size, len(encoded)))
            settings = [
                self._settings(len(encoded[i]), limits, temperature, generation.seed_of(seed, i)) for i in chosen
            ]
            made += self._complete([encoded[i] for i in chosen], settings)
        self.meter.add(
            forward_flops=2.0 * self.active_params * (sum(map(len, encoded)) + sum(map(len, made))),
            generated_tokens=sum(map(len, made)),
            calls=len(made),
        )
        ends = generation.end_ids(self)
        return [self._finished(tokens, ends, limits.stop, len(ids)) for tokens, ids in zip(made, encoded)]

    def _start(self) -> None:
        """Write the weights as they are now and let the engine read them."""
        library = _library()
        scheduler = library.SchedulerConfig()
        scheduler.dynamic_split_fuse = True
        scheduler.max_num_batched_tokens = BATCHED_TOKENS
        # A prompt's text must not depend on what was asked before.
        scheduler.enable_prefix_caching = False
        options = {
            "INFERENCE_PRECISION_HINT": "bf16" if self.dtype == torch.bfloat16 else "f32",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        self._of = self._versions()
        with tempfile.TemporaryDirectory() as folder:
            file = export_model(self, Path(folder) / "model.gguf", format="gguf", weights="f16", check=False)
            self._engine = library.ContinuousBatchingPipeline(str(file), scheduler, "CPU", options)

    def _versions(self) -> list[int]:
        return [weight._version for weight in self.module.parameters()]

    def _settings(self, prompt: int, limits: generation.Limits, temperature: float, seed: int) -> Any:
        settings = _library().GenerationConfig()
        settings.max_new_tokens = min(limits.new_tokens, self.max_length - prompt)
        settings.apply_chat_template = False
        settings.stop_token_ids = generation.end_ids(self)
        if limits.stop:
            settings.stop_strings, settings.include_stop_str_in_output = set(limits.stop), True
        if temperature > 0:
            settings.do_sample, settings.temperature, settings.rng_seed = True, temperature, seed
        return settings

    def _complete(self, rows: Sequence[list[int]], settings: list[Any]) -> list[list[int]]:
        from openvino import Tensor

        given = [Tensor(np.array([row], dtype=np.int64)) for row in rows]
        return [
            [int(token) for token in one.m_generation_ids[0]] for one in self._engine.generate(given, settings)
        ]

    def _finished(self, tokens: list[int], ends: set[int], stop: tuple[str, ...], prompt: int) -> Generation:
        """The completion up to the first token that ended it by our rules, which need not be the engine's last."""
        for count in range(1, len(tokens) + 1):
            text = generation.ended(self, tokens[:count], ends, stop)
            if text is not None:
                return Generation(text, tuple(tokens[:count]), False, prompt)
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        return Generation(text, tuple(tokens), True, prompt)


def with_openvino(model: Model) -> OpenVinoLM:
    """The engine behind a model; raises ModelError for one that is no causal language model here."""
    if not isinstance(model, CausalLM):
        raise ModelError(
            "the engine completes text with causal language models only", where=model.name, found=model.kind
        )
    return OpenVinoLM(model)


def _library() -> Any:
    try:
        import openvino_genai
    except ImportError:
        raise ModelError(
            "the engine is not installed", where="engine: openvino", remedy="pip install openvino-genai"
        ) from None
    return openvino_genai
