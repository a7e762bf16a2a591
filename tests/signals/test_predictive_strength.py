"""signals.predictive_strength against scipy's Kendall tau and planted domains."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from toy.planted_pool import make_pool
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.records import Interval, Result
from tutelage.models.ngram import NGramLM
from tutelage.signals.predictive_strength import PredictiveStrength, labels, strengths
from tutelage.signals.token_loss import TokenLoss

PROOF = {"signals.predictive_strength": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/signals/predictive_strength.py", "(losses[:, i] - losses[:, j]) < 0", "(losses[:, i] - losses[:, j]) <= 0"),  # noqa: E501
    ("src/tutelage/signals/predictive_strength.py", "if benchmark[i] != benchmark[j]]", "]"),
    ("src/tutelage/signals/predictive_strength.py", "gap -= sign", "gap += sign"),
    ("src/tutelage/signals/predictive_strength.py", "r.direction * r.estimate", "r.estimate"),
    ("src/tutelage/signals/predictive_strength.py", "found[order[:count]] = -1", "found[order[count:]] = -1"),
    ("src/tutelage/signals/predictive_strength.py", "[[place[identifier] for identifier in ids]]", ""),
    ("src/tutelage/signals/predictive_strength.py", "(ties[rated], gap[rated], strength[rated])", "(gap[rated], ties[rated], strength[rated])"),  # noqa: E501
]  # fmt: skip
RNG = np.random.default_rng(0)


def scored(losses, column="nll_sum", **more):
    """One dataset per model from [n, m]."""
    return [
        Dataset.from_rows(
            {"id": f"r{i}", column: float(value), **{name: item[m] for name, item in more.items()}}
            for i, value in enumerate(values)
        )
        for m, values in enumerate(np.asarray(losses).T)
    ]


def rated(losses, benchmark=(0.2, 0.5, 0.9), results=None, **fields):
    rows = Dataset.from_rows({"id": f"r{i}", "text": "x"} for i in range(len(losses)))
    inputs = {"losses": scored(losses), **({"results": results} if results else {})}
    method = PredictiveStrength(benchmark_scores=() if results else benchmark, **fields)
    return score_dataset(method, rows, inputs)


def result(estimate, direction):
    interval = Interval(lo=estimate - 1, hi=estimate + 1, level=0.95, method="none", covers="items")
    return Result(
        task="t", metric="m", direction=direction, unit="", estimate=estimate, interval=interval, n_items=3
    )


def test_equals_kendall_tau_without_ties():
    losses = RNG.normal(size=(60, 6))
    benchmark = RNG.permutation(6) / 10
    found, _ = strengths(losses, benchmark)
    expected = [(kendalltau(benchmark, -row).statistic + 1) / 2 for row in losses]
    assert np.allclose(found, expected, atol=1e-12)


def test_ties_by_hand():
    # Models 0 and 1 are equally good: two pairs count. Equal losses count as wrong.
    benchmark = np.array([0.1, 0.1, 0.7])
    losses = np.array([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0], [1.0, 2.0, 2.0], [np.nan, 1.0, 0.0]])
    found, gap = strengths(losses, benchmark)
    assert np.allclose(found[:3], [1.0, 0.5, 0.0]) and np.isnan(found[3])
    assert np.allclose(gap[:3], [1.5, 0.0, -0.5])


def test_only_the_ranking_counts_and_row_constants_cancel():
    losses = RNG.normal(size=(40, 4))
    one = strengths(losses, np.array([0.1, 0.2, 0.3, 0.4]))
    other = strengths(losses + RNG.normal(size=(40, 1)), np.array([1.0, 5.0, 6.0, 60.0]))
    assert np.array_equal(one[0], other[0]) and np.allclose(one[1], other[1])


def test_labels_are_balanced_and_the_worst_are_negative():
    strength = np.array([1.0, 1.0, 0.9, 0.5, 0.1, 0.1, 0.1, np.nan])
    gap = np.array([3.0, 1.0, 0.0, 0.0, -0.9, -0.5, 0.0, 0.0])
    ties = np.arange(8, dtype=np.uint64)[::-1]
    assert labels(strength, gap, ties, 0.0).tolist() == [1, 1, 0, 0, -1, -1, 0, 0]
    assert labels(strength, gap, ties, 0.4).tolist() == [1, 1, 1, 0, -1, -1, -1, 0]
    # Where nearly all are ordered right, the best half by gap; where none is, nobody.
    assert labels(np.array([1.0, 1.0, 1.0, 0.0]), gap[:4], ties[:4], 0.0).tolist() == [1, 1, -1, -1]
    assert not labels(np.array([0.5, 0.2]), gap[:2], ties[:2], 0.0).any()


def test_rows_come_in_any_order_and_over_shards():
    losses = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [2.0, 3.0, 1.0]])
    found = rated(losses)
    assert np.allclose(found.numpy("predictive_strength"), [1.0, 0.0, 2 / 3, 2 / 3])
    assert found.column("strength_label").to_pylist() == ["positive", "negative", None, None]
    rows = Dataset.from_rows({"id": f"r{i}", "text": "x"} for i in (2, 0, 3, 1))
    turned = score_dataset(PredictiveStrength(benchmark_scores=(1, 2, 3)), rows, {"losses": scored(losses)})
    assert np.allclose(turned.numpy("predictive_strength"), [2 / 3, 1.0, 2 / 3, 0.0])
    assert turned.column("strength_label").to_pylist() == [None, "positive", None, "negative"]


def test_seeds_break_ties():
    losses = np.array([[3.0, 2.0, 1.0]] + [[1.0, 2.0, 3.0]] * 9)
    marks = {tuple(rated(losses, seed=s).column("strength_label").to_pylist()) for s in range(6)}
    assert len(marks) > 1 and all(m.count("negative") == 1 for m in marks)


def test_benchmark_results_of_the_recipe_count_with_their_direction():
    losses = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    bits = [result(estimate, -1) for estimate in (1.4, 1.2, 0.9)]
    assert np.allclose(rated(losses, results=bits).numpy("predictive_strength"), [1.0, 0.0])
    accuracy = [result(estimate, 1) for estimate in (1.4, 1.2, 0.9)]
    assert np.allclose(rated(losses, results=accuracy).numpy("predictive_strength"), [0.0, 1.0])


def test_planted_domains_are_told_apart():
    """Models of known quality in one domain: its rows order them right, rows of random words do not."""
    train = [r["text"] for r in make_pool(120, seed=5, shares={"prose": 1.0})]
    models = [NGramLM(3).fit(train[:size]) for size in (2, 8, 30, 110)]
    pool = Dataset.from_rows(make_pool(80, seed=6, shares={"prose": 0.5, "random": 0.5}))
    losses = [score_dataset(TokenLoss(), pool, {"model": model}) for model in models]
    found = score_dataset(PredictiveStrength(benchmark_scores=(1, 2, 3, 4)), pool, {"losses": losses})
    strength = found.numpy("predictive_strength")
    prose = np.array([kind == "prose" for kind in found.column("kind").to_pylist()])
    wins = (strength[prose][:, None] > strength[~prose]) + 0.5 * (strength[prose][:, None] == strength[~prose])
    assert wins.mean() > 0.95


def test_saturation_is_said():
    losses = np.array([[3.0, 2.0, 1.0]] * 8 + [[1.0, 2.0, 3.0]])
    with pytest.warns(UserWarning, match="order 89% of the rows right"):
        rated(losses)


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        ((0.5, 0.5, 0.5), "cannot be ranked"),
        ((0.1, 0.2), "at least three models"),
        ((), "from one place"),
    ],
)
def test_models_that_give_no_ranking_are_refused(benchmark, message):
    with pytest.raises(ConfigError, match=message):
        rated(np.ones((4, 3)), benchmark)
    if len(benchmark) == 2:
        with pytest.raises(ConfigError, match=message):
            rated(np.ones((4, 2)), benchmark)


def test_rows_that_cannot_be_compared_are_refused():
    rows = Dataset.from_rows({"id": f"r{i}", "text": "x"} for i in range(3))
    method = PredictiveStrength(benchmark_scores=(1, 2, 3))
    with pytest.raises(InputError, match="not scored by every model"):
        score_dataset(method, rows, {"losses": scored(np.ones((2, 3)))})
    flags = scored(np.ones((3, 3)), first_token_scored=[True, True, False])
    with pytest.raises(InputError, match="first token"):
        score_dataset(method, rows, {"losses": flags})
    with pytest.raises(InputError, match="nll_sum"):
        score_dataset(method, rows, {"losses": scored(np.ones((3, 3)), column="bits")})
    with pytest.raises(InputError, match="no row can be an example"):
        score_dataset(method, rows, {"losses": scored(np.ones((3, 3)))})
    with pytest.raises(InputError, match="no row has a loss"):
        score_dataset(method, rows, {"losses": scored(np.full((3, 3), np.nan))})
    assert rated(np.ones((4, 3)), least_share=0.25).column("strength_label").null_count == 2
    columns = scored(np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), column="bits")
    found = score_dataset(
        PredictiveStrength(benchmark_scores=(1, 2, 3), loss_column="bits"), rows, {"losses": columns}
    )
    assert found.numpy("predictive_strength").tolist() == [1.0, 0.0, 0.0]
