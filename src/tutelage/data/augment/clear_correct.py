"""Replace answers by those of a model tuned on the trusted ones, where the base model clearly prefers the new one.

For every row, trusted or not: y'' is the tuned model's greedy answer; the base model is shown both answers in both
orders, and its confidence is the mean over the orders of P(it names y''). Where that is above eta, y'' takes the
place of y; otherwise the decision of data.filter.clear stands (c > gamma is kept, the rest dropped). An answer
that is empty, was cut off, or says what y says, replaces nothing. `clear_original` holds what was replaced. The
wording of the question is ours: request and answers stand between tags that they cannot close (`models.judge`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from tutelage.core.answers import exact_match
from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Inputs, Transform
from tutelage.data.filter.clear import trusted
from tutelage.models.judge import answers_prompt

CARD = {
    "name": "data.augment.clear_correct",
    "paper": {
        "title": "Automated Data Curation for Robust Language Model Fine-Tuning",
        "identifier": "arXiv:2403.12776",
    },
    "summary": "Replaces answers by a tuned model's where the base model prefers these, and drops untrusted ones.",
    "reads": ["messages?", "prompt?", "completion?", "clear_conf", "clear_auroc"],
    "writes": ["clear_original"],
    "inputs": {"model": "the tuned model that answers", "base": "the base model that compares"},
    "needs": ["train"],
    "cost": "one generation and two forward passes per row",
    "baseline": "data.filter.clear",
    "headline": "keeps rows that the filter alone would lose; its judge is the same model that is to learn",
    "version": 2,
}


def preferences(judge: Any, rows: Sequence[tuple[str, str, str]]) -> np.ndarray:
    """For (prompt, old, new): the mean over both orders of P(the judge names the new answer), float64 [n]."""
    asked = []
    for prompt, old, new in rows:
        for first, second in ((new, old), (old, new)):
            question = answers_prompt(prompt, first, second, judge)
            asked += [(question, " A"), (question, " B")]
    found = np.array([likelihood.sum for likelihood in judge.loglikelihood(asked)]).reshape(len(rows), 2, 2)
    names_new = np.stack([found[:, 0, 0], found[:, 1, 1]], axis=1)
    return np.exp(names_new - np.logaddexp(found[:, :, 0], found[:, :, 1])).mean(axis=1)


class ClearCorrect(Transform):
    """`eta`, the preference above which an answer is replaced; `gamma` and `least_auroc` as in data.filter.clear;
    the tuned model writes at most `max_new_tokens` tokens, ended by `stop`."""

    eta: float = Field(default=0.8, ge=0, le=1)
    gamma: float | None = None
    least_auroc: float = Field(default=0.6, ge=0, le=1)
    max_new_tokens: int = Field(default=64, ge=1)
    stop: tuple[str, ...] = ()

    def apply(self, dataset: Dataset, inputs: Inputs) -> Dataset:
        if inputs.get("base") is None:
            raise ConfigError(
                f"{self.name} needs the base model as well",
                where="inputs.base",
                expected="the base model that compares the two answers",
                remedy="add `inputs: {base: ...}` beside the tuned `model`",
            )
        mask, values, facts = trusted(dataset, self.gamma, self.least_auroc, self.name)
        tuned, judge = inputs["model"], inputs["base"]
        rows = list(dataset.rows())
        pairs = [_pair(row, tuned) for row in rows]
        made = tuned.generate(
            [prompt for prompt, _ in pairs], max_new_tokens=self.max_new_tokens, temperature=0.0, stop=self.stop
        )
        new = [
            generation.text
            if generation.text.strip() and not generation.truncated and not exact_match(generation.text, answer)
            else None
            for generation, (_, answer) in zip(made, pairs)
        ]
        asked = [i for i, answer in enumerate(new) if answer is not None]
        preferred = preferences(judge, [(*pairs[i], new[i] or "") for i in asked]) if asked else np.zeros(0)
        better = {i for i, value in zip(asked, preferred.tolist()) if value > self.eta}
        builder = DatasetBuilder()
        for i, row in enumerate(rows):
            if i in better:
                builder.add({**_answered(row, new[i] or ""), "clear_original": pairs[i][1]})
            elif mask[i]:
                builder.add({**row, "clear_original": None})
            else:
                builder.drop(row["id"], f"clear: confidence {values[i]:.4g}, and no better answer")
        compared = {"rows_compared": len(asked), "rows_corrected": len(better)}
        return builder.finish({**facts, **compared, "eta": self.eta})


def _pair(row: Mapping[str, Any], model: Any) -> tuple[str, str]:
    messages = row.get("messages")
    if messages and messages[-1]["role"] == "assistant":
        return model.chat_prompt(messages[:-1]), messages[-1]["content"] or ""
    if row.get("prompt") and "completion" in row:
        return row["prompt"], row["completion"] or ""
    raise InputError(
        "a row has no prompt to answer",
        where=f"row {row['id']}",
        expected="prompt and completion, or messages that end with the assistant",
        found=", ".join(name for name, value in row.items() if value is not None),
    )


def _answered(row: Mapping[str, Any], answer: str) -> dict[str, Any]:
    messages = row.get("messages")
    if messages:
        return {**row, "messages": [*messages[:-1], {**messages[-1], "content": answer}]}
    return {**row, "completion": answer}
