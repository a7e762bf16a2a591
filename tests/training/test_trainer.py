"""The loop: accumulation, budgets, order, evaluators, errors."""

import json
import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from toy.training_bed import TEXTS, dataset, model, same, train, weights
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError, TrainingError
from tutelage.core.method import Objective
from tutelage.core.records import Budget
from tutelage.models.encode import Encoded
from tutelage.training import _consumed
from tutelage.training._optim import Optimizer
from tutelage.training.objectives._shared import Loss

MUTATIONS = [
    ("src/tutelage/training/_optim.py", "torch._foreach_div_(found, divisor)", "torch._foreach_div_(found, 1.0)"),
    ("src/tutelage/training/_optim.py", "master.grad.add_(parameter.grad)", "master.grad.copy_(parameter.grad)"),
    ("src/tutelage/training/_optim.py", "(piece + pattern[: len(piece)])", "(piece + 32768)"),
    ("src/tutelage/training/_optim.py", "(262139,)", "(512,)"),
    (
        "src/tutelage/training/_budget.py",
        "left.append(int(budget.tokens - self.tokens))",
        "left.append(int(budget.tokens - self.tokens) + 1)",
    ),
    ("src/tutelage/training/_budget.py", "math.ceil(", "math.floor("),
    ("src/tutelage/training/_budget.py", "flops_per_token - 1e-6)", "flops_per_token + 1e-6)"),
    ("src/tutelage/training/_batches.py", "total + len(document) > most", "total + len(document) > 10**9"),
    ("src/tutelage/training/_batches.py", "trained=document.trained[:n]", "trained=[False] + [True] * (n - 1)"),
    ("src/tutelage/training/_batches.py", "nothing_fits = document.n_trained == 0", "nothing_fits = False"),
    ("src/tutelage/training/trainer.py", "max(self.token_flops, trained / self.at.tokens)", "self.token_flops"),
    (
        "src/tutelage/training/_gradients.py",
        "        checkpoints.set_random_state(random)\n",
        "        pass\n",
    ),
]


def test_one_batch_equals_many_micro_batches():
    """1 x 32 and 32 x 1 documents of unequal trained lengths give the same weights to 1e-6 in float32."""
    found = []
    for micro_tokens in (4096, 1):
        lm = model("llama")
        record = train(lm, tokens=800, settings={"step_tokens": 800, "micro_tokens": micro_tokens, "clip": None})
        found.append((weights(lm), record))
    assert found[0][1].steps == 1
    worst = max(float((found[0][0][n] - found[1][0][n]).abs().max()) for n in found[0][0])
    assert worst < 1e-6
    assert found[0][1].gradient_norms[0] == pytest.approx(found[1][1].gradient_norms[0], rel=1e-5)
    assert found[0][1].losses[0] == pytest.approx(found[1][1].losses[0], rel=1e-6)


def test_uneven_micro_batches_agree_in_float64():
    grads = []
    for parts in ([8], [3, 5]):
        lm = model("llama")
        lm.module.double()
        optimizer = Optimizer(lm.module, learning_rate=1e-3, weight_decay=0.0)
        objective = build("training.objectives.causal_lm")
        from tutelage.models.packing import collate

        documents = [objective.encode(row, lm, 128)[0] for row in dataset().take(range(8)).to_pylist()]
        weight, at = 0.0, 0
        for part in parts:
            loss = objective.loss(lm, collate([documents[at : at + part]]))
            loss.sum.backward()
            weight, at = weight + loss.weight, at + part
        optimizer.finish(weight, None)
        grads.append({n: g.clone() for n, g in optimizer.gradients().items()})
    worst = max(float((grads[0][n] - grads[1][n]).abs().max()) for n in grads[0])
    # Log-probabilities are float32 by contract, so float64 weights agree to float32 rounding of the loss.
    assert worst < 1e-7


