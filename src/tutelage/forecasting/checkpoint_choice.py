"""Which checkpoint to keep with few labels or none: each criterion must first earn it on runs that have labels.

Rows (run, x, criteria ..., score): checkpoints of past runs with their true score, and of the run to decide
about (score null). Rules: the last checkpoint; the best of each criterion (validation loss, effective rank,
agreement, a tiny labelled set ...); the earliest within one standard error of a criterion's best, where a
column `<criterion>_se` is there; the best mean rank of all criteria. On past runs regret = best score - score
of the choice, and Kendall's tau of criterion and score. The rule of smallest upper regret bound (bootstrap over
runs) is chosen, ties go to `last`; with fewer than five past runs it is `last`. The regret reported is that of
the whole procedure: for each past run the rule is chosen on the others. Label-free scores compare checkpoints
of one architecture on the same texts only; that they follow quality is a hypothesis for language models. The
minimum of five runs is ours.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from scipy import stats

from tutelage.core.errors import InputError
from tutelage.core.method import Forecaster, Inputs, State
from tutelage.forecasting._replay import bounds, choice_result, numbers
from tutelage.forecasting._shared import table

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "forecasting.checkpoint_choice",
    "paper": {
        "title": "An Unsupervised Method for Estimating Class Separability of Datasets with Application to LLMs "
        "Fine-Tuning",
        "identifier": "arXiv:2305.15016",
    },
    "summary": "Which checkpoint to keep without labels, by the criterion that lost least on labelled runs.",
    "reads": ["{run}", "{x}", "{score}"],
    "cost": "statistics only; the criteria cost one forward pass a checkpoint and probe set",
    "baseline": None,
    "headline": "label-free scores choose nearly as well as labels, the papers find; test it on your runs",
    "version": 1,
}

MIN_RUNS = 5
LAST = "last"
Rows = Mapping[str, np.ndarray]


def choose(rows: Rows, rule: str) -> int:
    """Index of the checkpoint that a rule keeps; `rows` are columns in the order of x, larger is better. Equal
    values go to the later checkpoint."""
    if rule == LAST:
        return len(rows["x"]) - 1
    if rule.startswith("one se of "):
        name = rule.removeprefix("one se of ")
        best = _latest_best(rows[name])
        return int(np.flatnonzero(rows[name] >= rows[name][best] - rows[f"{name}_se"][best])[0])
    if rule == "mean rank":
        names = [name for name in rows if name not in ("x", "score") and not name.endswith("_se")]
        return _latest_best(np.mean([stats.rankdata(rows[name]) for name in names], axis=0))
    return _latest_best(rows[rule])


def _latest_best(values: np.ndarray) -> int:
    return int(np.flatnonzero(values >= values.max() - 1e-12 * max(1.0, abs(float(values.max()))))[-1])


def earned(regrets: Mapping[str, np.ndarray], seed: int) -> str:
    """The rule of smallest upper regret bound over runs [g]; `last` where it is as good, or runs are too few."""
    count = len(next(iter(regrets.values())))
    if count < MIN_RUNS:
        return LAST
    upper = {rule: bounds(values, seed)[1] for rule, values in regrets.items()}
    return min(upper, key=lambda rule: (round(upper[rule], 12), rule != LAST, rule))


class CheckpointChoice(Forecaster):
    """Columns `run`, `x` and `score` (larger is better; null in the run to decide about). `criteria`: columns to
    choose by, `-name` where less is better."""

    takes_at = False

    run: str = "run"
    x: str = "x"
    score: str = "score"
    criteria: tuple[str, ...] = ("-validation_loss",)
    seed: int = Field(default=0, ge=0)

    def fit(self, points: "Dataset", inputs: Inputs) -> State:
        """Regret and tau of every rule on every past run. Raises InputError for a criterion that is not finite and
        without a past run of two checkpoints."""
        runs = self._runs(points)
        past = {
            name: rows for name, rows in runs.items() if np.isfinite(rows["score"]).all() and len(rows["x"]) > 1
        }
        if not past:
            raise InputError(
                "no past run to learn from",
                where=self.name,
                expected=f"runs of two checkpoints or more, each with {self.score!r}",
                found=f"{len(runs)} runs",
                remedy="label a small test set and score the checkpoints of finished runs",
            )
        regrets, taus = {}, {}
        for rule in self._rules(next(iter(past.values()))):
            regrets[rule] = np.array(
                [rows["score"].max() - rows["score"][choose(rows, rule)] for rows in past.values()]
            )
            values = [_tau(rows, rule) for rows in past.values()]
            known = [value for value in values if value is not None]
            taus[rule] = float(np.mean(known)) if known else None
        open_runs = {name: rows for name, rows in runs.items() if not np.isfinite(rows["score"]).any()}
        return {"regrets": regrets, "taus": taus, "past": list(past), "open": open_runs}

    def predict(self, state: State, at: float | None) -> "Result":
        """Regret of the procedure; `system["chosen"]` has the rule and the x to keep of every open run."""
        regrets, past = state["regrets"], state["past"]
        rule = earned(regrets, self.seed)
        honest = {}
        for number, name in enumerate(past):
            others = {key: np.delete(values, number) for key, values in regrets.items()}
            # With exactly enough runs the others alone are too few: then the procedure says `last`.
            honest[f"run {name}"] = float(regrets[earned(others, self.seed) if len(past) > 1 else LAST][number])
        keep = {name: float(rows["x"][choose(rows, rule)]) for name, rows in state["open"].items()}
        few = len(past) < MIN_RUNS
        why = (
            f"{len(past)} of {MIN_RUNS} past runs: nothing has earned more"
            if few
            else "smallest upper regret bound"
        )
        mean, last = regrets[rule].mean(), regrets[LAST].mean()
        told = [
            f"keep by {rule} ({why}): regret {mean:.4g} on {len(past)} past runs, last checkpoint {last:.4g}; "
            f"choosing the rule without each run itself {np.mean(list(honest.values())):.4g}"
        ]
        told += [
            f"{name}: keep {x:g}; measure it again on items that no criterion saw" for name, x in keep.items()
        ]
        rows = []
        for key, values in regrets.items():
            low, high = bounds(values, self.seed)
            tau = state["taus"][key]
            rows.append(
                [key, f"{values.mean():.4g}", f"[{low:.4g}, {high:.4g}]", "" if tau is None else f"{tau:+.2f}"]
            )
        extra = {f"regret[{key}]": float(values.mean()) for key, values in regrets.items()}
        extra |= {f"tau[{key}]": value for key, value in state["taus"].items() if value is not None}
        return choice_result(
            self,
            "regret",
            honest,
            told=told,
            tables=[table("Criteria on past runs", ["rule", "regret", "interval", "Kendall tau"], rows)],
            extra=extra,
            system={"chosen": {"rule": rule, "keep": keep}},
            seed=self.seed,
            advise_only=f"{len(past)} of {MIN_RUNS} past runs" if few else None,
        )

    def _runs(self, points: "Dataset") -> dict[str, dict[str, np.ndarray]]:
        plain = [name.removeprefix("-") for name in self.criteria]
        points.require(self.run, self.x, self.score, *plain)
        rows = list(points.rows())
        columns = {"x": numbers(rows, self.x), "score": numbers(rows, self.score, empty=True)}
        for name, given in zip(plain, self.criteria):
            columns[name] = numbers(rows, name) * (-1 if given.startswith("-") else 1)
            if f"{name}_se" in points.column_names:
                columns[f"{name}_se"] = numbers(rows, f"{name}_se")
        names = np.array([str(row[self.run]) for row in rows])
        found = {}
        for name in dict.fromkeys(names.tolist()):
            mine = np.flatnonzero(names == name)
            mine = mine[np.argsort(columns["x"][mine], kind="stable")]
            found[name] = {key: values[mine] for key, values in columns.items()}
        return found

    def _rules(self, rows: Rows) -> list[str]:
        names = [name.removeprefix("-") for name in self.criteria]
        combined = ["mean rank"] if len(names) > 1 else []
        return [LAST, *names, *(f"one se of {name}" for name in names if f"{name}_se" in rows), *combined]


def _tau(rows: Rows, rule: str) -> float | None:
    """Kendall's tau of a criterion and the score over the checkpoints of one run; None where it is undefined."""
    values: Any = rows["x"] if rule == LAST else rows.get(rule)
    if values is None or len(set(values.tolist())) < 2 or len(set(rows["score"].tolist())) < 2:
        return None
    return float(stats.kendalltau(values, rows["score"]).statistic)
