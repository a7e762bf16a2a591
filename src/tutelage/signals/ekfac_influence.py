"""Which rows raise the probability of the queries when they are trained on: influence functions with EK-FAC.

influence(q, z) = sum over layers of <(H + lambda)^-1 grad log p(q), grad log p(z)>, positive where training on row
z makes q likelier to first order; `ekfac_influence` is its mean over the queries. H is the layer's
Kronecker-factored Fisher information with corrected eigenvalues (models.curvature), from labels drawn from the
model. With P = (H + lambda)^-1 mean_q grad log p(q) [d_out, d_in] a row's score is the sum over its tokens of
g_t . P a_t: one forward and one backward pass through activations; no gradient of a weight is ever formed.
Log-probabilities are sums over what training would learn: all of a text, the response of a pair. What is
kept is P, not the factors; per query it is P's `query_rank` largest singular directions, as in the paper. A model
with an adapter is merged first. Score a pre-filtered set where the pool is large (the paper filters by TF-IDF).
"""

import warnings
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import uniform
from tutelage.signals._encoded import encoded_rows, encoded_set

CARD = {
    "name": "signals.ekfac_influence",
    "paper": {
        "title": "Studying Large Language Model Generalization with Influence Functions",
        "identifier": "arXiv:2308.03296",
    },
    "summary": "How much training on each row would raise the model's log-probability of the queries.",
    "reads": ["text?"],
    "writes": ["ekfac_influence", "influence_flag"],
    "inputs": {"model": "the trained model", "queries": "rows whose probability is to be explained"},
    "needs": ["train"],
    "cost": "two passes over a sample, one over all rows: forward, half a backward pass, the factors",
    "baseline": "signals.similarity_tfidf",
    "headline": "sees structure shared with a query and not only words; vanishes when key phrases swap order",
    "version": 1,
}


class EkfacInfluence(Scorer):
    """`layers` mlp, attention or all linear layers of the blocks; `labels` sampled (the Fisher information) or
    data (the empirical one); `damping` lambda as a share of the layer's mean curvature; `fit_rows` for the
    curvature; `max_length` in tokens, the rest is cut. `detail` adds a list column: ekfac_query (an influence
    per query), ekfac_layer (per layer) or ekfac_token (per token of the encoded row)."""

    layers: Literal["mlp", "attention", "all"] = "mlp"
    labels: Literal["sampled", "data"] = "sampled"
    damping: float = Field(default=0.1, ge=0)
    fit_rows: int = Field(default=1000, ge=2)
    max_length: int = Field(default=512, ge=2)
    detail: Literal["none", "query", "layer", "token"] = "none"
    query_rank: int = Field(default=32, ge=1)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        from tutelage.models.curvature import fit_factors, linear_layers, model_pass

        model = _plain(inputs["model"], self.name)
        layers, others = linear_layers(model, self.layers)
        if not layers:
            raise ConfigError(
                f"{self.name}: the model has no linear layer of this part",
                where=f"layers: {self.layers}",
                expected="linear layers in the model's blocks",
                found=", ".join(others[:5]) or "none",
                remedy="set layers: all",
            )
        if others:
            warnings.warn(f"{self.name} leaves out {', '.join(others[:5])} ({len(others)} modules)", stacklevel=2)
        order = np.argsort(-uniform(self.seed, dataset.ids()), kind="stable")[: self.fit_rows]
        sample = encoded_set(dataset.take(np.sort(order)), model, self.max_length, "the rows")
        everything = pa.concat_tables(inputs["queries"].shards())
        queries = encoded_set(everything, model, self.max_length, "inputs.queries")
        seed = self.seed if self.labels == "sampled" else None
        factors = fit_factors(model_pass(model, sample, layers, seed))
        sizes = [len(f.outputs) ** 2 + len(f.inputs) ** 2 for f in factors.values()]
        products = sum(f.values.numel() for f in factors.values())
        tokens = sum(len(document) for document in sample)
        model.meter.add(backward_flops=2.0 * tokens * (2 * sum(sizes) + products))
        found = _solved(model_pass(model, queries, layers), factors, len(queries), self)
        return {"names": list(found), "solved": found}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        import torch

        from tutelage.models.curvature import Sequences, linear_layers, model_pass

        model = _plain(inputs["model"], self.name)
        layers, _ = linear_layers(model, self.layers)
        documents, flags = encoded_rows(shard, model, self.max_length)
        kept = [document for document in documents if document is not None]
        solved = {
            name: {key: torch.from_numpy(value).to(model.device) for key, value in parts.items()}
            for name, parts in state["solved"].items()
        }
        columns = {name: number for number, name in enumerate(state["names"])}
        n_queries = next(len(parts["left"]) if "left" in parts else 0 for parts in solved.values())
        total = np.zeros((len(kept), len(columns)))
        by_query = np.zeros((len(kept), n_queries))
        by_token = [np.zeros(len(document)) for document in kept]

        def visit(name: str, a: Any, g: Any, sequences: Sequences) -> None:
            each = (g * (a @ solved[name]["mean"].T)).sum(1)
            total[sequences.numbers, columns[name]] = sequences.sums(each).double().cpu().numpy()
            if self.detail == "token":
                for number, part in zip(sequences.numbers, each.split(sequences.lengths)):
                    by_token[number] += part.double().cpu().numpy()
            if self.detail == "query":
                left, right = solved[name]["left"], solved[name]["right"]
                for query in range(n_queries):
                    values = ((g @ left[query]) * (a @ right[query])).sum(1)
                    by_query[sequences.numbers, query] += sequences.sums(values).double().cpu().numpy()

        model_pass(model, kept, layers)(visit)
        tokens = sum(len(document) for document in kept)
        products = sum(parts["mean"].numel() for parts in solved.values())
        model.meter.add(backward_flops=2.0 * tokens * products, scored_tokens=tokens)
        place = [i for i, document in enumerate(documents) if document is not None]
        influence = np.full(len(documents), np.nan)
        influence[place] = total.sum(axis=1)
        made: dict[str, Any] = {"ekfac_influence": influence, "influence_flag": pa.array(flags, pa.string())}
        details: dict[str, Any] = {"query": by_query, "layer": total, "token": by_token}
        if self.detail != "none":
            lists: list[Any] = [None] * len(documents)
            for i, values in zip(place, details[self.detail]):
                lists[i] = values
            made[f"ekfac_{self.detail}"] = pa.array(lists, pa.list_(pa.float64()))
        return made