def test_loss_is_the_mean_over_all_tokens_of_the_step():
    lm = model("llama")
    encoded = [build("training.objectives.causal_lm").encode(r, lm, 128)[0] for r in dataset().rows()]
    before = lm.score_texts(TEXTS)
    record = train(lm, tokens=sum(map(len, encoded)), settings={"step_tokens": 10**6, "micro_tokens": 200})
    # score_texts leaves EOS out: compare by the library's own cross-entropy instead.
    fresh = model("llama")
    total = n = 0.0
    for one in encoded:
        ids = torch.tensor([one.ids])
        out = fresh.module(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids, use_cache=False)
        total, n = total + float(out.loss.detach()) * (len(one) - 1), n + len(one) - 1
    assert record.steps == 1
    assert record.losses[0] == pytest.approx(total / n, rel=1e-5)
    assert len(before) == len(TEXTS)


def test_the_step_is_adamw_on_the_mean_gradient():
    """One step equals torch's AdamW on the library's mean loss, with clipping and decay on matrices only."""
    lm, other = model("llama"), model("llama")
    settings = {"step_tokens": 10**6, "micro_tokens": 100, "weight_decay": 0.1, "clip": 0.5}
    one = dataset(TEXTS[:3])
    objective = build("training.objectives.causal_lm")
    encoded = [objective.encode(r, other, 128)[0] for r in one.rows()]
    record = train(
        lm, one, tokens=sum(map(len, encoded)), settings=settings, schedule=build("training.schedules.constant")
    )
    total = 0.0
    for e in encoded:
        ids = torch.tensor([e.ids])
        logits = other.module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        total = total + torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum")
    (total / sum(len(e) - 1 for e in encoded)).backward()
    norm = torch.nn.utils.clip_grad_norm_(other.module.parameters(), 0.5)
    matrices = [p for n, p in other.module.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in other.module.named_parameters() if p.ndim != 2 or "embed" in n]
    torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}],
        lr=1e-2,
        betas=(0.9, 0.95),
    ).step()
    assert record.gradient_norms[0] == pytest.approx(float(norm), rel=1e-5)
    for (name, mine), theirs in zip(lm.module.named_parameters(), other.module.parameters()):
        # Adam's first step is lr * sign(g) where g is tiny, so a few elements may differ in g's last bits.
        assert float((mine - theirs).detach().abs().mean()) < 1e-6, name


def test_bfloat16_models_have_float32_masters():
    lm = model("llama")
    lm.module.to(torch.bfloat16)
    optimizer = Optimizer(lm.module, learning_rate=1e-2, weight_decay=0.0)
    name, parameter = next((n, p) for n, p in lm.module.named_parameters() if p.ndim == 2)
    assert optimizer.weights[name].dtype == torch.float32
    for _ in range(3):
        parameter.grad = torch.full_like(parameter, 1.0)
        optimizer.fold()
        assert parameter.grad is None
    assert float(optimizer.gradients()[name].mean()) == 3.0
    with optimizer.folding():
        (2 * parameter).sum().backward()
        assert parameter.grad is None
    assert float(optimizer.gradients()[name].mean()) == 5.0
    parameter.sum().backward()
    assert float(parameter.grad.mean()) == 1.0  # outside the block a gradient stays where anyone else looks for it
    parameter.grad = None
    start = optimizer.weights[name].clone()
    optimizer.step(1e-4)
    moved = optimizer.weights[name]
    assert float((moved - start).detach().abs().max()) == pytest.approx(1e-6, rel=0.1), (
        "below bfloat16's resolution"
    )
    assert float((parameter - moved).detach().abs().max()) <= float(moved.detach().abs().max()) * 2**-7
    record = train(lm)
    assert record.losses[-1] < record.losses[0]


def test_steps_below_bfloat16s_resolution_move_the_mean_of_the_model():
    """Near 0.1 bfloat16's numbers lie 4.9e-4 apart: to the nearest, three steps of 5e-5 would move nothing."""
    layer = torch.nn.Linear(512, 512, bias=False).to(torch.bfloat16)
    start = (0.1 * torch.sign(torch.randn(512, 512, generator=torch.Generator().manual_seed(1)))).bfloat16()
    with torch.no_grad():
        layer.weight.copy_(start)
    optimizer = Optimizer(layer, learning_rate=5e-5, weight_decay=0.0)
    optimizer.publish()
    assert torch.equal(layer.weight, start), "what bfloat16 has stays"
    for _ in range(3):
        layer.weight.grad = torch.full_like(layer.weight, -1.0)
        optimizer.fold()
        optimizer.step(1.0)
        optimizer.clear()
    moved = (layer.weight - start).detach().float()
    assert float(moved.mean()) == pytest.approx(1.5e-4, rel=0.02)
    for sign in (start > 0, start < 0):
        assert float(moved[sign].mean()) == pytest.approx(1.5e-4, rel=0.05)
    assert float(moved.mean(0).std()) < 2e-5, "no column of a matrix moves more than another"
    before = layer.weight.clone()
    optimizer.publish()
    assert torch.equal(layer.weight, before), "the same masters give the same model"


