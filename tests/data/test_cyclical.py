"""data.order.cyclical: sizes of the official code, draws like numpy's weighted choice, group phases, the log."""

import itertools

import numpy as np
import pytest
from scipy import stats

from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.errors import ConfigError, InputError, StoreError, TutelageError
from tutelage.data.order.cyclical import Cyclical, cycle_sizes, draw, log_weights

PROOF = {"data.order.cyclical": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/data/order/cyclical.py", "max(size * alpha, start)", "start"),
    ("src/tutelage/data/order/cyclical.py", "(rising and size < end * (1 - 1e-9))", "size < end * (1 - 1e-9)"),
    ("src/tutelage/data/order/cyclical.py", "size <= start * (1 + 1e-9)", "size <= start"),
    ("src/tutelage/data/order/cyclical.py", "rng.gumbel(", "rng.normal("),
    ("src/tutelage/data/order/cyclical.py", "int(size * rows + 1e-9)", "int(size * rows)"),
    ("src/tutelage/data/order/cyclical.py", "found if direction in (None, natural) else -found", "found"),
    ("src/tutelage/data/order/cyclical.py", "np.maximum(easy, FLOOR)", "easy"),
    ("src/tutelage/data/order/cyclical.py", "weights[others], count", "0 * weights[others], count"),
    (
        "src/tutelage/data/order/cyclical.py",
        "rng.permutation(early[draw(weights[early], count, rng)])",
        "early[draw(weights[early], count, rng)]",
    ),
    ("src/tutelage/data/order/cyclical.py", "default_rng([seed, number])", "default_rng([seed])"),
    ("src/tutelage/data/_shared.py", "(last - (counts - 1) / 2)[place]", "last[place]"),
]


def rows(count=40, augmented=0):
    made = [
        {"id": f"r{i}", "text": f"Row {i} of some.", "loss": 0.1 * (i % 10), "augmented": i >= count - augmented}
        for i in range(count)
    ]
    return Dataset.from_rows(made)


def epochs(draws, sizes):
    return [[draws.next() for _ in range(size)] for size in sizes]


def test_sizes_of_the_official_code():
    sizes = itertools.islice(cycle_sizes(0.25, 1.0, 0.5), 10)
    assert list(sizes) == [0.25, 0.5, 1.0, 0.5, 0.25, 0.5, 1.0, 0.5, 0.25, 0.5]
    found = list(itertools.islice(cycle_sizes(0.3, 0.9, 0.7), 10))
    up = [0.3, 0.3 / 0.7, 0.3 / 0.49, 0.3 / 0.343, 0.9]
    assert found == pytest.approx([*up, 0.63, 0.441, 0.3087, 0.3, 0.3 / 0.7])
    assert list(itertools.islice(cycle_sizes(0.5, 0.5, 0.5), 3)) == [0.5, 0.5, 0.5]
    # 0.8 * 0.9^5 is 0.47239200000000003: the low end is reached all the same, not passed over and met again.
    low = np.array(list(itertools.islice(cycle_sizes(0.472392, 0.8, 0.9), 21))) < 0.48
    assert np.flatnonzero(low).tolist() == [0, 10, 20]


def test_epochs_have_their_sizes_and_no_row_twice():
    sizes = [10, 20, 40, 20, 10, 20, 40]
    found = epochs(Cyclical(column="loss").start(rows(), 4), sizes)
    assert all(len(set(epoch)) == len(epoch) for epoch in found)
    assert sorted(found[2]) == sorted(found[6]) == list(range(40)) and found[2] != found[6]
    assert found[0] != found[4] and found[1] != found[3]
    # 0.29 * 100 is 28.999999999999996.
    many = Cyclical(column="loss", start_share=0.29, end_share=0.29).start(rows(100), 0)
    for _ in range(29):
        many.next()
    assert many.state_dict()["epoch"] == 0
    many.next()
    assert many.state_dict()["epoch"] == 1
    tiny = Cyclical(column="loss", start_share=0.01, end_share=0.01).start(rows(10), 0)
    assert [tiny.next() >= 0 for _ in range(3)] == [True] * 3


def test_full_epochs_are_the_baseline():
    full = Cyclical(column="loss", start_share=1.0).start(rows(), 7)
    plain = build("data.order.shuffle").start(rows(), 7)
    assert [full.next() for _ in range(130)] == [plain.next() for _ in range(130)]


