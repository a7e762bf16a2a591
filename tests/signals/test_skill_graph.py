"""signals.skill_graph and signals.domain_loss: per-domain losses from item logs, edges by hand, a chain."""

import math

import pytest

from toy.lookup_model import LookupModel
from tutelage.core.apply import score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.items import ItemLog
from tutelage.core.records import Result
from tutelage.data.mix.skill_it import SkillIt
from tutelage.evaluation.bits_per_byte import BitsPerByte
from tutelage.signals.domain_loss import DomainLoss
from tutelage.signals.skill_graph import SkillGraph, edge, learned_graph

PROOF = {"signals.skill_graph": ["consistent"], "signals.domain_loss": ["consistent"]}
MUTATIONS = [
    ("src/tutelage/signals/skill_graph.py", "max(0.0, (before - after) / before)", "(before - after) / before"),
    ("src/tutelage/signals/skill_graph.py", "(before - after) / before)", "before - after)"),
    (
        "src/tutelage/signals/domain_loss.py",
        "losses[name] for name in names]",
        "losses[names[0]] for name in names]",
    ),
    ("src/tutelage/signals/_by_group.py", "(scores[here] * weights[here]).sum()", "scores[here].sum()"),
]
SKILLS = ("letters", "words", "stories")
TRAIN = Dataset.from_rows(
    [{"id": f"{s}{i}", "text": s, "source": s, "topic": s} for s in SKILLS for i in range(2)]
)


def result(losses, direction=-1, items=True, grouped=True):
    """A measured result in which each group has two items of unequal weight whose weighted mean is its loss."""
    rows = []
    for group, loss in losses.items():
        for place, (score, weight) in enumerate(((loss - 0.3, 2.0), (loss + 0.6, 1.0))):
            named = {"group": group} if grouped else {}
            rows.append({"item_key": f"{group}{place}", "score": score, "weight": weight, **named})
    made = Result(
        task="t", metric="m", direction=direction, estimate=1.0, no_interval="planted", n_items=len(rows)
    )
    return made.with_items(ItemLog.from_rows(rows)) if items else made


def test_edges_by_hand():
    assert edge(4.0, 3.0) == 0.25 and edge(2.0, 2.5) == 0.0
    found = learned_graph({"a": 2.0, "b": 4.0}, {"a": {"a": 1.0, "b": 3.0}, "b": {"a": 2.2, "b": 1.0}})
    assert found == {"a": {"a": 0.5, "b": 0.25}, "b": {"a": 0.0, "b": 0.75}}


def test_a_planted_chain_of_prerequisites_is_recovered():
    # Letters help words a little, words help stories; nothing helps backwards.
    helps = {("letters", "words"): 0.2, ("words", "stories"): 0.3} | {(s, s): 0.5 for s in SKILLS}
    before = dict.fromkeys(SKILLS, 2.0)
    after = [result({j: 2.0 * (1 - helps.get((i, j), -0.1)) for j in SKILLS}) for i in SKILLS]
    scored = score_dataset(SkillGraph(skills=SKILLS), TRAIN, {"before": result(before), "after": after})
    edges = {row["source"]: {e["target"]: e["weight"] for e in row["skill_graph"]} for row in scored.rows()}
    for i in SKILLS:
        assert edges[i] == pytest.approx({j: helps.get((i, j), 0.0) for j in SKILLS})
    draws = SkillIt(graph_column="skill_graph", eta=2.0).start(scored, 0)
    assert dict(zip(draws.names, draws.p))["words"] == max(draws.p)


def test_the_loss_of_each_domain_is_that_of_its_validation_rows():
    validation = [
        {"id": "1", "text": "abcd", "group": "letters"},
        {"id": "2", "text": "abcdefgh", "group": "letters"},
        {"id": "3", "text": "xy", "group": "words"},
    ]
    model = LookupModel(lls={"abcd": -4 * math.log(2), "abcdefgh": -16 * math.log(2)}, bits_per_byte=3.0)
    measured = BitsPerByte().evaluate(model, Dataset.from_rows(validation), {})
    data = Dataset.from_rows(row for row in TRAIN.rows() if row["source"] != "stories")
    found = score_dataset(DomainLoss(column="topic"), data, {"result": measured}).column("domain_loss").to_pylist()
    assert found == pytest.approx([20 / 12, 20 / 12, 3.0, 3.0])
    apart = [result({"letters": 1.0}), result({"words": 2.0})]
    assert score_dataset(DomainLoss(), data, {"result": apart}).numpy("domain_loss").tolist() == pytest.approx(
        [1, 1, 2, 2]
    )


def test_refusals():
    losses = dict.fromkeys(SKILLS, 1.0)
    with pytest.raises(InputError, match="no validation loss"):
        score_dataset(DomainLoss(), TRAIN, {"result": result({"letters": 1.0})})
    with pytest.raises(InputError, match="measured twice"):
        score_dataset(DomainLoss(), TRAIN, {"result": [result(losses), result({"words": 2.0})]})
    for wrong in (result(losses, direction=1), result(losses, items=False)):
        with pytest.raises(InputError, match="no measured loss"):
            score_dataset(DomainLoss(), TRAIN, {"result": wrong})
    with pytest.raises(InputError, match="belongs to no group"):
        score_dataset(DomainLoss(), TRAIN, {"result": result(losses, grouped=False)})
    nameless = Dataset.from_rows(
        [{"id": "a", "text": "x", "source": None}, {"id": "b", "text": "x", "source": "words"}]
    )
    with pytest.raises(InputError, match="belongs to no domain"):
        score_dataset(DomainLoss(), nameless, {"result": result(losses)})
    with pytest.raises(ConfigError, match="needs the skill of every result"):
        score_dataset(
            SkillGraph(skills=("letters",)), TRAIN, {"before": result(losses), "after": [result(losses)] * 3}
        )
    with pytest.raises(InputError, match="not of the same targets"):
        inputs = {"before": result(losses), "after": [result({"letters": 1.0})] * 3}
        score_dataset(SkillGraph(skills=SKILLS), TRAIN, inputs)
    with pytest.raises(InputError, match="was not trained on"):
        inputs = {"before": result(losses), "after": [result(losses)] * 2}
        score_dataset(SkillGraph(column="topic", skills=SKILLS[:2]), TRAIN, inputs)