@pytest.mark.parametrize("tokens", [2, 150, 555, 557])
@pytest.mark.parametrize("step_tokens", [30, 100, 10**6])
def test_a_token_budget_is_met_to_the_token(tokens, step_tokens):
    record = train(model(), tokens=tokens, settings={"step_tokens": step_tokens})
    assert record.tokens == tokens == record.cost.trained_tokens
    assert record.tokens == sum(record.step_tokens)


class _Answer(Objective):
    """Twenty tokens, ten of them prompt, the others learnt; a weight and a column per token."""

    whole_rows: ClassVar[bool] = False
    seen: ClassVar[list] = []

    def encode(self, row, model, max_length):
        ids = (model.tokenize([row["text"]])[0] * 20)[:20]
        n = len(ids)
        return Encoded(ids, [i >= 10 for i in range(n)], row["id"], [0.5] * n, columns={"place": list(range(n))})

    def loss(self, model, batch):
        places = batch.columns["place"][batch.segment_ids >= 0].tolist()
        _Answer.seen.append((batch.n_tokens, batch.n_trained, [int(place) for place in places]))
        return Loss(-model.token_logps(batch).sum(), float(batch.n_trained))


class _AnswerWhole(_Answer):
    whole_rows: ClassVar[bool] = True


@pytest.mark.parametrize(
    "objective, tokens, trained, found",
    [
        (_Answer(), 55, 25, 55),  # 20 + 20 + the first 15
        (_Answer(), 51, 21, 51),
        (_Answer(), 50, 20, 40),  # a prompt alone is left out
        (_Answer(), 41, 20, 40),
        (_Answer(), 40, 20, 40),
        (_AnswerWhole(), 41, 30, 60),  # documents of a row stay together
    ],
)
def test_the_last_document_is_cut_and_never_to_its_prompt(objective, tokens, trained, found):
    _Answer.seen.clear()
    watched = []
    evaluators = [("at the end", lambda lm: watched.append(1) or {})]
    record = train(
        model(), objective=objective, tokens=tokens, settings={"step_tokens": 20}, evaluators=evaluators
    )
    assert record.tokens == found == sum(batch[0] for batch in _Answer.seen)
    assert sum(batch[1] for batch in _Answer.seen) == trained
    last = found % 20 or 20
    assert _Answer.seen[-1][2][-last:] == list(range(last))
    assert watched == [1], "the budget's end is reached"


def test_a_run_that_ended_before_its_budget_is_not_trained_again(tmp_path):
    options = {"objective": _Answer(), "settings": {"step_tokens": 20}, "checkpoint_dir": tmp_path}
    lm = model()
    record = train(lm, tokens=45, **options)
    again = model()
    resumed = train(again, tokens=45, **options)
    assert record.steps == resumed.steps == 2 and same(weights(lm), weights(again))
    assert train(model(), tokens=100, **options).tokens == 100, "a larger budget goes on"


def test_a_budget_without_room_for_one_trained_token_is_an_error():
    with pytest.raises(TrainingError, match="before the first trained token"):
        train(model(), objective=_Answer(), tokens=9)


def test_other_budgets():
    record = train(model(), budget=Budget(rows=10))
    assert record.rows == 10
    assert len(_consumed.read(record.consumed)) == 10
    token = record.cost.flops / record.tokens
    for tokens in (500.0, 500.4):
        by_flops = train(model(), budget=Budget(flops=tokens * token))
        assert by_flops.tokens == math.ceil(tokens)
        assert tokens * token <= by_flops.cost.flops < (tokens + 1) * token
    by_time = train(model(), budget=Budget(seconds=0.2, tokens=10**9))
    assert 0.2 <= by_time.seconds < 5
    assert by_time.tokens < 10**9


