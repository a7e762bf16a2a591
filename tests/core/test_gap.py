"""The stability gap of curves whose area is known."""

import numpy as np
import pytest

from toy.training_bed import model, train
from tutelage.core.errors import InputError
from tutelage.core.stats.gap import stability_gap

MUTATIONS = [
    ("src/tutelage/core/stats/gap.py", "high**2 / (2 *", "high / (2 *"),
    ("src/tutelage/core/stats/gap.py", "rise[peak:] <= 0", "rise[peak:] < 0"),
    ("src/tutelage/core/stats/gap.py", "change=float(rise[-1])", "change=float(rise[peak])"),
    (
        "src/tutelage/training/_records.py",
        'entry["share"] for entry in found',
        "number for number, entry in enumerate(found)",
    ),
]


def test_a_triangle_by_hand():
    # Up 2 within 1, down 3 within 3: above zero for 1 + 2, a triangle of base 3 and height 2.
    found = stability_gap([0, 1, 4], [5.0, 7.0, 4.0])
    assert (found.depth, found.area, found.change) == pytest.approx((2.0, 3.0, -1.0)) and found.recovery == 4.0
    same = stability_gap([0, 1, 2, 3, 4], [5.0, 7.0, 6.0, 5.0, 4.0])
    assert same.area == pytest.approx(3.0) and same.recovery == 3.0


def test_curves_that_never_rise_and_that_never_recover():
    falling = stability_gap([0.0, 0.1, 1.0], [3.0, 2.0, 1.0])
    assert (falling.depth, falling.area, falling.recovery, falling.change) == (0.0, 0.0, 0.0, -2.0)
    rising = stability_gap([0.0, 0.5, 1.0], [1.0, 2.0, 2.0])
    assert rising.recovery is None and (rising.depth, rising.area) == pytest.approx((1.0, 0.75))


def test_area_equals_fine_quadrature():
    rng = np.random.default_rng(0)
    for _ in range(20):
        at, losses = np.cumsum(rng.random(6)), rng.normal(size=6)
        fine = np.linspace(at[0], at[-1], 400_001)
        above = np.maximum(0, np.interp(fine, at, losses) - losses[0])
        assert stability_gap(at, losses).area == pytest.approx(np.trapezoid(above, fine), abs=1e-6)


def test_bad_curves():
    for at, losses in (([0], [1.0]), ([0, 0], [1.0, 2.0]), ([0, 1], [1.0]), ([0, 1], [1.0, float("nan")])):
        with pytest.raises(InputError, match="no gap"):
            stability_gap(at, losses)


def test_a_run_tells_the_gap_of_every_loss_it_watched():
    values = iter([2.0, 3.0, 1.0])
    watched = [("held", lambda lm: {"bits_per_byte": next(values), "often": 1.0})]
    record = train(model("llama"), tokens=600, settings={"evaluate_at": (0.0, 0.5, 1.0)}, evaluators=watched)
    found = record.gaps()
    assert set(found) == {"held/bits_per_byte", "held/often"}
    shares = [entry["share"] for entry in record.history]
    assert found["held/bits_per_byte"] == stability_gap(shares, [2.0, 3.0, 1.0])
    late = train(model("llama"), tokens=300, evaluators=[("held", lambda lm: {"loss": 1.0})])
    assert late.gaps() == {}, "without a measurement before the first step there is no gap"
