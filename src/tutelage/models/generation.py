"""Batched generation with a key-value cache: left padding by lengths, greedy or sampled, stop strings.

Each prompt draws from its own generator, seeded with (seed, index) or with a seed of its own, so a completion does
not depend on the batch.
What all prompts of a batch begin with (a system turn, worked examples) goes through the model once. Only the last
state of each row is put through the head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from tutelage.core.errors import ModelError
from tutelage.models.encode import encode_prompt
from tutelage.models.seam import Generation
from tutelage.models.streaming import TextStream

if TYPE_CHECKING:
    from tutelage.models.causal import CausalLM

# A shorter common beginning costs more in copies of the cache than its computation.
WORTH_SHARING = 16


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
    if limits.new_tokens < 1 or batch_size < 1 or temperature < 0:
        raise ModelError(
            "generation has a setting out of range",
            where="generate",
            expected="max_new_tokens >= 1, batch_size >= 1, temperature >= 0",
            found=f"{limits.new_tokens}, {batch_size}, {temperature}",
        )
    encoded = [encode_prompt(model, prompt) for prompt in prompts]
    for i, ids in enumerate(encoded):
        if not ids or len(ids) >= model.max_length:
            raise ModelError(
                "a prompt does not fit the model's context",
                where=f"prompt {i}",
                expected=f"1 to {model.max_length - 1} tokens",
                found=f"{len(ids)} tokens",
                remedy="shorten the prompt",
            )
    found: list[Generation | None] = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: -len(encoded[i]))
    for at in range(0, len(order), batch_size):
        chosen = order[at : at + batch_size]
        seeds = [seed_of(seed, i) for i in chosen]
        done = _batch(model, [encoded[i] for i in chosen], limits, temperature, seeds, stream)
        for i, generation in zip(chosen, done):
            found[i] = generation
    completions = [g for g in found if g is not None]
    if stream is not None:
        stream.finish(completions[0].text)
    return completions


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


def _batch(
    model: "CausalLM",
    prompts: list[list[int]],
    limits: Limits,
    temperature: float,
    seeds: list[int],
    stream: TextStream | None,
) -> list[Generation]:
    device = model.device
    cache = DynamicCache(config=model.config)
    # The padding between a shared beginning and the rest would take places in a sliding window.
    shared = 0 if any(cache.is_sliding) else _shared_prefix(prompts)
    if shared:
        prefix = torch.tensor([prompts[0][:shared]], device=device)
        model.base_module.base_model(input_ids=prefix, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(prompts))
    width = max(map(len, prompts)) - shared
    lengths = torch.tensor([len(p) - shared for p in prompts], device=device)
    ids = torch.full((len(prompts), width), model.pad_id, dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) + shared :] = torch.tensor(prompt[shared:], device=device)
    offsets = torch.arange(width, device=device)[None, :] - (width - lengths[:, None])
    mask = torch.cat([offsets.new_ones(len(prompts), shared), (offsets >= 0).long()], dim=1)
    positions = shared + offsets.clamp(min=0)
    generators = [torch.Generator(device="cpu").manual_seed(s) for s in seeds]
    ends = end_ids(model)
    out: list[list[int]] = [[] for _ in prompts]
    texts: list[str | None] = [None] * len(prompts)
    rows = list(range(len(prompts)))  # the prompt in each row of the batch
    forwarded = shared
    new = int(lengths.sum())
    for _ in range(min(limits.new_tokens, model.max_length - shared - width)):
        logits = _last_logits(model, ids, mask, positions, cache)
        forwarded += new
        tokens = _choose(logits, temperature, [generators[r] for r in rows])
        for row, token in zip(rows, tokens.tolist()):
            if texts[row] is None:
                out[row].append(token)
                texts[row] = _ended(model, out[row], ends, limits.stop)
                if stream is not None and texts[row] is None:
                    stream.grow(out[row])
        live = [i for i, row in enumerate(rows) if texts[row] is None]
        if not live:
            break
        if 2 * len(live) <= len(rows):
            # Half of the rows are done: go on without them (each time costs a copy of the cache).
            keep = torch.tensor(live, device=device)
            cache.batch_select_indices(keep)
            tokens, mask, positions = tokens[keep], mask[keep], positions[keep]
            rows = [rows[i] for i in live]
        new = len(rows)
        ids = tokens[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[:, -1:] + 1
    model.meter.add(
        forward_flops=2.0 * model.active_params * forwarded,
        generated_tokens=sum(map(len, out)),
        calls=len(prompts),
    )
    return [
        Generation(
            model.tokenizer.decode(tokens, skip_special_tokens=True) if text is None else text,
            tuple(tokens),
            text is None,
            len(prompt),
        )
        for prompt, tokens, text in zip(prompts, out, texts)
    ]


def _shared_prefix(prompts: list[list[int]]) -> int:
    """How many tokens all prompts begin with, 0 where computing them once is not worth it; every prompt keeps at
    least one token of its own."""
    if len(prompts) < 2:
        return 0
    most = min(map(len, prompts)) - 1
    length = next((i for i in range(most) if len({p[i] for p in prompts}) > 1), most)
    return length if length >= WORTH_SHARING else 0


def _last_logits(
    model: "CausalLM", ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: DynamicCache
) -> torch.Tensor:
    """[rows, V] float32 after the last token of each row; the cache grows by `ids`."""
    inputs = {
        "input_ids": ids,
        "attention_mask": mask,
        "position_ids": positions,
        "past_key_values": cache,
        "use_cache": True,
    }
    head = model.head
    if head is None:
        return model.base_module(**inputs, logits_to_keep=1).logits[:, -1].float()
    # Two-dimensional and contiguous: a batched product would copy the whole output matrix for every row.
    return head(model.base_module.base_model(**inputs).last_hidden_state[:, -1].contiguous())


def _ended(model: "CausalLM", tokens: list[int], ends: set[int], stop: tuple[str, ...]) -> str | None:
    """The completion's text if its last token ended it, else None."""
    if tokens[-1] in ends:
        return str(model.tokenizer.decode(tokens[:-1], skip_special_tokens=True))
    if stop:
        text = str(model.tokenizer.decode(tokens, skip_special_tokens=True))
        places = [place for place in (text.find(s) for s in stop) if place >= 0]
        if places:
            return text[: min(places)]
    return None


def _choose(logits: torch.Tensor, temperature: float, generators: list[torch.Generator]) -> torch.Tensor:
    if temperature <= 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits.cpu() / temperature, dim=-1)
    drawn = [torch.multinomial(p, 1, generator=g) for p, g in zip(probabilities, generators)]
    return torch.cat(drawn).to(logits.device)
