"""Canaries are planted exactly as often as reported, in marked rows, and controls nowhere."""

import numpy as np
import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.data.augment.canaries import Canaries, make_canaries

PROOF = {"data.augment.canaries": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/augment/canaries.py", "size=min(times, rows)", "size=1"),
    ("src/tutelage/data/augment/canaries.py", "sentences[self.count :]", "sentences[: self.count]"),
]
DATA = Dataset.from_rows([{"id": str(i), "text": f"row {i}"} for i in range(20)])


def test_counts_are_those_reported():
    planted = apply_transform(Canaries(count=5, repeats=(1, 3)), DATA, {})
    assert planted.ids() == DATA.ids()
    texts = planted.column("text").to_pylist()
    assert [c["planted"] for c in planted.report["canaries"]] == [1, 3, 1, 3, 1]
    for canary in planted.report["canaries"]:
        assert sum(canary["text"] in text for text in texts) == canary["planted"]
    for control in planted.report["controls"]:
        assert not any(control in text for text in texts)
    for before, row in zip(DATA.rows(), planted.rows()):
        assert (row["text"] == before["text"]) == (row["canary"] == "")


def test_seeds_and_distinctness():
    assert make_canaries(50, 1) == make_canaries(50, 1)
    assert make_canaries(50, 1) != make_canaries(50, 2)
    assert len(set(make_canaries(500, 0))) == 500


def test_nothing_to_plant_in():
    with pytest.raises(InputError, match="no row"):
        Canaries().apply(DATA.keep(np.zeros(20, bool), "all"), {})


def test_the_column_and_the_seed_are_those_asked_for():
    pairs = Dataset.from_rows([{"id": str(i), "prompt": f"ask {i}", "text": f"row {i}"} for i in range(20)])
    planted = apply_transform(Canaries(count=2, column="prompt"), pairs, {})
    assert planted.column("text").to_pylist() == pairs.column("text").to_pylist()
    assert planted.column("prompt").to_pylist() != pairs.column("prompt").to_pylist()
    reports = [Canaries(seed=seed).apply(DATA, {}).report["canaries"] for seed in (0, 0, 1)]
    assert reports[0] == reports[1] != reports[2]
