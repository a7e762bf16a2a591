"""training.continual: forgetting is measured by document, fires on one language, and replay keeps it silent."""

import math

import numpy as np
import pytest

from toy.training_bed import Stop, model, same, stop_at, train, weights
from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Budget
from tutelage.training._monitor import Monitor, paired_delta, refuse_leaks, undominated
from tutelage.training.continual import POINTS, Continual

PROOF = {"training.continual": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/training/_monitor.py", "low > self._tolerance", "high < self._tolerance"),
    ("src/tutelage/training/_monitor.py", "bits = (now - start) / np.log(2)", "bits = now - start"),
    ("src/tutelage/training/_monitor.py", "share >= self._after", "share > 2"),
    ("src/tutelage/training/_monitor.py", "model if share == 0 else self._base", "model"),
    ("src/tutelage/training/continual.py", "if step in measured - best:", "if step in best:"),
    ("src/tutelage/training/continual.py", "refuse_leaks(probes, dataset)", "pass"),
    ("src/tutelage/training/_records.py", "self.rate_factor *= value", "pass"),
    ("src/tutelage/training/_records.py", 'name.endswith("/stop") and value > 0', "False"),
]
LETTERS = {"general": "abcdefgh", "domain": "stuvwxyz"}


def texts(language, count, seed):
    """A first-order Markov chain over the language's letters: each is followed by one of two others."""
    rng = np.random.default_rng(seed)
    letters = LETTERS[language]
    made = []
    for _ in range(count):
        at, word = int(rng.integers(8)), []
        for _ in range(60):
            word.append(letters[at])
            at = (at * 3 + 1 + int(rng.integers(2)) * 4) % 8
        made.append("".join(word))
    return made


def rows(language, count, seed, **columns):
    return Dataset.from_rows(
        {"id": f"{language}-{seed}-{i}", "text": t, **columns} for i, t in enumerate(texts(language, count, seed))
    )


def stream():
    made = [*rows("domain", 40, 1, replay=False).rows(), *rows("general", 40, 2, replay=True).rows()]
    return Dataset.from_rows(made)


PROBES = {"general": rows("general", 20, 3), "domain": rows("domain", 20, 4)}


@pytest.fixture(scope="module")
def base():
    """A model that knows the general language."""
    lm = model("llama", width=32)
    train(lm, rows("general", 60, 5), tokens=12_000, settings={"step_tokens": 400, "micro_tokens": 400})
    return lm


def run(base, inputs=PROBES, data=None, **fields):
    method = Continual(
        **{
            "budget": Budget(tokens=6000),
            "learning_rate": 1e-2,
            "step_tokens": 400,
            "micro_tokens": 400,
            "max_length": 128,
            "sampler": {"use": "data.mix.replay", "share": 0},
            **fields,
        }
    )
    options = {}
    return method.train(base, stream() if data is None else data, inputs, progress=False, **options)


def last(record, metric):
    return record.history[-1][f"forgetting/{metric}"]


def test_one_language_fires_and_replay_at_half_does_not(base):
    slow = {"learning_rate": 3e-3, "budget": Budget(tokens=8000)}
    _, alone = run(base, action="warn", **slow)
    assert alone.history[0]["share"] == 0 and len(alone.history) >= 6
    first = alone.history[0]
    assert first["forgetting/general_delta"] == 0 and first["forgetting/general_delta_high"] == 0
    assert last(alone, "general_delta_low") > 0.02 and last(alone, "warn") == 1
    assert last(alone, "domain_delta_high") < -0.1
    _, mixed = run(base, sampler={"use": "data.mix.replay", "share": 0.5}, **slow)
    assert not any("forgetting/warn" in entry for entry in mixed.history)
    assert last(mixed, "domain_delta_high") < -0.1
    assert all(e["share"] >= 0.1 for e in alone.history if "forgetting/warn" in e)


