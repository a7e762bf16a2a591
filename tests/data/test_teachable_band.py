"""data.filter.teachable_band: the identity with reward variance, the noise of the band, what it refuses."""

import numpy as np
import pytest

from tutelage.core.apply import apply_transform
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.data.filter.teachable_band import TeachableBand, in_band

PROOF = {"data.filter.teachable_band": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/filter/teachable_band.py", "(correct + 1.0) / (samples + 2.0)", "correct / samples"),
    ("src/tutelage/data/filter/teachable_band.py", "(correct >= 1) & ", ""),
    ("src/tutelage/data/filter/teachable_band.py", "(correct < samples) & ", ""),
    ("src/tutelage/data/filter/teachable_band.py", "(mean >= low)", "(mean > low)"),
]


def tried(*counts, samples=8):
    return Dataset.from_rows({"id": f"q{i}", "n_correct": k, "n_samples": samples} for i, k in enumerate(counts))


def test_the_band():
    data = tried(0, 1, 2, 6, 7, 8)
    made = apply_transform(TeachableBand(), data, {})
    # Posterior means .1 .2 .3 .7 .8 .9
    assert made.ids() == ["q1", "q2", "q3"]
    assert made.dropped.to_pylist()[1] == {"id": "q4", "reason": "solved 7 of 8 times"}
    facts = {key: made.report[key] for key in ("never_solved", "always_solved", "outside_the_band", "kept")}
    assert facts == {"never_solved": 1, "always_solved": 1, "outside_the_band": 1, "kept": 3}
    assert apply_transform(TeachableBand(low=0.2, high=0.3), data, {}).ids() == ["q1", "q2"], "both ends belong"


def test_the_whole_band_is_where_rewards_vary():
    """Exactly these prompts give a group-relative advantage other than 0."""
    rng = np.random.default_rng(0)
    rewards = rng.random((300, 8)) < rng.random((300, 1)) ** 3
    data = tried(*rewards.sum(axis=1).tolist())
    kept = apply_transform(TeachableBand(low=0.0, high=1.0), data, {}).ids()
    assert kept == [f"q{i}" for i in np.flatnonzero(rewards.std(axis=1) > 0)]


@pytest.mark.parametrize(("samples", "share"), [(8, 0.80), (16, 0.85), (32, 0.89)])
def test_how_noisy_the_band_is(samples, share):
    rng = np.random.default_rng(samples)
    ability = rng.random(40_000)
    kept = in_band(rng.binomial(samples, ability), np.full(40_000, samples), 0.15, 0.75)
    right = kept == ((ability >= 0.15) & (ability <= 0.75))
    assert right.mean() == pytest.approx(share, abs=0.015)


def test_what_it_refuses():
    with pytest.raises(ConfigError, match="low"):
        TeachableBand(low=0.5, high=0.5)
    for counts, found in (((0, 0), "0%"), ((8, 8), "100%"), ((0, 8), "50%")):
        with pytest.raises(InputError, match="no prompt is solved sometimes") as error:
            apply_transform(TeachableBand(), tried(*counts), {})
        assert found in str(error.value)
    with pytest.raises(InputError, match="row q1"):
        apply_transform(TeachableBand(), tried(3, 9), {})
    with pytest.raises(InputError, match="not tried"):
        apply_transform(TeachableBand(), tried(0, samples=0), {})
    with pytest.raises(InputError, match="n_samples"):
        apply_transform(TeachableBand(), Dataset.from_rows([{"id": "a", "n_correct": 1}]), {})
