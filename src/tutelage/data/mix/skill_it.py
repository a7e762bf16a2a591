"""Train more on the skills that teach what is still badly known: a graph of skills, and weights by losses.

A [k, m] holds what training on skill i does for target j (A_ij >= 0). Before the first round p_i is proportional
to exp(eta sum_j A_ij); after each evaluation p_i is proportional to exp(eta sum_j A_ij Lbar_j), Lbar_j the sum of
target j's last `window` validation losses (their mean where the targets are not the skills themselves). The prior
is uniform every time, not the last p. Options: `relative` divides losses by their start values; `scale_eta` takes
eta sum L(start) / sum L; `halve_edges` halves every A_ij with i != j at each round.

An evaluation before the first draw gives the start values and changes nothing; without one the first evaluation is
the start. The graph is `graph`, or a column that signals.skill_graph made; without either every skill teaches
itself alone. A loss is whatever `metric` the evaluators named like the targets report.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError
from tutelage.core.method import Draws, Sampler
from tutelage.data.mix._domains import DomainDraws, Domains, domains, reported

CARD = {
    "name": "data.mix.skill_it",
    "paper": {
        "title": "Skill-it! A Data-Driven Skills Framework for Understanding and Training Language Models",
        "identifier": "arXiv:2307.14430",
    },
    "summary": "Mixes skills by a graph of what each teaches, weighted by current validation losses.",
    "reads": ["{column}", "{graph_column}"],
    "cost": "one validation pass per target and round; the graph costs one short run per skill",
    "baseline": "data.mix.fixed",
    "headline": "the paper: LEGO +36.5 points; no gain where the graph is nearly empty or nearly complete",
    "version": 1,
}

Graph = dict[str, dict[str, float]]


def weights(graph: np.ndarray, losses: np.ndarray, eta: float) -> np.ndarray:
    """p [k] proportional to exp(eta A L) for A [k, m] and losses [m]."""
    scores = eta * graph @ losses
    p = np.exp(scores - scores.max())
    return p / p.sum()


class SkillDraws(DomainDraws):
    """Draws whose proportions follow the reported losses of the targets."""

    def __init__(
        self, method: "SkillIt", found: Domains, graph: np.ndarray, targets: list[str], seed: int
    ) -> None:
        self._method, self._graph, self._targets = method, graph, targets
        self._start: np.ndarray | None = None
        self._window: list[np.ndarray] = []
        self._rounds = 0
        first = weights(graph, np.ones(len(targets)), method.eta)
        super().__init__(found, first, seed, most_epochs=method.most_epochs, floor=method.p_min)

    def update(self, metrics: Mapping[str, float]) -> None:
        """One round for each evaluation; training losses alone change nothing."""
        method = self._method
        losses = reported(metrics, self._targets, method.metric, method.name)
        if losses is None:
            return
        if self._start is None:
            self._start = losses
            if not self.drawn.any():
                return
        self._window = [*self._window, losses][-method.window :]
        scaled = np.array(self._window) / (self._start if method.relative else 1.0)
        level = scaled.sum(axis=0) if self._targets == self.names else scaled.mean(axis=0)
        eta = method.eta * (self._start.sum() / losses.sum() if method.scale_eta else 1.0)
        self._rounds += 1
        self.set(weights(self._edges(), level, eta))

    def _edges(self) -> np.ndarray:
        if not self._method.halve_edges:
            return self._graph
        own = np.array([[name == target for target in self._targets] for name in self.names])
        return np.where(own, self._graph, self._graph * 0.5**self._rounds)

    def state_dict(self) -> dict[str, Any]:
        start = None if self._start is None else self._start.tolist()
        mine = {"start": start, "window": [losses.tolist() for losses in self._window], "rounds": self._rounds}
        return {**super().state_dict(), **mine}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self._start = None if state["start"] is None else np.array(state["start"])
        self._window = [np.array(losses) for losses in state["window"]]
        self._rounds = int(state["rounds"])


class SkillIt(Sampler):
    """`column` names the skill; `graph` is {skill: {target: edge}}, `graph_column` a column of signals.skill_graph
    instead. `window` counts evaluations. `p_min` is the least share of a skill, `most_epochs` closes one that was
    drawn so often."""

    steered: ClassVar[bool] = True

    column: str = "source"
    graph: Graph = Field(default_factory=dict)
    graph_column: str | None = None
    metric: str = "bits_per_byte"
    eta: float = Field(default=0.5, gt=0)
    window: int = Field(default=3, ge=1)
    relative: bool = False
    scale_eta: bool = False
    halve_edges: bool = False
    p_min: float = Field(default=0.0, ge=0, lt=1)
    most_epochs: int = Field(default=4, ge=1)

    @field_validator("graph")
    @classmethod
    def _no_negative_edge(cls, value: Graph) -> Graph:
        if any(edge < 0 for edges in value.values() for edge in edges.values()):
            raise ValueError("an edge of the graph is not negative")
        return value

    def start(self, dataset: Dataset, seed: int) -> Draws:
        found = domains(dataset, self.column, self.name)
        graph = self.graph
        if self.graph_column is not None:
            graph = self._stored(dataset, found)
        if not graph:
            graph = {name: {name: 1.0} for name in found.names}
        strange = sorted(set(graph) - set(found.names))
        if strange:
            raise InputError(
                f"{self.name}: the graph names a skill that no row has",
                where=f"graph.{strange[0]}",
                expected=", ".join(found.names[:20]),
                found=strange[0],
            )
        targets = sorted({target for edges in graph.values() for target in edges})
        matrix = np.array([[graph.get(name, {}).get(target, 0.0) for target in targets] for name in found.names])
        return SkillDraws(self, found, matrix, targets, seed)

    def _stored(self, dataset: Dataset, found: Domains) -> Graph:
        """The graph that signals.skill_graph wrote: the edges of a row are those of its skill."""
        assert self.graph_column is not None
        dataset.require(self.graph_column)
        first = dataset.take([int(rows[0]) for rows in found.rows]).column(self.graph_column).to_pylist()
        graph = {
            name: {edge["target"]: float(edge["weight"]) for edge in edges or ()}
            for name, edges in zip(found.names, first)
        }
        if any(edge < 0 for edges in graph.values() for edge in edges.values()):
            raise InputError(f"{self.name}: an edge of the graph is negative", where=self.graph_column)
        return graph
