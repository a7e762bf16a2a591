"""The loop's seams, proved by three small methods that need them; each survives being killed at every step twice.

An update rule that clips each document's gradient and adds seeded noise, a rollout objective whose reward is a
`Task`, and a sampler steered by validation losses.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field

from toy.training_bed import Stop, dataset, model, same, stop_at, train, weights
from tutelage.core.discovery import build
from tutelage.core.method import Method, Objective, RunningUpdate, Sampler, Task, UpdateRule
from tutelage.core.records import Budget, Rollout
from tutelage.models.encode import Encoded, encode_prompt
from tutelage.training.objectives._shared import Loss, cross_entropy

MUTATIONS = [
    ("src/tutelage/training/trainer.py", '        self.update.load_state_dict(state["update"])\n', ""),
    (
        "src/tutelage/training/trainer.py",
        '{f"eval/{name}": value for name, value in found.items()}',
        "{}",
    ),
    ("src/tutelage/training/trainer.py", "share < 1 and (self.steered", "share < 1 and (False"),
    ("src/tutelage/training/_batches.py", 'self._draws.load_state_dict(state["draws"])', "pass"),
    ("src/tutelage/training/_batches.py", "total < tokens or self._objective.whole_rows", "total < tokens"),
]


# -- an update rule: clip per document, then noise --------------------------------------------------------


class ClipAndNoise(UpdateRule):
    """g <- (sum_i min(1, C / |g_i|) g_i + N(0, (sigma C)^2)) / n, g_i the gradient of document i."""

    clip: float = Field(default=0.5, gt=0)
    sigma: float = Field(default=0.3, ge=0)

    def start(self, model: Any, seed: int) -> RunningUpdate:
        return _ClipAndNoise(self, seed)


class _ClipAndNoise(RunningUpdate):
    def __init__(self, rule: ClipAndNoise, seed: int) -> None:
        self.rule = rule
        self.generator = torch.Generator().manual_seed(seed)
        self.documents = 0
        self.norms: list[float] = []

    def backward(self, model: Any, loss: Loss) -> None:
        parameters = [p for p in model.module.parameters() if p.requires_grad]
        assert loss.per_example is not None
        for one in loss.per_example:
            gradients = torch.autograd.grad(one, parameters, retain_graph=True)
            norm = float(torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients])))
            self.norms.append(norm)
            scale = min(1.0, self.rule.clip / norm)
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad = gradient * scale if parameter.grad is None else parameter.grad + gradient * scale
            self.documents += 1

    def after_backward(self, model: Any, gradients: Mapping[str, Any], weight: float) -> float:
        for gradient in gradients.values():
            gradient += torch.randn(gradient.shape, generator=self.generator) * self.rule.sigma * self.rule.clip
        divisor, self.documents = float(self.documents), 0
        return divisor

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "norms": list(self.norms)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.norms = list(state["norms"])


# -- a rollout objective: the reward is a task ------------------------------------------------------------


class Contains(Task):
    """Reward: the share of vowels in the output."""

    def score(self, example: Mapping[str, Any], output: str) -> float | None:
        return sum(c in "aeiou" for c in output) / len(output) if output else None


class PolicyGradient(Objective):
    """L = -sum_k A_k sum_t log p(y_kt), A_k = (r_k - mean r) / (std r + 1e-4) over the K
    completions of one prompt."""

    whole_rows: ClassVar[bool] = True
    skips_empty_steps: ClassVar[bool] = True
    task: Method = Field(default_factory=Contains)
    completions: int = 3
    equal: bool = False

    def rollout(self, row: Mapping[str, Any], model: Any, max_length: int) -> Rollout:
        seed = int(torch.randint(2**31, ()))
        prompt = encode_prompt(model, row["text"][:20])
        found = model.generate([row["text"][:20]] * self.completions, 12, temperature=1.0, seed=seed)
        ids = tuple(g.token_ids or (model.eos_id,) for g in found)
        rewards = tuple(1.0 if self.equal else self.task.score(row, g.text) for g in found)
        return Rollout(
            prompt_id=str(row["id"]),
            prompt=tuple(prompt),
            completions=ids,
            masks=tuple((1,) * len(one) for one in ids),
            old_logps=tuple((0.0,) * len(one) for one in ids),
            rewards=rewards,
        )

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        model.module.eval()
        rollout = self.rollout(row, model, max_length)
        model.module.train()
        scored = [r for r in rollout.rewards if r is not None]
        base, spread = (float(np.mean(scored)), float(np.std(scored))) if scored else (0.0, 0.0)
        documents = []
        for ids, reward in zip(rollout.completions, rollout.rewards):
            advantage = 0.0 if reward is None else (reward - base) / (spread + 1e-4)
            start = len(rollout.prompt)
            mask = [False] * start + [advantage != 0.0] * len(ids)
            value = [0.0] * start + [advantage] * len(ids)
            documents.append(Encoded([*rollout.prompt, *ids], mask, rollout.prompt_id, value))
        return documents

    def loss(self, model: Any, batch: Any) -> Loss:
        return cross_entropy(model, batch)


# -- a sampler steered by validation losses ---------------------------------------------------------------


class Steered(Sampler):
    """Draws a half of the rows with probability proportional to exp(validation loss of that half)."""

    steered: ClassVar[bool] = True

    def start(self, dataset: Any, seed: int) -> "_Steered":
        return _Steered(dataset.num_rows, seed)


class _Steered:
    def __init__(self, rows: int, seed: int) -> None:
        self.rows, self.random = rows, np.random.default_rng(seed)
        self.losses = {"low": 0.0, "high": 0.0}
        self.seen: list[float] = []

    def next(self) -> int:
        share = 1 / (1 + np.exp(self.losses["low"] - self.losses["high"]))
        self.seen.append(float(share))
        high = self.random.random() < share
        return int(self.random.integers(self.rows // 2)) + (self.rows // 2 if high else 0)

    def update(self, metrics: Mapping[str, float]) -> None:
        for half in self.losses:
            if f"eval/{half}/loss" in metrics:
                self.losses[half] = 40 * metrics[f"eval/{half}/loss"]

    def state_dict(self) -> dict[str, Any]:
        return {"random": self.random.bit_generator.state, "losses": dict(self.losses), "seen": list(self.seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.random.bit_generator.state = state["random"]
        self.losses, self.seen = dict(state["losses"]), list(state["seen"])


def loss_of(text):
    def evaluate(lm):
        score = lm.score_texts([text])[0]
        return {"loss": score.nll_sum / score.n_tokens}

    return evaluate


CASES = {
    "update": lambda: {"update_rule": ClipAndNoise()},
    "rollout": lambda: {"objective": PolicyGradient(), "tokens": 900, "settings": {"max_length": 64}},
    "sampler": lambda: {
        "sampler": Steered(),
        "evaluators": [("low", loss_of("The number 1 comes")), ("high", loss_of("before 25. The number"))],
        "settings": {"evaluate_at": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)},
    },
}


def run(case, folder=None, stop=None):
    options = CASES[case]()
    options["settings"] = {**options.get("settings", {}), "checkpoint_seconds": 0.0}
    if stop is not None:
        options["on_event"] = stop_at(stop)
    lm = model("gpt2")
    return lm, train(lm, checkpoint_dir=folder, **options)


@pytest.mark.parametrize("case", CASES)
def test_each_survives_being_killed_and_resumed_twice(case, tmp_path):
    whole, record = run(case)
    assert record.steps >= 4
    for first in range(1, record.steps - 1):
        folder = tmp_path / str(first)
        for stop in (first, first + 1):
            with pytest.raises(Stop):
                run(case, folder, stop)
        lm, resumed = run(case, folder)
        assert resumed.losses == record.losses, f"stopped at {first}"
        assert resumed.history == record.history
        assert same(weights(lm), weights(whole))


def test_clipping_and_noise_by_hand():
    """One step of the rule equals explicit loops over documents on a copy of the model."""
    rule = ClipAndNoise(clip=0.05, sigma=0.5)
    data = dataset(["The number 1 comes", "a longer text about the number two", "three"])
    lm, other = model("llama"), model("llama")
    constant = {"schedule": build("training.schedules.constant"), "update_rule": rule}
    settings = {"step_tokens": 10**6, "clip": None, "weight_decay": 0.0}
    documents = [build("training.objectives.causal_lm").encode(row, other, 128)[0] for row in data.rows()]
    record = train(lm, data, tokens=sum(map(len, documents)), settings=settings, seed=7, **constant)
    assert record.steps == 1
    total = [torch.zeros_like(p) for p in other.module.parameters()]
    for one in documents:
        ids = torch.tensor([one.ids])
        out = other.module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits[0]
        loss = torch.nn.functional.cross_entropy(out[:-1], ids[0, 1:], reduction="sum")
        gradients = torch.autograd.grad(loss, list(other.module.parameters()))
        norm = torch.sqrt(sum((g**2).sum() for g in gradients))
        assert norm > 0.05, "the clip acts"
        total = [t + g * 0.05 / norm for t, g in zip(total, gradients)]
    generator = torch.Generator().manual_seed(7)
    noisy = [t + torch.randn(t.shape, generator=generator) * 0.5 * 0.05 for t in total]
    expected = torch.sqrt(sum(((g / 3) ** 2).sum() for g in noisy))
    assert record.gradient_norms[0] == pytest.approx(float(expected), rel=1e-4)


def test_losses_that_steer_the_run_are_paid_from_its_budget():
    options = CASES["sampler"]()
    free, steered = train(model("gpt2")), train(model("gpt2"), budget=Budget(flops=2e9), **options)
    watched = train(model("gpt2"), budget=Budget(flops=2e9), **{**options, "sampler": build("data.order.shuffle")})
    assert watched.cost.flops == pytest.approx(2e9, rel=0.05) == steered.cost.flops
    assert steered.tokens < watched.tokens, "what was spent on looking is not spent on training"
    assert steered.evaluation_cost.flops < watched.evaluation_cost.flops, "only the last look is a measurement"
    assert free.evaluation_cost.flops == 0


def test_rewards_raise_what_they_reward():
    lm = model("llama")
    task = Contains()

    def reward(one):
        found = one.generate(["The number 3 comes af"] * 24, 12, temperature=1.0, seed=1)
        return float(np.mean([task.score({}, g.text) or 0.0 for g in found]))

    before = reward(lm)
    settings = {"max_length": 64, "learning_rate": 2e-2, "step_tokens": 600, "micro_tokens": 600}
    record = train(lm, objective=PolicyGradient(completions=8), tokens=20_000, settings=settings)
    assert record.cost.generated_tokens > 0, "generation is charged"
    assert reward(lm) > before + 0.1


def test_a_rollout_step_without_signal_moves_nothing():
    """Equal rewards give no gradient: the optimiser step is skipped and counted, its cost is charged."""
    lm = model("llama")
    before = weights(lm)
    record = train(lm, objective=PolicyGradient(equal=True), settings={"max_length": 64})
    assert same(before, weights(lm))
    assert record.skipped_steps == record.steps > 0
    assert record.cost.flops > 0


def test_the_completions_of_a_prompt_stay_in_one_step():
    record = train(
        model("llama"), objective=PolicyGradient(), settings={"max_length": 64, "step_tokens": 10}, tokens=400
    )
    lines = [json.loads(line)["ids"] for line in Path(record.consumed).read_text(encoding="utf-8").splitlines()]
    assert [len(ids) for ids in lines] == [1] * len(lines)
    assert record.rows == record.steps


def test_validation_losses_steer_the_draws():
    sampler = _Steered(24, 0)
    sampler.update({"eval/low/loss": 1.0, "eval/high/loss": 0.0, "train/loss": 3.0})
    assert np.mean([sampler.next() for _ in range(50)]) < 12
    _, record = run("sampler")
    assert len(record.history) >= 4
    plain = train(model("gpt2"), sampler=Steered())
    assert plain.losses != record.losses
