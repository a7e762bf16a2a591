"""Continued training that watches what the model forgets: replay, a price on leaving the base, probes, a policy.

The loop is that of training.fit with four things fixed around it. (1) Before the first step and at 1, 2, 5, 10,
20, 50 and 100 % of the budget every probe is scored, Delta_j = bits per byte now minus at the start, paired by
document, with a bootstrap interval. (2) A share of the draws is replayed general rows (data.mix.replay; with an
objective training.objectives.reference_kl, only_where: replay, they also hold the model to its start). (3) Where
the lower bound of Delta of the general probe passes `tolerance` after `after` of the budget, `action` follows.
(4) Of the models kept on the way those are left that no other beats on both probes. Defaults are ours.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tutelage.core.component import Component
from tutelage.core.errors import ConfigError
from tutelage.core.method import Method
from tutelage.training.fit import Fit

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.training._progress import Listener
    from tutelage.training._records import Fit as FitRecord
    from tutelage.training.trainer import Evaluator

CARD = {
    "name": "training.continual",
    "paper": {
        "title": "Simple and Scalable Strategies to Continually Pre-train Large Language Models",
        "identifier": "arXiv:2403.08763",
    },
    "summary": "Continue training on a domain with replay, watching general text and acting when it is forgotten.",
    "inputs": {
        "model": "the model to train; an adapter on it is trained alone",
        "general": "held-out general texts that must not get worse",
        "domain?": "held-out domain texts, where the gain is measured",
    },
    "needs": ["train"],
    "cost": "training.fit plus eight passes over the probes",
    "baseline": "training.fit",
    "headline": "forgetting is seen while it happens; replay and a lower rate are the cures, neither is free",
    "version": 1,
}
POINTS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
NAME = "forgetting"


# Method stands among the bases because discovery reads them without importing anything.
class Continual(Fit, Method):
    """The fields of training.fit, and: `tolerance` in bits per byte; `after`, the share of the budget from which
    the policy holds; `action` when the general probe is worse for certain."""

    sampler: Component = Field(default={"use": "data.mix.replay"})  # type: ignore[assignment]
    schedule: Component = Field(default={"use": "training.schedules.wsd"})  # type: ignore[assignment]
    learning_rate: float = Field(default=3e-4, gt=0)
    evaluate_at: tuple[float, ...] = POINTS
    keep_checkpoints: tuple[float, ...] = ()
    tolerance: float = Field(default=0.02, ge=0)
    after: float = Field(default=0.1, ge=0, le=1)
    action: Literal["warn", "raise_replay", "lower_rate", "stop"] = "warn"

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
        """As `training.fit`; `inputs` must hold `general` and may hold `domain`. The record's history has
        `forgetting/<probe>_delta` with its bounds for every point."""
        from tutelage.training._monitor import Monitor, refuse_leaks

        given = dict(inputs or {})
        probes = {name: given[name] for name in ("general", "domain") if given.get(name) is not None}
        if "general" not in probes:
            raise ConfigError(
                f"{self.name} needs general texts to watch",
                where="inputs.general",
                expected="held-out rows that are not trained on",
                remedy="use training.fit to train without watching",
            )
        refuse_leaks(probes, dataset)
        monitor = Monitor(
            model,
            probes,
            held=["general"],
            tolerance=self.tolerance,
            after=self.after,
            action=self.action,
        )
        made, record = super().train(
            model,
            dataset,
            inputs,
            checkpoint_dir=checkpoint_dir,
            resume=resume,
            evaluators=[*evaluators, (NAME, monitor)],
            progress=progress,
            on_event=on_event,
        )
        return made, _leave_undominated(record) if "domain" in probes else record


def _leave_undominated(record: "FitRecord") -> "FitRecord":
    """Remove the kept models that another beats on both probes."""
    from tutelage.training._monitor import undominated

    best = {record.history[i]["step"] for i in undominated(record.history, *_both())}
    measured = {entry["step"] for entry in record.history}
    kept = {}
    for point, folder in record.kept.items():
        step = int(Path(folder).name.removeprefix("step-"))
        if step in measured - best:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            kept[point] = folder
    return record.model_copy(update={"kept": kept})


def _both() -> tuple[str, str]:
    return f"{NAME}/domain_bpb", f"{NAME}/general_bpb"
