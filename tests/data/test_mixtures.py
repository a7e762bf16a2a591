"""data.mix.fixed, data.mix.skill_it and data.mix.ddk: the formulas by hand, the shares drawn, exact resume."""

import json
from collections import Counter

import numpy as np
import pytest

from toy.training_bed import Stop, model, same, stop_at, train, weights
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError, StoreError
from tutelage.data.mix import skill_it
from tutelage.data.mix.ddk import Ddk, discrepancy, next_shares
from tutelage.data.mix.fixed import Fixed
from tutelage.data.mix.skill_it import SkillIt
from tutelage.signals.constant import Constant

PROOF = {
    "data.mix.fixed": ["consistent"],
    "data.mix.skill_it": ["consistent"],
    "data.mix.ddk": ["consistent"],
}
MUTATIONS = [
    ("src/tutelage/data/mix/_domains.py", "self._credit += p * n", "self._credit += p"),
    ("src/tutelage/data/mix/_domains.py", '"credit": self._credit.tolist()', '"credit": [0.0] * len(self.names)'),
    ("src/tutelage/data/mix/_domains.py", "np.where(open_, self.p, 0.0) if open_.any()", "self.p if open_.any()"),
    ("src/tutelage/data/mix/_domains.py", "[seed, epoch, own]", "[seed, epoch]"),
    ("src/tutelage/data/mix/fixed.py", 'if self.spread == "equal" else', "if self.spread else"),
    ("src/tutelage/data/mix/skill_it.py", "eta * graph @ losses", "eta * graph.T @ losses"),
    ("src/tutelage/data/mix/skill_it.py", "[-method.window :]", "[:]"),
    ("src/tutelage/data/mix/skill_it.py", "if self._targets == self.names else", "if True else"),
    ("src/tutelage/data/mix/skill_it.py", '"rounds": self._rounds}', '"rounds": 0}'),
    ("src/tutelage/data/mix/ddk.py", "psi = shares * factors", "psi = factors"),
    ("src/tutelage/data/mix/ddk.py", "(1 - alpha) / len(psi)", "(1 - alpha)"),
    ("src/tutelage/data/mix/ddk.py", '"rounds": self.rounds,', '"rounds": 0,'),
]
CHAIN = {"a": {"a": 1.0, "b": 0.5}, "b": {"b": 1.0}}


def rows(sizes=(("a", 30), ("b", 20), ("c", 12)), column="source"):
    rng = np.random.default_rng(5)
    return Dataset.from_rows(
        {"id": f"{name}{i}", "text": f"{name} {i}", column: name, "n_tokens": int(rng.integers(1, 120))}
        for name, count in sizes
        for i in range(count)
    )


TWO = (("a", 30), ("b", 20))


def drawn(draws, count):
    return [draws.next() for _ in range(count)]


def told(**losses):
    return {"train/loss": 9.0, **{f"eval/{name}/bits_per_byte": value for name, value in losses.items()}}


def token_shares(data, indices):
    sizes, names = data.numpy("n_tokens"), data.column("source").to_pylist()
    found = Counter()
    for i in indices:
        found[names[i]] += int(sizes[i])
    return {name: count / sum(found.values()) for name, count in found.items()}


# -- shared ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted", [{"a": 1, "b": 1, "c": 1}, {"a": 0.1, "b": 0.85, "c": 0.05}, {"a": 1, "b": 3, "c": 0}]
)
def test_tokens_follow_the_weights(wanted):
    data = rows()
    found = token_shares(data, drawn(Fixed(weights=wanted, most_epochs=999).start(data, 1), 1500))
    for name, weight in wanted.items():
        assert found.get(name, 0.0) == pytest.approx(weight / sum(wanted.values()), abs=0.01)


