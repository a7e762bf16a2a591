"""The only training loop. It knows no method by name: rows come from a sampler, losses from an objective, rates
from a schedule, and what happens between backward and step from an update rule.

An optimiser step holds `step_tokens` tokens, packed into micro-batches. Gradients of sums are added up over all of
them and divided once by the weight of the whole step; the norm is logged before it is clipped. The learning rate
is the schedule's value at the middle of the step. Everything with state is in the checkpoint, taken between two
steps, so that a run killed anywhere and resumed ends with the same bits.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError, Interrupted, TrainingError
from tutelage.core.method import Objective, RunningUpdate, Sampler, Schedule, UpdateRule
from tutelage.core.records import Budget, Cost
from tutelage.models.device import is_out_of_memory, mfu
from tutelage.models.frozen_prefix import FrozenPrefix, frozen_params, frozen_prefix
from tutelage.models.fused_layer import fused_layers
from tutelage.models.packing import TokenBatch
from tutelage.training import _checkpoint as checkpoints
from tutelage.training import _errors as errors
from tutelage.training._batches import Batches, Step, names
from tutelage.training._budget import Spent
from tutelage.training._consumed import ConsumedLog
from tutelage.training._gradients import Evaluator, accumulate, measure, recompute_activations
from tutelage.training._optim import Optimizer, backward_flops
from tutelage.training._progress import Listener, Progress, Stopwatch, peak_bytes
from tutelage.training._records import Counters, Fit, Settings
from tutelage.training._signals import Interruptible


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
    """Train `model` (a model with weights) in place on rows of `dataset` until the first limit of `budget` is
    reached.

    A token budget is met to the token, a FLOP budget to the cost of one token: the last document is cut where the
    budget ends, and left out when what fits of it trains nothing (a prompt without its response). An objective
    with `whole_rows` (pairs, completions of one prompt) is never cut: its last row may pass the budget. With
    `checkpoint_dir`, state is saved every
    `settings.checkpoint_seconds` and at the end, and with `resume` a run continues from the newest complete
    checkpoint; one made with another `identity` (whatever the caller says must be equal: configuration, data,
    model) is refused. `evaluators` are (name, callable: model -> metrics); their random numbers do not disturb
    training. Raises Interrupted and TrainingError (non-finite loss, nothing to learn, no memory, full disk), which
    carries the cost until then.
    """
    random = checkpoints.random_state()
    run = _Run(model, dataset, sampler, objective, schedule, budget, settings or Settings(), update_rule, seed)
    run.evaluators = tuple(evaluators)
    run.open(None if checkpoint_dir is None else Path(checkpoint_dir), identity, resume)
    try:
        model.module.train()
        with (
            Progress(progress, on_event) as run.progress,
            Interruptible() as run.guard,
            fused_layers(model.module),
            frozen_prefix(model) as run.prefix,
        ):
            run.loop()
    except TrainingError as error:
        error.cost = run.cost()
        raise
    finally:
        run.consumed.close()
        model.module.eval()
        checkpoints.set_random_state(random)
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
        if dataset.num_rows == 0:
            raise InputError("there are no rows to train on", where="dataset", remedy="look at the steps before")
        checkpoints.seed_everything(seed)
        objective = objective.start(model)
        self.model, self.objective, self.schedule, self.budget = model, objective, schedule, budget
        self.settings = settings
        self.evaluators: tuple[Evaluator, ...] = ()
        self.steered = sampler.steered
        self.draws = sampler.start(dataset, seed)
        length = min(settings.max_length, model.max_length)
        self.batches = Batches(dataset, self.draws, objective, model, max_length=length)
        if settings.gradient_checkpointing:
            recompute_activations(model)
        self.optimizer = Optimizer(
            model.module,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            rates=settings.rates,
        )
        self.update: RunningUpdate = RunningUpdate() if update_rule is None else update_rule.start(model, seed)
        self.at = Counters(micro_tokens=settings.micro_tokens)
        self.series: dict[str, list[float]] = {"loss": [], "rate": [], "norm": [], "tokens": []}
        self.history: list[dict[str, Any]] = []
        self.kept: dict[str, str] = {}
        # Frozen layers that were not run again are charged as if they had been, so that a budget in FLOPs means
        # the same work whatever was resumed in between; only the MFU leaves them out.
        self.prefix: FrozenPrefix | None = None
        self.saved_before = 0.0
        self.watch = Stopwatch()
        self.before = self.evaluation_cost = Cost()
        self.steering_flops = 0.0
        self.metered = model.meter.cost
        self.frozen_params = frozen_params(model)
        self.backward_flops = backward_flops(model, settings.gradient_checkpointing)
        self.token_flops = 2.0 * model.active_params + self.backward_flops
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
        # A schedule that does not fit its horizon fails before any work.
        self.schedule.multiplier(0.0, self.nearest()[1])
        if found is None:
            if folder is not None:
                checkpoints.clear(folder)
            self.consumed.rewind(0)
            self.boundary = self.capture()
            return
        state = checkpoints.load(found)
        if state["identity"] != identity:
            raise errors.other_run(found, identity, state["identity"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.batches.load_state_dict(state["batches"])
        self.update.load_state_dict(state["update"])
        self.at = Counters(**state["counters"])
        # A finished run may go on with a larger budget.
        self.at.ended = self.at.ended and state["budget"] == self.budget.model_dump()
        self.series, self.history, self.kept = state["series"], state["history"], state["kept"]
        self.watch = Stopwatch(state["seconds"])
        self.before = Cost(**state["cost"])
        self.evaluation_cost = Cost(**state["evaluation_cost"])
        self.steering_flops = state.get("steering_flops", 0.0)
        self.saved_before = state.get("saved_flops", 0.0)
        self.consumed.rewind(state["consumed"], state.get("consumed_hash"))
        checkpoints.set_random_state(state["random"])
        self.resumed_at = self.at.step
        self.boundary = self.capture()

    def capture(self) -> dict[str, Any]:
        """Everything but the weights that a step changes, as it is between two steps."""
        return {
            "identity": self.identity,
            "budget": self.budget.model_dump(),
            "batches": self.batches.state_dict(),
            "update": self.update.state_dict(),
            "counters": vars(self.at).copy(),
            "history": list(self.history),
            "kept": dict(self.kept),
            "evaluation_cost": self.evaluation_cost.model_dump(),
            "steering_flops": self.steering_flops,
            "saved_flops": self.saved_flops,
            "seconds": self.watch.seconds,
            "cost": self.cost().model_dump(),
            "consumed": self.consumed.position,
            "consumed_hash": self.consumed.digest,
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
                if self.share() >= 1:
                    break
                if self.watch.seconds - self.saved_at >= self.settings.checkpoint_seconds:
                    self.save()
                with self.watch:
                    self.step()
            if self.resumed_at != self.at.step:
                self.save()
        except KeyboardInterrupt:
            self.optimizer.clear()
            self.at = Counters(**self.boundary["counters"])
            self.save()
            raise Interrupted(
                "training was interrupted",
                where=f"step {self.at.step}, {self.at.tokens} tokens",
                remedy="nothing was saved: give a checkpoint folder next time"
                if self.folder is None
                else f"run the same command again: it resumes from {self.folder}",
            ) from None

    @property
    def saved_flops(self) -> float:
        """What was charged for frozen layers that were not run."""
        served = 0 if self.prefix is None else self.prefix.served
        return self.saved_before + 2.0 * self.frozen_params * served

    def spent(self) -> Spent:
        """What the run has used of its budget."""
        return Spent(self.at.tokens, self.at.rows, self.cost().flops, self.watch.seconds)

    def nearest(self) -> tuple[float, float, float]:
        """(seen, total, share) of the limit that is nearest its end."""
        return self.spent().nearest(self.budget)

    def share(self) -> float:
        """Spent share of the budget; 1 as well when what is left holds no trained token."""
        return 1.0 if self.at.ended else self.nearest()[2]

    def milestones(self) -> None:
        """Run the evaluators and keep copies of the model where their share of the budget is reached.

        What the run acts on (a steered sampler, a monitor) is paid from its budget; another measurement, and the
        last one, on which nothing can act any more, costs apart.
        """
        share = self.share()
        due = sum(point <= share + 1e-12 for point in sorted(self.settings.evaluate_at))
        if self.evaluators and due > self.at.evaluated:
            acting = share < 1 and (self.steered or any(hasattr(e, "watch") for _, e in self.evaluators))
            with self.watch if acting else nullcontext():
                found, paid = measure(self.model, self.evaluators, share)
            with self.guard.deferred():
                if acting:
                    self.steering_flops += paid.flops
                else:
                    self.metered, self.evaluation_cost = self.metered + paid, self.evaluation_cost + paid
                self.history.append({"step": self.at.step, "tokens": self.at.tokens, "share": share, **found})
                self.draws.update({f"eval/{name}": value for name, value in found.items()})
                asked = self.at.obey(found)
                self.at.evaluated = due
                self.boundary = self.capture()
            self.progress.emit("evaluation", **self.history[-1])
            for message in asked:
                self.progress.emit("warning", message=f"{message} at step {self.at.step}")
        points = sorted(self.settings.keep_at)
        due = sum(point <= share + 1e-12 for point in points)
        if self.folder is not None and due > self.at.kept:
            target = checkpoints.keep_model(self.model, self.folder / "kept", self.at.step)
            with self.guard.deferred():
                self.kept.update({f"{point:g}": str(target) for point in points[self.at.kept : due]})
                self.at.kept = due
                self.boundary = self.capture()

    def step(self) -> None:
        """One optimiser step."""
        started, spent, saved = self.watch.seconds, self.cost().flops, self.saved_flops
        # Whatever listeners and probes drew since the last step must not reach this one.
        checkpoints.set_random_state(self.boundary["random"])
        # An objective may spend more on a token than the loop knows of, on a reference model's forward pass.
        trained = spent - self.steering_flops
        per_token = max(self.token_flops, trained / self.at.tokens) if self.at.tokens else self.token_flops
        step = self.batches.take(*self.spent().next_step(self.budget, self.settings.step_tokens, per_token))
        if not step.documents:
            self.end_early()
            return
        losses, weight = self.accumulate(step)
        total = float(losses.sum())
        self.update_weights(step, total, weight, started)
        seconds = self.watch.seconds - started
        flops = self.cost().flops - spent - (self.saved_flops - saved)
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
        self.progress.step(min(1.0, self.share()), facts)

    def end_early(self) -> None:
        """What is left of the budget holds no trained token: the run ends with the step before."""
        if self.at.step == 0:
            raise errors.budget_too_small(self.budget)
        with self.guard.deferred():
            self.at.ended = True
            self.boundary = self.capture()

    def accumulate(self, step: Step) -> tuple[torch.Tensor, float]:
        """Gradients of the step's loss sum; halves the micro-batch once when memory runs out."""
        random = checkpoints.random_state()
        try:
            micro = self.batches.micro_batches(step, self.at.micro_tokens)
            losses, weight = accumulate(
                self.model, micro, self.objective, self.update, self.optimizer, self.backward_flops
            )
            self.check_finite(losses, micro)
            return losses, weight
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.at.halved or self.at.micro_tokens < 2:
                raise errors.out_of_memory(self.at.step, self.at.micro_tokens) from None
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

    def check_finite(self, losses: torch.Tensor, micro: Sequence[TokenBatch]) -> None:
        """Raise TrainingError naming the rows of the first micro-batch whose loss is not a number."""
        for finite, batch in zip(torch.isfinite(losses).tolist(), micro):
            if not finite:
                raise self.broken("loss", names(batch))

    def broken(self, what: str, ids: Sequence[str]) -> TrainingError:
        self.optimizer.clear()
        kept = None if self.folder is None else checkpoints.newest(self.folder)
        return errors.not_finite(what, self.at.step, ids, kept)

    def update_weights(self, step: Step, total: float, weight: float, started: float) -> None:
        """Divide, clip, move the weights and count, as one uninterruptible whole."""
        if weight == 0 and not self.objective.skips_empty_steps:
            raise errors.nothing_to_learn(self.at.step, step.ids)
        now = self.spent()
        halfway = Spent(
            now.tokens + step.tokens / 2,
            now.rows + step.rows / 2,
            now.flops - self.token_flops * step.tokens / 2,
            (started + now.seconds) / 2,
        )
        seen, horizon, _ = halfway.nearest(self.budget)
        rate = norm = 0.0
        with self.guard.deferred():
            if weight > 0:
                divisor = self.update.after_backward(self.model, self.optimizer.gradients(), weight)
                norm = self.optimizer.finish(divisor, self.settings.clip)
                if not math.isfinite(norm):
                    raise self.broken("gradient", step.ids)
                rate = self.optimizer.step(self.schedule.multiplier(seen, horizon) * self.at.rate_factor)
                self.update.after_step(self.model, self.optimizer.weights)
                self.optimizer.publish()
            else:
                self.at.skipped += 1
            self.optimizer.clear()
            self.consumed.write(self.at.step, step.ids)
            self.at.step += 1
            self.at.tokens += step.tokens
            self.at.rows += step.rows
            self.at.ended = step.last
            loss = total / weight if weight else float("nan")
            for name, value in (("loss", loss), ("rate", rate), ("norm", norm), ("tokens", step.tokens)):
                self.series[name].append(value)
            self.draws.update({"train/loss": loss, "train/share": min(1.0, self.share())})
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
            truncated_rows=self.batches.truncated,
            seconds=cost.seconds,
            cost=cost,
            consumed=str(self.consumed.path),
            peak_bytes=cost.peak_bytes,
            mfu=mfu(cost.flops - self.saved_flops, cost.seconds, self.model.device, self.model.dtype),
            micro_tokens=self.at.micro_tokens,
            resumed_at=self.resumed_at,
            evaluation_cost=self.evaluation_cost,
            history=tuple(self.history),
            kept=self.kept,
        )
