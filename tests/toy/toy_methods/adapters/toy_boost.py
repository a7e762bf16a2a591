"""An adapter that adds to a toy model's skill; for tests only."""

from tutelage.core.method import Adapter

CARD = {
    "name": "adapters.toy_boost",
    "paper": {"title": "Common practice"},
    "summary": "Adds to the skill.",
    "inputs": {"base": "a toy model"},
    "cost": "none",
    "baseline": None,
    "headline": "none",
    "version": 1,
}


class ToyBoost(Adapter):
    """`amount` is added."""

    amount: float = 0.5

    def convert(self, models, dataset, inputs):
        from toy.toy_methods.model import ToyModel

        return ToyModel(models["base"].skill + self.amount)
