"""data.mix.cooldown: two phases, switched at the exact step; the learning rate goes on as if nothing happened."""

import json
from pathlib import Path

import numpy as np
import pytest

from toy.training_bed import Stop, model, same, stop_at, train, weights
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, StoreError
from tutelage.data.augment.metadata import Metadata
from tutelage.data.mix.cooldown import Cooldown
from tutelage.training.objectives.context_lm import ContextLM

PROOF = {"data.mix.cooldown": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/mix/cooldown.py", ">= self._switch - 1e-9", ">= self._switch - 0.2"),
    ("src/tutelage/data/mix/cooldown.py", '"phase": self.phase', '"phase": "first"'),
    ("src/tutelage/training/trainer.py", '"train/share": min(1.0, self.share())', '"train/share": 0.0'),
]


def rows(first=30, last=12, column="conditioned"):
    made = [{"id": f"f{i}", "text": f"row {i} has a source", column: True} for i in range(first)]
    return Dataset.from_rows(
        [*made, *({"id": f"l{i}", "text": f"row {i} is plain", column: False} for i in range(last))]
    )


def drawn(draws, count):
    return [draws.next() for _ in range(count)]


def test_first_the_marked_rows_then_the_others():
    draws = Cooldown(switch=0.5).start(rows(), 0)
    assert sorted(drawn(draws, 30)) == list(range(30)) and max(drawn(draws, 30)) < 30
    for share in (0.1, 0.49999):
        draws.update({"train/loss": 1.0, "train/share": share})
        assert draws.next() < 30
    draws.update({"eval/x/loss": 1.0})
    assert draws.next() < 30
    draws.update({"train/share": 0.1 + 0.2 + 0.2})
    assert sorted(drawn(draws, 12)) == list(range(30, 42))


def test_without_cool_down_and_without_a_first_phase():
    draws = Cooldown(switch=1.0).start(rows(last=0), 0)
    draws.update({"train/share": 1.0})
    assert sorted(drawn(draws, 30)) == list(range(30))
    assert min(drawn(Cooldown(switch=0.0).start(rows(), 0), 24)) >= 30


def test_resume_goes_on_in_the_same_phase():
    for share in (0.2, 0.95):
        draws = Cooldown().start(rows(), 1)
        drawn(draws, 17)
        draws.update({"train/share": share})
        drawn(draws, 5)
        other = Cooldown().start(rows(), 1)
        other.load_state_dict(json.loads(json.dumps(draws.state_dict())))
        assert drawn(other, 60) == drawn(draws, 60)
        with pytest.raises(StoreError, match="other data"):
            Cooldown().start(rows(), 2).load_state_dict(draws.state_dict())


def phases(record):
    lines = Path(record.consumed).read_text(encoding="utf-8").splitlines()
    return [{name[0] for name in json.loads(line)["ids"]} for line in lines]


def test_the_trainer_switches_at_the_exact_step_and_the_rate_goes_on():
    data = rows(60, 60)
    record = train(model(), data, tokens=2000, sampler=Cooldown(switch=0.7))
    begun = np.concatenate([[0], np.cumsum(record.step_tokens)[:-1]]) / 2000
    assert phases(record) == [{"f"} if share < 0.7 else {"l"} for share in begun]
    assert {"l"} in phases(record)
    plain = train(model(), data, tokens=2000)
    steps = -np.diff(record.learning_rates)
    assert steps[2:].max() <= 1.2 * (-np.diff(plain.learning_rates))[2:].max(), "no jump"


def test_a_killed_run_resumes_in_its_phase(tmp_path):
    data = Metadata(column="conditioned_on", share=0.6).apply(
        Dataset.from_rows(
            {"id": f"r{i}", "text": f"row {i} it is", "conditioned_on": f"s{i % 3}"} for i in range(60)
        ),
        {},
    )
    options = {"sampler": Cooldown(switch=0.5), "objective": ContextLM(), "settings": {"checkpoint_seconds": 0.0}}
    whole, cut = model(), model()
    record = train(whole, data, tokens=1500, **options)
    with pytest.raises(Stop):
        train(cut, data, tokens=1500, checkpoint_dir=tmp_path, on_event=stop_at(9), **options)
    resumed = train(cut, data, tokens=1500, checkpoint_dir=tmp_path, **options)
    assert resumed.resumed_at and resumed.losses == record.losses and same(weights(whole), weights(cut))


def test_bad_input():
    with pytest.raises(ConfigError, match="switch"):
        Cooldown(switch=1.1)
    for data, missing in ((rows(last=0), "other"), (rows(first=0), "marked")):
        with pytest.raises(InputError, match=f"no {missing} rows"):
            Cooldown().start(data, 0)
    with pytest.raises(InputError, match="conditioned"):
        Cooldown().start(rows(column="plain"), 0)
    assert Cooldown(column="plain").start(rows(column="plain"), 0).next() < 30
