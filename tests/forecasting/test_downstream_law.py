"""forecasting.downstream_law: planted log laws, planted dips, the rate of false alarms, refusals."""

import numpy as np
import pytest
from scipy import stats

from tutelage.core.curve import Curve
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.forecasting.downstream_law import DownstreamLaw, falls, isotonic

PROOF = {"forecasting.downstream_law": ["consistent", "verified"]}
MUTATIONS = [
    (
        "src/tutelage/forecasting/downstream_law.py",
        "holm([p for *_, p in found]).tolist()",
        "[p for *_, p in found]",
    ),
    ("src/tutelage/forecasting/downstream_law.py", 'alternative="less"', 'alternative="greater"'),
    ("src/tutelage/forecasting/downstream_law.py", "np.hypot(", "np.maximum("),
    ("src/tutelage/forecasting/downstream_law.py", "isotonic_regression(y[order])", "isotonic_regression(y)"),
    ("src/tutelage/forecasting/downstream_law.py", "and (a, b) not in rising", ""),
    ("src/tutelage/forecasting/downstream_law.py", '"shown": forecast.last}', '"shown": forecast.value}'),
    ("src/tutelage/forecasting/downstream_law.py", "if x == metric.distinct[-1]]", "]"),
    ("src/tutelage/forecasting/downstream_law.py", '"power3", at', '"power2", at'),
]
D = 1e6 * 2.0 ** np.arange(8)


def law(d):
    return np.log(0.02 * d**0.5) ** 1.6


def loss(d):
    return 1.2 + 40 * d**-0.3


def table(metric=None, cross=None, seeds=3, noise=0.005, seed=0, **columns):
    rng = np.random.default_rng(seed)
    rows = []
    for i, d in enumerate(D[: len(metric) if metric is not None else None]):
        for s in range(seeds):
            y = (law(d) if metric is None else metric[i]) * (1 + noise * rng.normal())
            ce = (loss(d) if cross is None else cross[i]) * (1 + noise / 5 * rng.normal())
            rows.append({"id": f"{i}-{s}", "x": float(d), "y": float(y), "cross_entropy": float(ce), "seed": s})
    return Dataset.from_rows({**row, **{n: c[j] for n, c in columns.items()}} for j, row in enumerate(rows))


def forecast(data, at=2e8, inputs=None, **fields):
    method = DownstreamLaw(**fields)
    return method.predict(method.fit(data, inputs or {}), at)


def test_a_planted_law_is_recovered():
    result = forecast(table(noise=0.0))
    assert result.estimate == pytest.approx(law(2e8), rel=1e-5)
    assert result.extra["cross_entropy"] == pytest.approx(loss(2e8), rel=1e-5)
    shown = result.system["forecasts"]
    assert [one["form"] for one in shown] == ["loglaw", "power3"]
    assert shown[0]["parameters"] == pytest.approx({"A": 0.02, "a": 0.5, "b": 1.6}, rel=1e-3)
    assert result.extra["misaligned"] == 0
    noisy = forecast(table(seed=3))
    assert noisy.interval.lo < law(2e8) < noisy.interval.hi and noisy.extra["skill"] > 0


def test_b_of_one_is_the_line_over_the_logarithm():
    line = 0.3 + 0.2 * np.log(D)
    a, b = (forecast(table(line, noise=0.0), form=form) for form in ("loglaw", "loglin"))
    assert a.extra["value"] == pytest.approx(b.extra["value"], rel=1e-6) == pytest.approx(0.3 + 0.2 * np.log(2e8))
    assert a.system["forecasts"][0]["parameters"]["b"] == pytest.approx(1.0, rel=1e-3)


def test_a_planted_dip_is_misaligned_and_not_extrapolated():
    dip = law(D)
    dip[5] = 0.97 * dip[4]
    result = forecast(table(dip))
    assert result.extra["misaligned"] == 1
    assert result.interval is None and result.estimate == pytest.approx(result.extra["last"])
    assert any("misaligned" in line and "from 1.6e+07 to 3.2e+07" in line for line in result.system["told"])
    # A cross-entropy that rises over the same step: a bad checkpoint, not a bad match.
    worse = loss(D)
    worse[5] = 1.03 * worse[4]
    assert forecast(table(dip, worse)).extra["misaligned"] == 0


