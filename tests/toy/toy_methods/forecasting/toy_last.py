"""A forecast that says the last value again; for tests only."""

from tutelage.core.method import Forecaster
from tutelage.core.records import Result

CARD = {
    "name": "forecasting.toy_last",
    "paper": {"title": "Common practice"},
    "summary": "The last value.",
    "cost": "none",
    "baseline": None,
    "headline": "none",
    "version": 1,
}


class ToyLast(Forecaster):
    """No fields."""

    def fit(self, points, inputs):
        rows = list(points.rows())
        return {"last": rows[-1]["y"], "x": rows[-1]["x"]}

    def predict(self, state, at):
        return Result(
            task=self.name,
            metric="skill",
            direction=1,
            estimate=state["last"] + at,
            no_interval="toy",
            n_items=1,
            extra={"x": state["x"]},
        )