def test_draws_follow_plackett_luce_and_numpys_weighted_choice():
    """The official code uses numpy's weighted choice without replacement: the same law of ordered pairs."""
    p = np.array([0.5, 0.3, 0.15, 0.05])
    pairs = list(itertools.permutations(range(4), 2))
    exact = np.array([p[a] * p[b] / (1 - p[a]) for a, b in pairs])
    rng = np.random.default_rng(0)
    n = 20_000
    mine = [tuple(draw(np.log(p), 2, rng).tolist()) for _ in range(n)]
    theirs = [tuple(rng.choice(4, 2, replace=False, p=p).tolist()) for _ in range(n)]
    for found in (mine, theirs):
        counts = np.array([found.count(pair) for pair in pairs])
        # 11 degrees of freedom: the 99.99 % point is 37.4.
        assert stats.chisquare(counts, exact * n).statistic < 37.4


def test_easy_rows_come_into_small_epochs_and_equal_scores_are_uniform():
    def share(data, **fields):
        counts = np.zeros(40)
        for seed in range(300):
            draws = Cyclical(**fields).start(data, seed)
            for _ in range(10):
                counts[draws.next()] += 1
        return counts / 300

    steep = Dataset.from_rows([{"id": str(i), "text": "x", "loss": 3.0 * (i % 2), "flat": 1.0} for i in range(40)])
    found = share(steep, column="loss")
    # 20 rows weigh 20 times the others: ten draws take 9.3 of them on average (simulated with numpy's choice).
    rng = np.random.default_rng(1)
    weights = np.exp(-3.0 * (np.arange(40) % 2))
    expected = np.mean([(rng.choice(40, 10, False, weights / weights.sum()) % 2 == 0).sum() for _ in range(3000)])
    assert found[::2].sum() == pytest.approx(expected, abs=0.15)
    assert share(steep, column="loss", direction="higher")[1::2].sum() == pytest.approx(expected, abs=0.15)
    flat = share(steep, column="flat")
    assert ((flat - 0.25) ** 2 / (0.25 * 0.75 / 300)).sum() < 90  # near chi-square with 39 degrees of freedom


def test_the_order_inside_an_epoch_does_not_follow_the_score():
    data = Dataset.from_rows([{"id": str(i), "text": "x", "loss": 5.0 * (i >= 8)} for i in range(16)])
    first = []
    for seed in range(400):
        draws = Cyclical(column="loss", start_share=0.75).start(data, seed)
        first.append([draws.next() for _ in range(12)].index(0) if seed else 0)
    # Row 0 is nearly always among the twelve, at any place.
    assert abs(np.mean(first[1:]) - 5.5) < 0.7


def test_weights():
    losses = np.array([0.0, 1.0, 50.0, np.nan])
    assert log_weights(losses, "loss", None) == pytest.approx([0.0, -1.0, np.log(1e-6), np.log(1e-6)])
    assert log_weights(losses, "loss", "higher") == pytest.approx([0.0, 1.0, -np.log(1e-6), 0.0])
    chances = np.array([0.5, 0.0, 1.0])
    assert log_weights(chances, "probability", None) == pytest.approx(np.log([0.5, 1e-6, 1.0]))
    assert log_weights(chances, "probability", "lower") == pytest.approx(-np.log([0.5, 1e-6, 1.0]))
    values = np.random.default_rng(3).integers(0, 9, 50).astype(float)
    ranks = stats.rankdata(values) / 50
    assert np.exp(log_weights(values, "rank", None)) == pytest.approx(ranks)
    assert np.exp(log_weights(values, "rank", "lower")) == pytest.approx(stats.rankdata(-values) / 50)


def test_rows_without_chance_are_drawn_when_nothing_else_is_left():
    data = Dataset.from_rows([{"id": str(i), "text": "x", "p": float(i == 0)} for i in range(8)])
    draws = Cyclical(column="p", scale="probability", start_share=0.5).start(data, 0)
    found = [draws.next() for _ in range(4)]
    assert len(set(found)) == 4 and 0 in found


