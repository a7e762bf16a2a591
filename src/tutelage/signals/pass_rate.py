"""How often a model solves each prompt by itself: what it always or never solves teaches it nothing.

n answers per prompt are sampled at `temperature`, and the verifier (a task with a reference answer) says of each
whether it is right: k right ones. With a flat prior the chance of success is Beta(k + 1, n - k + 1) with mean
(k + 1) / (n + 2). Every row has its own seed, hash(seed, id), so its answers depend on no other row. Left out:
answers of a teacher in place of references, and further samples where the first ones do not decide.
"""

from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, field_validator

from tutelage.core.component import Component
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State, Task
from tutelage.core.text.hashing import hash64

CARD = {
    "name": "signals.pass_rate",
    "paper": {"title": "Phi-4-reasoning Technical Report", "identifier": "arXiv:2504.21318"},
    "summary": "Samples answers to every prompt and counts how many of them a verifier finds right.",
    "reads": ["prompt"],
    "writes": ["n_samples", "n_correct", "pass_rate", "pass_posterior"],
    "inputs": {"model": "the causal language model that answers"},
    "needs": ["train"],
    "cost": "n answers of up to max_new_tokens tokens per prompt: more than the training on them",
    "baseline": "signals.length",
    "headline": "finds prompts at the edge of ability; eight samples place one prompt in five on the wrong side",
    "version": 1,
}


def posterior_mean(correct: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """(k + 1) / (n + 2) of k [m] right ones among n [m]."""
    return (correct + 1.0) / (samples + 2.0)


class PassRate(Scorer):
    """`verifier` is a task that scores one output (1 is right); `samples` answers per prompt at `temperature`;
    `chat` renders the prompt as a user turn."""

    verifier: Component = Field(default={"use": "evaluation.exact_match"}, validate_default=True)
    samples: int = Field(default=8, ge=1)
    temperature: float = Field(default=1.0, gt=0)
    max_new_tokens: int = Field(default=64, ge=1)
    stop: tuple[str, ...] = ()
    chat: bool = False
    seed: int = Field(default=0, ge=0)

    @field_validator("verifier")
    @classmethod
    def _scores(cls, value: Any) -> Any:
        if not isinstance(value, Task):
            raise ValueError(f"expected a method of kind Task; {value.name} is of kind {value.kind}")
        return value

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, np.ndarray]:
        model = inputs["model"]
        correct = np.array([self._correct(row, model) for row in shard.to_pylist()], dtype=np.int64)
        samples = np.full(len(correct), self.samples, dtype=np.int64)
        return {
            "n_samples": samples,
            "n_correct": correct,
            "pass_rate": correct / samples,
            "pass_posterior": posterior_mean(correct, samples),
        }

    def _correct(self, row: dict[str, Any], model: Any) -> int:
        if not row.get("prompt"):
            raise InputError(
                "a row has no prompt",
                where=f"row {row['id']}",
                expected="a text in column prompt",
                found=row.get("prompt"),
                remedy="filter such rows out",
            )
        prompt = model.chat_prompt([{"role": "user", "content": row["prompt"]}]) if self.chat else row["prompt"]
        answers = model.generate(
            [prompt] * self.samples,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            stop=self.stop,
            seed=hash64(self.seed, row["id"]) % 2**31,
        )
        scores = [self.verifier.score(row, answer.text) for answer in answers]  # type: ignore[attr-defined]
        return sum(score is not None and score >= 1 for score in scores)
