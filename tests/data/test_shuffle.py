"""data.order.shuffle."""

import numpy as np
import pytest

from toy.selection import scored
from tutelage.core.errors import InputError, StoreError
from tutelage.data.order.shuffle import Shuffle, permutation

PROOF = {"data.order.shuffle": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/order/shuffle.py", "default_rng([seed, epoch])", "default_rng([seed])"),
    ("src/tutelage/data/_shared.py", 'self.epoch = int(state["epoch"])', "self.epoch = 0"),
]


def test_epochs_are_permutations_and_differ():
    draws = Shuffle().start(scored(50), 3)
    found = [[draws.next() for _ in range(50)] for _ in range(4)]
    assert all(sorted(epoch) == list(range(50)) for epoch in found)
    assert len({tuple(epoch) for epoch in found}) == 4
    assert found[2] == np.random.default_rng([3, 2]).permutation(50).tolist()


def test_orders_are_uniform():
    # 6 orders of 3 rows over 6,000 seeds: chi-square with 5 degrees of freedom stays below its 99.99 % point.
    keys = [tuple(permutation(3, seed, 1)) for seed in range(6000)]
    counts = np.array([keys.count(key) for key in set(keys)])
    assert len(counts) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 25.7


def test_resume_is_exact():
    data = scored(20)
    whole = Shuffle().start(data, 1)
    stream = [whole.next() for _ in range(70)]
    first = Shuffle().start(data, 1)
    for _ in range(45):
        first.next()
    second = Shuffle().start(data, 1)
    second.load_state_dict(first.state_dict())
    assert [second.next() for _ in range(25)] == stream[45:]
    assert Shuffle().start(data, 2).next is not None
    with pytest.raises(StoreError, match="another seed"):
        Shuffle().start(data, 2).load_state_dict(first.state_dict())


def test_nothing_to_draw():
    with pytest.raises(InputError, match="no rows"):
        Shuffle().start(scored(1).keep(np.zeros(1, bool), "gone"), 0)
