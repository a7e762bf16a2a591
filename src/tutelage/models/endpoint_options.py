"""What a recipe may say about an endpoint: how much may be spent there, at what prices, and how it is asked."""

from typing import Literal

from pydantic import Field

from tutelage.core.records import Budget, Record


class Prices(Record):
    """Currency per million tokens."""

    prompt: float = Field(default=0.0, ge=0)
    completion: float = Field(default=0.0, ge=0)

    def of(self, prompt: int, completion: int) -> float:
        """What so many tokens cost."""
        return (prompt * self.prompt + completion * self.completion) / 1e6


class EndpointOptions(Record):
    """How a recipe asks an endpoint: see `EndpointLM`. `max_spend` is in the currency of `prices`."""

    budget: Budget | None = None
    prices: Prices = Prices()
    max_spend: float | None = Field(default=None, gt=0)
    concurrency: int = Field(default=4, ge=1)
    timeout: float = Field(default=120.0, gt=0)
    api: Literal["chat", "completions"] = "chat"
