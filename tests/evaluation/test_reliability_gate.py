"""evaluation.reliability_gate against scikit-learn's kappa and planted agreement."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.evaluation.reliability_gate import ReliabilityGate, decide

PROOF = {"evaluation.reliability_gate": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/reliability_gate.py", "np.mean(lh, axis=0) - hh", "hh - np.mean(lh, axis=0)"),
    ("src/tutelage/evaluation/reliability_gate.py", "if hh < task.least_human:", "if low < task.least_human:"),
    ("src/tutelage/evaluation/reliability_gate.py", "QUANTILE = 0.05", "QUANTILE = 0.5"),
    ("src/tutelage/evaluation/reliability_gate.py", "if positives < task.least_positives:", "if False:"),
    ("src/tutelage/core/stats/confusion.py", "+ (total - rows) * (total - columns)", "+ total"),
]
NAMES = ("a", "b", "c")


def noisy(rng, truth, share):
    return np.where(rng.random(len(truth)) < share, rng.integers(0, 3, len(truth)), truth)


def table(first, second, machine, **columns):
    name = lambda k: None if k is None or k < 0 else NAMES[k]  # noqa: E731
    return Dataset.from_rows(
        {
            "id": f"r{i}",
            "label": name(a),
            "label_2": name(b),
            "teacher_label": name(c),
            **{key: values[i] for key, values in columns.items()},
        }
        for i, (a, b, c) in enumerate(zip(first, second, machine))
    )


def gate(dataset, inputs=None, **fields):
    return ReliabilityGate(**{"draws": 200, **fields}).evaluate(None, dataset, inputs or {})


def decisions(found):
    return {name: one["decision"] for name, one in found.system["decisions"].items()}


def people(seed=0, rows=300, first=0.1, second=0.1, machine=0.1):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, rows)
    return [noisy(rng, truth, share) for share in (first, second, machine)]


def test_kappas_equal_scikit_learn():
    first, second, machine = people(machine=0.3)
    found = gate(table(first, second, machine))
    for k, name in enumerate(NAMES):
        binary = [column == k for column in (first, second, machine)]
        assert found.extra[f"kappa_hh[{name}]"] == pytest.approx(cohen_kappa_score(*binary[:2]), abs=1e-12)
        wanted = np.mean([cohen_kappa_score(person, binary[2]) for person in binary[:2]])
        assert found.extra[f"kappa_lh[{name}]"] == pytest.approx(wanted, abs=1e-12)
        gap = wanted - found.extra[f"kappa_hh[{name}]"]
        assert gap - 0.15 < found.extra[f"low[{name}]"] < gap - 0.03
        assert found.extra[f"agreement_hh[{name}]"] == pytest.approx((binary[0] == binary[1]).mean())
        assert found.extra[f"positives[{name}]"] == min(binary[0].sum(), binary[1].sum())


def test_the_first_person_as_machine_has_the_mean_of_one_and_people():
    first, second, _ = people(1)
    found = gate(table(first, second, first))
    for name in NAMES:
        hh = found.extra[f"kappa_hh[{name}]"]
        assert found.extra[f"kappa_lh[{name}]"] == pytest.approx((1 + hh) / 2, abs=1e-12)
        assert found.extra[f"low[{name}]"] > 0
    assert found.estimate == 1.0 and found.extra["covered_rows"] == 1.0
    assert found.interval is None and "its own bound" in found.no_interval


def test_each_class_gets_its_decision():
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 3, 900)
    first, second = noisy(rng, truth, 0.06), noisy(rng, truth, 0.06)
    # The machine knows a, and takes half of b for c.
    machine = np.where((truth == 1) & (rng.random(900) < 0.5), 2, noisy(rng, truth, 0.06))
    found = gate(table(first, second, machine))
    assert decisions(found) == {"a": "accept", "b": "human", "c": "human"}
    assert found.estimate == pytest.approx(1 / 3)
    assert [found.extra[f"decision[{name}]"] for name in NAMES] == [1.0, 0.0, 0.0]
    assert found.extra["covered_rows"] == pytest.approx((first == 0).mean())
    assert "below people" in found.system["decisions"]["b"]["reason"]
    vague = gate(table(noisy(rng, truth, 0.5), second, truth))
    assert set(decisions(vague).values()) == {"redefine"}
    assert gate(table(first, second, machine), margin=1.0).estimate == 1.0
    assert set(decisions(gate(table(first, second, machine), least_human=0.999)).values()) == {"redefine"}


def test_false_accepts_are_rare():
    """A machine whose kappa is 0.2 below people's; a bar of 80 % raw agreement would let it pass."""
    accepted = raw = 0
    for seed in range(40):
        first, second, machine = people(seed + 10, rows=400, first=0.08, second=0.08, machine=0.3)
        found = gate(table(first, second, machine), seed=seed)
        accepted += decisions(found)["a"] == "accept"
        raw += ((machine == 0) == (first == 0)).mean() >= 0.8
    assert accepted <= 2 and raw >= 30


def test_what_cannot_be_known_is_never_accepted():
    first, second, machine = people(3, rows=80)
    found = gate(table(first, second, machine), least_positives=60)
    assert set(decisions(found).values()) == {"human"}
    assert "too few positives" in found.system["decisions"]["a"]["reason"]
    schema = Dataset.from_rows([{"label": name} for name in (*NAMES, "d")])
    found = gate(table(first, second, machine), {"labels": schema}, least_positives=1)
    assert decisions(found)["d"] == "human" and "kappa_hh[d]" not in found.extra
    constant = np.zeros(80, int)
    found = gate(table(constant, constant, constant))
    assert "no variation" in found.system["decisions"]["a"]["reason"] and found.estimate == 0.0
    assert found.extra["agreement_hh[a]"] == 1.0
    assert not any(value != value for value in found.extra.values())


def test_a_missing_machine_label_agrees_with_nobody():
    first, second, _ = people(4)
    machine = [None if i % 3 == 0 else k for i, k in enumerate(first)]
    found = gate(table(first, second, machine))
    binary = [k == 0 for k in first], [k == 0 for k in machine]
    lh = found.extra["kappa_lh[a]"]
    other = cohen_kappa_score([k == 0 for k in second], binary[1])
    assert lh == pytest.approx((cohen_kappa_score(*binary) + other) / 2)
    assert decisions(found)["a"] == "human"


def test_bad_input():
    first, second, machine = people(5)
    with pytest.raises(InputError, match="labelled by both people"):
        gate(table(first, [None] * 300, machine))
    with pytest.raises(InputError, match="labelled by both people"):
        gate(table(first, second, machine, label_source=["teacher:x"] * 300))
    with pytest.raises(InputError, match="no column 'third'"):
        gate(table(first, second, machine), second="third")
    assert (
        gate(table(first, second, machine), first="label_2", second="label", machine="teacher_label").n_items
        == 300
    )
    with pytest.raises(InputError, match="not a class"):
        gate(table(first, second, machine), {"labels": Dataset.from_rows([{"label": "a"}])})


def test_decide():
    task = ReliabilityGate()
    assert decide(0.8, -0.05, 30, task)[0] == "accept"
    assert decide(0.8, -0.1, 30, task)[0] == "human"
    assert decide(0.69, 0.2, 30, task)[0] == "redefine"
    assert decide(0.9, 0.2, 19, task)[0] == "human"
    assert decide(float("nan"), 0.2, 30, task)[0] == "human"
