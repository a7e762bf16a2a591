"""evaluation.transfer_matrix against a hand-written matrix, a paired t test, planted losses and noise."""

import numpy as np
import pytest
from scipy import stats

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ComparisonError, ConfigError, InputError
from tutelage.core.items import ItemLog
from tutelage.core.records import Result
from tutelage.core.stats.compare import compare
from tutelage.evaluation.bits_per_byte import BitsPerByte
from tutelage.evaluation.transfer_matrix import TransferMatrix, no_harm_p

PROOF = {"evaluation.transfer_matrix": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/transfer_matrix.py", "interval.lo > -margin if", "interval.lo > 0 if"),
    ("src/tutelage/evaluation/transfer_matrix.py", "holm([no_harm_p", "list([no_harm_p"),
    ("src/tutelage/evaluation/transfer_matrix.py", "1 - ALPHA / len(changes)", "1 - ALPHA"),
    ("src/tutelage/evaluation/transfer_matrix.py", "return compare(last, first,", "return compare(first, last,"),
    ("src/tutelage/evaluation/transfer_matrix.py", "column.direction * value", "value"),
    ("src/tutelage/evaluation/_transfers.py", "[(c, last, s) for s, c", "[(c, s, last) for s, c"),
    (
        "src/tutelage/evaluation/_transfers.py",
        "[(c, s - 1, 0) for s, c in own.items() if s > 1]",
        "[(c, s, 0) for s, c in own.items() if s > 1]",
    ),
    ("src/tutelage/evaluation/_transfers.py", "column.values(choose)[start:]", "values[start:]"),
    ("src/tutelage/evaluation/_transfers.py", "[:, start:].max(axis=1)", "[:, start:].min(axis=1)"),
    ("src/tutelage/evaluation/_cells.py", "self.weight[:, items]", "self.weight[:, items] ** 0"),
    ("src/tutelage/evaluation/_cells.py", "            if shared:\n", "            if False:\n"),
    (
        "src/tutelage/evaluation/_cells.py",
        "direction * matrix.scores.mean(axis=0)[order]",
        "direction * matrix.scores.mean(axis=0)",
    ),
]


def result(name, scores, weights=None, direction=-1, metric="bits_per_byte", unit="bits/byte", order=None):
    rows = [
        {"item_key": f"{name}-{i}", "score": float(s)} | ({} if weights is None else {"weight": float(weights[i])})
        for i, s in enumerate(scores)
    ]
    log = ItemLog.from_rows(rows if order is None else [rows[i] for i in order])
    facts = {"task": "t", "metric": metric, "direction": direction, "unit": unit, "no_interval": "planted"}
    return Result(**facts, estimate=float(np.mean(scores)), n_items=len(scores)).with_items(log)


def matrix(values, n=40, noise=0.0, seed=0, **kinds):
    """Results of `values` {probe: [base, stage 1, ...]} with the same item difficulties at every stage."""
    rng = np.random.default_rng(seed)
    table = {}
    for name, row in values.items():
        hard = rng.normal(size=n) * 0.3
        table[name] = [result(name, v + hard + noise * rng.normal(size=n), **kinds) for v in row]
    stages = len(next(iter(table.values()))) - 1
    before = [table[name][0] for name in table]
    return before, [table[name][s + 1] for s in range(stages) for name in table]


def measure(before, after, inputs=None, **fields):
    task = TransferMatrix(**{"draws": 200, **fields})
    return task.evaluate(None, None, {"before": before, "after": after, **(inputs or {})})


HAND = {"law": [2.0, 1.5, 1.6, 1.8], "code": [3.0, 2.9, 2.0, 2.2], "news": [2.5, 2.4, 2.3, 1.9]}
NAMES = {"stages": ("law", "code", "news"), "probes": ("law", "code", "news")}


def test_a_hand_written_matrix():
    before, after = matrix(HAND)
    alone = [
        result(name, np.asarray(before[i].items.matrix().scores[0]) - HAND[name][0] + v)
        for i, (name, v) in enumerate([("law", 1.4), ("code", 2.1), ("news", 2.0)])
    ]
    found = measure(before, after, {"separate": alone}, **NAMES)
    means = {name: np.mean(before[i].items.matrix().scores) - row[0] for i, (name, row) in enumerate(HAND.items())}
    for name, row in HAND.items():
        assert found.system["matrix"][name] == pytest.approx([v + means[name] for v in row])
    x = found.extra
    assert [x[f"change[{n}]"] for n in HAND] == pytest.approx([0.2, 0.8, 0.6])
    assert [x[f"forgetting[{n}]"] for n in HAND] == pytest.approx([0.3, 0.2, 0])
    assert [x[f"since_own_stage[{n}]"] for n in ("law", "code")] == pytest.approx([-0.3, -0.2])
    assert x["backward_transfer"] == pytest.approx((-0.3 - 0.2) / 2)
    # Better on a domain before its own stage: 3.0 - 2.9 and 2.5 - 2.3.
    assert x["forward_transfer"] == pytest.approx((0.1 + 0.2) / 2)
    assert x["chain_benefit"] == pytest.approx((1.4 - 1.5 + 2.1 - 2.0 + 2.0 - 1.9) / 3)
    assert found.estimate == pytest.approx(0.2) and x["no_harm"] == 1 and x["missing_cells"] == 0
    turned = measure(
        [before[i] for i in (2, 0, 1)],
        [after[s * 3 + i] for s in range(3) for i in (2, 0, 1)],
        stages=NAMES["stages"],
        probes=("news", "law", "code"),
    )
    for name in ("backward_transfer", "forward_transfer"):
        assert turned.extra[name] == pytest.approx(x[name])


