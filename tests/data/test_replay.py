"""data.mix.replay: the share holds in every stretch of draws, and shares may be raised."""

import numpy as np
import pytest

from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError, StoreError
from tutelage.data.mix.replay import Replay

PROOF = {"data.mix.replay": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/mix/replay.py", "self._carry -= due", "self._carry = 0.0"),
    ("src/tutelage/data/mix/replay.py", "min(self._most, self.share * factor)", "self.share * factor"),
    ("src/tutelage/data/mix/replay.py", '"carry": self._carry', '"carry": 0.0'),
]


def rows(domain=37, replay=11):
    made = [{"id": f"d{i}", "text": "x", "replay": False} for i in range(domain)]
    made += [{"id": f"g{i}", "text": "y", "replay": True} for i in range(replay)]
    return Dataset.from_rows(made)


def drawn(draws, count):
    return [draws.next() for _ in range(count)]


@pytest.mark.parametrize("share", [0.05, 0.1, 0.37, 0.5])
def test_the_share_holds_in_every_stretch(share):
    found = np.array(drawn(Replay(share=share).start(rows(), 3), 400)) >= 37
    totals = np.concatenate([[0], np.cumsum(found)])
    for n in (10, 64, 400):
        counts = totals[n:] - totals[:-n]
        assert (np.abs(counts - share * n) <= 1 + 1e-6).all()
    assert totals[-1] == pytest.approx(share * 400, abs=1)


def test_both_kinds_are_drawn_epoch_by_epoch():
    found = drawn(Replay(share=0.25).start(rows(), 0), 4 * 37)
    domain, replay = [i for i in found if i < 37], [i for i in found if i >= 37]
    assert len(domain) == 111 and all(sorted(domain[e * 37 : e * 37 + 37]) == list(range(37)) for e in range(3))
    assert sorted(replay[:11]) == list(range(37, 48)) and replay[:11] != replay[11:22]


def test_share_zero_is_shuffling_the_domain_rows():
    plain = build("data.order.shuffle").start(rows(replay=0), 5)
    assert drawn(Replay(share=0).start(rows(), 5), 90) == drawn(plain, 90)
    without = Dataset.from_rows([{"id": "a", "text": "x"}])
    assert drawn(Replay(share=0).start(without, 0), 2) == [0, 0]


def test_a_monitor_raises_the_share_up_to_a_bound():
    draws = Replay(share=0.2, most=0.5).start(rows(), 0)
    draws.update({"train/loss": 2.0, "eval/forgetting/general_delta": 1.0})
    assert draws.share == 0.2
    draws.update({"eval/forgetting/raise_replay": 2.0})
    assert draws.share == 0.4 and sum(i >= 37 for i in drawn(draws, 100)) == 40
    draws.update({"eval/forgetting/raise_replay": 2.0})
    assert draws.share == 0.5


def test_resume_goes_on_with_the_next_row():
    draws = Replay(share=0.3).start(rows(), 1)
    drawn(draws, 53)
    draws.update({"eval/m/raise_replay": 1.5})
    drawn(draws, 5)
    other = Replay(share=0.3).start(rows(), 1)
    other.load_state_dict(draws.state_dict())
    assert drawn(other, 200) == drawn(draws, 200)
    with pytest.raises(StoreError, match="other data"):
        Replay(share=0.3).start(rows(), 2).load_state_dict(draws.state_dict())


def test_bad_input():
    with pytest.raises(ConfigError, match="share"):
        Replay(share=1.0)
    with pytest.raises(ConfigError, match="most"):
        Replay(share=0.4, most=0.3)
    for data, missing in ((rows(replay=0), "replay"), (rows(domain=0), "domain")):
        with pytest.raises(InputError, match=f"no {missing} rows"):
            Replay().start(data, 0)
    with pytest.raises(InputError, match="replay"):
        Replay().start(Dataset.from_rows([{"id": "a", "text": "x"}]), 0)


def test_the_column_says_which_rows_are_replayed():
    marked = Dataset.from_rows([{"id": str(i), "text": "x", "replay": False, "old": i > 7} for i in range(10)])
    found = drawn(Replay(column="old", share=0.5).start(marked, 0), 8)
    assert sum(i > 7 for i in found) == 4
    with pytest.raises(InputError, match="no replay rows"):
        Replay(share=0.5).start(marked, 0)
