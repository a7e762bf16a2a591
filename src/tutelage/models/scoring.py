"""Scoring with a causal model: loss of texts in windows, log-likelihoods of continuations that share a context.

Texts are cut into windows, sorted by length and packed, so nothing is computed for padding. Continuations of one
context are laid out behind a single copy of it, and contexts that begin alike (with the same demonstrations)
behind a single copy of that: [beginning][rest of context 1][option 1][option 2] ... [rest of context 2] ..., where
each option attends to the beginning, to its context and to itself. The head is computed only where a prediction is
needed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from tutelage.core.errors import ModelError
from tutelage.models import attention, logps
from tutelage.models.encode import Encoded, encode_joint, encode_prompt, start_id
from tutelage.models.packing import TokenBatch, collate
from tutelage.models.seam import LogLikelihood, TextScore, as_texts

if TYPE_CHECKING:
    from tutelage.models.causal import CausalLM

# Options behind one copy of a context: more are scored behind another copy.
OPTION_TOKENS = 4096
# Tokens that contexts must have in common to share them; what a copy of them serves may be so many times as long.
SHARED, SERVES = 32, 4


def pack_tokens(model: "CausalLM") -> int:
    """Tokens of one scoring pack: on a processor the activations of 1,024 stay in its cache."""
    return 1024 if model.device.type == "cpu" else 16384


def scoring_batches(model: "CausalLM", documents: Sequence[Encoded]) -> Iterator[tuple[list[int], TokenBatch]]:
    """Batches for scoring with the indices of their documents in order, long documents first."""
    limit = pack_tokens(model)
    order = sorted(range(len(documents)), key=lambda i: -len(documents[i]))
    padded = model.isolation == "padding"
    at = 0
    while at < len(order):
        chosen: list[int] = []
        total = 0
        while at < len(order):
            # A padded row costs the length of the longest, which comes first.
            total += len(documents[(chosen or order[at : at + 1])[0] if padded else order[at]])
            if chosen and total > limit:
                break
            chosen.append(order[at])
            at += 1
        packs = [[documents[i]] for i in chosen] if padded else [[documents[i] for i in chosen]]
        yield chosen, collate(packs, pad_id=model.pad_id).to(model.device)


def windows(ids: list[int], window: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """(start, stop, first scored) of each window over `ids`; every position from 1 on is scored exactly once."""
    done = 1
    for start in range(0, len(ids), stride):
        stop = min(start + window, len(ids))
        yield start, stop, done
        done = stop
        if stop == len(ids):
            return


def score_texts(
    model: "CausalLM", texts: Sequence[str], window: int, stride: int | None, per_token: bool, truncate: bool
) -> list[TextScore]:
    """See `CausalLM.score_texts`."""
    window = min(window, model.max_length)
    stride = max(1, window // 2) if stride is None else stride
    if window < 2 or not 1 <= stride < window:
        raise ModelError(
            "window and stride do not fit",
            where="score_texts",
            expected=f"2 <= window <= {model.max_length}, 1 <= stride < window",
            found=f"window {window}, stride {stride}",
        )
    texts = as_texts(texts, "score_texts")
    first = start_id(model)
    head = [] if first is None else [first]
    documents: list[Encoded] = []
    owner: list[int] = []
    covered = [len(text.encode()) for text in texts]
    for i, (text, ids) in enumerate(zip(texts, model.tokenize(texts))):
        if truncate and len(ids) > window - len(head):
            ids = ids[: window - len(head)]
            covered[i] = _covered_bytes(model, text, len(ids))
        full = head + ids
        if len(full) < 2:
            covered[i] = 0
            continue
        for start, stop, done in windows(full, window, stride):
            documents.append(Encoded(full[start:stop], [t >= done for t in range(start, stop)], str(i)))
            owner.append(i)
    values: list[np.ndarray] = [np.zeros(0)] * len(documents)
    for chosen, batch in scoring_batches(model, documents):
        found = -model.token_logps(batch)
        real = batch.segment_ids >= 0
        flat = found[real].double().cpu().numpy()
        mask = batch.response_mask[real].cpu().numpy()
        at = 0
        for i in chosen:
            here = slice(at, at + len(documents[i]))
            values[i] = flat[here][mask[here]]
            at += len(documents[i])
    parts: list[list[np.ndarray]] = [[] for _ in texts]
    for i, value in zip(owner, values):
        parts[i].append(value)
    scores = []
    for part, n_bytes in zip(parts, covered):
        tokens = np.concatenate(part) if part else np.zeros(0)
        total = float(tokens.sum()) if len(tokens) else float("nan")
        scores.append(TextScore(total, len(tokens), n_bytes, bool(head), tokens if per_token else None))
    model.meter.add(scored_tokens=sum(s.n_tokens for s in scores))
    return scores


def _covered_bytes(model: "CausalLM", text: str, kept: int) -> int:
    """UTF-8 bytes of the raw text up to the end of its first `kept` tokens."""
    offsets = model.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return len(text[: offsets[kept - 1][1]].encode())


@dataclass
class _Strip:
    """One context with its options as a stretch of tokens. `units` and `predictors` count from the strip's start;
    `targets` holds (pair, predictor, token): the token of a pair that the state at `predictor` must predict."""

    ids: list[int]
    positions: list[int]
    units: list[attention.Unit]
    targets: list[tuple[int, int, int]] = field(default_factory=list)


def loglikelihood(model: "CausalLM", pairs: Sequence[tuple[str, str]], joint: bool) -> list[LogLikelihood]:
    """See `CausalLM.loglikelihood`."""
    encoded = []
    for i, (context, continuation) in enumerate(pairs):
        if joint:
            before, after = encode_joint(model, context, continuation)
        else:
            before, after = encode_prompt(model, context), list(model.tokenize([continuation])[0])
        if not before or len(after) >= model.max_length:
            raise ModelError(
                "a continuation cannot be scored",
                where=f"pair {i}",
                expected=f"a context and a continuation of fewer than {model.max_length} tokens",
                found=f"{len(before)} and {len(after)} tokens",
            )
        # Too long a context loses its beginning, as in training.
        encoded.append((before[max(0, len(before) + len(after) - model.max_length) :], after))
    strips = list(_strips(encoded, model.isolation == "documents", pack_tokens(model)))
    sums = np.zeros(len(pairs))
    greedy = np.ones(len(pairs), dtype=bool)
    for chosen in _strip_packs(model, strips):
        owner, missed, found = _score_strips(model, chosen)
        np.add.at(sums, owner, found)
        greedy[owner[missed]] = False
    scored = [LogLikelihood(float(s), len(e[1]), bool(g)) for s, e, g in zip(sums, encoded, greedy)]
    model.meter.add(scored_tokens=sum(s.n_tokens for s in scored))
    return scored


def _strips(encoded: Sequence[tuple[list[int], list[int]]], share: bool, limit: int) -> Iterator[_Strip]:
    """What is scored together; `limit`: tokens after which a shared beginning is laid out anew."""
    groups: dict[tuple[tuple[int, ...], int], list[int]] = {}
    used: dict[tuple[int, ...], int] = {}
    for i, (before, after) in enumerate(encoded):
        if not after:
            continue
        key = tuple(before)
        total = used.get(key, 0) + len(after)
        used[key] = total
        groups.setdefault((key, total // OPTION_TOKENS if share else i), []).append(i)
    if not share:
        for (key, _), (i,) in groups.items():
            after, n = encoded[i][1], len(key)
            ids = [*key, *after[:-1]]
            targets = [(i, n - 1 + j, token) for j, token in enumerate(after)]
            yield _Strip(ids, list(range(len(ids))), [attention.Unit(0, len(ids))], targets)
        return
    contexts = [(key, [(i, encoded[i][1]) for i in members]) for (key, _), members in groups.items()]
    for common, family in _families([key for key, _ in contexts]):
        strip: _Strip | None = None
        for key, options in (contexts[i] for i in family):
            if strip is None:
                shared = [attention.Unit(0, common)] if common else []
                strip = _Strip(list(key[:common]), list(range(common)), shared)
            _extend(strip, key, common, options)
            if len(strip.ids) > max(limit, SERVES * common) or not common:
                yield strip
                strip = None
        if strip is not None:
            yield strip


def _extend(strip: _Strip, key: Sequence[int], common: int, options: Sequence[tuple[int, list[int]]]) -> None:
    """Lay out one context behind its shared beginning, and its options (pair, tokens) behind it."""
    n, start = len(key), len(strip.ids)
    strip.ids += key[common:]
    strip.positions += range(common, n)
    strip.units.append(attention.Unit(start, n - common, 0, common))
    last = len(strip.ids) - 1
    for i, after in options:
        at = len(strip.ids)
        # The last token of an option is only predicted, never read.
        if len(after) > 1:
            strip.units.append(attention.Unit(at, len(after) - 1, start, n - common, 0, common))
            strip.ids += after[:-1]
            strip.positions += range(n, n + len(after) - 1)
        strip.targets += [(i, last if j == 0 else at + j - 1, token) for j, token in enumerate(after)]


def _families(contexts: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, list[int]]]:
    """(tokens of a common beginning, indices of the contexts that have it), each context once.

    In alphabetical order a context joins the one before it where what is saved, (members - 1) * common tokens,
    does not shrink by it. A token of every context is left to itself: the last must be there to predict from.
    """
    family: list[int] = []
    common = 0
    for i in sorted(range(len(contexts)), key=contexts.__getitem__):
        if family:
            shared = contexts[family[0]][:common]
            both = next((j for j, (a, b) in enumerate(zip(shared, contexts[i])) if a != b), common)
            if both >= SHARED and len(family) * both >= (len(family) - 1) * common:
                family.append(i)
                common = both
                continue
            yield common if len(family) > 1 else 0, family
        family, common = [i], len(contexts[i]) - 1
    if family:
        yield common if len(family) > 1 else 0, family


def _strip_packs(model: "CausalLM", strips: Sequence[_Strip]) -> Iterator[list[_Strip]]:
    limit = pack_tokens(model)
    pack: list[_Strip] = []
    total = 0
    for strip in sorted(strips, key=lambda s: -len(s.ids)):
        width = len(pack[0].ids) if pack and model.isolation == "padding" else len(strip.ids)
        if pack and total + width > limit:
            yield pack
            pack, total = [], 0
        pack.append(strip)
        total += width
    if pack:
        yield pack


def _score_strips(model: "CausalLM", strips: Sequence[_Strip]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per target of the strips: its pair, whether another token was likelier, and its log-probability."""
    documents = [Encoded(s.ids, [False] * len(s.ids), "") for s in strips]
    packs = [[d] for d in documents] if model.isolation == "padding" else [documents]
    batch = collate(packs, pad_id=model.pad_id)
    units: list[attention.Unit] = []
    predictors: list[int] = []
    width = batch.shape[1]
    start = 0
    for row, strip in enumerate(strips):
        if model.isolation == "padding":
            start = row * width
        batch.position_ids.view(-1)[start : start + len(strip.ids)] = torch.tensor(strip.positions)
        units += [
            replace(
                u,
                start=start + u.start,
                prefix_start=start + u.prefix_start,
                before_start=start + u.before_start,
            )
            for u in strip.units
        ]
        predictors += [start + p for _, p, _ in strip.targets]
        start += len(strip.ids)
    tokens = torch.tensor([t for s in strips for _, _, t in s.targets], device=model.device)
    found, best = logps.choice_logps(model, batch.to(model.device), units, predictors, tokens)
    owner = np.array([i for s in strips for i, _, _ in s.targets])
    return owner, (best != tokens).cpu().numpy(), found.double().cpu().numpy()
