"""What a short training on each skill does for the others: the graph that data.mix.skill_it mixes by.

A_ij = max(0, (L_j before - L_j after training on i alone) / L_j before), for every skill i that was trained and
every target j that was measured: the cheap form, one short run per skill. Runs of equal length are the caller's
affair. Each row gets the edges of its own skill, [{target, weight}, ...]. The formula is ours for the paper's idea
of an edge; its exact form, pairs of skills against one alone, takes k^2 runs and can be handed to the sampler.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.signals._by_group import group_losses, names_in

CARD = {
    "name": "signals.skill_graph",
    "paper": {
        "title": "Skill-it! A Data-Driven Skills Framework for Understanding and Training Language Models",
        "identifier": "arXiv:2307.14430",
    },
    "summary": "Learns from one short run per skill how much it teaches each other skill.",
    "reads": ["{column}"],
    "writes": ["skill_graph"],
    "inputs": {
        "before": "the loss of the model before training, on validation rows of all targets",
        "after": "the losses after training on each skill alone, in the order of `skills`",
    },
    "cost": "k short training runs and k + 1 validations",
    "baseline": "signals.domain_loss",
    "headline": "an edge is measured, not declared; noisy where the short runs are very short",
    "version": 1,
}
EDGES = pa.list_(pa.struct([("target", pa.string()), ("weight", pa.float64())]))


def edge(before: float, after: float) -> float:
    """The share of a target's loss that a training removed, 0 where it removed none."""
    return max(0.0, (before - after) / before)


def learned_graph(
    before: Mapping[str, float], after: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """{skill: {target: edge}} from the losses before and after training on each skill."""
    return {skill: {j: edge(before[j], losses[j]) for j in before} for skill, losses in after.items()}


class SkillGraph(Scorer):
    """`column` names the skill of the rows; `skills` says which skill each result of `after` was trained on."""

    column: str = "source"
    skills: tuple[str, ...] = ()

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        results = inputs["after"]
        results = results if isinstance(results, list) else [results]
        if len(results) != len(self.skills) or len(set(self.skills)) != len(self.skills):
            raise ConfigError(
                f"{self.name} needs the skill of every result in `after`",
                where="skills",
                expected=f"{len(results)} names, all different",
                found=", ".join(self.skills) or "none",
                remedy="write the same list as in `foreach`",
            )
        before = group_losses(inputs["before"], "inputs.before")
        after = {
            skill: group_losses(result, f"inputs.after ({skill})") for skill, result in zip(self.skills, results)
        }
        for skill, losses in after.items():
            if set(losses) != set(before):
                raise InputError(
                    "the losses before and after are not of the same targets",
                    where=f"inputs.after ({skill})",
                    expected=", ".join(before),
                    found=", ".join(losses),
                    remedy="measure all on the same validation rows",
                )
        return {"graph": learned_graph(before, after)}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        rows = []
        for name in names_in(shard.column(self.column).to_pylist(), self.column):
            if name not in state["graph"]:
                raise InputError(
                    "a skill was not trained on",
                    where=f"{self.column} {name}",
                    expected=", ".join(state["graph"]),
                    found=name,
                    remedy="add it to `skills` and to the runs behind `after`, or leave its rows out",
                )
            edges = state["graph"][name]
            rows.append([{"target": target, "weight": weight} for target, weight in edges.items()])
        return {"skill_graph": pa.array(rows, EDGES)}