def test_monotone_noise_is_hardly_ever_misaligned():
    flagged = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        # The hardest case: no rise at all.
        curve = Curve(x=tuple(np.repeat(D, 3)), y=tuple(1 + 0.02 * rng.normal(size=24)))
        flagged += any(p < 0.05 for *_, p in falls(curve))
    assert flagged / 200 <= 0.055


def test_falls_by_hand():
    x, y = (1.0, 1.0, 2.0, 2.0, 4.0, 4.0), (5.0, 5.2, 4.0, 4.1, 4.6, 4.4)
    (first, second) = falls(Curve(x=x, y=y))
    raw = [
        stats.ttest_ind(y[2:4], y[:2], equal_var=False, alternative="less").pvalue,
        stats.ttest_ind(y[4:], y[2:4], equal_var=False, alternative="less").pvalue,
    ]
    assert (first[3], second[3]) == pytest.approx((2 * min(raw), max(raw)))
    assert first[:3] == pytest.approx((1, 2, -1.05))
    (one,) = falls(Curve(x=(1, 2), y=(5.0, 4.0), se=(0.3, 0.4)))
    assert one[3] == pytest.approx(stats.norm.cdf(-1 / 0.5))
    assert falls(Curve(x=(1, 2), y=(5.0, 4.0))) == []
    # A loss falls: that is an improvement.
    assert falls(Curve(x=(1, 2), y=(5.0, 4.0), se=(0.1, 0.1), direction=-1))[0][3] > 0.99


def test_isotonic_equals_sklearns():
    sklearn = pytest.importorskip("sklearn.isotonic")
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.normal(size=15), rng.normal(size=15)
        assert isotonic(x, y) == pytest.approx(sklearn.IsotonicRegression().fit_transform(x, y))


def test_the_metric_by_its_loss_is_never_beyond_what_was_seen():
    result = forecast(table())
    assert result.extra["metric_of_loss"] == pytest.approx(
        max(result.system["forecasts"][0]["points"])[1], rel=0.02
    )


def test_the_benefit_over_no_pretraining():
    data = table()
    bare = Dataset.from_rows({"id": str(i), "y": law(D[-1]) - 1 + 0.01 * i} for i in range(3))
    result = forecast(data, inputs={"scratch": bare})
    assert result.extra["benefit"] == pytest.approx(1.0, abs=0.2) and result.extra["benefit_lo"] > 0
    same = Dataset.from_rows({"id": str(i), "y": law(D[-1]) + 0.2 * (i - 1)} for i in range(3))
    assert any("no benefit" in line for line in forecast(data, inputs={"scratch": same}).system["told"])


def test_one_run_a_size_is_told():
    assert any("not tested: one run" in line for line in forecast(table(seeds=1)).system["told"])


def test_refusals():
    with pytest.raises(InputError, match="no signal"):
        forecast(table(np.zeros(8)))
    with pytest.raises(InputError, match=r"(?s)above 0.*loglin"):
        forecast(table(np.array([0.0, *law(D)[1:]]), noise=0.0))
    with pytest.raises(InputError, match=r"(?s)too few points.*4:"):
        forecast(table(law(D)[:4]))
    with pytest.raises(InputError, match="learning-rate phases"):
        forecast(table(phase=["stable"] * 23 + ["decay"]))
    with pytest.raises(ConfigError, match="form"):
        DownstreamLaw(form="power3")


def test_columns_may_have_other_names():
    rows = [{"seed": r["seed"], "d": r["x"], "bleu": r["y"], "ce": r["cross_entropy"]} for r in table().rows()]
    named = forecast(Dataset.from_rows(rows), x="d", y="bleu", cross_entropy="ce")
    assert named.estimate == forecast(table()).estimate and named.unit == "d"


def test_force_shows_it_all_the_same():
    steep = np.array([1.0, 1.0, 1.0, 1.01, 1.02, 1.5, 2.5, 6.0])
    plain, forced = forecast(table(steep)), forecast(table(steep), force=True)
    assert plain.estimate == pytest.approx(plain.extra["last"]) and plain.interval is None
    assert forced.estimate == forced.extra["value"] != plain.estimate