def test_no_training_changes_nothing_and_passes():
    before, after = matrix({"a": [1.0] * 3, "b": [2.0] * 3}, n=200)
    found = measure(before, after, probes=("a", "b"), stages=("one", "two"))
    assert found.estimate == 0 and found.interval.lo == found.interval.hi == 0 and found.extra["no_harm"] == 1
    assert found.extra["forgetting[a]"] == found.extra["forgetting_halves[b]"] == 0
    again = matrix({"a": [1.0] * 3, "b": [2.0] * 3}, n=200, noise=0.02)
    noisy = measure(*again, probes=("a", "b"), stages=("one", "two"))
    assert noisy.extra["change[a]_lo"] < 0 < noisy.extra["change[a]_hi"] and noisy.extra["no_harm"] == 1


def test_planted_harm_fails_the_gate_and_says_where():
    states = []
    for seed in range(40):
        before, after = matrix({"a": [1.0, 1.05], "b": [2.0, 1.9]}, n=100, noise=0.05, seed=seed)
        found = measure(before, after, probes=("a", "b"), draws=100)
        states.append(found.extra["no_harm"])
        assert found.extra["no_harm[b]"] == 1 and found.interval.lo < -0.02
    assert np.mean(np.array(states) == -1) >= 0.95
    kept = measure(before, after, probes=("a", "b"), protected=("b",))
    assert kept.extra["no_harm"] == 1 and kept.estimate == pytest.approx(0.1, abs=0.03)
    assert measure(before, after, probes=("a", "b"), margin=0.2).extra["no_harm"] == 1


def test_the_interval_of_the_worst_change_covers():
    covered = 0
    for seed in range(60):
        before, after = matrix({n: [1.0, 1.0] for n in "abc"}, n=40, noise=0.1, seed=seed)
        interval = measure(before, after, draws=100).interval
        covered += interval.lo <= 0 <= interval.hi
    assert covered >= 54


def test_p_of_no_harm_is_that_of_a_shifted_t_test():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=50), rng.normal(size=50)
    c = compare(result("x", a).items, result("x", b).items)
    for margin in (0.05, 0.2, 0.5):
        wanted = stats.ttest_1samp(a - b + margin, 0, alternative="greater").pvalue
        assert no_harm_p(c, margin) == pytest.approx(wanted if wanted < 0.5 else 1.0, abs=1e-6)
        other = stats.ttest_1samp(a - b + margin, 0, alternative="less").pvalue
        assert no_harm_p(c, margin, -1) == pytest.approx(other if other < 0.5 else 1.0, abs=1e-6)


def test_several_protected_probes_are_corrected_for():
    before, after = matrix({n: [1.0, 1.0] for n in "ab"}, n=100, noise=0.08, seed=4)
    both = measure(before, after, probes=("a", "b")).extra
    alone = [measure(before, after, probes=("a", "b"), protected=(n,)).extra[f"no_harm_p[{n}]"] for n in "ab"]
    assert sorted(both[f"no_harm_p[{n}]"] for n in "ab")[0] == pytest.approx(2 * min(alone))


def test_noise_looks_like_forgetting_except_on_other_documents():
    plain, halves, several = [], [], []
    for seed in range(60):
        before, after = matrix({"a": [1.0] * 6}, n=40, noise=0.2, seed=seed)
        found = measure(before, after, draws=100, seed=seed).extra
        plain.append(found["forgetting[probe 1]"])
        halves.append(found["forgetting_halves[probe 1]"])
        several.append(found["forgetting[probe 1]_lo"])
    assert np.mean(plain) > 5 * abs(np.mean(halves)) and np.mean(plain) > 0.02
    assert abs(np.mean(halves)) < 3 * np.std(halves) / 60**0.5
    assert min(several) >= 0


