"""A soft prompt: trained vectors in front of every document, below a head; the model itself stays as it is.

The input of a text is [p_1 ... p_P, e(x_1) ... e(x_T)] with P trained vectors p_i of the width of the embeddings
e; a linear head reads the last token's final state (adapters.classification_head, pooling: last), which has seen
all of it. Vectors start as the embeddings of the class names, of a text, or of tokens drawn at random, repeated or
cut to P. Only P d numbers and the head are trained. The prompt wants a larger rate than the head: train with
`learning_rate: 3e-3` and `rates: {classifier_head: 0.0033}` (training.fit), and start the head from the solution
on the frozen states (`start: fitted`), because a head from zero learns slowly at that rate. Kept in PEFT's layout
for prompt tuning. A model with a soft prompt makes classifiers and vectors; it does not write or score text.
Departures: the paper stops early on the F1 of held-out rows; here the budget ends training.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from tutelage.adapters._shared import base_of, rebuilt
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Adapter, Inputs

CARD = {
    "name": "adapters.soft_prompt",
    "paper": {
        "title": "Prompt Tuned Embedding Classification for Industry Sector Allocation",
        "identifier": "arXiv:2309.12075",
    },
    "summary": "Put trained vectors in front of every text of a frozen model, below a classification head.",
    "reads": ["label?"],
    "inputs": {
        "base": "the encoder or causal language model; it is left as it was",
        "labels?": "rows with the classes, whose names the vectors start from: label, description, aliases",
    },
    "needs": ["train"],
    "cost": "length more tokens for every text, in training and in use; length x width trained weights",
    "baseline": "adapters.linear_head",
    "headline": "one frozen model serves many classifiers, each a few kilobytes; compare with its head alone",
    "version": 1,
}


class SoftPrompt(Adapter):
    """`length` P vectors; `start`: labels (the names of the classes), text (of the field `text`) or random."""

    length: int = Field(default=100, ge=1)
    start: Literal["labels", "text", "random"] = "labels"
    text: str | None = None
    seed: int = 0

    @model_validator(mode="after")
    def _text_to_start_from(self) -> "SoftPrompt":
        if (self.start == "text") != bool(self.text):
            raise ValueError("give a text with start: text, and only there")
        return self

    def convert(self, models: Mapping[str, Any], dataset: Any, inputs: Inputs) -> Any:
        """The base with a fresh prompt; raises InputError where there are no classes or the text has no token,
        ConfigError where the prompt leaves no room for a text or the base has an adapter."""
        import torch
        from peft import PromptTuningConfig, get_peft_model

        from tutelage.models.peft_io import frozen_view, is_adapted
        from tutelage.models.soft_prompt import splice

        base = base_of(models, self.name, ("encoder", "causal"))
        if is_adapted(base.module):
            raise ConfigError(
                "the model has an adapter already",
                where=f"{self.name}: base",
                found=base.name,
                remedy="merge it first (adapters.merge), or train that adapter on",
            )
        if self.length > base.max_length // 2:
            raise ConfigError(
                "the prompt leaves too little room for texts",
                where=f"{self.name}: length",
                expected=f"at most {base.max_length // 2}, half of the model's context",
                found=self.length,
            )
        ids = self._ids(base, dataset, inputs)
        config = PromptTuningConfig(
            task_type="CAUSAL_LM" if base.kind == "causal" else "FEATURE_EXTRACTION",
            num_virtual_tokens=self.length,
            prompt_tuning_init="RANDOM",
        )
        with torch.random.fork_rng(devices=[]):
            module: Any = get_peft_model(frozen_view(base.module), config, autocast_adapter_dtype=False)
        prompt = module.prompt_encoder[module.active_adapter].embedding
        with torch.no_grad():
            prompt.weight.copy_(base.base_module.get_input_embeddings()(torch.tensor(ids, device=base.device)))
        splice(module)
        module.to(base.device).eval()
        return rebuilt(base, module, f"{base.name}+soft_prompt")

    def _ids(self, base: Any, dataset: Any, inputs: Inputs) -> list[int]:
        """The tokens whose embeddings the vectors start from."""
        import numpy as np

        from tutelage.core.labels import LabelSpace

        if self.start == "random":
            rng = np.random.default_rng(int(inputs.get("seed", self.seed)))
            return [
                int(i)
                for i in rng.integers(base.base_module.get_input_embeddings().weight.shape[0], size=self.length)
            ]
        if self.start == "text":
            words = [str(self.text)]
        else:
            schema: Any = inputs.get("labels")
            rows: Any = dataset if dataset is not None and dataset.num_rows else None
            if schema is None and rows is None:
                raise InputError(
                    "the classes are not known",
                    where=self.name,
                    expected="from: rows with label, or an input labels",
                    remedy="or choose start: random",
                )
            space = LabelSpace.from_schema(schema) if schema is not None else LabelSpace.of(rows)
            # As words in a sentence: most tokenizers tell them from those at its start.
            words = [" " + name for name in space.names]
        found = [i for ids in base.tokenize(words) for i in ids]
        if not found:
            raise InputError("there is no token to start from", where=f"{self.name}: {self.start}", found=words)
        return (found * -(-self.length // len(found)))[: self.length]
