"""The estimate before a run: right amounts, a plausible time and memory, and no trace on anything."""

import pytest
import torch

from toy.training_bed import dataset, model, same, weights
from tutelage.core.discovery import build

MUTATIONS = [
    ("src/tutelage/training/_estimate.py", "budget.rows * per_row", "budget.rows * per_token"),
    ("src/tutelage/training/_estimate.py", "tokens * per_token + steps * move", "tokens * per_token * 10 + steps"),
    ("src/tutelage/training/_estimate.py", "    checkpoints.set_random_state(random)\n", ""),
]
STEP = {"step_tokens": 512, "micro_tokens": 256, "max_length": 128}


def test_amounts_follow_the_budget_and_nothing_is_touched():
    lm = model("llama")
    before = weights(lm)
    state = torch.get_rng_state()
    found = build("training.fit", {**STEP, "budget": {"tokens": 5000}}).estimate(lm, dataset())
    assert same(before, weights(lm)) and torch.equal(state, torch.get_rng_state())
    assert (found.tokens, found.steps) == (5000, 10)
    record = build("training.fit", STEP).train(model("llama"), dataset())[1]
    by_rows = build("training.fit", STEP).estimate(lm, dataset())
    assert by_rows.tokens == pytest.approx(record.tokens, rel=0.3)
    flops = record.cost.flops / record.tokens * 3000
    assert build("training.fit", {**STEP, "budget": {"flops": flops}}).estimate(lm, dataset()).tokens in (
        2999,
        3000,
    )
    timed = build("training.fit", {**STEP, "budget": {"seconds": 2}}).estimate(lm, dataset())
    assert timed.seconds == pytest.approx(2, rel=0.2)


def test_time_and_memory_are_of_the_right_size():
    """Loose here, where steps take milliseconds; tight figures are measured on real models."""
    fields = {**STEP, "budget": {"tokens": 12_000}}
    options = {"layers": 4, "width": 128}
    found = build("training.fit", fields).estimate(model("llama", **options), dataset())
    record = build("training.fit", fields).train(model("llama", **options), dataset())[1]
    assert record.seconds / 3 < found.seconds < record.seconds * 3
    assert found.peak_bytes == pytest.approx(record.peak_bytes, rel=0.15)


def test_an_adapter_is_estimated_alone():
    lm = build("adapters.lora").convert({"base": model("llama")}, None, {})
    fields = {**STEP, "gradient_checkpointing": True, "budget": {"tokens": 1000}}
    assert build("training.fit", fields).estimate(lm, dataset()).tokens == 1000
