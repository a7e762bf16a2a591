"""What can end a training run, in words: each function makes the TrainingError of one cause."""

from collections.abc import Sequence
from pathlib import Path

from tutelage.core.errors import TrainingError
from tutelage.core.records import Budget
from tutelage.training._batches import name_some


def other_run(checkpoint: Path, wanted: str, found: str) -> TrainingError:
    """The newest checkpoint of the folder was made with another identity."""
    return TrainingError(
        "a checkpoint belongs to another run",
        where=checkpoint,
        expected=wanted or "no identity",
        found=found or "no identity",
        remedy="choose another checkpoint folder, or start over with resume=False",
    )


def out_of_memory(step: int, micro_tokens: int) -> TrainingError:
    """Halving the micro-batch did not help."""
    return TrainingError(
        "the device runs out of memory",
        where=f"step {step}, micro-batches of {micro_tokens} tokens",
        remedy="lower max_length, set gradient_checkpointing, or train an adapter",
    )


def not_finite(what: str, step: int, ids: Sequence[str], kept: Path | None) -> TrainingError:
    """The loss or the gradient (`what`) of rows `ids` is NaN or infinite; `kept` is the newest checkpoint."""
    return TrainingError(
        f"the {what} is not finite",
        where=f"step {step}, rows {name_some(ids)}",
        expected="a finite number",
        found="NaN or infinity",
        remedy="lower the learning rate or look at these rows"
        + (f"; the last complete checkpoint is {kept}" if kept else ""),
        repeats=True,
    )


def nothing_to_learn(step: int, ids: Sequence[str]) -> TrainingError:
    """A step's rows have no trained token."""
    return TrainingError(
        "a step has no token to learn",
        where=f"step {step}, rows {name_some(ids)}",
        expected="at least one trained token",
        found="0",
        remedy="drop these rows, or raise max_length if their responses were cut off",
        repeats=True,
    )


def budget_too_small(budget: Budget) -> TrainingError:
    """The first document, cut to the budget, has no trained token."""
    return TrainingError(
        "the budget ends before the first trained token",
        where="the first row drawn",
        expected="a budget that holds its prompt and one token of its response",
        found=budget.model_dump(exclude_none=True),
        remedy="raise the budget, or lower max_length so that prompts are shortened",
        repeats=True,
    )