@pytest.mark.parametrize("first", ["real", "augmented"])
def test_groups_enter_in_phases(first):
    data = rows(40, augmented=24)
    late = set(range(16)) if first == "augmented" else set(range(16, 40))
    early = set(range(40)) - late
    draws = Cyclical(column="loss", augmented_column="augmented", first=first).start(data, 2)
    for epoch, size in zip(epochs(draws, [10, 20, 40]), [10, 20, 40]):
        wanted = min(size, len(early))
        assert len(early & set(epoch)) == wanted and len(late & set(epoch)) == size - wanted


def test_late_rows_are_drawn_by_weight():
    marked = [{"id": str(i), "text": "x", "loss": 20.0 * (i % 2), "new": i >= 8} for i in range(24)]
    draws = Cyclical(column="loss", augmented_column="new", start_share=0.5, end_share=0.5).start(
        Dataset.from_rows(marked), 0
    )
    (epoch,) = epochs(draws, [12])
    assert all(i < 8 or i % 2 == 0 for i in epoch)


def test_resume_goes_on_with_the_next_row():
    fields = {"column": "loss", "augmented_column": "augmented"}
    data = rows(40, augmented=20)
    whole = Cyclical(**fields).start(data, 1)
    stream = [whole.next() for _ in range(200)]
    for cut in (0, 9, 10, 11, 70, 137):
        first = Cyclical(**fields).start(data, 1)
        for _ in range(cut):
            first.next()
        second = Cyclical(**fields).start(data, 1)
        second.load_state_dict(first.state_dict())
        assert [second.next() for _ in range(200 - cut)] == stream[cut:]
    with pytest.raises(StoreError, match="another seed"):
        Cyclical(**fields).start(data, 2).load_state_dict(first.state_dict())


def test_bad_settings():
    for fields, field in (
        ({"start_share": 0.6, "end_share": 0.5}, "start_share"),
        ({"alpha": 1.0}, "alpha"),
        ({"alpha": 0.0}, "alpha"),
        ({"scale": "z"}, "scale"),
    ):
        with pytest.raises(ConfigError, match=field):
            Cyclical(**fields)


def test_bad_columns():
    data = rows()
    with pytest.raises(ConfigError, match="needs the column"):
        Cyclical().start(data, 0)
    with pytest.raises(TutelageError, match="did you mean loss"):
        Cyclical(column="los").start(data, 0)
    odd = Dataset.from_rows(
        [{"id": "a", "text": "x", "p": 0.5, "nll_sum": 80.0}, {"id": "b", "text": "y", "p": 1.5}]
    )
    with pytest.raises(InputError, match="row b") as error:
        Cyclical(column="p", scale="probability").start(odd, 0)
    assert "scale: rank" in str(error.value)
    with pytest.raises(InputError, match="too large to tell rows apart"):
        Cyclical(column="nll_sum").start(odd, 0)
    for some in (0, 40):
        with pytest.raises(InputError, match="one group"):
            Cyclical(column="loss", augmented_column="augmented").start(rows(40, some), 0)
    with pytest.raises(InputError, match="no rows"):
        Cyclical(column="loss").start(data.keep(np.zeros(40, bool), "gone"), 0)


def test_the_trainer_consumes_this_order():
    pytest.importorskip("torch")
    from toy.training_bed import model, train
    from tutelage.core.records import Budget
    from tutelage.runs.consumed import check_order, consumed_steps

    sampler = Cyclical(column="loss", augmented_column="augmented")
    data = rows(24, augmented=12)
    record = train(
        model("llama"), data, sampler=sampler, budget=Budget(rows=48), settings={"step_tokens": 1}, seed=5
    )
    draws = sampler.start(data, 5)
    expected = [[f"r{draws.next()}"] for _ in range(48)]
    assert [names for _, names in consumed_steps(record.consumed)] == expected
    assert all(int(name[1:]) < 12 for (name,) in expected[:18]), "small epochs hold real rows only"
    # Steps of several rows, some of which hold a row twice: at the border of two epochs.
    record = train(model("llama"), data, sampler=sampler, budget=Budget(rows=150), seed=5)
    assert check_order(record.consumed, data, sampler, 5).steps == record.steps
    shuffled = train(model("llama"), data, budget=Budget(rows=60), seed=5)
    with pytest.raises(TutelageError, match="order of the sampler"):
        check_order(shuffled.consumed, data, sampler, 5)
