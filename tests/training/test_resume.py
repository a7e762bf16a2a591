"""Exact resume, complete-or-nothing checkpoints, a full disk and Ctrl-C."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from toy import training_bed as bed
from toy.training_bed import Stop, model, same, stop_at, train, weights
from tutelage.core.discovery import build
from tutelage.core.errors import Interrupted, StoreError, TrainingError
from tutelage.training import _checkpoint, _consumed

MUTATIONS = [
    (
        "src/tutelage/training/trainer.py",
        '        checkpoints.set_random_state(state["random"])\n',
        "",
    ),
    (
        "src/tutelage/training/_optim.py",
        '{index[name]: values for name, values in state["moments"].items()}',
        "{}",
    ),
    ("src/tutelage/training/_checkpoint.py", "if is_complete(path)), None)", "if path.is_dir()), None)"),
    ("src/tutelage/training/_consumed.py", "self._file.truncate(position)", "pass"),
    ("src/tutelage/training/_checkpoint.py", "if broken is not None:", "if False:"),
    ("src/tutelage/training/_consumed.py", "if digest not in (None, self.digest):", "if False:"),
    ("src/tutelage/training/_checkpoint.py", "            _sync(building / name)\n", "            pass\n"),
    ("src/tutelage/training/_checkpoint.py", "        _sync(building / MARKER)\n", ""),
]
EVERY_STEP = {"checkpoint_seconds": 0.0}


def interrupted_run(folder, stops, arch="gpt2", **options):
    """A run that is broken off at each of `stops` in turn, then resumed to its end."""
    for stop in stops:
        with pytest.raises(Stop):
            train(bed.model(arch), checkpoint_dir=folder, settings=EVERY_STEP, on_event=stop_at(stop), **options)
    lm = bed.model(arch)
    return lm, train(lm, checkpoint_dir=folder, settings=EVERY_STEP, **options)


def optimizer_state(folder):
    return _checkpoint.load(_checkpoint.newest(folder))["optimizer"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    lm = model()
    record = train(lm, checkpoint_dir=folder, settings=EVERY_STEP)
    return lm, record, folder


@pytest.mark.parametrize("first", [1, 2, 3, 4, 5])
def test_resume_twice_is_exact_at_every_step(whole, tmp_path, first):
    reference, record, folder = whole
    assert record.steps == 6
    lm, resumed = interrupted_run(tmp_path, [first, min(first + 1, 5) if first < 5 else 6])
    assert same(weights(lm), weights(reference))
    assert resumed.losses == record.losses and resumed.gradient_norms == record.gradient_norms
    assert resumed.learning_rates == record.learning_rates
    assert _consumed.read(resumed.consumed) == _consumed.read(record.consumed)
    mine, theirs = optimizer_state(tmp_path), optimizer_state(folder)
    for name, values in theirs["moments"].items():
        assert all(
            torch.equal(torch.as_tensor(values[k]), torch.as_tensor(mine["moments"][name][k])) for k in values
        )
    ends = [_checkpoint.load(_checkpoint.newest(f)) for f in (tmp_path, folder)]
    assert torch.equal(ends[0]["random"]["torch"], ends[1]["random"]["torch"])
    assert ends[0]["batches"] == ends[1]["batches"]
    assert resumed.tokens == record.tokens and resumed.rows == record.rows
    assert resumed.cost.flops == record.cost.flops


def test_resume_from_an_older_checkpoint_is_exact(whole, tmp_path):
    """Steps after the last checkpoint are lost and made again; the log holds each step once."""
    reference, record, _ = whole
    with pytest.raises(Stop):
        train(model(), checkpoint_dir=tmp_path, settings=EVERY_STEP, on_event=stop_at(4))
    shutil.rmtree(_checkpoint.newest(tmp_path))
    lm = model()
    resumed = train(lm, checkpoint_dir=tmp_path, settings=EVERY_STEP)
    assert resumed.resumed_at == 2
    assert same(weights(lm), weights(reference))
    lines = [json.loads(line)["step"] for line in Path(resumed.consumed).read_text(encoding="utf-8").splitlines()]
    assert lines == list(range(record.steps))


def test_resume_with_a_half_used_row_is_exact(tmp_path):
    """Long rows leave windows waiting for the next step; they are part of the cursor."""
    data = bed.dataset(["word number " * 90, "short text", "another thing " * 70, "and more of it " * 40])
    options = {"data": data, "tokens": 500}
    lm = model()
    record = train(lm, **options, settings={"max_length": 32, "step_tokens": 70})
    with pytest.raises(Stop):
        train(
            model(),
            **options,
            settings={"max_length": 32, "step_tokens": 70, "checkpoint_seconds": 0.0},
            checkpoint_dir=tmp_path,
            on_event=stop_at(3),
        )
    assert _checkpoint.load(_checkpoint.newest(tmp_path))["batches"]["waiting"]
    again = model()
    resumed = train(again, **options, settings={"max_length": 32, "step_tokens": 70}, checkpoint_dir=tmp_path)
    assert resumed.losses == record.losses
    assert same(weights(again), weights(lm))


def test_a_finished_run_is_not_trained_again(whole):
    reference, record, folder = whole
    lm = model()
    again = train(lm, checkpoint_dir=folder, settings=EVERY_STEP, on_event=stop_at(7))
    assert again.resumed_at == record.steps and again.losses == record.losses
    assert same(weights(lm), weights(reference))


def test_starting_over_and_another_runs_checkpoints(tmp_path):
    train(model(), checkpoint_dir=tmp_path, identity="one")
    with pytest.raises(TrainingError, match="another run") as error:
        train(model(), checkpoint_dir=tmp_path, identity="two")
    assert "resume=False" in str(error.value)
    record = train(model(), checkpoint_dir=tmp_path, identity="two", resume=False, tokens=200)
    assert record.resumed_at is None
    assert _checkpoint.load(_checkpoint.newest(tmp_path))["identity"] == "two"


def test_damage_is_passed_over(whole, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(whole[2], folder)
    last = _checkpoint.newest(folder)
    for file, change in (
        (_checkpoint.STATE, "append"),
        (_checkpoint.TENSORS, "flip"),
        (_checkpoint.MARKER, "gone"),
    ):
        shutil.rmtree(folder)
        shutil.copytree(whole[2], folder)
        path = last / file
        if change == "gone":
            path.unlink()
        else:
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(bytes(data))
        assert _checkpoint.newest(folder).name < last.name, file
    lm = model()
    train(lm, checkpoint_dir=folder, settings=EVERY_STEP)
    assert same(weights(lm), weights(whole[0]))


def test_a_damaged_log_of_rows_is_named(tmp_path):
    """The log says what the model has seen: it must not be taken over with other rows in it."""
    with pytest.raises(Stop):
        train(model(), checkpoint_dir=tmp_path, settings=EVERY_STEP, on_event=stop_at(3))
    log = tmp_path / "consumed.jsonl"
    whole = log.read_bytes()
    for content in (whole[:20], whole.replace(b'"r', b'"s', 1)):
        log.write_bytes(content)
        with pytest.raises(TrainingError, match="log of consumed rows") as error:
            train(model(), checkpoint_dir=tmp_path, settings=EVERY_STEP)
        assert error.value.where == log and str(tmp_path) in error.value.remedy
    log.write_bytes(whole + b"what a step wrote after the checkpoint")
    record = train(model(), checkpoint_dir=tmp_path, settings=EVERY_STEP)
    assert record.resumed_at == 2 and len(log.read_text(encoding="utf-8").splitlines()) == record.steps


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    seen = []
    sync, rename = os.fsync, Path.rename
    monkeypatch.setattr(os, "fsync", lambda handle: seen.append(os.fstat(handle).st_ino) or sync(handle))
    monkeypatch.setattr(Path, "rename", lambda self, target: seen.append(str(target)) or rename(self, target))
    made = _checkpoint.save(tmp_path / "run", 1, {"a": torch.zeros(2)})
    before = seen[: seen.index(str(made))]
    assert {file.stat().st_ino for file in made.iterdir()} <= set(before) and len(list(made.iterdir())) == 3


def test_a_full_disk_leaves_the_last_complete_checkpoint(tmp_path, monkeypatch, whole):
    with pytest.raises(Stop):
        train(model(), checkpoint_dir=tmp_path, settings=EVERY_STEP, on_event=stop_at(3))
    before = _checkpoint.newest(tmp_path)
    real = _checkpoint.save_file

    def full(tensors, path):
        real(tensors, path)
        path.write_bytes(path.read_bytes()[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(_checkpoint, "save_file", full)
    with pytest.raises(TrainingError, match="could not be written") as error:
        train(model(), checkpoint_dir=tmp_path, settings=EVERY_STEP)
    assert "No space left" in str(error.value) and before.name in str(error.value)
    assert _checkpoint.newest(tmp_path) == before and _checkpoint.is_complete(before)
    assert not list(tmp_path.glob(".building*")), "a failed write frees its space"
    monkeypatch.setattr(_checkpoint, "save_file", real)
    lm = model()
    train(lm, checkpoint_dir=tmp_path, settings=EVERY_STEP)
    assert same(weights(lm), weights(whole[0]))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be used"):
        train(model(), checkpoint_dir=tmp_path / "file")


def interrupt_at(step):
    def listen(facts):
        if facts["event"] == "step" and facts["step"] == step:
            signal.raise_signal(signal.SIGINT)

    return listen


def test_ctrl_c_leaves_a_resumable_run(tmp_path, whole):
    with pytest.raises(Interrupted, match="interrupted") as error:
        train(model(), checkpoint_dir=tmp_path, on_event=interrupt_at(2))
    assert str(tmp_path) in str(error.value) and error.value.exit_code == 130
    lm = model()
    record = train(lm, checkpoint_dir=tmp_path)
    assert record.resumed_at == 2 and record.losses == whole[1].losses
    assert same(weights(lm), weights(whole[0]))
    with pytest.raises(Interrupted, match="nothing was saved"):
        train(model(), on_event=interrupt_at(2))


class _Slow(type(build("training.objectives.causal_lm"))):
    """Raises Ctrl-C in the middle of a step, after some gradients are there."""

    def loss(self, lm, batch):
        _Slow_calls.append(1)
        if len(_Slow_calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return super().loss(lm, batch)


_Slow_calls: list[int] = []


def test_ctrl_c_in_the_middle_of_a_step_undoes_the_step(tmp_path, whole):
    _Slow_calls.clear()
    with pytest.raises(Interrupted):
        train(model(), checkpoint_dir=tmp_path, objective=_Slow())
    lm = model()
    record = train(lm, checkpoint_dir=tmp_path)
    assert 0 < record.resumed_at < 3
    assert record.losses == whole[1].losses
    assert same(weights(lm), weights(whole[0]))


def test_ctrl_c_while_weights_move_waits_for_the_end_of_the_step(tmp_path, whole, monkeypatch):
    from tutelage.training._optim import Optimizer

    real = Optimizer.step

    def step(self, multiplier):
        signal.raise_signal(signal.SIGINT)
        return real(self, multiplier)

    monkeypatch.setattr(Optimizer, "step", step)
    with pytest.raises(Interrupted):
        train(model(), checkpoint_dir=tmp_path)
    monkeypatch.setattr(Optimizer, "step", real)
    lm = model()
    record = train(lm, checkpoint_dir=tmp_path)
    assert record.resumed_at == 1
    assert same(weights(lm), weights(whole[0]))


def test_evaluated_copies_are_kept_and_load(tmp_path):
    lm = build("adapters.lora", {"rank": 2}).convert({"base": model("llama")}, None, {})
    lm.module.base_model.requires_grad_(False)
    for name, parameter in lm.module.named_parameters():
        parameter.requires_grad_("lora_" in name)
    record = train(lm, checkpoint_dir=tmp_path, settings={"keep_at": (0.25, 0.5, 1.0)})
    assert list(record.kept) == ["0.25", "0.5", "1"]
    for folder in record.kept.values():
        _checkpoint.check_kept(Path(folder))
    sizes = [sum(f.stat().st_size for f in Path(p).glob("*.safetensors")) for p in record.kept.values()]
    assert max(sizes) < 20_000, "the adapter alone is kept"
    from peft import PeftModel

    again = PeftModel.from_pretrained(model("llama").module, record.kept["1"])
    mine = {n: p for n, p in lm.module.named_parameters() if "lora_" in n}
    assert mine and all(torch.equal(p, dict(again.named_parameters())[n]) for n, p in mine.items())


def test_a_damaged_kept_copy_is_named(tmp_path):
    folder = _checkpoint.keep_model(model("llama"), tmp_path, 3)
    _checkpoint.check_kept(folder)
    for name in ("model.safetensors", "config.json", _checkpoint.MARKER):
        whole = (folder / name).read_bytes()
        for content in (whole[:-1], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:], None):
            if content is None and name == _checkpoint.MARKER:
                continue
            (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
            with pytest.raises(StoreError, match="kept copy"):
                _checkpoint.check_kept(folder)
        (folder / name).write_bytes(whole)
    (folder / _checkpoint.MARKER).unlink()
    _checkpoint.check_kept(folder)


def test_a_kept_copy_that_does_not_fit_is_an_error_and_leaves_no_half(tmp_path, monkeypatch):
    lm = model("llama")

    def full(path):
        path.mkdir(parents=True)
        (path / "model.safetensors").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lm, "save", full)
    with pytest.raises(TrainingError, match="could not be kept") as error:
        train(lm, checkpoint_dir=tmp_path, settings={"keep_at": (0.5,)})
    assert "No space left" in str(error.value)
    assert not list((tmp_path / "kept").iterdir())
