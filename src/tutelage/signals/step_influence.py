"""How much one optimiser step on a row alone lowers the loss on reference rows: data influence by trying.

I(d) = L_R(w) - L_R(w_d), w_d the weights after one step on row d from the model's state, L_R the mean loss
per token over fixed reference rows, in float32 and evaluation mode; the weights are put back after each row. For a
small step of plain SGD at rate r, I(d) / r is the product of the gradients of the row's and the reference's mean
loss. A model's optimiser state is not part of it: the moments of AdamW are those of a run at rate 0 over
`moment_rows` rows, where the paper goes on from the training run's. Of a model with an adapter it moves that.
It costs |R| forward passes a row: probe a sample, and let signals.influence_regressor predict the others.
"""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.hashing import uniform
from tutelage.core.text.rows import text_rows
from tutelage.signals._encoded import encoded_rows, encoded_set

CARD = {
    "name": "signals.step_influence",
    "paper": {
        "title": "MATES: Model-Aware Data Selection for Efficient Pretraining with Data Influence Models",
        "identifier": "arXiv:2406.06046",
    },
    "summary": "How much one training step on each row lowers the loss on reference rows.",
    "reads": ["text?"],
    "writes": ["influence", "influence_flag"],
    "inputs": {
        "model": "the model as it is now",
        "reference": "rows whose loss is to fall",
        "evaluation?": "the rows that will be reported on; none may be a reference",
    },
    "needs": ["train"],
    "cost": "a forward and a backward pass on each row and a forward pass on all reference rows, for each row",
    "baseline": "signals.token_loss",
    "headline": "what the model lacks now, measured; too dear for a whole corpus",
    "version": 1,
}


class StepInfluence(Scorer):
    """The step: `optimizer`, `learning_rate`, `weight_decay`, `gradient_clip` (0: never), moments from
    `moment_rows` rows. `reference_rows`: at most so many, by hash; `max_length` in tokens, the rest is cut."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    gradient_clip: float = Field(default=1.0, ge=0)
    moment_rows: int = Field(default=32, ge=0)
    reference_rows: int = Field(default=32, ge=1)
    max_length: int = Field(default=256, ge=2)
    seed: int = Field(default=0, ge=0)

    def fit(self, dataset: Dataset, inputs: Inputs) -> State:
        from tutelage.models.one_step import mean_loss

        _refuse_reported(inputs["reference"], inputs.get("evaluation"))
        probe = self._probe(inputs["model"])
        if self.optimizer == "adamw" and self.moment_rows:
            sample = encoded_set(
                _drawn(dataset, self.moment_rows, self.seed), probe.model, self.max_length, "the rows"
            )
            probe.warm([_alone(document, probe.model) for document in sample])
        return {"before": mean_loss(probe.model, self._reference(probe.model, inputs)), "optimizer": probe.state()}

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, Any]:
        from tutelage.models.one_step import mean_loss

        probe = self._probe(inputs["model"])
        probe.load_state(state["optimizer"])
        reference = self._reference(probe.model, inputs)
        documents, flags = encoded_rows(shard, probe.model, self.max_length)
        found = np.full(len(documents), np.nan)
        for i, document in enumerate(documents):
            if document is not None:
                with probe.taken(_alone(document, probe.model)):
                    found[i] = state["before"] - mean_loss(probe.model, reference)
        return {"influence": found, "influence_flag": pa.array(flags, pa.string())}

    def _probe(self, model: Any) -> Any:
        from tutelage.models.one_step import OneStep, in_float32

        if getattr(model, "kind", "") != "causal":
            raise ConfigError(
                f"{self.name} needs a causal language model with weights",
                where="model",
                found=f"kind {getattr(model, 'kind', type(model).__name__)}",
                remedy="load a model folder",
            )
        return OneStep(
            in_float32(model),
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            clip=self.gradient_clip,
        )

    def _reference(self, model: Any, inputs: Inputs) -> list[Any]:
        from tutelage.models.scoring import scoring_batches

        rows = _drawn(inputs["reference"], self.reference_rows, self.seed)
        documents = encoded_set(rows, model, self.max_length, "inputs.reference")
        return [batch for _, batch in scoring_batches(model, documents)]


def _alone(document: Any, model: Any) -> Any:
    from tutelage.models.packing import collate

    return collate([[document]], pad_id=model.pad_id)


def _drawn(dataset: Dataset, count: int, seed: int) -> pa.Table:
    order = np.argsort(-uniform(seed, dataset.ids()), kind="stable")[:count]
    return dataset.take(np.sort(order))


def _refuse_reported(reference: Dataset, evaluation: Dataset | None) -> None:
    if evaluation is None:
        return
    reported = {text.strip() for _, text in text_rows(evaluation)}
    shared = [identifier for identifier, text in text_rows(reference) if text.strip() in reported]
    if shared:
        raise InputError(
            "reference rows are among the rows that are reported on",
            where="inputs.reference",
            expected="rows apart from inputs.evaluation",
            found=f"{len(shared)} shared, the first is {shared[0]}",
            remedy="split them first (data.split.by_group)",
        )
