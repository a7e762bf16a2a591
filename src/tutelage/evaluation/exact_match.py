"""Generative exact match: the model answers in its own words, and the answer must equal the reference.

score = 1 if normalise(extract(output)) = normalise(reference) for one of the references, else 0. `extract` is an
optional regular expression whose first group (or whole match) is the answer. An output from which no answer can be
extracted is `unparsed`; one that ran into the token limit is `truncated`. Both count as failures and stay in the
denominator.
"""

import re
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator

from tutelage.core.answers import exact_match, last_number, numeric_match
from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.evaluation._shared import Measurement, prompt_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.exact_match",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Share of generated answers that equal the reference after normalisation.",
    "reads": ["prompt", "answer"],
    "inputs": {"model": "the causal language model that is measured"},
    "needs": ["train"],
    "cost": "one prompt and up to max_new_tokens generated tokens per item",
    "baseline": None,
    "headline": "measures what a user sees; needs a model that can follow the format",
    "version": 1,
}


class ExactMatch(Task):
    """Rows: `prompt` (or `messages`), `answer` (a string, or a list of accepted ones), optional `cluster` or
    `group`.

    `answer` says how answers are compared: "exact" (case, white space and final punctuation ignored) or "numeric"
    (the last number). `stop` strings end the generation; `chat` renders the prompt as a user turn.
    """

    answer: Literal["exact", "numeric"] = "exact"
    extract: str | None = None
    max_new_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    stop: tuple[str, ...] = ()
    chat: bool = False
    seed: int = 0

    @field_validator("extract")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"a regular expression ({error})") from None
        return value

    def answer_in(self, output: str) -> str | None:
        """The answer that `extract` finds in an output (the last match), or None when there is none."""
        if self.extract is not None:
            matches = list(re.finditer(self.extract, output))
            output = (
                next((part for part in matches[-1].groups() if part is not None), matches[-1][0])
                if matches
                else ""
            )
        if self.answer == "numeric":
            return None if last_number(output) is None else output.strip()
        return output.strip() or None

    def equal(self, found: str, reference: str) -> bool:
        """Whether two answers are the same under `answer`."""
        if self.answer == "numeric":
            return numeric_match(found, reference)
        return exact_match(found, reference)

    def score(self, example: "Mapping[str, Any]", output: str) -> float:
        """1.0 when `output` answers `example` right, else 0.0."""
        found = self.answer_in(output)
        return float(
            found is not None and any(self.equal(found, reference) for reference in self.references(example))
        )

    def references(self, row: "Mapping[str, Any]") -> list[str]:
        """The accepted answers of a row; raises InputError when there is none of the right kind."""
        value = row.get("answer")
        accepted = [str(part) for part in (value if isinstance(value, list) else [value]) if part is not None]
        if not accepted or not all(self.answer_in(part) is not None or self.extract for part in accepted):
            raise InputError(
                "a row has no reference answer",
                where=f"row {row.get('id', '?')}, field answer",
                expected="a number" if self.answer == "numeric" else "a string, or a list of accepted strings",
                found=repr(value),
            )
        return accepted

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Accuracy in [0, 1], larger is better; the interval covers items, or clusters where rows have one."""
        dataset.require("answer")
        work = Measurement(self, model, dataset, inputs, identity=("prompt", "messages", "answer"))
        references = [self.references(row) for row in work.rows]
        outputs = model.generate(
            [prompt_of(row, model, self.chat) for row in work.rows],
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            stop=self.stop,
            seed=self.seed,
        )
        for row, accepted, output in zip(work.rows, references, outputs):
            found = self.answer_in(output.text)
            status = "truncated" if output.truncated else "unparsed" if found is None else "ok"
            right = found is not None and any(self.equal(found, reference) for reference in accepted)
            work.add(
                row,
                score=float(right and status == "ok"),
                status=status,
                prediction=found,
                target=" | ".join(accepted),
                raw=output.text,
                tokens_in=output.prompt_tokens,
                tokens_out=len(output.token_ids),
            )
        decoding = {
            "max_new_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "stop": list(self.stop),
        }
        return work.result("exact_match", direction=1, system={"decoding": decoding, "chat": self.chat})
