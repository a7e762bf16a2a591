"""`report_to`: hand losses and results to an experiment tracker, through one small interface.

The ledger is always kept; a tracker is a copy for people who watch one. Each is an extra, imported when asked for.
"""

import contextlib
import importlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from tutelage.core.errors import ConfigError, unknown
from tutelage.runs.recipe import Recipe

Listener = Callable[[Mapping[str, Any]], None]


class Tracker(Protocol):
    """What a tracker does for us."""

    def start(self, run_id: str, recipe: Mapping[str, Any]) -> None: ...

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def finish(self) -> None: ...


def _module(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigError(
            f"report_to: {extra} needs a package that is not installed",
            where="report_to",
            expected=f"the package {name}",
            found="none",
            remedy=f"pip install 'tutelage[{extra}]', or leave report_to out",
        ) from None


class Wandb:
    """Weights & Biases, and trackio, which has the same interface."""

    def __init__(self, package: str) -> None:
        self._api = _module(package, package)
        self._run: Any = None

    def start(self, run_id: str, recipe: Mapping[str, Any]) -> None:
        self._run = self._api.init(project="tutelage", name=run_id, config=dict(recipe))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._api.log(dict(metrics), step=step)

    def finish(self) -> None:
        self._api.finish()


class Mlflow:
    """MLflow, to wherever its own environment variables point."""

    def __init__(self) -> None:
        self._api = _module("mlflow", "mlflow")

    def start(self, run_id: str, recipe: Mapping[str, Any]) -> None:
        self._api.set_experiment("tutelage")
        self._api.start_run(run_name=run_id)
        self._api.log_dict(dict(recipe), "recipe.json")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._api.log_metrics(dict(metrics), step=step)

    def finish(self) -> None:
        self._api.end_run()


class TensorBoard:
    """Event files below `<workspace>/tensorboard/<run id>`, through torch's writer."""

    def __init__(self, workspace: Path) -> None:
        self._folder = workspace / "tensorboard"
        _module("tensorboard", "tensorboard")
        self._writer_class = _module("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._writer: Any = None

    def start(self, run_id: str, recipe: Mapping[str, Any]) -> None:
        self._writer = self._writer_class(log_dir=str(self._folder / run_id))
        self._writer.add_text("recipe", str(dict(recipe)))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()


TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "trackio": lambda workspace: Wandb("trackio"),
    "wandb": lambda workspace: Wandb("wandb"),
    "mlflow": lambda workspace: Mlflow(),
    "tensorboard": TensorBoard,
}


@contextlib.contextmanager
def tracked(recipe: Recipe, workspace: Path, run_id: str, listener: Listener | None) -> Iterator[Listener]:
    """A listener that passes every event on and logs losses and estimates to the recipe's tracker."""
    heard: Listener = listener or (lambda event: None)
    if recipe.report_to is None or recipe.report_to == "none":
        yield heard
        return
    if recipe.report_to not in TRACKERS:
        what, known = f"unknown tracker {recipe.report_to!r}", [*TRACKERS, "none"]
        raise unknown(what, recipe.where("report_to"), recipe.report_to, known)
    tracker = TRACKERS[recipe.report_to](workspace)
    tracker.start(run_id, recipe.flat())
    count = 0

    def both(event: Mapping[str, Any]) -> None:
        nonlocal count
        heard(event)
        metrics = _metrics(event)
        if metrics:
            tracker.log(metrics, count)
            count += 1

    try:
        yield both
    finally:
        tracker.finish()


def _metrics(event: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a training step or of a finished measurement, named by step (and arm and seed)."""
    place = "/".join(str(event[key]) for key in ("arm", "seed", "name") if event.get(key) is not None)
    if event.get("event") == "step" and "loss" in event:
        names = ("loss", "learning_rate", "gradient_norm", "tokens_per_second")
        return {f"{place}/{name}": float(event[name]) for name in names if name in event}
    if event.get("event") == "done" and "estimate" in event.get("facts", {}):
        return {f"{place}/{event['facts']['metric']}": float(event["facts"]["estimate"])}
    return {}
