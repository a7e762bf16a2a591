"""`CausalLM`: a transformers causal language model with its tokenizer and chat template behind the model seam."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import torch
from torch import Tensor, nn

from tutelage.core.errors import ModelError
from tutelage.models import attention, logps
from tutelage.models.encode import Encoded, encode_joint, encode_prompt, start_id
from tutelage.models.head import Head, find_head
from tutelage.models.packing import Isolation, TokenBatch, collate, forward_inputs, per_segment
from tutelage.models.seam import Generation, LogLikelihood, Model, TextScore, as_texts
from tutelage.models.templates import ChatTemplate


class CausalLM(Model):
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
        self._head: Head | None = None
        self._head_key: tuple[int, type] | None = None
        self.isolation: Isolation = isolation or "documents"
        if self.isolation == "documents":
            self.base_module.set_attn_implementation(attention.NAME)

    # -- what it is ---------------------------------------------------------------------------------------

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

    @property
    def max_length(self) -> int:
        """Longest context in tokens."""
        config = self.config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", 1024))

    @property
    def n_params(self) -> int:
        """All parameters, tied ones once."""
        return sum(p.numel() for p in self.module.parameters())

    @property
    def active_params(self) -> int:
        """P of the cost formula: all parameters but embedding tables, plus the head."""
        base = self.base_module
        tables = {id(m.weight) for m in base.modules() if isinstance(m, nn.Embedding)}
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
    def fingerprint(self) -> str:
        """Hash of all weights and of the tokenizer."""
        digest = blake3.blake3()
        for name, value in sorted(self.module.state_dict().items()):
            digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        digest.update(self.tokenizer.backend_tokenizer.to_str().encode())
        return digest.hexdigest(length=16)

    # -- tokens -------------------------------------------------------------------------------------------

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        return [list(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
        """[texts] int64, special tokens not counted."""
        return np.array([len(ids) for ids in self.tokenize(as_texts(texts, "count_tokens"))], dtype=np.int64)

    def chat_prompt(self, messages: Sequence[dict[str, Any]]) -> str:
        """The conversation rendered up to where the assistant begins to speak."""
        from tutelage.models.encode import require_template
        from tutelage.models.templates import check_messages

        return require_template(self).render(check_messages(messages), add_generation_prompt=True)

    # -- forward passes -----------------------------------------------------------------------------------

    def final_hidden(self, batch: TokenBatch) -> Tensor:
        """[B, T, d]: the states that the head turns into logits."""
        base = self.base_module
        inputs = forward_inputs(batch, self.isolation, self.dtype)
        self.charge_forward(batch.n_tokens)
        return base.base_model(**inputs).last_hidden_state

    def charge_forward(self, tokens: int) -> None:
        """Put a forward pass over `tokens` on the meter."""
        self.meter.add(forward_flops=2.0 * self.active_params * tokens)

    def token_logps(self, batch: TokenBatch, temperature: float = 1.0) -> Tensor:
        """[B, T] log-probabilities of the labelled tokens; see `models.logps`."""
        return logps.token_logps(self, batch, temperature)

    def _batches(self, documents: Sequence[Encoded], tokens: int = 1024) -> Iterator[tuple[list[int], TokenBatch]]:
        """Packs for scoring with the indices of their documents, long documents first."""
        order = sorted(range(len(documents)), key=lambda i: -len(documents[i]))
        at = 0
        while at < len(order):
            chosen, total = [], 0
            while at < len(order) and (not chosen or total + len(documents[order[at]]) <= tokens):
                total += len(documents[order[at]])
                chosen.append(order[at])
                at += 1
            if self.isolation == "padding":
                packs = [[documents[i]] for i in chosen]
            else:
                packs = [[documents[i] for i in chosen]]
            yield chosen, collate(packs, pad_id=self.pad_id).to(self.device)

    @torch.no_grad()
    def score_texts(
        self, texts: Sequence[str], *, window: int = 1024, stride: int | None = None, per_token: bool = False
    ) -> list[TextScore]:
        """Loss of each text, every token scored exactly once, in input order.

        `window` W and `stride` S <= W in tokens (default W/2): the first window scores all its tokens, each
        later one its last S with W-S of context. Batching does not change the numbers beyond 1e-4.
        """
        window = min(window, self.max_length)
        stride = window // 2 if stride is None else stride
        if not 1 <= stride < window:
            raise ModelError("the stride does not fit the window", expected=f"1 to {window - 1}", found=stride)
        texts = as_texts(texts, "score_texts")
        first = start_id(self)
        documents: list[Encoded] = []
        owner: list[int] = []
        for i, ids in enumerate(self.tokenize(texts)):
            if not ids:
                continue
            full = ids if first is None else [first, *ids]
            done = 1
            for start in range(0, len(full), stride):
                stop = min(start + window, len(full))
                trained = [start + k >= done for k in range(stop - start)]
                documents.append(Encoded(full[start:stop], trained, str(i)))
                owner.append(i)
                done = stop
                if stop == len(full):
                    break
        values: list[np.ndarray] = [np.zeros(0)] * len(documents)
        self.module.eval()
        for chosen, batch in self._batches(documents):
            found = -self.token_logps(batch)
            flat = found[batch.segment_ids >= 0].cpu().numpy()
            mask = batch.response_mask[batch.segment_ids >= 0].cpu().numpy()
            at = 0
            for i in chosen:
                here = slice(at, at + len(documents[i]))
                values[i] = flat[here][mask[here]]
                at += len(documents[i])
        parts: list[list[np.ndarray]] = [[] for _ in texts]
        for i, value in zip(owner, values):
            parts[i].append(value)
        scores = []
        for text, part in zip(texts, parts):
            tokens = np.concatenate(part).astype(np.float64) if part else np.zeros(0)
            total = float(tokens.sum()) if len(tokens) else float("nan")
            covered = len(text.encode()) if len(tokens) else 0
            scores.append(TextScore(total, len(tokens), covered, first is not None, tokens if per_token else None))
        self.meter.add(scored_tokens=sum(s.n_tokens for s in scores))
        return scores

    @torch.no_grad()
    def loglikelihood(self, pairs: Sequence[tuple[str, str]], joint: bool = False) -> list[LogLikelihood]:
        """log p(continuation | context), context and continuation tokenised separately, or as one if `joint`."""
        documents = []
        for context, continuation in pairs:
            if joint:
                prompt, answer = encode_joint(self, context, continuation)
            else:
                prompt, answer = encode_prompt(self, context), self.tokenize([continuation])[0]
            prompt = prompt[max(0, len(prompt) + len(answer) - self.max_length) :]
            documents.append(Encoded(prompt + answer, [False] * len(prompt) + [True] * len(answer), ""))
        found = [LogLikelihood(0.0, 0, True)] * len(documents)
        self.module.eval()
        for chosen, batch in self._batches(documents):
            stats = logps.token_stats(self, batch)
            sums = per_segment(stats.logp, batch).tolist()
            missed = per_segment((stats.rank > 1).float(), batch).tolist()
            for i, total, wrong in zip(chosen, sums, missed):
                found[i] = LogLikelihood(total, documents[i].n_trained, wrong == 0)
        self.meter.add(scored_tokens=sum(f.n_tokens for f in found))
        return found

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[str],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        seed: int = 0,
        batch_size: int = 16,
    ) -> list[Generation]:
        """One completion per prompt: greedy at temperature 0, else sampled with a generator per prompt."""
        from tutelage.models.generation import generate

        return generate(
            self,
            as_texts(prompts, "generate"),
            max_new_tokens,
            temperature=temperature,
            stop=stop,
            seed=seed,
            batch_size=batch_size,
        )

    @torch.no_grad()
    def hidden_states(self, texts: Sequence[str], layer: int) -> Iterator[np.ndarray]:
        """Per text [tokens, d] float32: output of layer `layer` (0 = embeddings), start token left out."""
        first = start_id(self)
        head = [] if first is None else [first]
        self.module.eval()
        for text in as_texts(texts, "hidden_states"):
            ids = (head + self.tokenize([text])[0])[: self.max_length]
            if len(ids) == len(head):
                yield np.zeros((0, self.config.get_text_config().hidden_size), dtype=np.float32)
                continue
            batch = collate([[Encoded(ids, [False] * len(ids), "")]], pad_id=self.pad_id).to(self.device)
            inputs = forward_inputs(batch, self.isolation, self.dtype)
            self.charge_forward(batch.n_tokens)
            states = self.base_module.base_model(**inputs, output_hidden_states=True).hidden_states
            yield states[layer][0, len(head) :].float().cpu().numpy()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[texts, d] float32: mean over tokens of the layer at two thirds of the depth."""
        layer = round(2 * self.config.get_text_config().num_hidden_layers / 3)
        found = [states.mean(0) for states in self.hidden_states(texts, layer)]
        return np.stack(found) if found else np.zeros((0, self.config.get_text_config().hidden_size), np.float32)

    # -- adapters and saving ------------------------------------------------------------------------------

    def copy(self) -> "CausalLM":
        """An independent copy of the weights; the tokenizer is shared."""
        return CausalLM(
            copy.deepcopy(self.module), self.tokenizer, self.template, name=self.name, isolation=self.isolation
        )

    def save(self, path: str | Path) -> Path:
        """`save_pretrained` layout: safetensors, tokenizer, chat_template.jinja; an adapter in the PEFT layout."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        self.module.save_pretrained(folder, safe_serialization=True)
        self.tokenizer.save_pretrained(folder)
        if self.template is not None:
            (folder / "chat_template.jinja").write_text(self.template.source, encoding="utf-8")
        return folder
