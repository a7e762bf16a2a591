"""The only training loop. It knows no method by name: rows come from a sampler, losses from an objective, rates from
a schedule, and what happens between backward and step from an update rule.

An optimiser step holds `step_tokens` tokens, packed into micro-batches. Gradients of sums are added up over all of
them and divided once by the weight of the whole step; the norm is logged before it is clipped. The learning rate
is the schedule's value at the middle of the step. Everything with state is in the checkpoint, taken between two
steps, so that a run killed anywhere and resumed ends with the same bits.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tutelage.core.dataset import Dataset
from tutelage.core.errors import Interrupted, TrainingError
from tutelage.core.method import Objective, RunningUpdate, Sampler, Schedule, UpdateRule
from tutelage.core.records import Budget, Cost
from tutelage.models.device import is_out_of_memory
from tutelage.models.packing import TokenBatch
from tutelage.training import _checkpoint as checkpoints
from tutelage.training._batches import Batches, Step, name_some, names
from tutelage.training._consumed import ConsumedLog
from tutelage.training._optim import Optimizer, backward_flops
from tutelage.training._progress import Listener, Progress, Stopwatch, mfu, peak_bytes
from tutelage.training._records import Fit, Settings
from tutelage.training._signals import Interruptible

Evaluator = tuple[str, Callable[[Any], Mapping[str, float]]]


@dataclass
class _Counters:
    """What the loop counts; JSON in the checkpoint."""

    step: int = 0
    tokens: int = 0
    rows: int = 0
    skipped: int = 0
    evaluated: int = 0
    kept: int = 0
    micro_tokens: int = 0
    halved: bool = False


def fit(
    model: Any,
    dataset: Dataset,
    *,
    sampler: Sampler,
    objective: Objective,
    schedule: Schedule,
    budget: Budget,
    settings: Settings | None = None,
    update_rule: UpdateRule | None = None,
    evaluators: Sequence[Evaluator] = (),
    seed: int = 0,
    checkpoint_dir: str | Path | None = None,
    resume: bool = True,
    identity: str = "",
    progress: bool | None = None,
    on_event: Listener | None = None,
) -> Fit:
    """Train `model` (a `CausalLM`) in place on rows of `dataset` until the first limit of `budget` is reached.

    A token budget is met within one document; the last step is cut. With `checkpoint_dir`, state is saved every
    `settings.checkpoint_seconds` and at the end, and with `resume` a run continues from the newest complete
    checkpoint; one made with another `identity` (whatever the caller says must be equal: configuration, data,
    model) is refused. `evaluators` are (name, callable: model -> metrics); their random numbers do not disturb
    training. Raises TrainingError (non-finite loss, nothing to learn, no memory, full disk) and Interrupted.
    """
    run = _Run(model, dataset, sampler, objective, schedule, budget, settings or Settings(), update_rule, seed)
    run.evaluators = tuple(evaluators)
    folder = None if checkpoint_dir is None else Path(checkpoint_dir)
    run.open(folder, identity, resume)
    model.module.train()
    try:
        with Progress(progress, on_event) as run.progress, Interruptible() as run.guard:
            run.loop()
    finally:
        run.consumed.close()
        model.module.eval()
    return run.record()


class _Run:
    """One run of the loop: its parts, its counters and its series."""

    progress: Progress
    guard: Interruptible

    def __init__(
        self,
        model: Any,
        dataset: Dataset,
        sampler: Sampler,
        objective: Objective,
        schedule: Schedule,
        budget: Budget,
        settings: Settings,
        update_rule: UpdateRule | None,
        seed: int,
    ) -> None:
        checkpoints.seed_everything(seed)
        self.model, self.objective, self.schedule, self.budget = model, objective, schedule, budget
        self.settings = settings
        self.evaluators: tuple[Evaluator, ...] = ()
        self.draws = sampler.start(dataset, seed)
        length = min(settings.max_length, model.max_length)
        self.batches = Batches(dataset, self.draws, objective, model, max_length=length)
        if settings.gradient_checkpointing:
            model.base_module.gradient_checkpointing_enable({"use_reentrant": False})
            if hasattr(model.base_module, "enable_input_require_grads"):
                model.base_module.enable_input_require_grads()
        self.optimizer = Optimizer(
            model.module, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
        )
        if not self.optimizer.weights:
            raise TrainingError(
                "the model has no trainable parameter",
                where=model.name,
                remedy="put an adapter on it (adapters.lora), or train it in full",
            )
        self.update: RunningUpdate = RunningUpdate() if update_rule is None else update_rule.start(model, seed)
        self.at = _Counters(micro_tokens=settings.micro_tokens)
        self.series: dict[str, list[float]] = {"loss": [], "rate": [], "norm": [], "tokens": []}
        self.history: list[dict[str, Any]] = []
        self.kept: dict[str, str] = {}
        self.watch = Stopwatch()
        self.before = self.evaluation_cost = Cost()
        self.metered = model.meter.cost
        self.backward_flops = backward_flops(model, settings.gradient_checkpointing)
        self.resumed_at: int | None = None
        self.folder: Path | None = None
        self.identity = ""
        self.saved_at = 0.0

    # -- state --------------------------------------------------------------------------------------------

    def open(self, folder: Path | None, identity: str, resume: bool) -> None:
        """Choose where checkpoints and the log of consumed ids go, and continue from the newest checkpoint."""
        self.folder, self.identity = folder, identity
        self.consumed = ConsumedLog(folder)
        found = checkpoints.newest(folder) if folder is not None and resume else None
        self.schedule.multiplier(0.0, self.spent()[1])  # a schedule that does not fit fails before any work
        if found is None:
            if folder is not None:
                checkpoints.clear(folder)
            self.consumed.rewind(0)
            self.boundary = self.capture()
            return
        state = checkpoints.load(found)
        if state["identity"] != identity:
            raise TrainingError(
                "a checkpoint belongs to another run",
                where=found,
                expected=identity or "no identity",
                found=state["identity"] or "no identity",
                remedy="choose another checkpoint folder, or start over with resume=False",
            )
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.load_state_dict(state["batches"])
        self.update.load_state_dict(state["update"])
        self.at = _Counters(**state["counters"])
        self.series, self.history, self.kept = state["series"], state["history"], state["kept"]
        self.watch = Stopwatch(state["seconds"])
        self.before = Cost(**state["cost"])
        self.evaluation_cost = Cost(**state["evaluation_cost"])
        self.consumed.rewind(state["consumed"])
        checkpoints.set_random_state(state["random"])
        self.resumed_at = self.at.step
        self.boundary = self.capture()

    def capture(self) -> dict[str, Any]:
        """Everything but the weights that a step changes, as it is between two steps."""
        return {
            "identity": self.identity,
            "batches": self.batches.state_dict(),
            "update": self.update.state_dict(),
            "counters": vars(self.at).copy(),
            "history": list(self.history),
            "kept": dict(self.kept),
            "evaluation_cost": self.evaluation_cost.model_dump(),
            "seconds": self.watch.seconds,
            "cost": self.cost().model_dump(),
            "consumed": self.consumed.position,
            "random": checkpoints.random_state(),
        }

    def save(self) -> None:
        """Write the state between the last two steps; weights have not moved since."""
        if self.folder is None:
            return
        with self.guard.deferred():
            self.consumed.sync()
            state = {**self.boundary, "series": self.series, "optimizer": self.optimizer.state_dict()}
            checkpoints.save(self.folder, self.at.step, state, keep=self.settings.keep_last)
            self.saved_at = self.watch.seconds
        self.progress.emit("checkpoint", step=self.at.step)

    def cost(self) -> Cost:
        """Spent so far, an earlier run's part included."""
        spent = self.before + self.model.meter.since(self.metered)
        return spent.model_copy(
            update={"seconds": self.watch.seconds, "peak_bytes": peak_bytes(self.model.device)}
        )

    # -- the loop -----------------------------------------------------------------------------------------

    def loop(self) -> None:
        """Evaluate, keep, save and step until the budget is spent."""
        self.saved_at = self.watch.seconds
        try:
            while True:
                self.milestones()
                fraction = self.spent()[2]
                if fraction >= 1:
                    break
                if self.watch.seconds - self.saved_at >= self.settings.checkpoint_seconds:
                    self.save()
                self.step()
            if self.resumed_at != self.at.step:
                self.save()
        except KeyboardInterrupt:
            self.optimizer.clear()
            self.at = _Counters(**self.boundary["counters"])
            self.save()
            raise Interrupted(
                "training was interrupted",
                where=f"step {self.at.step}, {self.at.tokens} tokens",
                remedy="nothing was saved: give a checkpoint folder next time"
                if self.folder is None
                else f"run the same command again: it resumes from {self.folder}",
            ) from None

    def spent(self) -> tuple[float, float, float]:
        """(seen, total, share) of the limit that is nearest its end, in its own unit."""
        return self._nearest(self.at.tokens, self.at.rows, self.cost().flops, self.watch.seconds)

    def _nearest(self, tokens: float, rows: float, flops: float, seconds: float) -> tuple[float, float, float]:
        limits = self.budget
        pairs = ((tokens, limits.tokens), (rows, limits.rows), (flops, limits.flops), (seconds, limits.seconds))
        found = [(float(seen), float(limit)) for seen, limit in pairs if limit is not None]
        seen, total = max(found, key=lambda pair: pair[0] / pair[1])
        return min(seen, total), total, seen / total

    def milestones(self) -> None:
        """Run the evaluators and keep copies of the model where their share of the budget is reached."""
        share = self.spent()[2]
        due = sum(point <= share + 1e-12 for point in sorted(self.settings.evaluate_at))
        if self.evaluators and due > self.at.evaluated:
            found = self.evaluate()
            with self.guard.deferred():
                self.history.append({"step": self.at.step, "tokens": self.at.tokens, "share": share, **found})
                self.draws.update({f"eval/{name}": value for name, value in found.items()})
                self.at.evaluated = due
                self.boundary = self.capture()
            self.progress.emit("evaluation", **self.history[-1])
        points = sorted(self.settings.keep_at)
        due = sum(point <= share + 1e-12 for point in points)
        if self.folder is not None and due > self.at.kept:
            target = checkpoints.keep_model(self.model, self.folder / "kept", self.at.step)
            with self.guard.deferred():
                self.kept.update({f"{point:g}": str(target) for point in points[self.at.kept : due]})
                self.at.kept = due
                self.boundary = self.capture()

    def evaluate(self) -> dict[str, float]:
        """Metrics of all evaluators as `<name>/<metric>`; random states and time are put back."""
        before, paid = checkpoints.random_state(), self.model.meter.cost
        self.model.module.eval()
        try:
            found = {
                f"{name}/{metric}": float(value)
                for name, evaluator in self.evaluators
                for metric, value in evaluator(self.model).items()
            }
        finally:
            self.model.module.train()
            checkpoints.set_random_state(before)
            spent = self.model.meter.since(paid)
            self.metered, self.evaluation_cost = self.metered + spent, self.evaluation_cost + spent
        return found

    def step(self) -> None:
        """One optimiser step."""
        self.watch.start()
        try:
            self._step()
        finally:
            self.watch.stop()

    def _step(self) -> None:
        started, spent = self.watch.seconds, self.cost().flops
        wanted, rows = self.wanted()
        step = self.batches.take(wanted, rows)
        losses, weight = self.accumulate(step)
        total = float(losses.sum())
        self.update_weights(step, total, weight, started)
        seconds = self.watch.seconds - started
        flops = self.cost().flops - spent
        facts = {
            "step": self.at.step,
            "loss": self.series["loss"][-1],
            "learning_rate": self.series["rate"][-1],
            "gradient_norm": self.series["norm"][-1],
            "tokens": self.at.tokens,
            "tokens_per_second": step.tokens / seconds,
            "mfu": mfu(flops, seconds, self.model.device, self.model.dtype),
            "seconds": self.watch.seconds,
        }
        self.progress.step(min(1.0, self.spent()[2]), facts)

    def wanted(self) -> tuple[int, int | None]:
        """Tokens of the next step, cut where the budget ends, and rows that are left."""
        tokens = self.settings.step_tokens
        if self.budget.tokens is not None:
            tokens = min(tokens, self.budget.tokens - self.at.tokens)
        if self.budget.flops is not None:
            per_token = 2.0 * self.model.active_params + self.backward_flops
            tokens = min(tokens, int((self.budget.flops - self.cost().flops) / per_token) + 1)
        rows = None if self.budget.rows is None else self.budget.rows - self.at.rows
        return max(tokens, 1), rows

    def accumulate(self, step: Step) -> tuple[torch.Tensor, float]:
        """Gradients of the step's loss sum; halves the micro-batch once when memory runs out."""
        random = checkpoints.random_state()
        try:
            return self._accumulate(step)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.at.halved or self.at.micro_tokens < 2:
                raise TrainingError(
                    "the device runs out of memory",
                    where=f"step {self.at.step}, micro-batches of {self.at.micro_tokens} tokens",
                    remedy="lower max_length, set gradient_checkpointing, or train an adapter",
                ) from None
        # Outside the except block: the exception holds the frames whose tensors must be freed first.
        self.optimizer.clear()
        checkpoints.set_random_state(random)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.at.micro_tokens //= 2
        self.at.halved = True
        self.progress.emit(
            "warning", message=f"out of memory: micro-batches are halved to {self.at.micro_tokens} tokens"
        )
        return self.accumulate(step)

    def _accumulate(self, step: Step) -> tuple[torch.Tensor, float]:
        self.optimizer.clear()
        sums, weight = [], 0.0
        micro = self.batches.micro_batches(step, self.at.micro_tokens)
        for batch in micro:
            batch = batch.to(self.model.device)
            self.update.before_micro_batch(self.model, batch)
            loss = self.objective.loss(self.model, batch)
            self.update.backward(self.model, loss)
            self.optimizer.fold()
            self.model.meter.add(
                backward_flops=self.backward_flops * batch.n_tokens, trained_tokens=batch.n_tokens
            )
            sums.append(loss.sum.detach().double())
            weight += float(loss.weight)
        found = torch.stack(sums)
        self.check_finite(found, micro)
        return found, weight

    def check_finite(self, losses: torch.Tensor, micro: Sequence[TokenBatch]) -> None:
        """Raise TrainingError naming the rows of the first micro-batch whose loss is not a number."""
        for finite, batch in zip(torch.isfinite(losses).tolist(), micro):
            if not finite:
                raise self.broken("the loss is not finite", names(batch))

    def broken(self, what: str, ids: Sequence[str]) -> TrainingError:
        self.optimizer.clear()
        kept = None if self.folder is None else checkpoints.newest(self.folder)
        return TrainingError(
            what,
            where=f"step {self.at.step}, rows {name_some(ids)}",
            expected="a finite number",
            found="NaN or infinity",
            remedy="lower the learning rate or look at these rows"
            + (f"; the last complete checkpoint is {kept}" if kept else ""),
        )

    def update_weights(self, step: Step, total: float, weight: float, started: float) -> None:
        """Divide, clip, move the weights and count, as one uninterruptible whole."""
        if weight == 0 and not self.objective.skips_empty_steps:
            raise TrainingError(
                "a step has no token to learn",
                where=f"step {self.at.step}, rows {name_some(step.ids)}",
                expected="at least one trained token",
                found="0",
                remedy="drop these rows, or raise max_length if their responses were cut off",
            )
        after = self.watch.seconds
        flops = self.cost().flops
        halfway = self._nearest(
            self.at.tokens + step.tokens / 2,
            self.at.rows + step.rows / 2,
            flops - (2.0 * self.model.active_params + self.backward_flops) * step.tokens / 2,
            (started + after) / 2,
        )
        rate = norm = 0.0
        with self.guard.deferred():
            if weight > 0:
                divisor = self.update.after_backward(self.model, self.optimizer.gradients(), weight)
                norm = self.optimizer.finish(divisor, self.settings.clip)
                if norm != norm or norm == float("inf"):
                    raise self.broken("the gradient is not finite", step.ids)
                rate = self.optimizer.step(self.schedule.multiplier(halfway[0], halfway[1]))
                self.update.after_step(self.model, self.optimizer.weights)
                self.optimizer.publish()
            else:
                self.at.skipped += 1
            self.optimizer.clear()
            self.consumed.write(self.at.step, step.ids)
            self.at.step += 1
            self.at.tokens += step.tokens
            self.at.rows += step.rows
            loss = total / weight if weight else float("nan")
            for name, value in (("loss", loss), ("rate", rate), ("norm", norm), ("tokens", step.tokens)):
                self.series[name].append(value)
            self.draws.update({"train/loss": loss})
            self.boundary = self.capture()

    def record(self) -> Fit:
        """What the run did."""
        cost = self.cost()
        return Fit(
            losses=tuple(self.series["loss"]),
            learning_rates=tuple(self.series["rate"]),
            gradient_norms=tuple(self.series["norm"]),
            step_tokens=tuple(int(n) for n in self.series["tokens"]),
            tokens=self.at.tokens,
            rows=self.at.rows,
            steps=self.at.step,
            skipped_steps=self.at.skipped,
            dropped_rows=self.batches.dropped,
            seconds=cost.seconds,
            cost=cost,
            consumed=str(self.consumed.path),
            peak_bytes=cost.peak_bytes,
            mfu=mfu(cost.flops, cost.seconds, self.model.device, self.model.dtype),
            micro_tokens=self.at.micro_tokens,
            resumed_at=self.resumed_at,
            evaluation_cost=self.evaluation_cost,
            history=tuple(self.history),
            kept=self.kept,
        )
