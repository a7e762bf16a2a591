"""A tiny training bed: rows, models with and without dropout, and one short run of the loop."""

import torch

from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.records import Budget
from tutelage.models import device
from tutelage.models.toy import tiny_causal_lm
from tutelage.training._records import Settings
from tutelage.training.trainer import fit

TEXTS = [f"The number {i} comes after {i - 1} and before {i + 1}. " * (1 + i % 3) for i in range(24)]


def dataset(texts=TEXTS):
    return Dataset.from_rows({"id": f"r{i}", "text": text} for i, text in enumerate(texts))


def model(arch="gpt2", **options):
    """GPT-2 has dropout, so that its runs depend on the random state; Llama has none."""
    return tiny_causal_lm(arch, texts=TEXTS, **{"layers": 1, "width": 16, **options})


def train(lm, data=None, *, tokens=600, settings=None, **options):
    """A run of the loop with the usual parts."""
    chosen = {
        "sampler": build("data.order.shuffle"),
        "objective": build("training.objectives.causal_lm"),
        "schedule": build("training.schedules.cosine"),
        "budget": Budget(tokens=tokens),
        "settings": Settings(
            **{
                "step_tokens": 100,
                "micro_tokens": 64,
                "learning_rate": 1e-2,
                "max_length": 128,
                **(settings or {}),
            }
        ),
        **options,
    }
    return fit(lm, dataset() if data is None else data, **chosen)


def weights(lm):
    return {name: value.clone() for name, value in lm.module.state_dict().items()}


def same(first, second):
    """Whether two states are equal to the last bit."""
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


class Stop(Exception):
    """What a test raises to end a run abruptly."""


def stop_at(step, event="step"):
    def listen(facts):
        if facts["event"] == event and facts["step"] == step:
            raise Stop

    return listen


def train_for_a_killer(folder, log, tokens):
    """A child that trains with a checkpoint at every step and says when each one is complete."""
    torch.set_num_threads(1)
    device.probe_gflops = lambda *_: 1.0  # half a second that each of fifty children would spend
    lm = model()

    def listen(facts):
        if facts["event"] == "checkpoint":
            with log.open("a", encoding="utf-8") as out:
                out.write(f"{facts['step']}\n")

    train(lm, tokens=tokens, checkpoint_dir=folder, settings={"checkpoint_seconds": 0.0}, on_event=listen)
