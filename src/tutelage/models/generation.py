"""Batched generation with a key-value cache, greedy or sampled, with stop strings.

Each prompt draws from its own generator, seeded with (seed, index) or with a seed of its own, so a completion does
not depend on the batch.
What all prompts begin with (a system turn, worked examples) goes through the model once. Only the last state of
each row is put through the head. The steps are computed by `models.decoder` where the model is of its plan, else
by transformers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from tutelage.core.errors import ModelError
from tutelage.models.decoder import LeanDecoder, can_run, exact_scores
from tutelage.models.encode import encode_prompt
from tutelage.models.head import Head
from tutelage.models.seam import Generation
from tutelage.models.streaming import TextStream

if TYPE_CHECKING:
    from tutelage.models.causal import CausalLM

# A shorter common beginning costs more in copies of the cache than its computation.
WORTH_SHARING = 16
# Rows are rearranged when at most this share of them still grows; each time costs a copy of the cache.
LEAVE = 0.75
# How many of the best tokens are compared exactly.
CLOSE = 8


@dataclass(frozen=True)
class Limits:
    """Where a completion ends, besides at an end token."""

    new_tokens: int
    stop: tuple[str, ...] = ()


def generate(
    model: "CausalLM",
    prompts: Sequence[str],
    limits: Limits,
    *,
    temperature: float,
    seed: int | Sequence[int],
    batch_size: int,
    on_text: Callable[[str], None] | None = None,
) -> list[Generation]:
    """Completions in the order of the prompts; see `CausalLM.generate`."""
    stream = None if on_text is None else _stream(model, prompts, limits, on_text)
    found = encoded(model, prompts, limits, temperature, batch_size)
    seeds = [seed_of(seed, i) for i in range(len(prompts))]
    completions = _Run(model, found, limits, temperature, seeds, stream, end_ids(model)).all(batch_size)
    if stream is not None:
        stream.finish(completions[0].text)
    return completions


def encoded(
    model: "CausalLM", prompts: Sequence[str], limits: Limits, temperature: float, batch_size: int
) -> list[list[int]]:
    """Token ids of each prompt; raises ModelError for a setting out of range and a prompt that does not fit."""
    if limits.new_tokens < 1 or batch_size < 1 or temperature < 0:
        raise ModelError(
            "generation has a setting out of range",
            where="generate",
            expected="max_new_tokens >= 1, batch_size >= 1, temperature >= 0",
            found=f"{limits.new_tokens}, {batch_size}, {temperature}",
        )
    found = [encode_prompt(model, prompt) for prompt in prompts]
    for i, ids in enumerate(found):
        if not ids or len(ids) >= model.max_length:
            raise ModelError(
                "a prompt does not fit the model's context",
                where=f"prompt {i}",
                expected=f"1 to {model.max_length - 1} tokens",
                found=f"{len(ids)} tokens",
                remedy="shorten the prompt",
            )
    return found


def seed_of(seed: int | Sequence[int], index: int) -> int:
    """The seed of prompt `index`: its own, or one made of the common seed and its place."""
    return ((seed * 1_000_003 + index) if isinstance(seed, int) else seed[index]) % 2**63


def _stream(
    model: "CausalLM", prompts: Sequence[str], limits: Limits, on_text: Callable[[str], None]
) -> TextStream:
    if len(prompts) != 1:
        raise ModelError(
            "only a single completion can be handed on while it grows",
            where="generate",
            expected="one prompt where on_text is given",
            found=f"{len(prompts)} prompts",
        )
    return TextStream(
        lambda tokens: str(model.tokenizer.decode(tokens, skip_special_tokens=True)), on_text, limits.stop
    )


def end_ids(model: "CausalLM") -> set[int]:
    """Tokens that end a completion: EOS and what the model's generation configuration adds."""
    config = getattr(model.base_module, "generation_config", None)
    more = getattr(config, "eos_token_id", None)
    ends = [model.eos_id, *(more if isinstance(more, list) else [more])]
    return {i for i in ends if i is not None}