def test_what_an_objective_spends_besides_counts_towards_flops():
    class Dear(_Answer):
        def loss(self, model, batch):
            model.meter.add(forward_flops=3 * 2.0 * model.active_params * batch.n_tokens)
            return super().loss(model, batch)

    lm = model()
    token = (1 + 2 + 3) * 2.0 * lm.active_params
    record = train(lm, objective=Dear(), budget=Budget(flops=215 * token), settings={"step_tokens": 60})
    assert record.tokens == 215
    assert record.cost.flops == pytest.approx(215 * token)


def test_long_rows_are_split_over_steps_and_every_token_is_trained_once():
    texts = ["word number " * 120, "short text here", "another " * 90]
    lm = model("llama")
    data = dataset(texts)
    record = train(lm, data, budget=Budget(rows=3), settings={"max_length": 32, "step_tokens": 64})
    tokens = sum(len(ids) + 1 for ids in lm.tokenize(texts))
    windows = sum(-(-(len(ids) + 1) // 31) for ids in lm.tokenize(texts))
    assert record.rows == 3
    assert record.tokens == tokens + windows
    assert record.steps > 3


def test_order_and_log_of_consumed_rows():
    record = train(model(), budget=Budget(rows=30))
    ids = _consumed.read(record.consumed)
    assert sorted(ids[:24]) == sorted(dataset().ids()), "an epoch draws every row once"
    lines = [json.loads(line) for line in Path(record.consumed).read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == list(range(record.steps))


def test_equal_seeds_equal_bits_and_the_callers_random_state_is_untouched():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, third = model(), model(), model()
    records = [train(first, seed=3), train(second, seed=3), train(third, seed=4)]
    assert torch.equal(before, torch.get_rng_state())
    assert same(weights(first), weights(second))
    assert records[0].losses == records[1].losses
    assert records[2].losses != records[0].losses


def test_learning_rate_follows_the_schedule_at_the_middle_of_each_step():
    record = train(model(), schedule=build("training.schedules.linear", {"warmup": 0.0}))
    seen = np.concatenate([[0], np.cumsum(record.step_tokens)[:-1]])
    middle = np.minimum(seen + np.array(record.step_tokens) / 2, 600)
    assert np.allclose(record.learning_rates, 1e-2 * (1 - middle / 600))


def test_a_schedule_that_does_not_fit_fails_before_training():
    with pytest.raises(ConfigError, match="longer than the run"):
        train(model(), schedule=build("training.schedules.wsd", {"warmup": 500, "decay": 200}))


def test_evaluators_run_at_their_shares_and_leave_no_trace():
    seen = []

    def evaluator(lm):
        torch.rand(7)
        assert not lm.module.training
        seen.append(lm.score_texts(TEXTS[:2])[0].nll_sum)
        return {"nll": seen[-1]}

    plain, watched = model(), model()
    first = train(plain)
    second = train(watched, evaluators=[("guide", evaluator)], settings={"evaluate_at": (0.0, 0.5, 1.0)})
    assert len(seen) == 3
    assert same(weights(plain), weights(watched)), "evaluation changed the training"
    assert [round(h["share"], 1) for h in second.history] == [0.0, pytest.approx(0.5, abs=0.2), 1.0]
    assert [h["guide/nll"] for h in second.history] == seen
    assert seen[2] < seen[0]
    assert second.evaluation_cost.forward_flops > 0
    assert second.cost.flops == pytest.approx(first.cost.flops)


def test_flops_follow_the_formula():
    lm = model("llama")
    record = train(lm)
    assert record.cost.forward_flops == pytest.approx(2 * lm.active_params * record.tokens)
    assert record.cost.backward_flops == pytest.approx(4 * lm.active_params * record.tokens)
    assert record.cost.trained_tokens == record.tokens
    recomputed = train(model("llama"), settings={"gradient_checkpointing": True})
    assert recomputed.cost.backward_flops == pytest.approx(6 * lm.active_params * record.tokens)
    assert recomputed.losses == pytest.approx(record.losses, rel=1e-5)


def test_events_are_json():
    events = []
    train(model(), on_event=events.append, progress=False)
    json.dumps(events)
    steps = [e for e in events if e["event"] == "step"]
    assert {"loss", "tokens_per_second", "mfu", "gradient_norm", "learning_rate", "fraction"} <= set(steps[0])
    assert steps[-1]["fraction"] == 1.0


def test_progress_bar_is_drawn_only_when_asked(capsys):
    train(model(), tokens=100)
    assert capsys.readouterr().err == ""
    train(model(), tokens=100, progress=True)
    assert "tok/s" in capsys.readouterr().err


class _Strange(Objective):
    """What one test needs: a loss that is not finite for one row, no labels, or no document at all."""

    bad: str = ""
    how: str = "nan"
    skips_empty_steps = False

    def encode(self, row, model, max_length):
        ids = model.tokenize([row["text"]])[0][:20]
        trained = [self.how != "no labels"] * len(ids)
        return [] if self.how == "nothing" else Encoded(ids, trained, row["id"])

    def loss(self, model, batch):
        values = model.token_logps(batch)
        broken = self.how == "nan" and any(self.bad in row for row in batch.example_ids)
        total = -values.sum() * (float("nan") if broken else 1.0)
        return Loss(total, float(batch.n_trained))


def test_a_loss_that_is_not_finite_names_the_rows_and_keeps_the_last_checkpoint(tmp_path):
    data = dataset()
    with pytest.raises(TrainingError, match="not finite") as error:
        train(
            model(),
            data,
            objective=_Strange(bad="r7"),
            checkpoint_dir=tmp_path,
            settings={"checkpoint_seconds": 0.0, "micro_tokens": 1, "step_tokens": 60},
            tokens=5000,
        )
    assert "r7" in str(error.value) and "last complete checkpoint" in str(error.value)
    assert error.value.repeats and error.value.cost.trained_tokens > 0
    assert error.value.cost.backward_flops == pytest.approx(2 * error.value.cost.forward_flops)
    assert str(error.value).count("r") < 60, "only the micro-batch is named"
    assert list(tmp_path.glob("step-*"))


def test_rows_without_labels_are_an_error_that_names_them():
    with pytest.raises(TrainingError, match="no token to learn") as error:
        train(model(), objective=_Strange(how="no labels"))
    assert "r" in str(error.value.where)


def test_data_that_gives_no_document_is_an_error_that_names_rows():
    with pytest.raises(TrainingError, match="no row can be trained on") as error:
        train(model(), objective=_Strange(how="nothing"))
    assert "24 rows dropped" in str(error.value)


def test_a_bad_row_is_named():
    with pytest.raises(InputError) as error:
        train(model(), Dataset.from_rows([{"id": "empty-one", "text": ""}]))
    assert "empty-one" in str(error.value)
    with pytest.raises(InputError, match="no rows"):
        train(model(), Dataset.from_rows([]))


def test_a_frozen_model_is_an_error():
    lm = model()
    lm.module.requires_grad_(False)
    with pytest.raises(TrainingError, match="no trainable parameter"):
        train(lm)


def test_running_out_of_memory_halves_the_micro_batch_once(monkeypatch, capsys):
    from tutelage.training import trainer

    real, calls = trainer.accumulate, []

    def accumulate(lm, micro, *rest):
        calls.append(max(batch.n_tokens for batch in micro))
        if calls[-1] > limit:
            torch.rand(3)
            raise torch.OutOfMemoryError("out of memory")
        return real(lm, micro, *rest)

    limit = 130
    monkeypatch.setattr(trainer, "accumulate", accumulate)
    lm, plain = model(), model()
    record = train(lm, settings={"micro_tokens": 256, "step_tokens": 200, "max_length": 100})
    assert record.micro_tokens == 128
    assert "halved to 128" in capsys.readouterr().err
    monkeypatch.setattr(trainer, "accumulate", real)
    train(plain, settings={"micro_tokens": 128, "step_tokens": 200, "max_length": 100})
    assert same(weights(lm), weights(plain)), "the failed try left a trace"
    limit = 0
    monkeypatch.setattr(trainer, "accumulate", accumulate)
    with pytest.raises(TrainingError, match="runs out of memory") as error:
        train(model())
    assert not error.value.repeats, "another machine may have more"