def test_shares_and_bytes_keep_their_own_direction_and_weights():
    rng = np.random.default_rng(0)
    bits, size = rng.normal(2, 0.1, 50), rng.integers(10, 1000, 50)
    first = result("a", bits, size)
    last = result("a", bits - 0.1, size, order=rng.permutation(50))
    points = [
        result("b", np.r_[np.ones(k), np.zeros(100 - k)], direction=1, metric="acc", unit="") for k in (60, 55)
    ]
    found = measure([first, points[0]], [last, points[1]], probes=("a", "b"))
    assert found.system["matrix"]["a"][0] == pytest.approx((bits * size).sum() / size.sum())
    assert found.system["matrix"]["b"] == [0.6, 0.55]
    assert found.extra["change[a]"] == pytest.approx(0.1) and found.extra["change[b]"] == pytest.approx(-0.05)
    # Unequal changes are weighed by bytes.
    some = result("a", bits - (size > 500) * 0.1, size)
    heavy = measure([first], [some]).extra["change[probe 1]"]
    assert heavy == pytest.approx(0.1 * size[size > 500].sum() / size.sum())
    assert np.mean(list(found.items.scores().values())[:50]) == pytest.approx(0.1)


def test_missing_cells_are_not_measured_and_never_zero():
    before, after = matrix(HAND)
    found = measure(before, after[:4] + after[5:], **NAMES, not_measured=(("code", "code"),))
    assert found.system["matrix"]["code"][2] is None and found.extra["missing_cells"] == 1
    assert "forgetting[code]" not in found.extra and "backward_transfer" not in found.extra
    assert found.extra["change[code]"] == pytest.approx(0.8) and "forgetting[law]" in found.extra
    late = measure(before, after[:7] + after[8:], **NAMES, not_measured=(("news", "code"),))
    assert "change[code]" not in late.extra and "no_harm[code]" not in late.extra


def test_a_mean_over_domains_needs_one_unit():
    before, after = matrix(HAND)
    points = [result("code", [1.0, 0.0] * 5, direction=1, metric="acc", unit="") for _ in range(4)]
    mixed = measure(
        [before[0], points[0], before[2]],
        [points[k // 3] if k % 3 == 1 else one for k, one in enumerate(after)],
        **NAMES,
    )
    assert "backward_transfer" not in mixed.extra and "forgetting[law]" in mixed.extra
    assert mixed.unit == "bits/byte"


def test_results_of_a_task():
    texts = Dataset.from_rows({"id": str(i), "text": f"text number {i}"} for i in range(30))
    lost = {row["text"]: -(2.4 + i % 3 / 10) * np.log(2) * len(row["text"]) for i, row in enumerate(texts.rows())}
    one, other = (BitsPerByte().evaluate(LookupModel(table), texts, {}) for table in ({}, lost))
    found = measure(one, other, probes=("general",))
    assert found.estimate == pytest.approx(-0.5, abs=0.02) and found.extra["no_harm[general]"] == -1
    assert found.items.scores().keys() == one.items.scores().keys()


def test_bad_input():
    before, after = matrix({"a": [1.0, 1.1], "b": [1.0, 1.2]})
    with pytest.raises(ConfigError, match=r"another shape[\s\S]*2 results in inputs.before"):
        measure(before, after, probes=("a",))
    with pytest.raises(ConfigError, match=r"another shape[\s\S]*3 results in inputs.after"):
        measure(before, [*after, after[0]], probes=("a", "b"), stages=("one",))
    with pytest.raises(ConfigError, match=r"not_measured[\s\S]*one of|a stage of"):
        measure(before, after[:1], probes=("a", "b"), not_measured=(("x", "b"),))
    with pytest.raises(ComparisonError, match=r"different items[\s\S]*probe a, after one[\s\S]*first keys: a-0"):
        measure(before, after[::-1], probes=("a", "b"), stages=("one",))
    perplexity = result("a", np.ones(40), metric="perplexity")
    with pytest.raises(ComparisonError, match=r"in two ways[\s\S]*bits per byte where tokenizers differ"):
        measure(before[:1], [perplexity])
    with pytest.raises(ConfigError, match="a protected probe is not there"):
        measure(before, after, protected=("law",))
    with pytest.raises(InputError, match="same items"):
        measure([before[0], before[0]], [after[0], after[0]])
    with pytest.raises(ConfigError, match="one separate adaptation"):
        measure(before, after, {"separate": [before[0]] * 3})
    rows = Dataset.from_rows([{"id": "x", "text": "A text."}, {"id": "y", "text": "Another."}])
    seen = Dataset.from_rows([{"id": "t", "text": "another."}])
    with pytest.raises(InputError, match=r"shares documents[\s\S]*probe 1, stage law[\s\S]*1 of 2, first y"):
        measure(before[:1], after[:1], {"trained_on": seen, "probe_rows": rows}, stages=("law",))
    with pytest.raises(InputError, match="no protected probe"):
        measure(before[:1], [], probes=("a",), stages=("s",), not_measured=(("s", "a"),))