def test_equal_or_proportional_without_weights():
    data = rows()
    everything = token_shares(data, range(62))
    by_size = token_shares(data, drawn(Fixed(spread="proportional", most_epochs=99).start(data, 1), 900))
    assert by_size == pytest.approx(everything, abs=0.01)
    equal = token_shares(data, drawn(Fixed(most_epochs=99).start(data, 1), 900))
    assert equal == pytest.approx(dict.fromkeys("abc", 1 / 3), abs=0.01)


def test_each_domain_goes_epoch_by_epoch_in_orders_of_its_own():
    data = rows((("a", 15), ("b", 15)))
    found = drawn(Fixed(most_epochs=9).start(data, 0), 75)
    first, second = [i for i in found if i < 15], [i - 15 for i in found if i >= 15]
    assert sorted(first[:15]) == sorted(second[:15]) == list(range(15))
    assert first[:15] != second[:15] and first[:15] != first[15:30]


def test_an_exhausted_domain_is_closed_and_the_cap_lifts_when_all_are():
    data = rows((("a", 10), ("b", 3)))
    draws = Fixed(weights={"a": 0.5, "b": 0.5}, most_epochs=2).start(data, 0)
    found = drawn(draws, 26)
    assert Counter(i >= 10 for i in found) == {False: 20, True: 6}
    assert draws.drawn.tolist() == [20, 6] and len(drawn(draws, 30)) == 30
    only = Fixed(weights={"a": 0.0, "b": 1.0}, most_epochs=1).start(data, 0)
    assert sorted(drawn(only, 13)) == list(range(13)), "the weight of a closed domain goes to the others"


def test_the_column_is_the_one_asked_for():
    data = rows(TWO, column="topic")
    for method in (
        Fixed(column="topic"),
        SkillIt(column="topic"),
        Ddk(column="topic", reference={"a": 1.0, "b": 1.0}),
    ):
        assert len(set(drawn(method.start(data, 0), 20))) == 20
        with pytest.raises(InputError, match="source"):
            type(method)(**{**method.model_dump(), "column": "source"}).start(data, 0)


def test_one_domain_alone_is_an_ordinary_epoch():
    data = rows((("a", 12),))
    for method in (Fixed(), SkillIt(), Ddk(reference={"a": 1.0})):
        draws = method.start(data, 0)
        draws.update(told(a=1.5))
        assert sorted(drawn(draws, 12)) == list(range(12)), method.name


def test_a_skill_that_teaches_nothing_keeps_the_least_share():
    """An isolated node of the graph, without an edge even to itself, is drawn least and not left out."""
    data = rows()
    draws = SkillIt(graph={**CHAIN, "c": {}}, most_epochs=100).start(data, 0)
    draws.next()
    draws.update(told(a=2.0, b=2.0))
    shares = token_shares(data, drawn(draws, 1500))
    expected = skill_it.weights(np.array([[1.0, 0.5], [0.0, 1.0], [0.0, 0.0]]), np.array([2.0, 2.0]), 0.5)
    assert [shares[name] for name in "abc"] == pytest.approx(expected, abs=0.03)
    assert 0 < shares["c"] == min(shares.values())


def test_bad_domains_and_losses():
    with pytest.raises(InputError, match="no rows to draw"):
        Fixed().start(Dataset.from_rows([{"id": "a", "source": "x"}]).keep(np.zeros(1, bool), "all"), 0)
    with pytest.raises(InputError, match="belongs to no domain") as error:
        Fixed().start(
            Dataset.from_rows([{"id": "x", "text": "t", "source": "a"}, {"id": "y", "text": "t", "source": None}]),
            0,
        )
    assert "row y" in str(error.value)
    with pytest.raises(InputError, match="does not name the domains"):
        Fixed(weights={"a": 1.0}).start(rows(TWO), 0)
    with pytest.raises(ConfigError, match="not negative"):
        Fixed(weights={"a": -1.0, "b": 2.0})
    for draws in (SkillIt().start(rows(TWO), 0), Ddk(reference={"a": 1, "b": 1}).start(rows(TWO), 0)):
        draws.update({"train/loss": 1.0})
        with pytest.raises(InputError, match="no validation loss") as error:
            draws.update(told(a=1.0))
        assert "b" in str(error.value.where)
        with pytest.raises(InputError, match="not a number"):
            draws.update(told(a=1.0, b=float("nan")))


