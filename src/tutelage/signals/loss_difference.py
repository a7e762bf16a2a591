"""What a large model finds likely and a small one does not: the difference of their losses on every row.

r(x) = nll_mean_small(x) - nll_mean_teacher(x) = (1/n) sum_t [log p_teacher(x_t | x_<t) - log p_small(x_t | x_<t)].
Both low: easy; both high: noise; teacher low and small high: worth learning. `per: byte` compares bits per byte
instead, the only comparison across tokenizers. What the small model was trained on has no score: it knows those
rows already, which says nothing about them. Losses are those of signals.token_loss.
"""

import warnings
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.rows import text_rows, texts
from tutelage.signals.token_loss import TokenLoss

CARD = {
    "name": "signals.loss_difference",
    "paper": {
        "title": "MiniPLM: Knowledge Distillation for Pre-Training Language Models",
        "identifier": "arXiv:2410.17215",
    },
    "summary": "How much better a large model predicts each row than a small one; high is worth learning.",
    "reads": ["text"],
    "writes": ["diff_score", "teacher_loss", "small_loss", "diff_flag"],
    "inputs": {
        "teacher": "the large model",
        "model": "the small model, trained on a sample of such rows",
        "trained_on?": "the rows that the small model was trained on; they get no score",
    },
    "needs": ["train"],
    "cost": "one forward pass of each model per token, once for any number of students",
    "baseline": "signals.token_loss",
    "headline": "the paper: better on nine tasks with less pretraining compute for any student; not verified here",
    "version": 1,
}
TRAINED_ON = "the small model was trained on this row"


class LossDifference(Scorer):
    """`per` token (one tokenizer) or byte (any two models); `window` and `stride` as in signals.token_loss."""

    per: Literal["token", "byte"] = "token"
    window: int = Field(default=1024, ge=2)
    stride: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _stride_fits(self) -> "LossDifference":
        if self.stride is not None and self.stride >= self.window:
            raise ValueError("stride must be smaller than window")
        return self

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        if inputs["teacher"].fingerprint == inputs["model"].fingerprint:
            warnings.warn("teacher and small model are the same: every difference is 0", stacklevel=2)
        trained_on = inputs.get("trained_on")
        return {"known": [] if trained_on is None else sorted({text for _, text in text_rows(trained_on)})}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        rows = texts(shard)
        if self.per == "token":
            _refuse_other_tokens(inputs["teacher"], inputs["model"], rows)
        measure = TokenLoss(window=self.window, stride=self.stride)
        teacher = measure.score(shard, {}, {"model": inputs["teacher"]})
        small = measure.score(shard, {}, {"model": inputs["model"]})
        _refuse_mixed_starts(teacher, small)
        known = set(state["known"])
        flags = [
            TRAINED_ON if text in known else ours or theirs
            for text, ours, theirs in zip(rows, small["loss_flag"].to_pylist(), teacher["loss_flag"].to_pylist())
        ]
        column = "nll_mean" if self.per == "token" else "bpb"
        difference = small[column] - teacher[column]
        difference[[flag is not None for flag in flags]] = np.nan
        return {
            "diff_score": difference,
            "teacher_loss": teacher[column],
            "small_loss": small[column],
            "diff_flag": pa.array(flags, pa.string()),
        }


def _refuse_other_tokens(teacher: Any, small: Any, rows: list[str]) -> None:
    for number, (theirs, ours) in enumerate(zip(teacher.tokenize(rows), small.tokenize(rows))):
        if theirs != ours:
            raise ConfigError(
                "losses per token of two tokenizers cannot be compared",
                where=f"teacher {teacher.name}, small model {small.name}, row {number} of the shard",
                expected="equal tokens",
                found=f"{len(theirs)} and {len(ours)} tokens, or other ids",
                remedy="set per: byte",
            )


def _refuse_mixed_starts(teacher: dict[str, Any], small: dict[str, Any]) -> None:
    mixed = (teacher["first_token_scored"] != small["first_token_scored"]) & (small["n_tok"] > 0)
    if mixed.any():
        raise ConfigError(
            "one model scores the first token of a text and the other cannot",
            where=f"row {int(np.flatnonzero(mixed)[0])} of the shard",
            expected="two models with a start token, or two without",
            found="one of each",
            remedy="use models of one family",
        )
