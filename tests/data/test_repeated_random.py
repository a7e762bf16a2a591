"""data.select.repeated_random: epochs of fresh subsets."""

import itertools

import numpy as np
import pytest

from toy.selection import scored
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, StoreError
from tutelage.data.select.repeated_random import RepeatedRandom, WithoutReplacement

PROOF = {"data.select.repeated_random": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/select/repeated_random.py", "fresh[~used][:", "fresh[:"),
    ("src/tutelage/data/select/repeated_random.py", "default_rng([seed, e]).choice", "default_rng([seed]).choice"),
    ("src/tutelage/data/_shared.py", 'self._position = int(state["position"])', "self._position = 0"),
]


def epochs(data, count, size, seed=0, **fields):
    draws = RepeatedRandom(**fields).start(data, seed)
    return [[draws.next() for _ in range(size)] for _ in range(count)]


def test_every_row_once_per_cycle():
    found = epochs(scored(200), 30, 20, ratio=0.1)
    for cycle in range(3):
        assert sorted(i for epoch in found[10 * cycle : 10 * cycle + 10] for i in epoch) == list(range(200))
    assert found[:10] != found[10:20]


def test_no_row_twice_in_an_epoch_and_all_equally_often_when_it_does_not_divide():
    found = epochs(scored(23), 230, 7, ratio=0.3)
    assert all(len(set(epoch)) == 7 for epoch in found)
    counts = np.bincount(np.concatenate(found), minlength=23)
    assert counts.min() >= 69 and counts.max() <= 71


def test_with_replacement_covers_as_expected():
    share, rows, count = 0.1, 400, 12
    seen = [
        len(set(itertools.chain(*epochs(scored(rows), count, 40, seed=s, ratio=share, with_replacement=True))))
        / rows
        for s in range(20)
    ]
    expected = 1 - (1 - share) ** count
    assert abs(np.mean(seen) - expected) < 3 * np.std(seen, ddof=1) / np.sqrt(20)


def test_epochs_are_a_pure_function_of_seed_and_number():
    one, two = WithoutReplacement(23, 7, 3), WithoutReplacement(23, 7, 3)
    expected = [one.epoch(e).tolist() for e in range(9)]
    assert two.epoch(8).tolist() == expected[8]
    assert two.epoch(2).tolist() == expected[2]


def test_ratio_rounding_and_bounds():
    assert WithoutReplacement(30, 3, 0).epoch(0).shape == (3,)
    draws = RepeatedRandom(ratio=0.1).start(scored(30), 0)
    assert len(draws._current) == 3
    for bad in (0, 1.5, -0.1):
        with pytest.raises(ConfigError, match="ratio"):
            RepeatedRandom(ratio=bad)


def test_resume_and_refusals():
    data = scored(23)
    whole = RepeatedRandom(ratio=0.3).start(data, 5)
    stream = [whole.next() for _ in range(60)]
    for cut in (0, 7, 24, 33):
        first = RepeatedRandom(ratio=0.3).start(data, 5)
        for _ in range(cut):
            first.next()
        second = RepeatedRandom(ratio=0.3).start(data, 5)
        second.load_state_dict(first.state_dict())
        assert [second.next() for _ in range(60 - cut)] == stream[cut:]
    with pytest.raises(StoreError, match="cannot be resumed"):
        RepeatedRandom().start(scored(22), 5).load_state_dict(whole.state_dict())
    with pytest.raises(InputError, match="no rows"):
        RepeatedRandom().start(Dataset.from_rows([]), 0)
