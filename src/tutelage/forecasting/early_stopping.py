"""Which runs to stop early: every rule is replayed on finished cohorts before it may stop anything.

Rows (cohort, run, x, measurements ...), with the run's `final` score on each of its rows. A rule looks at a
share f of the way (rows with x <= f times the cohort's largest x, nothing later), ranks the runs by one
predictor and keeps the best share q, at least one: the last value of a measured column (validation loss,
gradient norm, loss), the curve forecast of y at the end, or successive halving, which keeps q in two rounds, at
f/2 and f. Over finished cohorts: saved = share of all x not run, regret = best final - best kept final, P(best
stopped). A rule qualifies when the upper bound of its mean regret (bootstrap over cohorts) is below the margin;
of those the one that saves most is chosen; without any, or with fewer than three finished cohorts, run all. A
random predictor is always there: it stops the best with probability 1 - kept/total. Ties go to the run id.
Killed runs stay in the ledger and their cost counts.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from scipy import stats

from tutelage.core.curve import Curve
from tutelage.core.errors import InputError
from tutelage.core.method import Forecaster, Inputs, State
from tutelage.core.text.hashing import uniform
from tutelage.forecasting._replay import bounds, choice_result, numbers
from tutelage.forecasting._shared import fitted, table

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "forecasting.early_stopping",
    "paper": {
        "title": "Unveiling the Secret Recipe: A Guide For Supervised Fine-Tuning Small LLMs",
        "identifier": "arXiv:2412.13337",
    },
    "summary": "Which of several runs to stop early, by the rule that lost least on finished cohorts.",
    "reads": ["{cohort}", "{run}", "{x}", "{y}", "{final}", "{settings}?"],
    "cost": "statistics only, over runs that are finished",
    "baseline": None,
    "headline": "early gradient norm and loss foretell final scores at 3B to 7B, the paper finds; it may reverse",
    "version": 1,
}

MIN_COHORTS = 3
Run = list[dict[str, Any]]
RANDOM = "random"


def keep_count(runs: int, share: float) -> int:
    """How many of `runs` a rule keeps."""
    return max(1, min(runs, int(np.ceil(share * runs - 1e-9))))


def replay(
    runs: Mapping[str, Run], kept: Sequence[str], stopped: Mapping[str, float], direction: int
) -> tuple[float, float, float]:
    """(saved share of x, regret, 1 if the best was stopped) when all but `kept` are `stopped` at a share of their
    way. `runs` are finished; only here is their end looked at."""
    finals = {run: direction * rows[0]["final"] for run, rows in runs.items()}
    best, reached = max(finals.values()), max(finals[run] for run in kept)
    spent = {run: rows[-1]["x"] for run, rows in runs.items()}
    saved = sum((1 - share) * spent[run] for run, share in stopped.items())
    return saved / sum(spent.values()), best - reached, float(reached < best)


class EarlyStopping(Forecaster):
    """Columns `cohort`, `run`, `x`, `y` (measured on the way), `final` (null in the cohort to decide about) and
    `settings` (runs of equal settings differ in nothing but luck; null: no such row). `higher_final`: more is
    better; `higher_y`: of y. `predictors`: other columns to rank by, `-name` where less is better. Rules: every
    predictor at every one of `fractions`, keeping every one of `shares`. `margin`: a regret that is none."""

    takes_at = False

    cohort: str = "cohort"
    run: str = "run"
    x: str = "x"
    y: str = "y"
    final: str = "final"
    settings: str | None = None
    higher_y: bool = False
    higher_final: bool = True
    predictors: tuple[str, ...] = ()
    fractions: tuple[float, ...] = (0.1, 0.25, 0.5)
    shares: tuple[float, ...] = (0.25, 0.5)
    margin: float = Field(default=0.01, gt=0)
    seed: int = Field(default=0, ge=0)

    def fit(self, points: "Dataset", inputs: Inputs) -> State:
        """The replay of every rule. Raises InputError without a finished cohort of two runs."""
        cohorts = self._cohorts(points)
        finished = {name: runs for name, runs in cohorts.items() if not self._open(runs)}
        finished = {name: runs for name, runs in finished.items() if len(runs) > 1}
        if not finished:
            raise InputError(
                "no finished cohort to replay",
                where=self.name,
                expected=f"cohorts of two runs or more with {self.final!r}",
                found=f"{len(cohorts)} cohorts, all open or of one run",
                remedy="finish one cohort first",
            )
        rules = {
            rule: {
                cohort: replay(runs, *self._decide(cohort, runs, rule, _end(runs)), 1 if self.higher_final else -1)
                for cohort, runs in finished.items()
            }
            for rule in product(self._predictors(), self.fractions, self.shares)
        }
        running = {name: runs for name, runs in cohorts.items() if self._open(runs)}
        # How far an open cohort has to go is what the finished ones went.
        end = float(np.median([_end(runs) for runs in finished.values()]))
        return {"rules": rules, "open": running, "end": end, "confound": self._confound(finished)}

    def predict(self, state: State, at: float | None) -> "Result":
        """Mean regret of the chosen rule. `extra` has what it saves, `system["keep"]` whom to keep."""
        rules, rows, found = state["rules"], [], {}
        for rule, outcomes in rules.items():
            saved, regret, missed = (np.array([one[i] for one in outcomes.values()]) for i in range(3))
            low, high = bounds(regret, self.seed)
            found[rule] = (float(saved.mean()), float(regret.mean()), high, float(missed.mean()))
            ends = f"{regret.mean():.4g} [{low:.4g}, {high:.4g}]"
            rows.append([rule[0], rule[1], rule[2], f"{saved.mean():.1%}", ends, f"{missed.mean():.2f}"])
        cohorts = len(next(iter(rules.values())))
        advise = None if cohorts >= MIN_COHORTS else f"advise only: {cohorts} of {MIN_COHORTS} finished cohorts"
        good = [rule for rule, one in found.items() if one[2] < self.margin and rule[0] != RANDOM]
        chosen = (
            min(good, key=lambda rule: (-found[rule][0], found[rule][2], rule)) if good and not advise else None
        )
        keep = {}
        if chosen is not None:
            for cohort, runs in state["open"].items():
                keep[cohort] = self._decide(cohort, runs, chosen, state["end"])[0]
        told = [
            _sentence(found, chosen, cohorts, advise or f"no rule keeps its regret below {self.margin:g} for sure")
        ]
        told += [f"{cohort}: keep {', '.join(runs)}" for cohort, runs in keep.items()]
        told += [f"{name}: correlation with the final score {r:+.2f}" for name, r in state["confound"].items()]
        heads = ["predictor", "at", "keep", "saved", "regret", "P(best stopped)"]
        # Running all is a rule too: it saves nothing and never regrets.
        regrets = {name: one[1] if chosen else 0.0 for name, one in rules[chosen or next(iter(rules))].items()}
        return choice_result(
            self,
            "regret",
            regrets,
            told=told,
            tables=[table(f"Rules replayed on {cohorts} finished cohorts", heads, rows)],
            extra={"saved": found[chosen][0] if chosen else 0.0, "qualified": float(len(good))},
            system={"rule": list(chosen) if chosen else None, "keep": keep},
            seed=self.seed,
            advise_only=advise,
        )

    def _predictors(self) -> tuple[str, ...]:
        own = self.y if self.higher_y else f"-{self.y}"
        return (own, *self.predictors, f"curve of {self.y}", f"halving by {own}", RANDOM)

    def _cohorts(self, points: "Dataset") -> dict[str, dict[str, Run]]:
        plain = [name.removeprefix("-") for name in self.predictors]
        points.require(self.cohort, self.run, self.x, self.y, self.final, *plain)
        given = list(points.rows())
        columns = {name: numbers(given, name) for name in (self.x, self.y, *plain)}
        finals = numbers(given, self.final, empty=True)
        found: dict[str, dict[str, Run]] = {}
        for i, row in enumerate(given):
            measured = {name: float(values[i]) for name, values in columns.items()}
            kept: dict[str, Any] = {**measured, "x": float(columns[self.x][i]), "final": float(finals[i])}
            kept["settings"] = row.get(self.settings) if self.settings else None
            found.setdefault(str(row[self.cohort]), {}).setdefault(str(row[self.run]), []).append(kept)
        for runs in found.values():
            for rows in runs.values():
                rows.sort(key=lambda row: row["x"])
        return found

    def _open(self, runs: Mapping[str, Run]) -> bool:
        return any(np.isnan(row["final"]) for rows in runs.values() for row in rows)

    def _decide(
        self, cohort: str, runs: Mapping[str, Run], rule: tuple[str, float, float], end: float
    ) -> tuple[list[str], dict[str, float]]:
        """(runs to keep, share of the way at which each other one stops)."""
        name, fraction, share = rule
        count = keep_count(len(runs), share)
        if not name.startswith("halving by "):
            ranked = _ranked(self._scores(cohort, runs, name, fraction * end, end))
            return ranked[:count], dict.fromkeys(ranked[count:], fraction)
        by = name.removeprefix("halving by ")
        first = _ranked(self._scores(cohort, runs, by, fraction / 2 * end, end))
        half = max(count, keep_count(len(runs), np.sqrt(share)))
        left = {run: runs[run] for run in first[:half]}
        second = _ranked(self._scores(cohort, left, by, fraction * end, end))
        early, late = dict.fromkeys(first[half:], fraction / 2), dict.fromkeys(second[count:], fraction)
        return second[:count], {**early, **late}

    def _scores(self, cohort: str, runs: Mapping[str, Run], name: str, now: float, end: float) -> dict[str, float]:
        """Predictor by run from what was measured until x = `now`; larger is kept, without a measurement last."""
        seen = {run: [row for row in rows if row["x"] <= now] for run, rows in runs.items()}
        if name == RANDOM:
            return dict(zip(runs, uniform(self.seed, [f"{cohort}/{run}/{now:g}" for run in runs]).tolist()))
        if name.startswith("curve of "):
            sign = 1 if self.higher_y else -1
            return {run: sign * self._at_end(rows, end) for run, rows in seen.items()}
        sign, column = (-1, name[1:]) if name.startswith("-") else (1, name)
        return {run: sign * rows[-1][column] if rows else -np.inf for run, rows in seen.items()}

    def _at_end(self, rows: Run, end: float) -> float:
        worst = -np.inf if self.higher_y else np.inf
        if not rows:
            return worst
        if len(rows) < 4:
            return float(rows[-1][self.y])
        curve = Curve(x=tuple(row["x"] for row in rows), y=tuple(row[self.y] for row in rows))
        return float(fitted(curve, "sat3" if self.higher_y else "power3", None).predict(end)[0])

    def _confound(self, finished: Mapping[str, Mapping[str, Run]]) -> dict[str, float]:
        """Spearman of y at the largest fraction with the final score: over all runs of a cohort, and within equal
        settings; means over cohorts."""
        groups: dict[str, list[float]] = {"among all runs": [], "within equal settings": []}
        for runs in finished.values():
            end = _end(runs)
            scores = self._scores("", runs, self._predictors()[0], max(self.fractions) * end, end)
            parts: dict[str, list[Sequence[str]]] = {"among all runs": [sorted(runs)], "within equal settings": []}
            if self.settings:
                kinds = {run: str(rows[0]["settings"]) for run, rows in runs.items()}
                parts["within equal settings"] = [
                    sorted(run for run in runs if kinds[run] == kind) for kind in sorted(set(kinds.values()))
                ]
            for name, chosen in parts.items():
                for part in chosen:
                    a, b = [scores[run] for run in part], [runs[run][0]["final"] for run in part]
                    if len(part) > 2 and len(set(a)) > 1 and len(set(b)) > 1:
                        groups[name].append(float(stats.spearmanr(a, b).statistic))
        return {name: float(np.mean(values)) for name, values in groups.items() if values}


def _ranked(scores: Mapping[str, float]) -> list[str]:
    """Best first, ties by run id."""
    return sorted(scores, key=lambda run: (-scores[run], run))


def _end(runs: Mapping[str, Run]) -> float:
    return max(rows[-1]["x"] for rows in runs.values())


def _sentence(
    found: Mapping[Any, tuple[float, float, float, float]], chosen: Any, cohorts: int, otherwise: str
) -> str:
    if chosen is None:
        return f"run all: {otherwise}"
    (saved, regret, most, missed), luck = found[chosen], found[RANDOM, *chosen[1:]]
    return (
        f"stop by {chosen[0]} at {chosen[1]:.0%} of the way, keeping {chosen[2]:.0%}: saves {saved:.1%}, regret "
        f"{regret:.4g} (at most {most:.4g}), stops the best in {missed:.0%} of {cohorts} cohorts; random: regret "
        f"{luck[1]:.4g}, stops the best in {luck[3]:.0%}"
    )
