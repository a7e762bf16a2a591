"""Train a model: draw rows, take the objective's gradient, step AdamW, until the budget is spent.

theta <- AdamW(theta, g / W, lr * s(progress)), g the summed gradient and W the summed weight of the whole step,
s the schedule. A model with an adapter trains the adapter alone; a model without one is trained in full, or its
last `top_layers` layers are. What frozen layers below the trained ones make of a document is computed once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, PositiveFloat, field_validator

from tutelage.core.component import Component
from tutelage.core.errors import ConfigError
from tutelage.core.method import Method, Objective, Sampler, Schedule, UpdateRule
from tutelage.core.records import Budget

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.training._estimate import Estimate
    from tutelage.training._progress import Listener
    from tutelage.training._records import Fit as FitRecord
    from tutelage.training._records import Settings
    from tutelage.training.schedules.wsd import Shape
    from tutelage.training.trainer import Evaluator

CARD = {
    "name": "training.fit",
    "paper": {"title": "Common practice"},
    "summary": "Train a model or its adapter on a dataset within a budget; any objective, schedule and sampler.",
    "inputs": {"model": "the model to train; an adapter on it is trained alone"},
    "needs": ["train"],
    "cost": "one forward and one backward pass per token of the budget",
    "baseline": None,
    "headline": "exact resume and one loss for every split into micro-batches",
    "version": 1,
}

_KINDS = {"objective": Objective, "sampler": Sampler, "schedule": Schedule, "update_rule": UpdateRule}


class Fit(Method):
    """Defaults suit LoRA on a model of some 100 million weights on a CPU. Lengths in tokens: `step_tokens` for one
    optimiser step, `micro_tokens` for what is computed at once, `max_length` for one document. `rates` multiply
    the learning rate of weights by a part of their names (`classifier_head: 0.1`). No `budget` means one pass over
    the rows; tokens are met exactly. `gradient_clip` 0 never clips. `evaluate_at` and
    `keep_checkpoints` are shares of the budget: when evaluators run, and when a loadable copy of the model is
    kept."""

    model_config = ConfigDict(validate_default=True)

    objective: Component = Field(default={"use": "training.objectives.causal_lm"})  # type: ignore[assignment]
    sampler: Component = Field(default={"use": "data.order.shuffle"})  # type: ignore[assignment]
    schedule: Component = Field(default={"use": "training.schedules.cosine"})  # type: ignore[assignment]
    update_rule: Component | None = None
    budget: Budget | None = None
    learning_rate: float = Field(default=1e-3, gt=0)
    rates: dict[str, PositiveFloat] = Field(default={})
    weight_decay: float = Field(default=0.1, ge=0)
    gradient_clip: float = Field(default=1.0, ge=0)
    step_tokens: int = Field(default=2048, ge=1)
    micro_tokens: int = Field(default=1024, ge=1)
    top_layers: int | None = Field(default=None, ge=1)
    max_length: int = Field(default=1024, ge=2)
    gradient_checkpointing: bool = False
    evaluate_at: tuple[float, ...] = (1.0,)
    keep_checkpoints: tuple[float, ...] = ()
    checkpoint_seconds: float = Field(default=120.0, ge=0)
    seed: int = 0

    @field_validator(*_KINDS)
    @classmethod
    def _right_kind(cls, value: Any, info: Any) -> Any:
        if value is not None and not isinstance(value, _KINDS[info.field_name]):
            raise ValueError(
                f"expected a method of kind {_KINDS[info.field_name].kind}; {value.name} is of kind {value.kind}"
            )
        return value

    @field_validator("evaluate_at", "keep_checkpoints")
    @classmethod
    def _shares(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 <= point <= 1 for point in value):
            raise ValueError("shares of the budget lie between 0 and 1")
        return tuple(sorted(set(value)))

    def settings(self) -> "Settings":
        """The loop's settings."""
        from tutelage.training._records import Settings

        return Settings(
            learning_rate=self.learning_rate,
            rates=dict(self.rates),
            weight_decay=self.weight_decay,
            clip=self.gradient_clip or None,
            step_tokens=self.step_tokens,
            micro_tokens=self.micro_tokens,
            max_length=self.max_length,
            gradient_checkpointing=self.gradient_checkpointing,
            evaluate_at=self.evaluate_at,
            keep_at=self.keep_checkpoints,
            checkpoint_seconds=self.checkpoint_seconds,
        )

    def estimate(self, model: Any, dataset: "Dataset", inputs: Mapping[str, Any] | None = None) -> "Estimate":
        """Seconds, tokens and peak memory that `train` will take, from two real steps on a throwaway copy."""
        from tutelage.training._estimate import estimate

        return estimate(model, dataset, self, int((inputs or {}).get("seed", self.seed)))

    def train(
        self,
        model: Any,
        dataset: "Dataset",
        inputs: Mapping[str, Any] | None = None,
        *,
        checkpoint_dir: str | Path | None = None,
        resume: bool = True,
        evaluators: "Sequence[Evaluator]" = (),
        progress: bool | None = None,
        on_event: "Listener | None" = None,
    ) -> "tuple[Any, FitRecord]":
        """A trained copy of `model` (frozen weights are shared with it) and the record of the run.

        `inputs` may hold `seed`, which wins over the field, and `meter`, which is charged. Raises TrainingError,
        InputError, and Interrupted when stopped with Ctrl-C.
        """
        from tutelage.training._copy import trainable_copy
        from tutelage.training._estimate import check_room
        from tutelage.training.trainer import fit

        given = dict(inputs or {})
        seed = int(given.get("seed", self.seed))
        if not hasattr(model, "base_module"):
            raise ConfigError(
                "this model cannot be trained",
                where=getattr(model, "name", "model"),
                expected="a causal language model, an encoder or a classifier on one, with weights",
                found=f"kind {getattr(model, 'kind', type(model).__name__)}",
                remedy="load a model folder",
            )
        if model.kind not in self.objective.trains:  # type: ignore[attr-defined]
            raise ConfigError(
                "this objective trains models of another kind",
                where=f"objective {self.objective.name}",
                expected=" or ".join(self.objective.trains),  # type: ignore[attr-defined]
                found=f"kind {model.kind} ({model.name})",
                remedy="choose an objective for this kind of model (`tutelage methods`)",
            )
        folder = None if checkpoint_dir is None else Path(checkpoint_dir)
        identity = "" if folder is None else f"{self.config_hash()}/{seed}/{dataset.hash}/{model.fingerprint}"
        copy = trainable_copy(model, self.top_layers)
        check_room(copy)
        record = fit(
            copy,
            dataset,
            sampler=self.sampler,  # type: ignore[arg-type]
            objective=self.objective,  # type: ignore[arg-type]
            schedule=self.schedule,  # type: ignore[arg-type]
            update_rule=self.update_rule,  # type: ignore[arg-type]
            budget=self.budget or Budget(rows=dataset.num_rows),
            settings=self.settings(),
            evaluators=evaluators,
            seed=seed,
            checkpoint_dir=folder,
            resume=resume,
            identity=identity,
            progress=progress,
            on_event=on_event,
        )
        if "meter" in given:
            given["meter"].add_cost(record.cost)
        return copy, record

    def branch_decay(
        self,
        model: Any,
        dataset: "Dataset",
        checkpoint: str | Path,
        folder: str | Path,
        decay: Budget,
        *,
        shape: "Shape" = "sqrt",
        final: float = 0.0,
    ) -> "tuple[Any, FitRecord]":
        """A decayed copy of a run of this configuration: what `checkpoint` (a `step-...` folder of its
        `checkpoint_dir`) would become if the learning rate fell to `final` over `decay` more tokens or rows.

        `model` and `dataset` are those of the run; the branch lives in `folder`, resumes there, and leaves the
        checkpoint as it was, so that the stable run can go on or be branched again. Raises ConfigError where the
        checkpoint is not in the stable phase of a constant or wsd schedule, StoreError where it is not whole.
        """
        from tutelage.training._branch import branch_decay

        return branch_decay(self, model, dataset, Path(checkpoint), Path(folder), decay, shape, final)