@pytest.mark.parametrize(
    "method",
    [
        Fixed(weights={"a": 0.2, "b": 0.8}, most_epochs=2),
        SkillIt(graph=CHAIN, window=2, relative=True, halve_edges=True, scale_eta=True, most_epochs=2),
        Ddk(reference={"a": 0.9, "b": 1.1}, most_epochs=2),
    ],
)
@pytest.mark.parametrize("cut", [0, 1, 33, 60])
def test_resume_is_exact_with_losses_on_the_way(method, cut):
    data = rows(TWO)

    def go(draws, start, stop):
        found = []
        for step in range(start, stop):
            if step % 13 == 0:
                draws.update(told(a=3.0 / (step + 1) ** 0.5, b=2.0 - step / 100))
            found.append(draws.next())
        return found

    whole = method.start(data, 4)
    expected = go(whole, 0, 110)
    first = method.start(data, 4)
    go(first, 0, cut)
    second = method.start(data, 4)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert go(second, cut, 110) == expected[cut:]
    assert second.state_dict() == whole.state_dict()


def test_another_dataset_or_seed_is_refused():
    state = Fixed().start(rows(TWO), 0).state_dict()
    with pytest.raises(StoreError, match="other domains"):
        Fixed().start(rows(), 0).load_state_dict(state)
    with pytest.raises(StoreError, match="other data"):
        Fixed().start(rows(TWO), 1).load_state_dict(state)


# -- skill-it -------------------------------------------------------------------------------------------------


def test_weights_by_hand():
    graph = np.array([[1.0, 0.5], [0.0, 1.0]])
    assert skill_it.weights(graph, np.array([2.0, 4.0]), 0.5) == pytest.approx([0.5, 0.5])
    assert skill_it.weights(graph, np.ones(2), 0.5) == pytest.approx(
        np.exp([0.75, 0.5]) / np.exp([0.75, 0.5]).sum()
    )
    assert skill_it.weights(np.zeros((3, 2)), np.array([9.0, 1.0]), 0.5) == pytest.approx([1 / 3] * 3)
    order = [1, 0]
    swapped = skill_it.weights(graph[order][:, order], np.array([1.0, 3.0])[order], 0.7)
    assert swapped == pytest.approx(skill_it.weights(graph, np.array([1.0, 3.0]), 0.7)[order])
    # Large losses do not overflow.
    assert skill_it.weights(graph, np.array([900.0, 2.0]), 1.0).sum() == pytest.approx(1.0)


def test_rounds_follow_the_last_losses():
    draws = SkillIt(graph=CHAIN, eta=0.5, window=2).start(rows(TWO), 0)
    matrix = np.array([[1.0, 0.5], [0.0, 1.0]])
    assert draws.p == pytest.approx(skill_it.weights(matrix, np.ones(2), 0.5))
    before = draws.p
    draws.update(told(a=5.0, b=5.0))
    assert (draws.p == before).all(), "before the first draw the start is only noted"
    seen = []
    for losses in ((2.0, 3.0), (1.0, 3.5), (0.5, 2.0)):
        draws.next()
        draws.update(told(a=losses[0], b=losses[1]))
        seen.append(losses)
        assert draws.p == pytest.approx(skill_it.weights(matrix, np.sum(seen[-2:], axis=0), 0.5))
    assert len(draws.history) == 4 and draws.history[-1][0] == 3
    draws.update({"train/loss": 1.0})
    assert len(draws.history) == 4


def test_targets_that_are_not_the_skills_take_means():
    graph = {"a": {"goal": 1.0}, "b": {"goal": 0.25}}
    draws = SkillIt(graph=graph, eta=1.0).start(rows(TWO), 0)
    draws.next()
    for loss in (2.0, 4.0):
        draws.update(told(goal=loss))
    assert draws.p == pytest.approx(skill_it.weights(np.array([[1.0], [0.25]]), np.array([3.0]), 1.0))


