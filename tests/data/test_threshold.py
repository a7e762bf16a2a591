"""data.select.threshold."""

import numpy as np
import pytest

from toy.selection import scored
from tutelage.core.apply import apply_transform
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Budget
from tutelage.data.select.threshold import Threshold

PROOF = {"data.select.threshold": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/data/select/threshold.py", "(values >= low)", "(values <= low)"),
    ("src/tutelage/data/select/threshold.py", "np.where(inside, uniform", "np.where(~inside, uniform"),
]


def chosen(data, **fields):
    return apply_transform(Threshold(**fields), data, {})


def test_keeps_the_band_bounds_included():
    data = scored()
    values = data.numpy("score")
    low, high = np.nanquantile(values, [0.2, 0.6], method="lower")
    got = chosen(data, column="score", min=low, max=high)
    wanted = [i for i, v in zip(data.ids(), values) if low <= v <= high]
    assert got.ids() == wanted
    assert np.isclose(got.report["share_inside"], len(wanted) / 200)
    assert got.report["rows_without_score"] == 1


def test_a_budget_thins_the_band_at_random():
    data = scored()
    got = chosen(data, column="score", min=0.0, budget=Budget(rows=10))
    assert got.num_rows == 10 and (got.numpy("score") >= 0).all()
    other = chosen(data, column="score", min=0.0, budget=Budget(rows=10), seed=1)
    assert got.ids() != other.ids()
    with pytest.raises(ConfigError, match="larger than what there is"):
        chosen(data, column="score", min=1.0, budget=Budget(rows=150))


def test_extreme_thresholds_warn():
    with pytest.warns(UserWarning, match="keeps 0 of 200"):
        assert chosen(scored(), column="score", min=1e9).num_rows == 0
    with pytest.warns(UserWarning, match=r"99\.5%"):
        chosen(scored(), column="score", min=-1e9)


def test_bad_input():
    with pytest.raises(ConfigError, match="min must not be larger"):
        Threshold(min=2, max=1)
    with pytest.raises(InputError, match="no rows"):
        chosen(scored(2).keep(np.zeros(2, bool), "gone"), column="score")


def test_a_budget_above_the_band_takes_all_of_it_where_allowed():
    data = scored()
    band = chosen(data, column="score", min=1.0)
    short = chosen(data, column="score", min=1.0, budget=Budget(rows=150), allow_short=True)
    assert short.ids() == band.ids() and 0 < band.num_rows < 150