class CacheDecoder:
    """The rows of a batch through transformers' own forward pass and cache, left-padded; all are there from the
    start. `fill`, `step` and `keep` as in `decoder.LeanDecoder`."""

    refills = False

    def __init__(self, model: "CausalLM") -> None:
        self.model = model
        self.forwarded = 0

    def fill(self, prompts: Sequence[list[int]]) -> tuple[Tensor, Tensor | None]:
        """The rows of a new batch; (logits [rows, V] float32, final states [rows, d] where they are known)."""
        model, device = self.model, self.model.device
        self.cache = DynamicCache(config=model.config)
        # The padding between a shared beginning and the rest would take places in a sliding window.
        shared = 0 if any(self.cache.is_sliding) else shared_prefix(prompts)
        if shared:
            prefix = torch.tensor([prompts[0][:shared]], device=device)
            model.base_module.base_model(input_ids=prefix, past_key_values=self.cache, use_cache=True)
            self.cache.batch_repeat_interleave(len(prompts))
        width = max(map(len, prompts)) - shared
        lengths = torch.tensor([len(p) - shared for p in prompts], device=device)
        ids = torch.full((len(prompts), width), model.pad_id, dtype=torch.long, device=device)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) + shared :] = torch.tensor(prompt[shared:], device=device)
        offsets = torch.arange(width, device=device)[None, :] - (width - lengths[:, None])
        self.mask = torch.cat([offsets.new_ones(len(prompts), shared), (offsets >= 0).long()], dim=1)
        self.positions = shared + offsets.clamp(min=0)
        self.forwarded += shared + int(lengths.sum())
        return self._last(ids)

    def step(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """One token [rows] for each row."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(tokens), 1)], dim=1)
        self.positions = self.positions[:, -1:] + 1
        self.forwarded += len(tokens)
        return self._last(tokens[:, None])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only (each time costs a copy of the cache)."""
        chosen = torch.tensor(rows, dtype=torch.long, device=self.model.device)
        self.cache.batch_select_indices(chosen)
        self.mask, self.positions = self.mask[chosen], self.positions[chosen]

    def _last(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        inputs = {
            "input_ids": ids,
            "attention_mask": self.mask,
            "position_ids": self.positions,
            "past_key_values": self.cache,
            "use_cache": True,
        }
        base, head = self.model.base_module, self.model.head
        if head is None:
            return base(**inputs, logits_to_keep=1).logits[:, -1].float(), None
        # Two-dimensional and contiguous: a batched product would copy the whole output matrix for every row.
        states = base.base_model(**inputs).last_hidden_state[:, -1].contiguous()
        return head(states), states


@dataclass
class _Run:
    """All prompts of a call, and what has become of them."""

    model: "CausalLM"
    prompts: list[list[int]]
    limits: Limits
    temperature: float
    seeds: list[int]
    stream: TextStream | None
    ends: set[int]

    def __post_init__(self) -> None:
        self.out: list[list[int]] = [[] for _ in self.prompts]
        self.texts: list[str | None] = [None] * len(self.prompts)
        self.generators: dict[int, torch.Generator] = {}

    def all(self, batch_size: int) -> list[Generation]:
        """Up to `batch_size` rows at a time, long prompts first. Waiting prompts take the places of finished rows,
        or, with a decoder that cannot have that, begin when all rows have finished."""
        model = self.model
        waiting = sorted(range(len(self.prompts)), key=lambda i: (len(self.prompts[i]), -i))
        decoder = self._decoder(min(batch_size, len(self.prompts)))
        live: list[int] = []  # the prompt in each row
        tokens = torch.empty(0, dtype=torch.long, device=model.device)
        while True:
            on = [row for row, i in enumerate(live) if not self._done(i)]
            if not on and not waiting:
                break
            fill = waiting and (not on or (decoder.refills and len(on) <= LEAVE * batch_size))
            if len(on) < len(live) and (fill or len(on) <= LEAVE * len(live)):
                decoder.keep(on)
                live, tokens = [live[row] for row in on], tokens[on]
            if fill:
                new = [waiting.pop() for _ in range(min(batch_size - len(live), len(waiting)))]
                first = self._accept(new, *decoder.fill([self.prompts[i] for i in new]))
                live, tokens = live + new, torch.cat([tokens, first])
            else:
                tokens = self._accept(live, *decoder.step(tokens))
        model.meter.add(
            forward_flops=2.0 * model.active_params * decoder.forwarded,
            generated_tokens=sum(map(len, self.out)),
            calls=len(self.prompts),
        )
        return [self._generation(i) for i in range(len(self.prompts))]

    def _limit(self, i: int) -> int:
        return min(self.limits.new_tokens, self.model.max_length - len(self.prompts[i]))

    def _done(self, i: int) -> bool:
        return self.texts[i] is not None or len(self.out[i]) >= self._limit(i)

    def _decoder(self, rows: int) -> "CacheDecoder | LeanDecoder":
        limits = [self._limit(i) for i in range(len(self.prompts))]
        if not can_run(self.model, max(len(p) + n for p, n in zip(self.prompts, limits))):
            return CacheDecoder(self.model)
        prefix = self.prompts[0][: shared_prefix(self.prompts)]
        return LeanDecoder(self.model, prefix, rows=rows, tokens=sum(limits))

    def _accept(self, rows: list[int], logits: Tensor, states: Tensor | None) -> Tensor:
        """The next token of each of these prompts' rows; it is theirs unless they are done."""
        tokens = self._choose(rows, logits, states)
        for i, token in zip(rows, tokens.tolist()):
            if not self._done(i):
                self.out[i].append(token)
                self.texts[i] = ended(self.model, self.out[i], self.ends, self.limits.stop)
                if self.stream is not None and self.texts[i] is None:
                    self.stream.grow(self.out[i])
        return tokens

    def _choose(self, rows: list[int], logits: Tensor, states: Tensor | None) -> Tensor:
        if self.temperature <= 0:
            return greedy(self.model.head, logits, states, self.model.dtype)
        for i in rows:
            if i not in self.generators:
                self.generators[i] = torch.Generator(device="cpu").manual_seed(self.seeds[i])
        # The token in whose part of [0, 1] a row's number falls.
        ends = torch.softmax(logits.cpu() / self.temperature, dim=-1).double().cumsum(-1)
        drawn = torch.cat([torch.rand(1, 1, dtype=torch.float64, generator=self.generators[i]) for i in rows])
        found = torch.searchsorted(ends, drawn * ends[:, -1:], right=True)[:, 0]
        return found.clamp(max=logits.shape[1] - 1).to(logits.device)

    def _generation(self, i: int) -> Generation:
        text = self.texts[i]
        if text is None:
            text = str(self.model.tokenizer.decode(self.out[i], skip_special_tokens=True))
        return Generation(text, tuple(self.out[i]), self.texts[i] is None, len(self.prompts[i]))


def greedy(head: Head | None, logits: Tensor, states: Tensor | None, dtype: torch.dtype) -> Tensor:
    """[rows] the best token of each row. Logits in less than float32 hold many ties: there the best few are
    computed again from the states, which is what keeps greedy text close to float32's."""
    if head is None or states is None or dtype == torch.float32 or type(head.module) is not nn.Linear:
        return logits.argmax(-1)
    best = logits.topk(min(CLOSE, logits.shape[1]), dim=-1).indices
    return best.gather(1, exact_scores(head, states, best).argmax(-1, keepdim=True))[:, 0]


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, 0 where computing them once is not worth it; every prompt keeps at
    least one token of its own."""
    if len(prompts) < 2:
        return 0
    most = min(map(len, prompts)) - 1
    length = next((i for i in range(most) if len({p[i] for p in prompts}) > 1), most)
    return length if length >= WORTH_SHARING else 0


def ended(model: "CausalLM", tokens: list[int], ends: set[int], stop: tuple[str, ...]) -> str | None:
    """The completion's text if its last token ended it, else None."""
    if tokens[-1] in ends:
        return str(model.tokenizer.decode(tokens[:-1], skip_special_tokens=True))
    if stop:
        text = str(model.tokenizer.decode(tokens, skip_special_tokens=True))
        places = [place for place in (text.find(s) for s in stop) if place >= 0]
        if places:
            return text[: min(places)]
    return None
