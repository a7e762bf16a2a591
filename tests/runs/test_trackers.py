"""Trackers: the same losses and results reach each of them; a missing one is an error before anything runs."""

import importlib.util
import sys
import types

import pytest

from tutelage.core.errors import ConfigError
from tutelage.runs import Ledger


class Fake(types.ModuleType):
    """Records every call to any function."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def called(*values, **options):
            self.calls.append((name, values, options))
            return self

        return called


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_wandb_and_trackio(bed, monkeypatch, name):
    fake = Fake(name)
    monkeypatch.setitem(sys.modules, name, fake)
    result = bed.run(bed.recipe(report_to=name))
    names = [call[0] for call in fake.calls]
    assert names[0] == "init" and names[-1] == "finish"
    assert fake.calls[0][2]["name"] == result.run_id and fake.calls[0][2]["config"]["name"] == "bed"
    logged = {key: value for call in fake.calls if call[0] == "log" for key, value in call[1][0].items()}
    assert logged["trained/loss"] == pytest.approx(1 / 20)
    assert logged["result/skill"] == result.load("result").estimate
    steps = [call[2]["step"] for call in fake.calls if call[0] == "log"]
    assert steps == [*range(len(steps))] and len(steps) == 21


def test_mlflow(bed, monkeypatch):
    fake = Fake("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    bed.run(bed.recipe(report_to="mlflow"))
    names = [call[0] for call in fake.calls]
    assert names[:3] == ["set_experiment", "start_run", "log_dict"] and names[-1] == "end_run"
    assert names.count("log_metrics") == 21


def test_tensorboard(bed, monkeypatch):
    fake = Fake("tensorboard")
    monkeypatch.setitem(sys.modules, "tensorboard", fake)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    bed.run(bed.recipe(report_to="tensorboard"))
    writer = fake.calls[0]
    assert writer[0] == "SummaryWriter" and writer[2]["log_dir"].startswith(str(bed.folder / "tensorboard"))
    assert [call[0] for call in fake.calls].count("add_scalar") == 4 * 20 + 1 - 20 * 2
    assert fake.calls[-1][0] == "close"


def test_real_tensorboard_files_hold_every_loss_and_result(bed):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = bed.run(bed.recipe(report_to="tensorboard"))
    events = EventAccumulator(str(bed.folder / "tensorboard" / result.run_id)).Reload()
    losses = events.Scalars("trained/loss")
    assert len(losses) == 20 and losses[0].value == pytest.approx(1)
    assert events.Scalars("result/skill")[-1].value == pytest.approx(result.load("result").estimate)


def test_real_mlflow_holds_every_loss_and_result(bed, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(bed.folder)
    mlflow.set_tracking_uri(f"sqlite:///{bed.folder}/mlflow.db")
    result = bed.run(bed.recipe(report_to="mlflow"))
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("tutelage").experiment_id])
    assert run.info.run_name == result.run_id and run.info.status == "FINISHED"
    assert run.data.metrics["result/skill"] == pytest.approx(result.load("result").estimate)
    assert len(client.get_metric_history(run.info.run_id, "trained/loss")) == 20


def test_real_wandb_writes_a_run_without_a_network(bed, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(bed.folder))
    bed.run(bed.recipe(report_to="wandb"))
    (written,) = (bed.folder / "wandb").glob("offline-run-*/run-*.wandb")
    content = written.read_bytes()
    assert content.count(b"trained/loss") >= 20 and b"result/skill" in content


def test_real_trackio_holds_every_loss_and_result(bed, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(bed.folder / "trackio"))
    trackio = pytest.importorskip("trackio")
    result = bed.run(bed.recipe(report_to="trackio"))
    (run,) = trackio.Api().runs("tutelage")
    assert run.name == result.run_id


def test_arms_and_seeds_are_in_the_names(bed, monkeypatch):
    fake = Fake("wandb")
    monkeypatch.setitem(sys.modules, "wandb", fake)
    arms = {"a": {}, "b": {"trained": {"rate": 2.0}}}
    bed.run(bed.recipe(report_to="wandb", arms=arms, compare={"baseline": "a", "seeds": [4]}))
    keys = {key for call in fake.calls if call[0] == "log" for key in call[1][0]}
    assert {"a/4/trained/loss", "b/4/trained/loss", "a/4/result/skill", "b/4/result/skill"} <= keys


def test_unknown_and_missing_trackers_stop_before_anything_runs(bed):
    with pytest.raises(ConfigError, match="wandb"):
        bed.run(bed.recipe(report_to="wandbb"))
    if importlib.util.find_spec("mlflow") is None:
        with pytest.raises(ConfigError, match=r"tutelage\[mlflow\]"):
            bed.run(bed.recipe(report_to="mlflow"))
    assert not Ledger(bed.folder).file.exists()


def test_none_is_allowed(bed):
    assert bed.run(bed.recipe(report_to="none")).status == "passed"
