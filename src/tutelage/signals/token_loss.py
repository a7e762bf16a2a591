"""How surprising each row is to a model: loss, perplexity, bits per byte and per character.

nll_t = -ln p(x_t | x_<t) in float32; nll_sum = sum over scored tokens; nll_mean = nll_sum / n_tok; ppl =
exp(nll_mean); bpb = nll_sum / (ln 2 * UTF-8 bytes scored); bpc the same with code points. A start token (BOS,
else EOS) is put first so that the first token is scored too. Long texts go through windows of `window` tokens with
stride S, each token scored once with at least window - S tokens of context. Of `prompt`/`completion` rows and of
`messages` only the (last) response is scored, tokenised apart from its prompt as in training. Rows that cannot
be scored have n_tok 0, NaN and a reason in `loss_flag`. Per-token columns compare only within one tokenizer:
across models use bpb.
"""

import math
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.rows import texts
from tutelage.signals._shared import response_pairs

CARD = {
    "name": "signals.token_loss",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Loss, perplexity and bits per byte of every row under a language model.",
    "reads": ["text"],
    "writes": ["nll_sum", "n_tok", "nll_mean", "ppl", "bpb", "bpc", "first_token_scored", "loss_flag"],
    "inputs": {"model": "the language model that scores"},
    "needs": ["train"],
    "cost": "one forward pass per token, window/stride passes on long texts",
    "baseline": "signals.length",
    "headline": "the measurement most selectors build on; low loss alone finds boilerplate and duplicates",
    "version": 1,
}


def rates(nll_sum: float, n_tok: int, n_bytes: int, n_characters: int) -> dict[str, float]:
    """nll_mean, ppl, bpb, bpc from sums; NaN where nothing was scored."""
    if n_tok == 0:
        return dict.fromkeys(("nll_sum", "nll_mean", "ppl", "bpb", "bpc"), math.nan)
    mean = nll_sum / n_tok
    bits = nll_sum / math.log(2)
    return {
        "nll_sum": nll_sum,
        "nll_mean": mean,
        # Past 700 nats exp overflows; infinity would be refused downstream, the mean still orders such rows.
        "ppl": math.exp(min(mean, 700.0)),
        "bpb": bits / n_bytes if n_bytes else math.nan,
        "bpc": bits / n_characters if n_characters else math.nan,
    }


class TokenLoss(Scorer):
    """`window` and `stride` in tokens (stride: half the window); `per_token` adds the list column `token_nll`
    for rows with `text`."""

    window: int = Field(default=1024, ge=2)
    stride: int | None = Field(default=None, ge=1)
    per_token: bool = False

    @model_validator(mode="after")
    def _stride_fits(self) -> "TokenLoss":
        if self.stride is not None and self.stride >= self.window:
            raise ValueError("stride must be smaller than window")
        return self

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        model = inputs["model"]
        pairs = response_pairs(shard, model)
        if pairs is not None:
            return _columns(*_score_pairs(model, pairs))
        rows = texts(shard)
        found = model.score_texts(rows, window=self.window, stride=self.stride, per_token=self.per_token)
        values = [rates(s.nll_sum, s.n_tokens, s.n_bytes_scored, len(t)) for s, t in zip(found, rows)]
        flags = [None if s.n_tokens else "empty text" for s in found]
        columns = _columns(values, [s.n_tokens for s in found], [s.first_token_scored for s in found], flags)
        if self.per_token:
            lists = [np.zeros(0) if s.per_token is None else s.per_token for s in found]
            columns["token_nll"] = pa.array([v.astype(np.float32) for v in lists], pa.list_(pa.float32()))
        return columns


def _score_pairs(
    model: Any, pairs: list[tuple[str, str]]
) -> tuple[list[dict[str, float]], list[int], list[bool], list[str | None]]:
    sizes = model.count_tokens([answer for _, answer in pairs])
    limit = model.max_length - 1
    flags: list[str | None] = [
        "empty response" if size == 0 else "response longer than the context" if size > limit else None
        for size in sizes.tolist()
    ]
    usable = [i for i, flag in enumerate(flags) if flag is None]
    found = dict(zip(usable, model.loglikelihood([pairs[i] for i in usable])))
    values, counts = [], []
    for i, (_, answer) in enumerate(pairs):
        count = found[i].n_tokens if i in found else 0
        total = -found[i].sum if i in found else math.nan
        values.append(rates(total, count, len(answer.encode()), len(answer)))
        counts.append(count)
    return values, counts, [True] * len(pairs), flags


def _columns(
    values: list[dict[str, float]], counts: list[int], first: list[bool], flags: list[str | None]
) -> dict[str, Any]:
    names = ("nll_sum", "nll_mean", "ppl", "bpb", "bpc")
    return {
        **{name: np.array([row[name] for row in values], dtype=np.float64) for name in names},
        "n_tok": np.array(counts, dtype=np.int64),
        "first_token_scored": np.array(first, dtype=bool),
        "loss_flag": pa.array(flags, pa.string()),
    }
