"""`CausalLM`: a transformers causal language model with its tokenizer and chat template behind the model seam."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import torch
from torch import Tensor, nn

from tutelage.core.errors import InputError, ModelError
from tutelage.models import attention, generation, logps, packing, peft_io, scoring, soft_prompt, states
from tutelage.models.encode import require_template, tokenizer_text
from tutelage.models.fused import fuse_lora
from tutelage.models.fused_layer import float_states, fused_layers
from tutelage.models.head import Head, find_head
from tutelage.models.own_code import own_code
from tutelage.models.packing import Isolation, TokenBatch, forward_inputs
from tutelage.models.seam import Generation, LogLikelihood, TextScore, as_texts
from tutelage.models.templates import ChatTemplate, check_messages
from tutelage.models.torch_model import TorchModel


class CausalLM(TorchModel):
    """A causal language model. `module` is the transformers (or PEFT) module, for where gradients are needed.

    FLOPs are charged as 2 P tokens forward, P = weights that multiply every token: all parameters but the
    embedding tables, plus the output head (counted once also where it is tied to the embedding).
    """

    kind = "causal"

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        template: ChatTemplate | None = None,
        *,
        name: str = "model",
        isolation: Isolation | None = None,
    ) -> None:
        super().__init__(name)
        self.module = module
        self.tokenizer = tokenizer
        self.template = template
        self.bos_id: int | None = tokenizer.bos_token_id
        self.eos_id: int | None = tokenizer.eos_token_id
        self.pad_id: int = next(
            i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, 0) if i is not None
        )
        self.prefix_ids: list[int] = [int(i) for i in tokenizer("")["input_ids"]][:1]
        if self.prefix_ids == [self.eos_id] and self.bos_id != self.eos_id:
            self.prefix_ids = []  # a tokenizer that only appends EOS
        if peft_io.is_adapted(module):
            fuse_lora(module)
        self.soft_ids = soft_prompt.soft_ids(module)
        self._head: Head | None = None
        self._head_key: tuple[int, type] | None = None
        self._own_attention: str = getattr(self.config, "_attn_implementation", None) or "eager"
        if self._own_attention == attention.NAME:
            self._own_attention = "sdpa"
        self.isolation: Isolation = "padding"
        if isolation is not None:
            self.use_isolation(isolation)
        else:
            with self.scoring():
                packing.choose_isolation(self)

    # -- what it is ---------------------------------------------------------------------------------------

    @property
    def max_length(self) -> int:
        """Longest context in tokens."""
        return int(getattr(self.config.get_text_config(), "max_position_embeddings", None) or 2048)

    @property
    def n_params(self) -> int:
        """All parameters, tied ones once."""
        return sum(p.numel() for p in self.module.parameters())

    @property
    def active_params(self) -> int:
        """P of the cost formula: all parameters but embedding tables, plus the head."""
        base = self.base_module
        tables = {id(m.weight) for m in self.module.modules() if isinstance(m, nn.Embedding)}
        head = base.get_output_embeddings().weight
        body = sum(p.numel() for p in self.module.parameters() if id(p) not in tables and p is not head)
        return body + head.numel()

    @property
    def head(self) -> Head | None:
        """The output head, or None where only the model's own forward pass gives its logits."""
        key = (id(self.base_module.get_output_embeddings()), type(self.base_module.get_output_embeddings()))
        if self._head_key != key:
            self._head = find_head(self.base_module)
            self._head_key = key
        return self._head

    @property
    def own_code(self) -> dict[str, str]:
        return own_code(self.base_module)

    @property
    def fingerprint(self) -> str:
        """Hash of all weights in their precision, the configuration (of adapters too), tokenizer and template, and
        of the code that came with the model."""
        digest = blake3.blake3(max_threads=blake3.blake3.AUTO)
        for name, value in sorted(self.module.state_dict().items()):
            digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
            digest.update(memoryview(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()))
        digest.update(tokenizer_text(self.tokenizer).encode())
        settings: list[Any] = [
            peft_io.settled(self.base_module.config.to_dict()),
            self.template.source if self.template else None,
        ]
        settings += peft_io.adapter_facts(self.module)
        settings += [self.own_code] if self.own_code else []
        digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
        return digest.hexdigest(length=16)

    # -- tokens -------------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        return [list(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """[texts] int64, special tokens not counted."""
        return np.array([len(ids) for ids in self.tokenize(as_texts(texts, "count_tokens"))], dtype=np.int64)

    def use_template(self, name: str) -> None:
        """Give a model that has no chat template one of the shipped ones (chatml, llama3, gemma, ...)."""
        tokens = {k: v for k, v in self.tokenizer.special_tokens_map.items() if isinstance(v, str)}
        self.template = ChatTemplate.shipped(name, tokens, self.tokenizer.all_special_tokens)

    def chat_prompt(self, messages: Sequence[dict[str, Any]]) -> str:
        """The conversation rendered up to where the assistant begins to speak."""
        return require_template(self).render(check_messages(messages), add_generation_prompt=True)

    def use_isolation(self, isolation: Isolation) -> None:
        """Keep the documents of a pack apart in this way; `packing.self_test` says whether it works."""
        self.isolation = isolation
        self._set_attention(attention.NAME if isolation == "documents" else self._own_attention)

    @contextmanager
    def own_attention(self) -> Iterator[None]:
        """The architecture's own attention function while the block lasts."""
        self._set_attention(self._own_attention)
        try:
            yield
        finally:
            self.use_isolation(self.isolation)

    def _set_attention(self, name: str) -> None:
        if getattr(self.config, "_attn_implementation", None) != name:
            self.base_module.set_attn_implementation(name)

    # -- forward passes -----------------------------------------------------------------------------------

    def final_hidden(self, batch: TokenBatch) -> Tensor:
        """[B, T, d]: the states that the head turns into logits."""
        self.charge_forward(batch.n_tokens)
        return self.final_states(forward_inputs(batch, self.isolation, self.dtype))

    def final_states(self, inputs: dict[str, Any]) -> Tensor:
        """[B, T, d] from the inputs of a forward pass; nothing is charged."""
        base = self.base_module
        return base.base_model(**float_states(base, inputs)).last_hidden_state.to(self.dtype)

    def charge_forward(self, tokens: int) -> None:
        """Put a forward pass over `tokens` on the meter."""
        self.meter.add(forward_flops=2.0 * self.active_params * tokens)

    def token_logps(self, batch: TokenBatch, temperature: float = 1.0) -> Tensor:
        """[B, T] log-probabilities of the labelled tokens; see `models.logps`."""
        return logps.token_logps(self, batch, temperature)

    @contextmanager
    def scoring(self) -> Iterator[None]:
        """Evaluation mode without gradients; the modes of all submodules are put back afterwards."""
        modes = [(module, module.training) for module in self.module.modules()]
        self.module.eval()
        try:
            with torch.no_grad(), fused_layers(self.module):
                yield
        finally:
            for module, mode in modes:
                module.training = mode

    def score_texts(
        self,
        texts: Sequence[str],
        *,
        window: int = 1024,
        stride: int | None = None,
        per_token: bool = False,
        truncate: bool = False,
    ) -> list[TextScore]:
        """Loss of each text, every token scored exactly once, in input order.

        `window` W and `stride` S < W in tokens, start token included (default S = W/2): the first window scores
        all its tokens, each later one its last S with W-S of context. `truncate` scores the first window only
        and counts the bytes that its tokens cover. An empty text has NaN, 0 tokens and 0 bytes. The batching
        does not change the numbers beyond 1e-4. Raises ModelError.
        """
        with self.scoring():
            return scoring.score_texts(self, texts, window, stride, per_token, truncate)

    def loglikelihood(self, pairs: Sequence[tuple[str, str]], *, joint: bool = False) -> list[LogLikelihood]:
        """log p(continuation | context) of (context, continuation) pairs, in input order.

        Both are tokenised separately, as in training; `joint` tokenises them as one string (the convention of
        lm-evaluation-harness). Pairs with equal contexts share its computation. Too long a context loses its
        beginning. Raises ModelError for a continuation that does not fit.
        """
        with self.scoring():
            return scoring.loglikelihood(self, pairs, joint)

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
        """One completion per prompt: greedy at temperature 0, else sampled with a generator per prompt
        (`seed`: one for all prompts and their places, or one for each prompt).

        Ends at EOS (or another end token of the generation configuration), at a `stop` string, which is not part
        of the text, or at the token limit (`truncated`). Raises ModelError for a prompt that does not fit.
        `on_text` gets the text of a single prompt's completion piece by piece while it is made; joined, the pieces
        are the text, and they change nothing about it.
        """
        limits = generation.Limits(max_new_tokens, tuple(stop))
        with self.scoring():
            return generation.generate(
                self,
                as_texts(prompts, "generate"),
                limits,
                temperature=temperature,
                seed=seed,
                batch_size=batch_size,
                on_text=on_text,
            )

    def hidden_states(self, texts: Sequence[str], layer: int) -> Iterator[np.ndarray]:
        """Per text [tokens, d] float32: the output of layer `layer` (0 = embeddings), start token left out.

        Layers above are not computed. Texts beyond `max_length` are cut.
        """
        texts = as_texts(texts, "hidden_states")
        for at in range(0, len(texts), 64):
            with self.scoring():
                found = states.layer_states(self, texts[at : at + 64], layer)
            yield from found

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[texts, d] float32: mean over the tokens of the layer at two thirds of the depth; not centred.

        Raises InputError for a text without tokens.
        """
        text_config = self.config.get_text_config()
        layer = round(2 * text_config.num_hidden_layers / 3)
        found = np.zeros((len(texts), text_config.hidden_size), dtype=np.float32)
        for i, values in enumerate(self.hidden_states(texts, layer)):
            if not len(values):
                raise InputError("a text without tokens has no embedding", where=f"item {i}", remedy="drop it")
            found[i] = values.mean(0)
        return found

    # -- adapters and saving ------------------------------------------------------------------------------

    def copy(self) -> "CausalLM":
        """An independent copy of the weights; the tokenizer is shared."""
        return self.around(copy.deepcopy(self.module))

    def around(self, module: nn.Module, name: str | None = None) -> "CausalLM":
        """The same tokenizer and template around another module of the same architecture."""
        other = CausalLM(module, self.tokenizer, self.template, name=name or self.name, isolation=self.isolation)
        head, output = self.head, other.base_module.get_output_embeddings()
        if type(output) is type(self.base_module.get_output_embeddings()):
            # How logits come from hidden states is the architecture's: no need to prove it again.
            other._head = head and replace(head, module=output)
            other._head_key = (id(output), type(output))
        return other

    def with_adapter(self, path: str | Path) -> "CausalLM":
        """This model with the PEFT adapter of folder `path`, sharing the base's memory; raises ModelError."""
        view = peft_io.frozen_view(self.module)
        return self.around(peft_io.put_adapter(view, Path(path)), name=Path(path).name)

    def merged(self) -> "CausalLM":
        """A float32 copy without adapter: the adapter is merged into the weights. ModelError for a prompt."""
        if self.soft_ids:
            raise ModelError(
                "a soft prompt cannot be merged into weights",
                where=self.name,
                remedy="save the classifier with its prompt, which is loaded as it is",
            )
        module: Any = copy.deepcopy(self.module).float()
        return self.around(module.merge_and_unload() if peft_io.is_adapted(module) else module)

    def save(self, path: str | Path) -> Path:
        """`save_pretrained` layout: safetensors, tokenizer, chat_template.jinja; an adapter in the PEFT layout."""
        return peft_io.save(self, Path(path))