def test_options():
    data, matrix = rows(TWO), np.array([[1.0, 0.5], [0.0, 1.0]])

    def after(**fields):
        draws = SkillIt(graph=CHAIN, eta=0.5, window=1, **fields).start(data, 0)
        draws.update(told(a=4.0, b=2.0))
        draws.next()
        draws.update(told(a=1.0, b=1.0))
        return draws.p

    losses = np.ones(2)
    assert after(relative=True) == pytest.approx(skill_it.weights(matrix, np.array([0.25, 0.5]), 0.5))
    assert after(scale_eta=True) == pytest.approx(skill_it.weights(matrix, losses, 1.5))
    assert after(halve_edges=True) == pytest.approx(
        skill_it.weights(np.array([[1.0, 0.25], [0.0, 1.0]]), losses, 0.5)
    )
    floored = SkillIt(graph={"a": {"a": 20.0}, "b": {"b": 1.0}}, eta=1.0, p_min=0.1).start(data, 0).p
    assert floored == pytest.approx([1 / 1.1, 0.1 / 1.1])
    draws = SkillIt(metric="loss", most_epochs=1).start(data, 0)
    draws.next()
    draws.update({"eval/a/loss": 1.0, "eval/b/loss": 2.0})
    assert draws.p == pytest.approx(skill_it.weights(np.eye(2), np.array([1.0, 2.0]), 0.5))


def test_the_graph_may_come_with_the_rows():
    edges = {name: [{"target": t, "weight": w} for t, w in CHAIN[name].items()] for name in CHAIN}
    data = Dataset.from_rows({**row, "skill_graph": edges[row["source"]]} for row in rows(TWO).rows())
    handed, stored = SkillIt(graph=CHAIN).start(data, 0), SkillIt(graph_column="skill_graph").start(data, 0)
    assert (handed.p == stored.p).all()
    with pytest.raises(InputError, match="skill_grap"):
        SkillIt(graph_column="skill_grap").start(data, 0)
    bad = Dataset.from_rows({**row, "skill_graph": [{"target": "a", "weight": -1.0}]} for row in data.rows())
    with pytest.raises(InputError, match="negative"):
        SkillIt(graph_column="skill_graph").start(bad, 0)


def test_graph_refusals():
    with pytest.raises(ConfigError, match="not negative"):
        SkillIt(graph={"a": {"b": -0.1}})
    with pytest.raises(InputError, match="no row has"):
        SkillIt(graph={"z": {"a": 1.0}}).start(rows(TWO), 0)


# -- ddk ------------------------------------------------------------------------------------------------------


def test_shares_by_hand():
    student, teacher = np.array([20.0, 10.0, 8.0]), np.array([10.0, 8.0, 8.0])
    factors = discrepancy(student, teacher, 5.0)
    first = factors / factors.sum()
    assert first == pytest.approx([0.543, 0.257, 0.200], abs=5e-4)
    assert next_shares(first, factors, 0.5) == pytest.approx([0.535, 0.249, 0.216], abs=6e-4)
    assert next_shares(np.ones(4) / 4, np.full(4, 7.0), 0.3) == pytest.approx([0.25] * 4)
    assert next_shares(np.ones(1), np.array([3.0]), 0.5).tolist() == [1.0]
    assert next_shares(np.array([0.9, 0.1]), np.array([1e9, 1.0]), 0.5).min() >= 0.25
    assert discrepancy(np.array([60.0]), np.array([2.0]), 5.0) == pytest.approx(np.exp([5.0]))