def _solved(run: Any, factors: Any, n_queries: int, method: EkfacInfluence) -> dict[str, dict[str, np.ndarray]]:
    """Per layer `mean` P [d_out, d_in] over the queries, and where asked `left` [queries, d_out, r] and `right`
    [queries, d_in, r] whose product is each query's own, up to the rank."""
    import torch

    summed: dict[str, Any] = {}
    parts: dict[str, list[Any]] = {}

    def visit(name: str, a: Any, g: Any, sequences: Any) -> None:
        summed[name] = summed.get(name, 0.0) + g.T @ a
        if method.detail != "query":
            return
        pieces = zip(sequences.numbers, g.split(sequences.lengths), a.split(sequences.lengths))
        for number, left, right in pieces:
            u, s, v = torch.linalg.svd(factors[name].solve(left.T @ right, method.damping), full_matrices=False)
            rank = min(method.query_rank, len(s))
            parts.setdefault(name, [None] * n_queries)[number] = (u[:, :rank] * s[:rank], v[:rank].T)

    run(visit)
    found = {}
    for name, gradient in summed.items():
        mean = factors[name].solve(gradient / n_queries, method.damping)
        found[name] = {"mean": mean.cpu().numpy()}
        if method.detail == "query":
            for side, key in enumerate(("left", "right")):
                found[name][key] = torch.stack([pair[side] for pair in parts[name]]).contiguous().cpu().numpy()
    return found


def _plain(model: Any, who: str) -> Any:
    """The model without adapter; what it computes is charged to the model given."""
    if getattr(model, "kind", "") != "causal":
        raise ConfigError(
            f"{who} needs a causal language model with weights",
            where="model",
            found=f"kind {getattr(model, 'kind', type(model).__name__)}",
            remedy="load a model folder",
        )
    if not hasattr(model.module, "peft_config"):
        return model
    merged = model.merged()
    merged.meter = model.meter
    return merged
