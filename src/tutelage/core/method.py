"""The base of every method: a frozen, keyword-only configuration with one verb, and the kinds of verbs.

The fields of a method are its configuration: all have defaults and are validated when the method is built,
before any compute is spent. Data never enters the constructor. A kind fixes the verb's signature; state that
changes while training (a sampler's cursor, a schedule's position) lives in the object that `start` returns,
never in the method.
"""

import hashlib
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from tutelage.core.card import ROOMS
from tutelage.core.errors import ConfigError, unknown

if TYPE_CHECKING:
    import pyarrow as pa

    from tutelage.core.dataset import Dataset
    from tutelage.core.lineage import Stage
    from tutelage.core.records import Result

# Named artifacts a step asks for in its card: Datasets, Models, Results.
Inputs = Mapping[str, Any]
# What a Scorer's fit returns: arrays and JSON values, storable without pickle.
State = dict[str, Any]


class Method(BaseModel):
    """A configured method. Unknown or ill-typed fields raise `ConfigError` naming the field and the remedy."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    kind: ClassVar[str] = ""

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise config_error(type(self), error) from None

    @property
    def name(self) -> str:
        """The method's name: its path below the package that holds the rooms (`data.select.top_k`)."""
        parts = type(self).__module__.split(".")
        start = next((number for number, part in enumerate(parts) if number and part in ROOMS), 0)
        return ".".join(parts[start:])

    def files(self) -> list[Path]:
        """Files that decide the result besides source and configuration; their contents are in the cache key."""
        return []

    def config_hash(self) -> str:
        """Hash of the name and the full configuration, defaults included."""
        text = json.dumps([self.name, self.model_dump(mode="json")], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def config_error(cls: type[BaseModel], error: ValidationError) -> ConfigError:
    """Turn pydantic's first complaint into one of ours."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "(whole)"
    owner = cls.__module__.removeprefix("tutelage.")
    if first["type"] == "extra_forbidden":
        record, name = owner_of(cls, first["loc"])
        return unknown(f"{owner} has no field {field!r}", field, name, record.model_fields)
    return ConfigError(
        f"{owner}: field {field!r} is not valid",
        where=field,
        expected=first["msg"],
        found=repr(first.get("input")),
        remedy=f"`tutelage explain {owner}` says what it takes",
    )


def owner_of(cls: type[BaseModel], place: Sequence[str | int]) -> tuple[type[BaseModel], str]:
    """(the record that lacks the last name of `place`, that name): the budget's record for `budget.tokns`."""
    for part in place[:-1]:
        field = cls.model_fields.get(str(part))
        inner = [] if field is None else [field.annotation, *typing.get_args(field.annotation)]
        cls = next((kind for kind in inner if isinstance(kind, type) and issubclass(kind, BaseModel)), cls)
    return cls, str(place[-1])


class Reader(Method):
    """Source in, rows out. `path` is the source; rows are dicts whose keys are columns."""

    kind = "Reader"

    def read(self, path: str | None = None) -> "Dataset":
        """Read everything below `path` into a Dataset; what cannot be read is quarantined with a reason."""
        raise NotImplementedError


class Writer(Method):
    """Dataset in, files out."""

    kind = "Writer"

    def write(self, dataset: "Dataset", path: str) -> list[str]:
        """Write `dataset` below `path`; returns the files written."""
        raise NotImplementedError

    def write_stages(self, dataset: "Dataset", path: str, stages: "Sequence[Stage]") -> list[str]:
        """What a run calls: `stages` are the steps behind `dataset`, sources first. A writer that tells of them
        overrides this."""
        return self.write(dataset, path)


class Scorer(Method):
    """Adds columns; never drops or reorders rows."""

    kind = "Scorer"
    # `score` is array code that keeps no state: two shards at once take two thirds of the time.
    threads: ClassVar[int] = 1

    def fit(self, dataset: "Dataset", inputs: Inputs) -> State:
        """Whatever must be learned from the whole dataset first (an index, an SVD); default: nothing."""
        return {}

    def score(self, shard: "pa.Table", state: State, inputs: Inputs) -> "dict[str, Any]":
        """Columns for the rows of one shard, in their order: name -> array or list of len(shard)."""
        raise NotImplementedError


class Transform(Method):
    """Rows in, rows out. Kept rows keep their ids (derived rows name theirs in `source_id`); every dropped
    row has a reason. Never trains a model."""

    kind = "Transform"

    def apply(self, dataset: "Dataset", inputs: Inputs) -> "Dataset":
        """The new dataset; its `dropped` table names every source row that is gone and why."""
        raise NotImplementedError

    def outside(self, dataset: "Dataset", inputs: Inputs) -> str:
        """Hash of what people wrote about these rows below `inputs["workspace"]`. A transform that uses it
        overrides this, and the cache key holds it."""
        return ""


class Draws(Protocol):
    """A running sampler: an endless, resumable stream of row indices, grouped by epoch."""

    def next(self) -> int:
        """Index of the next row to train on."""

    def update(self, metrics: Mapping[str, float]) -> None:
        """What the trainer and its evaluators just reported: `train/loss`, `train/share` (of the budget, spent),
        `eval/<name>/<metric>`."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-able cursor."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state` was taken."""


class Sampler(Method):
    """What the trainer draws from: a mixture or an order over rows."""

    kind = "Sampler"
    # It draws by what evaluators report: their cost is then the method's own, and not a measurement's.
    steered: ClassVar[bool] = False

    def start(self, dataset: "Dataset", seed: int) -> Draws:
        """Begin drawing from `dataset`; equal seeds give equal draws."""
        raise NotImplementedError


class Objective(Method):
    """A loss. Declares the columns and models it needs in its card."""

    kind = "Objective"
    # All documents of a row belong to one optimiser step (the completions of one prompt).
    whole_rows: ClassVar[bool] = False
    # With `whole_rows`: they are computed together too, side by side in one micro-batch (the two texts of a pair).
    joint_rows: ClassVar[bool] = False
    # Kinds of models that it can train.
    trains: ClassVar[tuple[str, ...]] = ("causal",)
    # A step without anything to learn from is skipped and counted instead of being an error.
    skips_empty_steps: ClassVar[bool] = False

    def start(self, model: Any) -> Any:
        """What the trainer calls with the model as it is before the first step: the objective itself, or an object
        with its methods and attributes that holds what must be kept from that moment (a frozen reference)."""
        return self

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        """One dataset row -> `models.encode.Encoded` (token ids and which of them are trained), or a list of them.

        Called when the row is drawn, with the weights of that moment: a rollout objective generates here, seeded
        from torch's global generator, which is part of every checkpoint. An empty list drops the row.
        """
        raise NotImplementedError

    def loss(self, model: Any, batch: Any) -> Any:
        """`training.objectives._shared.Loss(sum, weight, metrics, per_example)`; only the trainer divides."""
        raise NotImplementedError


class Schedule(Method):
    """The learning rate as a pure function of progress."""

    kind = "Schedule"

    def multiplier(self, seen: float, total: float) -> float:
        """Factor on the peak rate when `seen` of `total` tokens (or FLOPs, seconds) are spent; in [0, 1]."""
        raise NotImplementedError


class RunningUpdate:
    """A running update rule: override what it changes. `gradients` and `weights` map parameter names to float32
    tensors (master copies where the model computes in bfloat16) that may be edited in place."""

    def before_micro_batch(self, model: Any, batch: Any) -> None:
        """Called before each forward pass; weights moved here must be moved back in `backward`."""

    def backward(self, model: Any, loss: Any) -> None:
        """Add the gradient of one micro-batch's loss sum to the parameters' `.grad`."""
        if loss.sum.requires_grad:
            loss.sum.backward()

    def after_backward(self, model: Any, gradients: Mapping[str, Any], weight: float) -> float:
        """Called once per optimiser step with the summed gradients of all micro-batches, before they are divided
        and clipped; returns the divisor (by default `weight`, the weight of the whole step)."""
        return weight

    def after_step(self, model: Any, weights: Mapping[str, Any]) -> None:
        """Called after the optimiser's step."""

    def state_dict(self) -> dict[str, Any]:
        """JSON values and tensors; part of every checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state` was taken."""


class UpdateRule(Method):
    """What happens between backward and the next batch when it is more than the optimiser's step."""

    kind = "UpdateRule"

    def start(self, model: Any, seed: int) -> RunningUpdate:
        raise NotImplementedError


class Adapter(Method):
    """Models in, a model out, more able or portable (or cheaper: a compressor)."""

    kind = "Adapter"

    def convert(self, models: Mapping[str, Any], dataset: "Dataset | None", inputs: Inputs) -> Any:
        """The new model; `models["base"]` is the main one and is left as it was."""
        raise NotImplementedError


class Task(Method):
    """A measurement."""

    kind = "Task"

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """Measure `model` on `dataset`; the result carries its item log."""
        raise NotImplementedError

    def score(self, example: Mapping[str, Any], output: str) -> float | None:
        """Score one output; the reward in verifiable-reward training. None = cannot be scored."""
        raise NotImplementedError


class Forecaster(Method):
    """A claim about a run not made, from a table of points: one row for each run or checkpoint that was measured.

    In a recipe the points are rows, or results of earlier steps as rows (`runs.points`).
    """

    kind = "Forecaster"
    # A step says with `at` where the claim is made; otherwise the rows say it themselves.
    takes_at: ClassVar[bool] = True

    def fit(self, points: "Dataset", inputs: Inputs) -> State:
        """Whatever is learned from the points, back-tests included."""
        raise NotImplementedError

    def predict(self, state: State, at: float | None) -> "Result":
        """The claim, with its back-tested error beside it."""
        raise NotImplementedError


def as_column(values: Any, length: int, name: str) -> Any:
    """Check that a scorer's column has one value per row."""
    found = len(values)
    if found != length:
        raise ValueError(f"column {name!r} has {found} values for {length} rows")
    return np.asarray(values) if isinstance(values, np.ndarray) else values
