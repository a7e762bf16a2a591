"""Training as arithmetic: skill grows with the mean worth of the rows seen and the logarithm of the tokens.

A token costs 6 FLOPs. `diverges` breaks down after 30 of them, `again` and again; INTERRUPT_AT interrupts it once.
"""

import json
import math
from pathlib import Path

from pydantic import Field

from tutelage.core.errors import TrainingError
from tutelage.core.method import Method
from tutelage.core.records import Budget, Cost, Record
from tutelage.core.text.hashing import uniform

CARD = {
    "name": "training.toy_fit",
    "paper": {"title": "Common practice"},
    "summary": "Arithmetic that looks like training.",
    "reads": ["worth", "n_tokens"],
    "inputs": {"model": "a toy model", "reference?": "rows that are ignored"},
    "cost": "6 FLOPs a token",
    "baseline": None,
    "headline": "none",
    "version": 1,
}

INTERRUPT_AT: list[int] = []
TRAINED_ROWS: list[int] = []


class ToyRecord(Record):
    cost: Cost
    tokens: int
    rate: float
    history: tuple[dict[str, float], ...] = ()


class ToyFit(Method):
    """`rate` is best at 1; `seed` moves the result a little."""

    budget: Budget | None = None
    rate: float = Field(default=1.0, gt=0)
    diverges: bool = False
    again: bool = True
    noise: float = 0.01
    seed: int = 0

    def train(self, model, dataset, inputs, *, checkpoint_dir, resume, evaluators, progress, on_event):
        from toy.toy_methods.model import ToyModel

        if self.diverges:
            TRAINED_ROWS.append(-1)
            cost = Cost(forward_flops=60.0, backward_flops=120.0, trained_tokens=30)
            raise TrainingError("the loss is not finite", where="step 3", repeats=self.again, cost=cost)
        limit = self.budget or Budget(rows=dataset.num_rows)
        rows = list(dataset.rows(["worth", "n_tokens"]))
        state = {"row": 0, "tokens": 0, "worth": 0.0}
        file = Path(checkpoint_dir) / "state.json"
        if resume and file.exists():
            state = json.loads(file.read_text(encoding="utf-8"))
        while not self._spent(state, limit):
            if INTERRUPT_AT and state["row"] == INTERRUPT_AT[0]:
                INTERRUPT_AT.clear()
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(state), encoding="utf-8")
                raise KeyboardInterrupt
            row = rows[state["row"] % len(rows)]
            TRAINED_ROWS.append(state["row"])
            # The last row is cut, so that a budget is met to the token.
            tokens = (
                row["n_tokens"] if limit.flops is None else min(row["n_tokens"], limit.flops / 6 - state["tokens"])
            )
            state = {
                "row": state["row"] + 1,
                "tokens": state["tokens"] + tokens,
                "worth": state["worth"] + row["worth"] * tokens,
            }
            on_event({"event": "step", "loss": 1.0 / state["row"], "learning_rate": self.rate})
        mean = state["worth"] / state["tokens"]
        luck = self.noise * (float(uniform(inputs["seed"], ["x"])[0]) - 0.5)
        gain = mean * math.log1p(state["tokens"]) / (1 + math.log(self.rate) ** 2)
        trained = ToyModel(model.skill + gain + luck)
        cost = Cost(
            forward_flops=2.0 * state["tokens"],
            backward_flops=4.0 * state["tokens"],
            trained_tokens=int(state["tokens"]),
        )
        history = tuple({f"{name}/{k}": v for k, v in run(trained).items()} for name, run in evaluators)
        return trained, ToyRecord(cost=cost, tokens=int(state["tokens"]), rate=self.rate, history=history)

    def _spent(self, state, limit) -> bool:
        done = {
            "rows": state["row"],
            "tokens": state["tokens"],
            "flops": 6.0 * state["tokens"],
            "seconds": state["row"] * 1e-3,
        }
        return any(done[name] >= value - 1e-9 for name in done if (value := getattr(limit, name)) is not None)
