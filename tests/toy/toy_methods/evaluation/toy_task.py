"""A measurement: the score of an item is the model's skill less the item's difficulty; for tests only."""

from tutelage.core.items import ItemLog, item_keys
from tutelage.core.method import Inputs, Task
from tutelage.core.records import Result
from tutelage.core.stats.intervals import summarise

CARD = {
    "name": "evaluation.toy_task",
    "paper": {"title": "Common practice"},
    "summary": "Skill less difficulty.",
    "reads": ["difficulty"],
    "inputs": {"model": "a toy model"},
    "cost": "1 FLOP an item",
    "baseline": None,
    "headline": "none",
    "version": 1,
}


class ToyTask(Task):
    """`scale` multiplies every score."""

    scale: float = 1.0

    def evaluate(self, model, dataset, inputs: Inputs) -> Result:
        rows = list(dataset.rows(["id", "difficulty"]))
        keys = item_keys(self.name, rows)
        model.meter.add(forward_flops=float(len(rows)))
        # A wobble by skill and item, so that differences between systems vary over items.
        scores = [
            self.scale * (model.skill - row["difficulty"])
            + 0.01 * ((hash((round(model.skill, 6), i)) % 1000) / 1000 - 0.5)
            for i, row in enumerate(rows)
        ]
        log = ItemLog.from_rows({"item_key": k, "score": s} for k, s in zip(keys, scores, strict=True))
        found = summarise(log)
        return Result(
            task=self.name,
            metric="skill",
            direction=1,
            estimate=found.estimate,
            interval=found.interval,
            no_interval=found.no_interval,
            n_items=found.n_items,
        ).with_items(log)
