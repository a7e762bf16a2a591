"""What a model answers to each prompt, and whether that is right: errors as a column, row by row.

a_i = the model's greedy answer to prompt i; correct_i = verifier(row i, a_i) >= 1 and a_i came to its end (an
answer that the token limit cut is wrong, as in evaluation.exact_match). The verifier is a task with a reference
answer in the row. Where a row's answer cannot be scored, `correct` is null. signals.pass_rate samples several
answers instead.
"""

from typing import Any

import pyarrow as pa
from pydantic import Field, field_validator

from tutelage.core.component import Component
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State, Task

CARD = {
    "name": "signals.answered",
    "paper": {"title": "Common practice"},
    "summary": "Answers every prompt greedily and says whether a verifier finds the answer right.",
    "reads": ["prompt"],
    "writes": ["answered", "correct"],
    "inputs": {"model": "the causal language model that answers"},
    "needs": ["train"],
    "cost": "one answer of up to max_new_tokens tokens per prompt",
    "baseline": "signals.constant",
    "headline": "tells where a model fails; one greedy answer says nothing about how nearly",
    "version": 1,
}


class Answered(Scorer):
    """`verifier` is a task that scores one output (1 is right); `chat` renders the prompt as a user turn."""

    verifier: Component = Field(default={"use": "evaluation.exact_match"}, validate_default=True)
    max_new_tokens: int = Field(default=32, ge=1)
    stop: tuple[str, ...] = ("\n",)
    chat: bool = False

    @field_validator("verifier")
    @classmethod
    def _scores(cls, value: Any) -> Any:
        if not isinstance(value, Task):
            raise ValueError(f"expected a method of kind Task; {value.name} is of kind {value.kind}")
        return value

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        model, rows = inputs["model"], shard.to_pylist()
        for row in rows:
            if not isinstance(row.get("prompt"), str) or not row["prompt"]:
                raise InputError(
                    "a row has no prompt",
                    where=f"row {row['id']}",
                    expected="a text in column prompt",
                    found=row.get("prompt"),
                    remedy="filter such rows out",
                )
        prompts = [row["prompt"] for row in rows]
        if self.chat:
            prompts = [model.chat_prompt([{"role": "user", "content": prompt}]) for prompt in prompts]
        made = model.generate(prompts, max_new_tokens=self.max_new_tokens, temperature=0.0, stop=self.stop)
        scores = [self.verifier.score(row, one.text) for row, one in zip(rows, made)]  # type: ignore[attr-defined]
        right = [
            None if score is None else bool(score >= 1) and not one.truncated for score, one in zip(scores, made)
        ]
        return {
            "answered": pa.array([one.text for one in made], pa.string()),
            "correct": pa.array(right, pa.bool_()),
        }
