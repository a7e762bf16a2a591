"""signals.constant."""

import pytest

from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.signals.constant import Constant

PROOF = {"signals.constant": ["consistent"]}
MUTATIONS = [("src/tutelage/signals/constant.py", "np.full(len(shard), self.value)", "np.full(len(shard), 1)")]


@pytest.mark.parametrize("value", [True, False, 3, 0.5, "web"])
def test_every_row_has_the_value_and_its_type(value):
    data = Dataset.from_rows([{"id": f"r{i}", "text": "x"} for i in range(5)])
    found = score_dataset(Constant(column="mark", value=value), data, {}).column("mark").to_pylist()
    assert found == [value] * 5 and type(found[0]) is type(value)
