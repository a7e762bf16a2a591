"""How long a training run will take and how much memory it will need, from one real step on a throwaway copy.

The step is taken twice, on rows that the run itself would draw first: once to warm up (kernels are compiled,
memory is taken), once against the clock. Then seconds = tokens * seconds per token + steps * seconds per update,
and the peak is what the copy's step really took, weights, masters, moments, gradients and activations together,
and on a processor a fifth of that again: the C library keeps pieces between micro-batches of other shapes.
"""

import gc
import math
import time
from typing import Any

from tutelage.core.errors import TrainingError
from tutelage.core.method import RunningUpdate
from tutelage.core.records import Budget, Record
from tutelage.models.device import free_memory
from tutelage.models.fused_layer import fused_layers
from tutelage.training import _checkpoint as checkpoints
from tutelage.training._batches import Batches
from tutelage.training._copy import trainable_copy
from tutelage.training._gradients import accumulate, recompute_activations
from tutelage.training._optim import Optimizer, backward_flops
from tutelage.training._progress import forget_peak, peak_bytes

# Two whole runs of the main recipe, 33 trainings each, needed 1.11 and 1.27 times what two steps had taken.
PIECES = 1.2


class Estimate(Record):
    """Expected totals of a run; `probe_seconds` is what the estimate itself took. `peak_bytes` covers the whole
    process (the device where it is a GPU)."""

    seconds: float
    tokens: int
    flops: float
    steps: int
    tokens_per_second: float
    peak_bytes: int
    probe_seconds: float


def check_room(model: Any) -> None:
    """Raise TrainingError where the device has not even room for what training `model` will hold besides its
    activations: gradients, two moments in fp32; of smaller weights also fp32 masters and their gradients."""
    trained = [p for p in model.module.parameters() if p.requires_grad]
    need = sum(p.numel() * (p.element_size() + 8 + (8 if p.element_size() < 4 else 0)) for p in trained)
    free = free_memory(model.device)
    if free is not None and need > free:
        raise TrainingError(
            "training needs more memory than there is",
            where=f"{model.name}, {sum(p.numel() for p in trained):,} trained weights",
            expected=f"at least {need / 2**30:.2f} GiB for gradients and moments, activations not counted",
            found=f"{free / 2**30:.2f} GiB free",
            remedy="close other programs, train an adapter (adapters.lora), or choose a smaller model",
        )


def estimate(model: Any, dataset: Any, step: Any, seed: int = 0) -> Estimate:
    """The estimate for the configured `training.fit` `step`; `model` and `dataset` are left as they were."""
    begun = time.perf_counter()
    gc.collect()
    forget_peak()
    held = peak_bytes(model.device)
    random = checkpoints.random_state()
    checkpoints.seed_everything(seed)
    copy, settings = trainable_copy(model, step.top_layers), step.settings()
    if settings.gradient_checkpointing:
        recompute_activations(copy)
    draws = step.sampler.start(dataset, seed)
    length = min(settings.max_length, copy.max_length)
    objective = step.objective.start(copy)
    batches = Batches(dataset, draws, objective, copy, max_length=length)
    optimizer = Optimizer(
        copy.module,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        rates=settings.rates,
    )
    update = RunningUpdate()
    copy.module.train()
    passes = []
    for _ in range(2):
        drawn = batches.take(settings.micro_tokens, None)
        started = time.perf_counter()
        micro = batches.micro_batches(drawn, settings.micro_tokens)
        with fused_layers(copy.module):
            _, weight = accumulate(copy, micro, objective, update, optimizer, 0.0)
        computed = time.perf_counter()
        optimizer.finish(max(weight, 1.0), settings.clip)
        optimizer.step(0.0)
        passes.append((drawn, computed - started, time.perf_counter() - computed))
    checkpoints.set_random_state(random)
    peak = peak_bytes(copy.device)
    if copy.device.type == "cpu":
        peak = int(held + PIECES * (peak - held))
    drawn, compute, move = passes[1]
    per_token = compute / drawn.tokens
    rows = sum(max(one.rows, 1) for one, _, _ in passes)
    per_row = sum(one.tokens for one, _, _ in passes) / rows
    per_token_flops = 2.0 * copy.active_params + backward_flops(copy, settings.gradient_checkpointing)
    budget = step.budget or Budget(rows=dataset.num_rows)
    whole = per_token + move / settings.step_tokens
    limits = (
        budget.tokens,
        None if budget.rows is None else budget.rows * per_row,
        None if budget.flops is None else budget.flops / per_token_flops,
        None if budget.seconds is None else budget.seconds / whole,
    )
    tokens = min(limit for limit in limits if limit is not None)
    steps = math.ceil(tokens / settings.step_tokens)
    seconds = tokens * per_token + steps * move
    return Estimate(
        seconds=seconds if budget.seconds is None else min(seconds, budget.seconds),
        tokens=int(tokens),
        flops=tokens * per_token_flops,
        steps=steps,
        tokens_per_second=1 / whole,
        peak_bytes=peak,
        probe_seconds=time.perf_counter() - begun,
    )