def test_the_numbers_are_those_of_the_documents(base):
    made, record = run(base, evaluate_at=(0.0, 1.0))
    bits = []
    for lm in (base, made):
        scores = lm.score_texts(list(PROBES["general"].column("text").to_pylist()), window=1024)
        bits.append(np.array([s.nll_sum for s in scores]) / math.log(2))
    assert last(record, "general_bpb") == pytest.approx(bits[1].sum() / 1200, rel=1e-6)
    assert last(record, "general_delta") == pytest.approx((bits[1] - bits[0]).sum() / 1200, rel=1e-6)
    error = (bits[1] - bits[0]).std(ddof=1) / 60 / math.sqrt(20)
    width = last(record, "general_delta_high") - last(record, "general_delta_low")
    assert width == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_actions(base):
    _, stopped = run(base, action="stop")
    assert stopped.tokens < 6000 and last(stopped, "stop") == 1
    constant = {"use": "training.schedules.constant", "warmup": 0}
    _, slowed = run(base, action="lower_rate", schedule=constant)
    fired = [e["share"] for e in slowed.history if "forgetting/rate_factor" in e and e["share"] < 1]
    assert fired and slowed.learning_rates[-1] == pytest.approx(1e-2 * 0.5 ** len(fired))
    data = Dataset.from_rows(stream().rows())
    _, raised = run(base, action="raise_replay", sampler={"use": "data.mix.replay", "share": 0.02}, data=data)
    _, steady = run(base, action="warn", sampler={"use": "data.mix.replay", "share": 0.02}, data=data)
    assert last(raised, "general_delta") < last(steady, "general_delta")


def test_without_replay_and_price_it_is_plain_training_to_the_bit(base):
    options = {"budget": Budget(tokens=1000), "learning_rate": 1e-2, "step_tokens": 400, "max_length": 128}
    # Every field of training.fit means the same here.
    options |= {"weight_decay": 0.3, "gradient_clip": 0.2, "gradient_checkpointing": True, "seed": 3}
    options |= {"update_rule": None}
    plain = build("training.fit", {**options, "schedule": {"use": "training.schedules.wsd"}})
    one, record = plain.train(base, rows("domain", 40, 1), progress=False)
    two, watched = run(
        base,
        **{**options, "micro_tokens": 1024},
        objective={"use": "training.objectives.reference_kl", "weight": 0},
    )
    assert same(weights(one), weights(two)) and record.losses == watched.losses


def test_resume_measures_against_the_base(base, tmp_path):
    method = Continual(
        budget=Budget(tokens=2000),
        learning_rate=1e-2,
        step_tokens=200,
        max_length=128,
        checkpoint_seconds=0,
        action="lower_rate",
        evaluate_at=(0.0, 0.2, 0.7, 1.0),
    )
    whole, record = method.train(base, stream(), PROBES, checkpoint_dir=tmp_path / "a", progress=False)
    with pytest.raises(Stop):
        method.train(base, stream(), PROBES, checkpoint_dir=tmp_path / "b", progress=False, on_event=stop_at(4))
    again, resumed = method.train(base, stream(), PROBES, checkpoint_dir=tmp_path / "b", progress=False)
    assert resumed.resumed_at and same(weights(whole), weights(again))
    assert resumed.history == record.history and resumed.learning_rates == record.learning_rates


def test_kept_models_that_others_beat_are_removed(base, tmp_path):
    method = Continual(
        budget=Budget(tokens=3000),
        learning_rate=1e-2,
        step_tokens=400,
        max_length=128,
        sampler={"use": "data.mix.replay", "share": 0},
        keep_checkpoints=POINTS[1:],
    )
    _, record = method.train(base, stream(), PROBES, checkpoint_dir=tmp_path, progress=False)
    best = undominated(record.history, "forgetting/domain_bpb", "forgetting/general_bpb")
    steps = {record.history[i]["step"] for i in best}
    kept = {p.name for p in (tmp_path / "kept").iterdir()}
    assert kept == {f"step-{s:08d}" for s in steps if s} and len(record.kept) >= len(kept) > 0
    assert undominated([{"a": 1, "b": 3}, {"a": 2, "b": 2}, {"a": 2, "b": 3}, {"a": 3, "b": 1}], "a", "b") == [
        0,
        1,
        3,
    ]


def test_paired_delta_by_hand():
    size = np.array([1.0, 3.0])
    assert paired_delta(np.array([2.0, 2.0]), np.array([2.0, 2.0]), size) == (0, 0, 0)
    delta, low, high = paired_delta(np.array([2.0, 2.0]), np.array([1.0, 2.0]), size)
    assert delta == pytest.approx(1 / math.log(2) / 4) and low == 0 and high == pytest.approx(1 / math.log(2))


def test_bad_input(base):
    with pytest.raises(ConfigError, match="general texts"):
        run(base, inputs={})
    leak = Dataset.from_rows([{"id": "leak", "text": " " + texts("general", 1, 2)[0].upper()}])
    with pytest.raises(InputError, match="shares documents") as error:
        run(base, inputs={"general": leak})
    assert "leak" in str(error.value)
    refuse_leaks({"general": PROBES["general"]}, stream())
    with pytest.raises(InputError, match="no text"):
        Monitor(base, {"general": rows("general", 0, 0)}, held=[], tolerance=0, after=0, action="warn")
    with pytest.raises(ConfigError, match="action"):
        Continual(action="cry")
