"""SIGKILL to a training that writes a checkpoint after every step: what was complete is there, and only that."""

import random
import sys
import time

import pytest

from toy import training_bed as bed
from toy.fault_bed import server
from toy.training_bed import same, train, weights

torch = pytest.importorskip("torch")

from tutelage.training import _checkpoint  # noqa: E402

MUTATIONS = [
    (
        "src/tutelage/training/_checkpoint.py",
        '    building = folder / f"{_BUILDING}{target.name}"\n    tensors',
        "    building = target\n    tensors",
    ),
]
# Each child lives for about a tenth of a second, some three steps of a hundred tokens.
TOKENS_PER_KILL = 240


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL and cheap processes")
def test_sigkill_at_random_points_loses_nothing_that_was_complete(tmp_path, pytestconfig, record_property):
    context = server()
    folder, log = tmp_path / "run", tmp_path / "log"
    log.touch()
    wanted, seed = pytestconfig.getoption("--kills"), pytestconfig.getoption("--fault-seed")
    tokens = wanted * TOKENS_PER_KILL
    chance = random.Random(seed)
    kills, seen = 0, 0
    while kills < wanted:
        child = context.Process(target=bed.train_for_a_killer, args=(folder, log, tokens))
        child.start()
        before = log.stat().st_size
        deadline = time.monotonic() + 120
        while log.stat().st_size == before and child.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.03))
        alive = child.is_alive()
        child.kill()
        child.join()
        complete = [int(line) for line in log.read_text(encoding="utf-8").splitlines()]
        newest = _checkpoint.newest(folder)
        assert newest is not None and int(newest.name[5:]) >= complete[-1], (
            f"seed {seed}: a complete checkpoint was lost"
        )
        assert int(newest.name[5:]) >= seen
        state = _checkpoint.load(newest)
        assert state["counters"]["step"] == int(newest.name[5:])
        seen = int(newest.name[5:])
        kills += alive
        if not alive:
            break
    assert kills >= wanted, f"seed {seed}: the run ended after {kills} kills: give it more tokens"
    lm, whole = bed.model(), bed.model()
    # As many threads as the children had: another number adds up in another order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed = train(lm, tokens=tokens, checkpoint_dir=folder, settings={"checkpoint_seconds": 1e9})
        record = train(whole, tokens=tokens)
    finally:
        torch.set_num_threads(threads)
    assert resumed.losses == record.losses
    assert same(weights(lm), weights(whole))
    record_property("checkpoints", kills)
