"""Another objective plus a price on leaving a frozen reference: learn the new without forgetting the old.

L = L_inner + weight * (sum_t r_t D_t, aggregated as the inner loss), r_t = 1 for the trained tokens of the rows
that `only_where` names (all rows without it), D_t the divergence of the two predictions of token t:
  forward  KL(q || p), reverse  KL(p || q), over the full vocabulary; q the reference, p the model
  sampled  exp(d) - d - 1, d = log q(x_t) - log p(x_t), from the log-probabilities of the data's tokens alone
The reference is the base below the adapter (`adapter_off`), the weights before the first step (`copy`), or columns
made by `signals.reference_logps` (`cached`, sampled only). At the first step D is 0.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from tutelage.core.component import Component
from tutelage.core.errors import InputError
from tutelage.core.method import Method, Objective
from tutelage.training.objectives._shared import Loss, aggregate, documents_of

CARD = {
    "name": "training.objectives.reference_kl",
    "paper": {"title": "Learning without Forgetting", "identifier": "arXiv:1606.09282"},
    "summary": "Adds to another objective a divergence from a frozen reference, on all rows or on replayed ones.",
    "reads": ["text?"],
    "needs": ["train"],
    "cost": "one more forward pass per token and one more product with the head; with cached columns nothing",
    "baseline": "training.objectives.causal_lm",
    "headline": "keeps old behaviour on the rows it sees; replay alone is the rival to beat",
    "version": 1,
}

KEPT, STORED = "kept", "ref_logps"


class ReferenceKl(Objective):
    """`inner` is the objective that learns; `weight` the price; `only_where` a true/false column. `reference:
    auto` is adapter_off for a model with an adapter, else copy."""

    model_config = ConfigDict(validate_default=True)

    inner: Component = Field(default={"use": "training.objectives.causal_lm"})  # type: ignore[assignment]
    weight: float = Field(default=0.1, ge=0)
    divergence: Literal["forward", "reverse", "sampled"] = "forward"
    reference: Literal["auto", "adapter_off", "copy", "cached"] = "auto"
    only_where: str | None = None

    @field_validator("inner")
    @classmethod
    def _is_objective(cls, value: Method) -> Method:
        if not isinstance(value, Objective) or isinstance(value, ReferenceKl):
            raise ValueError(f"expected an objective that learns; {value.name} is of kind {value.kind}")
        return value

    @model_validator(mode="after")
    def _cache_holds_tokens_only(self) -> "ReferenceKl":
        if self.reference == "cached" and self.divergence != "sampled":
            raise ValueError("a cache holds the log-probabilities of the data's tokens: set divergence: sampled")
        return self

    def start(self, model: Any) -> Any:
        from tutelage.models.peft_io import is_adapted
        from tutelage.models.reference import AdapterOff, FrozenCopy

        if self.weight == 0:
            return self.inner.start(model)  # type: ignore[attr-defined]
        kind = self.reference
        if kind == "auto":
            kind = "adapter_off" if is_adapted(model.module) else "copy"
        made = None if kind == "cached" else AdapterOff(model) if kind == "adapter_off" else FrozenCopy(model)
        return Running(self, self.inner.start(model), made)  # type: ignore[attr-defined]

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        return self.inner.encode(row, model, max_length)  # type: ignore[attr-defined]


class Running:
    """The objective with its reference; `reference` None means the rows carry stored log-probabilities."""

    def __init__(self, method: ReferenceKl, inner: Any, reference: Any) -> None:
        self.method, self.inner, self.reference = method, inner, reference
        self.name = method.name
        self.whole_rows, self.skips_empty_steps = inner.whole_rows, inner.skips_empty_steps
        self.joint_rows = inner.joint_rows
        self._model = ""

    def encode(self, row: Mapping[str, Any], model: Any, max_length: int) -> Any:
        found = self.inner.encode(row, model, max_length)
        documents = found if isinstance(found, list) else [found]
        column = self.method.only_where
        if column is not None and column not in row:
            raise InputError(
                f"there is no column {column!r} that says where the reference counts",
                where=f"row {row.get('id', '')}",
                expected=column,
                found=", ".join(row),
            )
        kept = 1.0 if column is None or row[column] else 0.0
        stored = self._stored(row, documents) if self.reference is None and kept else None
        made, at = [], 0
        for document in documents:
            n = len(document)
            columns = {**(document.columns or {}), KEPT: [kept] * n}
            if stored is not None:
                columns[STORED] = stored[at : at + n]
            made.append(replace(document, columns=columns))
            at += n
        return made

    def _stored(self, row: Mapping[str, Any], documents: list[Any]) -> list[float]:
        from tutelage.models.reference import token_key

        where = f"row {row.get('id', '')}"
        remedy = "run signals.reference_logps with this objective, model and max_length, and train on its output"
        if row.get(STORED) is None:
            raise InputError("a row has no stored reference", where=where, expected=STORED, remedy=remedy)
        self._model = self._model or row["ref_model"]
        facts = {"tokens": (token_key(documents), row["ref_tokens"]), "model": (self._model, row["ref_model"])}
        for what, (expected, found) in facts.items():
            if expected != found:
                raise InputError(
                    f"a stored reference belongs to other {what}",
                    where=where,
                    expected=expected,
                    found=found,
                    remedy=remedy,
                )
        return list(row[STORED])

    def loss(self, model: Any, batch: Any) -> Loss:
        from tutelage.models.reference import sampled_kl, token_kl

        once = OneForward(model, batch)
        learnt = self.inner.loss(once, batch)
        mask = batch.response_mask & (batch.columns[KEPT] > 0)
        if not bool(mask.any()):
            return learnt
        if self.method.divergence == "sampled":
            theirs = batch.columns[STORED] if self.reference is None else self.reference.logps(batch)
            values = sampled_kl(once.token_logps(batch), theirs)
        else:
            values = token_kl(once, self.reference, batch, mask, self.method.divergence)
        mode, length = getattr(self.inner, "aggregation", "token"), getattr(self.inner, "length", 0)
        # The inner loss's weight is the divisor: a row that is not kept adds nothing above and counts below.
        apart, _ = aggregate(values * mask, batch.response_mask, documents_of(batch), mode=mode, length=length)
        extra = self.method.weight * apart
        return Loss(
            learnt.sum + extra.sum(),
            learnt.weight,
            {**learnt.metrics, "divergence": float(apart.detach().sum())},
            None if learnt.per_example is None else learnt.per_example + extra,
        )


class OneForward:
    """A model whose final states of one batch are computed once, however often they are asked for."""

    def __init__(self, model: Any, batch: Any) -> None:
        self._model, self._batch = model, batch
        self._hidden: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def final_hidden(self, batch: Any) -> Any:
        if batch is not self._batch:
            return self._model.final_hidden(batch)
        if self._hidden is None:
            self._hidden = self._model.final_hidden(batch)
        return self._hidden

    def token_logps(self, batch: Any, temperature: float = 1.0) -> Any:
        from tutelage.models.logps import token_logps

        return token_logps(self, batch, temperature)  # type: ignore[arg-type]
