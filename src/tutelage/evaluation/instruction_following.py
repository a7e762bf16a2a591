"""Instruction following by verifiable rules: each prompt comes with rules that its answer must satisfy.

An item scores 1 when all its rules hold (prompt-level strict accuracy), else 0; rules are checked by code, never
by a judge. The bundled probes are general knowledge and formatting tasks in 20 templates of three prompts, far
from any technical field: the same probes before and after training show what a specialised model forgot. Prompts
of one template are one cluster. Beside the score: the share of single rules that hold, and the share of
degenerate outputs (nothing said, or more than half of the 4-grams repeated). Departure from the paper: rules and
prompts are our own.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.method import Inputs, Task
from tutelage.evaluation._checks import is_degenerate, passes, validate_rules
from tutelage.evaluation._shared import Measurement, prompt_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.instruction_following",
    "paper": {
        "title": "Instruction-Following Evaluation for Large Language Models",
        "identifier": "arXiv:2311.07911",
    },
    "summary": "Share of instructions whose rules, checked by code, the model's answer satisfies.",
    "inputs": {"model": "the causal language model that is measured"},
    "needs": ["train"],
    "cost": "one prompt and up to max_new_tokens generated tokens per item",
    "baseline": None,
    "headline": "shows forgetting outside the field; 60 bundled probes see only large losses",
    "version": 1,
}


PROBES = Path(__file__).resolve().parent / "instruction_probes.jsonl"


def load_probes() -> Dataset:
    """The bundled probes: columns id, prompt, cluster (the template), checks."""
    return Dataset.from_rows(json.loads(line) for line in PROBES.read_text(encoding="utf-8").splitlines())


class InstructionFollowing(Task):
    """Rows: `prompt` (or `messages`), `checks` ([{kind, text | texts | n | share}]), optional `cluster`, `group`.

    Without a dataset the bundled probes are used. `chat`: null renders the prompt as a user turn where the model
    has a chat template, false never does.
    """

    max_new_tokens: int = Field(default=64, ge=1)
    stop: tuple[str, ...] = ()
    chat: bool | None = None

    def files(self) -> list[Path]:
        """The bundled probes."""
        return [PROBES]

    def evaluate(self, model: Any, dataset: Dataset | None, inputs: Inputs) -> "Result":
        """Share of prompts whose rules all hold, larger is better; greedy decoding.

        `extra`: rules (share of single rules), degenerate (share), truncated (share of outputs cut by the limit;
        they are judged as they are, since a rule about the end fails by itself). Raises InputError for bad checks.
        """
        dataset = load_probes() if dataset is None else dataset
        dataset.require("checks")
        work = Measurement(self, model, dataset, inputs, identity=("prompt", "messages", "checks"))
        rules = [validate_rules(row["checks"], work.where(row)) for row in work.rows]
        chat = getattr(model, "template", None) is not None if self.chat is None else self.chat
        prompts = [prompt_of(row, model, chat) for row in work.rows]
        outputs = model.generate(prompts, max_new_tokens=self.max_new_tokens, stop=self.stop)
        held = total = degenerate = truncated = 0
        for row, checks, output in zip(work.rows, rules, outputs):
            kept = sum(passes(output.text, rule) for rule in checks)
            held += kept
            total += len(checks)
            degenerate += is_degenerate(output.text)
            truncated += output.truncated
            work.add(
                row,
                score=float(kept == len(checks)),
                prediction=output.text,
                target=json.dumps(checks, ensure_ascii=False),
                tokens_in=output.prompt_tokens,
                tokens_out=len(output.token_ids),
            )
        n = len(work.rows)
        extra = {"rules": held / total, "degenerate": degenerate / n, "truncated": truncated / n}
        return work.result("instructions_followed", direction=1, extra=extra)

    def score(self, example: "Mapping[str, Any]", output: str) -> float:
        """1.0 when all rules of `example["checks"]` hold for `output`, else 0.0."""
        rules = validate_rules(example.get("checks"), f"row {example.get('id', '?')}")
        return float(all(passes(output, rule) for rule in rules))
