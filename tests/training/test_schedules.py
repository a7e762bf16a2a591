"""Schedules equal the library's at every step and refuse what does not fit."""

import math

import pytest
import torch
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
    get_wsd_schedule,
)

from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError

PROOF = {
    "training.schedules.constant": ["consistent", "verified"],
    "training.schedules.linear": ["consistent", "verified"],
    "training.schedules.cosine": ["consistent", "verified"],
    "training.schedules.wsd": ["consistent", "verified"],
}
MUTATIONS = [
    ("src/tutelage/training/schedules/constant.py", "1.0 if rising is None else rising", "1.0"),
    ("src/tutelage/training/schedules/linear.py", "1 - (1 - self.final) * progress", "1 - progress"),
    ("src/tutelage/training/schedules/_shared.py", "(seen - warmup) / max(total - warmup", "seen / max(total"),
    ("src/tutelage/training/schedules/cosine.py", "math.cos(math.pi * progress)", "math.cos(2 * progress)"),
    ("src/tutelage/training/schedules/wsd.py", "(1 - final) * (1 - math.sqrt(x)) + final", "1 - (1 - final) * x"),
    ("src/tutelage/training/schedules/_shared.py", "seen / warmup if seen < warmup", "1.0 if seen < warmup"),
]
STEPS = 50


def library(make):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer)
    found = []
    for _ in range(STEPS):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return found


def ours(name, **fields):
    schedule = build(f"training.schedules.{name}", fields)
    return [schedule.multiplier(step, STEPS) for step in range(STEPS)]


@pytest.mark.parametrize("warmup", [0, 1, 7])
def test_equal_to_the_library_at_every_step(warmup):
    cases = [
        (ours("constant", warmup=warmup), lambda o: get_constant_schedule_with_warmup(o, warmup), 0),
        (ours("linear", warmup=warmup), lambda o: get_linear_schedule_with_warmup(o, warmup, STEPS), 0),
        (ours("cosine", warmup=warmup), lambda o: get_cosine_schedule_with_warmup(o, warmup, STEPS), 0),
    ]
    for shape, theirs in (("linear", "linear"), ("cosine", "cosine"), ("sqrt", "1-sqrt")):
        for final in (0.0, 0.1):
            cases.append(
                (
                    ours("wsd", warmup=warmup, decay=10, shape=shape, final=final),
                    lambda o, theirs=theirs, final=final: get_wsd_schedule(
                        o,
                        num_warmup_steps=warmup,
                        num_decay_steps=10,
                        num_training_steps=STEPS,
                        decay_type=theirs,
                        min_lr_ratio=final,
                    ),
                    # The library's warm-up of this schedule alone starts at the final share; ours starts at 0.
                    warmup if final else 0,
                )
            )
    for mine, make, first in cases:
        assert mine[first:] == pytest.approx(library(make)[first:], abs=1e-12)


def test_decay_shapes_at_known_points():
    half = {"linear": 0.5, "sqrt": 1 - math.sqrt(0.5), "cosine": 0.5}
    for shape, value in half.items():
        schedule = build("training.schedules.wsd", {"warmup": 0, "decay": 20, "shape": shape})
        assert schedule.multiplier(90, 100) == pytest.approx(value)
    exponential = build("training.schedules.wsd", {"decay": 20, "shape": "exponential", "final": 0.2})
    assert exponential.multiplier(80, 100) == pytest.approx(1.0)
    assert exponential.multiplier(100, 100) == pytest.approx(0.2)
    assert build("training.schedules.wsd").multiplier(100, 100) == pytest.approx(0.0)


def test_final_shares_and_lengths_as_shares():
    for name in ("linear", "cosine"):
        schedule = build(f"training.schedules.{name}", {"warmup": 0.1, "final": 0.25})
        assert schedule.multiplier(5, 100) == pytest.approx(0.5)
        assert schedule.multiplier(10, 100) == pytest.approx(1.0)
        assert schedule.multiplier(100, 100) == pytest.approx(0.25)
        assert schedule.multiplier(55, 100) == pytest.approx(0.625)


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd"])
def test_beyond_the_horizon_is_an_error(name):
    with pytest.raises(ConfigError, match="beyond its horizon"):
        build(f"training.schedules.{name}").multiplier(101, 100)


def test_what_does_not_fit_names_the_three_numbers():
    schedule = build("training.schedules.wsd", {"warmup": 60, "decay": 70})
    with pytest.raises(ConfigError) as error:
        schedule.multiplier(0, 100)
    assert all(number in str(error.value) for number in ("60", "70", "100"))