def test_evaluations_move_the_draws():
    bits = {"student": np.log2([20.0, 10.0, 8.0]), "teacher": np.log2([10.0, 8.0, 8.0])}
    draws = Ddk(reference=dict(zip("abc", bits["teacher"]))).start(rows(), 0)
    assert draws.p == pytest.approx([1 / 3] * 3)
    for expected in ([0.543, 0.257, 0.200], [0.535, 0.249, 0.216]):
        draws.update(told(**dict(zip("abc", bits["student"]))))
        assert draws.p == pytest.approx(expected, abs=6e-4)
    draws.update({"train/loss": 1.0})
    assert draws.rounds == 2 and draws.clipped == 0
    draws.update(told(a=9.0, b=1.0, c=1.0))
    assert draws.clipped == 1


def test_fields_of_ddk():
    data = rows(TWO)

    def after(**fields):
        draws = Ddk(reference={"a": 1.0, "b": 1.0}, **fields).start(data, 0)
        for _ in range(2):
            draws.update(
                {f"eval/{n}/{fields.get('metric', 'bits_per_byte')}": v for n, v in (("a", 3.0), ("b", 1.0))}
            )
        return draws.p

    assert after(alpha=0.0) == pytest.approx([0.5, 0.5])
    assert after(alpha=1.0)[0] > after(alpha=0.5)[0]
    assert after(most_ratio=1.0) == pytest.approx([0.5, 0.5])
    assert after(metric="loss") == pytest.approx(after())
    closed = Ddk(reference={"a": 1.0, "b": 1.0}, most_epochs=1).start(data, 0)
    assert sorted(drawn(closed, 50)) == list(range(50))


def test_the_reference_may_come_with_the_rows():
    data = score_dataset(Constant(column="teacher", value=1.5), rows(TWO), {})
    draws = Ddk(reference_column="teacher").start(data, 0)
    draws.update(told(a=1.5, b=1.5))
    assert draws.p == pytest.approx([0.5, 0.5])
    with pytest.raises(InputError, match="domain_loss"):
        Ddk().start(data, 0)
    uneven = Dataset.from_rows({**row, "domain_loss": float(i)} for i, row in enumerate(data.rows()))
    with pytest.raises(InputError, match="several reference losses"):
        Ddk().start(uneven, 0)
    with pytest.raises(InputError, match="cannot be"):
        Ddk(reference={"a": 1.0, "b": 0.0}).start(data, 0)
    with pytest.raises(InputError, match="does not name"):
        Ddk(reference={"a": 1.0}).start(data, 0)


# -- in the trainer -------------------------------------------------------------------------------------------


class Planted:
    """An evaluator that reports planted losses, one per call whatever the model."""

    def __init__(self, values):
        self._values = values

    def watch(self, model, share):
        return {"bits_per_byte": self._values[0] + self._values[1] * share}


@pytest.mark.parametrize("method", [SkillIt(graph=CHAIN, eta=0.9), Ddk(reference={"a": 0.5, "b": 0.9})])
def test_a_killed_run_resumes_with_the_same_draws_and_weights(method, tmp_path):
    data = Dataset.from_rows(
        {"id": f"{name}{i}", "text": f"{name} counts to {i} and on", "source": name}
        for name in "ab"
        for i in range(20)
    )
    options = {
        "sampler": method,
        "evaluators": [("a", Planted((2.0, -1.5))), ("b", Planted((1.0, 2.5)))],
        "settings": {"evaluate_at": (0.0, 0.25, 0.5, 0.75), "checkpoint_seconds": 0.0},
    }
    whole, cut = model(), model()
    record = train(whole, data, tokens=900, **options)
    with pytest.raises(Stop):
        train(cut, data, tokens=900, checkpoint_dir=tmp_path, on_event=stop_at(5), **options)
    resumed = train(cut, data, tokens=900, checkpoint_dir=tmp_path, **options)
    assert resumed.resumed_at and resumed.losses == record.losses
    assert same(weights(whole), weights(cut))
    fixed = train(model(), data, tokens=900, **{**options, "sampler": Fixed()})
    assert fixed.losses != record.losses, "the mixture made a difference"
