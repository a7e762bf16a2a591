"""The card of a method: what it is, where it comes from, what it reads, writes, needs and costs.

Every method module holds one literal `CARD = {...}`; it is read by parsing the file, so listing all methods
imports neither the method nor torch.
"""

from typing import Any, Literal

from pydantic import Field

from tutelage.core.records import Record

KINDS = (
    "Reader",
    "Writer",
    "Scorer",
    "Transform",
    "Sampler",
    "Objective",
    "Schedule",
    "UpdateRule",
    "Adapter",
    "Trainer",
    "Task",
    "Forecaster",
)
Kind = Literal[
    "Reader",
    "Writer",
    "Scorer",
    "Transform",
    "Sampler",
    "Objective",
    "Schedule",
    "UpdateRule",
    "Adapter",
    "Trainer",
    "Task",
    "Forecaster",
]
ROOMS = ("signals", "data", "training", "adapters", "compression", "evaluation", "forecasting")
STATUSES = ("implemented", "consistent", "verified", "measured")


class Paper(Record):
    """Where a method comes from; `identifier` is an arXiv id, DOI or URL, empty for common practice."""

    title: str
    identifier: str = ""


class Card(Record):
    """The literal `CARD` of a module plus what discovery adds (name, room, kind, class, module, status).

    `inputs` maps the name of each artifact a step may pass in `inputs:` to one line on what it is for; a
    name ending in `?` is optional. `reads` and `writes` are columns; `{field}` stands for the value of a
    configuration field.
    """

    name: str
    room: str
    kind: Kind
    module: str
    config_class: str
    summary: str = Field(min_length=10, max_length=200)
    paper: Paper
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    inputs: dict[str, str] = Field(default_factory=dict)
    needs: tuple[str, ...] = ()
    cost: str
    baseline: str | None = None
    headline: str
    version: int = Field(ge=1)
    status: tuple[str, ...] = ()
    source_file: str = ""

    @property
    def required_inputs(self) -> tuple[str, ...]:
        """Names of inputs without which the method cannot run."""
        return tuple(name for name in self.inputs if not name.endswith("?"))


# Keys a literal CARD must and may have; the rest of Card is added by discovery.
REQUIRED_KEYS = ("name", "paper", "summary", "cost", "baseline", "headline", "version")
OPTIONAL_KEYS = ("reads", "writes", "inputs", "needs")


def card_from_literal(literal: dict[str, Any], **found: Any) -> Card:
    """Join a module's literal CARD with what discovery knows; raises ValidationError."""
    return Card(**{**literal, **found})
