"""What tuning would reach, foretold from what the base model does with a few examples in its prompt.

Rows (model, task, k-shot score, zero-shot score, coverage, tuned score); rows without a tuned score are foretold.
Ridge: tuned = alpha + beta k_shot + gamma zero_shot + delta coverage + task effect, with standardised
covariates and a penalty lambda on everything but alpha. The back-test leaves out one model, and then one task,
at a time, beside three naive forecasts: identity (tuned = k-shot), the task's mean and the model's mean over
what is left. Skill is 1 - mean |error| / the best naive one's. The rank correlation of k-shot and tuned has a
bootstrap over models and tasks together. With fewer than six models everything is descriptive and nothing is
shown as a forecast. Ridge, task effect and thresholds are ours; the paper reports the correlation.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field
from scipy import stats

from tutelage.core.errors import InputError
from tutelage.core.method import Forecaster, Inputs, State
from tutelage.core.records import Interval, Result
from tutelage.forecasting._shared import LEVEL, table, task_name

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset

CARD = {
    "name": "forecasting.in_context_ceiling",
    "paper": {
        "title": "The Inherent Limits of Pretrained LLMs: The Unexpected Convergence of Instruction Tuning and "
        "In-Context Learning Capabilities",
        "identifier": "arXiv:2501.08716",
    },
    "summary": "Tuned scores foretold from few-shot scores of base models, to see whether tuning is worth it.",
    "reads": ["{model}", "{task}", "{k_shot}", "{tuned}", "zero_shot?", "coverage?"],
    "cost": "few-shot evaluations only, once the table of tuned models exists",
    "baseline": None,
    "headline": "what a base model does in context bounds and predicts what tuning reaches, the paper finds",
    "version": 1,
}

MIN_MODELS = 6
COVARIATES = ("zero_shot", "coverage")


def ridge(x: np.ndarray, y: np.ndarray, tasks: np.ndarray, penalty: float) -> dict[str, Any]:
    """Constants of tuned on covariates x [n, k] with an effect for each task; the intercept is not penalised."""
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    names = np.unique(tasks)
    design = np.concatenate([(x - mean) / spread, (tasks[:, None] == names).astype(float)], axis=1)
    centre = design.mean(axis=0)
    inner = (design - centre).T @ (design - centre) + penalty * np.eye(design.shape[1])
    beta = np.linalg.solve(inner, (design - centre).T @ (y - y.mean()))
    slopes, effects = beta[: x.shape[1]] / spread, beta[x.shape[1] :]
    alpha = y.mean() - centre @ beta - slopes @ mean
    return {"alpha": float(alpha), "slopes": slopes, "effects": dict(zip(names.tolist(), effects.tolist()))}


def ridge_predict(found: dict[str, Any], x: np.ndarray, tasks: np.ndarray) -> np.ndarray:
    """[n] predictions; a task that was not fitted has no effect."""
    effects = np.array([found["effects"].get(task, 0.0) for task in tasks.tolist()])
    return found["alpha"] + x @ found["slopes"] + effects


def left_out(
    x: np.ndarray, y: np.ndarray, groups: dict[str, np.ndarray], by: str, penalty: float
) -> dict[str, np.ndarray]:
    """Errors [n] of the ridge and of the naive forecasts, every `by` (model or task) foretold from the others."""
    errors = {name: np.full(len(y), np.nan) for name in ("ridge", "identity", "task mean", "model mean")}
    for one in np.unique(groups[by]):
        out = groups[by] == one
        known = ~out
        said = ridge_predict(
            ridge(x[known], y[known], groups["task"][known], penalty), x[out], groups["task"][out]
        )
        errors["ridge"][out] = said - y[out]
        errors["identity"][out] = x[out, 0] - y[out]
        for kind in ("task", "model"):
            for i in np.flatnonzero(out):
                same = known & (groups[kind] == groups[kind][i])
                errors[f"{kind} mean"][i] = (y[same] if same.any() else y[known]).mean() - y[i]
    return errors


def rank_correlation(
    a: np.ndarray, b: np.ndarray, groups: dict[str, np.ndarray], draws: int, seed: int
) -> tuple[float, float, float]:
    """(Spearman, lower, upper) with models and tasks resampled together, as weights of whole rows."""
    generator = np.random.default_rng(seed)
    indices = {kind: np.unique(groups[kind], return_inverse=True) for kind in ("model", "task")}
    found = []
    for _ in range(draws):
        weight = np.ones(len(a), dtype=int)
        for names, place in indices.values():
            counts = np.bincount(generator.integers(0, len(names), len(names)), minlength=len(names))
            weight *= counts[place]
        rows = np.repeat(np.arange(len(a)), weight)
        if len(np.unique(a[rows])) > 1 and len(np.unique(b[rows])) > 1:
            found.append(stats.spearmanr(a[rows], b[rows]).statistic)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if found else (np.nan, np.nan)
    return float(stats.spearmanr(a, b).statistic), float(low), float(high)


class InContextCeiling(Forecaster):
    """`model`, `task`, `k_shot`, `tuned`: columns; `tuned` is null where it is to be foretold. `penalty`: lambda.
    `margin`: the gain over k-shot that tuning must bring to be worth its cost. `draws`: of the bootstrap."""

    takes_at = False

    model: str = "model"
    task: str = "task"
    k_shot: str = "k_shot"
    tuned: str = "tuned"
    penalty: float = Field(default=1.0, ge=0)
    margin: float = Field(default=0.0, ge=0)
    draws: int = Field(default=500, ge=100)
    seed: int = Field(default=0, ge=0)

    def fit(self, points: "Dataset", inputs: Inputs) -> State:
        """Both back-tests and the fit on all rows. Raises InputError without two models, two tasks or a score."""
        names = [name for name in COVARIATES if name in points.column_names]
        points.require(self.model, self.task, self.k_shot, self.tuned)
        x = np.stack([points.numpy(name).astype(float) for name in (self.k_shot, *names)], axis=1)
        bad = np.flatnonzero(~np.isfinite(x).all(axis=1))
        if len(bad):
            found = dict(zip((self.k_shot, *names), x[bad[0]].tolist()))
            raise InputError(
                "a row lacks a score", where=f"row {points.ids()[bad[0]]}", expected="finite scores", found=found
            )
        y = points.numpy(self.tuned).astype(float)
        groups = {
            kind: np.array([str(one) for one in points.column(name).to_pylist()])
            for kind, name in (("model", self.model), ("task", self.task))
        }
        known = np.isfinite(y)
        inside = {kind: values[known] for kind, values in groups.items()}
        for kind, values in inside.items():
            if len(np.unique(values)) < 2:
                raise InputError(
                    f"too few {kind}s with a tuned score",
                    where=self.name,
                    expected=f"two {kind}s (six models for a forecast)",
                    found=f"{len(np.unique(values))}",
                    remedy="measure tuned scores of more models and tasks",
                )
        tests = {by: left_out(x[known], y[known], inside, by, self.penalty) for by in ("model", "task")}
        law = ridge(x[known], y[known], inside["task"], self.penalty)
        rank = rank_correlation(x[known, 0], y[known], inside, self.draws, self.seed)
        return {"x": x, "y": y, "groups": groups, "tests": tests, "law": law, "rank": rank, "names": names}

    def predict(self, state: State, at: float | None) -> Result:
        """Mean tuned score foretold over the rows without one (over all rows where every one has it)."""
        x, y, groups, errors = state["x"], state["y"], state["groups"], state["tests"]["model"]
        known = np.isfinite(y)
        asked = ~known if (~known).any() else known
        typical = {name: float(np.abs(values).mean()) for name, values in errors.items()}
        naive = min((name for name in typical if name != "ridge"), key=lambda name: typical[name])
        skill = 1 - typical["ridge"] / max(typical[naive], 1e-12)
        models = len(np.unique(groups["model"][known]))
        enough, good = models >= MIN_MODELS, skill > 0
        said = ridge_predict(state["law"], x[asked], groups["task"][asked])
        shown = said if enough and good else x[asked, 0]
        # Errors of whole models that were left out: each model once, so that its tasks do not count as new models.
        by_model = [
            errors["ridge"][groups["model"][known] == one].mean() for one in np.unique(groups["model"][known])
        ]
        half = float(stats.t.ppf((1 + LEVEL) / 2, models - 1) * np.std(by_model, ddof=1) * np.sqrt(1 + 1 / models))
        worth = [
            float((said[i] - errors["ridge"] - x[asked][i, 0] > self.margin).mean()) for i in range(len(said))
        ]
        status = "descriptive only: fewer than six models" if not enough else "skill" if good else "no skill"
        tell = [
            f"tuned score of {len(said)} rows: {shown.mean():.4g} ({status}); leaving one model out, mean error "
            f"{typical['ridge']:.4g} against {typical[naive]:.4g} ({naive}); skill {skill:+.2f}",
            "Spearman of k-shot and tuned {:.2f} [{:.2f}, {:.2f}], models and tasks resampled".format(
                *state["rank"]
            ),
        ]
        if not (enough and good):
            tell.append("the k-shot score is shown instead")
        interval = Interval(
            lo=float(shown.mean()) - half,
            hi=float(shown.mean()) + half,
            method="t over left-out models",
            covers="points",
        )
        return Result(
            task=task_name(self),
            metric=f"forecast {self.tuned}",
            direction=1,
            estimate=float(shown.mean()),
            interval=interval if enough and good else None,
            no_interval=None if enough and good else status,
            n_items=int(known.sum()),
            n_clusters=models,
            system={"name": f"{models} models", "told": tell, "tables": self._tables(state, asked, said, worth)},
            extra=self._figures(state, typical, skill, worth),
        )

    def _figures(
        self, state: State, typical: dict[str, float], skill: float, worth: list[float]
    ) -> dict[str, float]:
        slopes = dict(zip(("beta_k_shot", *(f"beta_{name}" for name in state["names"])), state["law"]["slopes"]))
        tasks = {f"error_{n}_new_task": float(np.abs(e).mean()) for n, e in state["tests"]["task"].items()}
        rho, low, high = state["rank"]
        found = {f"error_{name}": value for name, value in typical.items()} | tasks | slopes
        found |= {"skill": skill, "spearman": rho, "spearman_lo": low, "spearman_hi": high}
        found["p_worth"] = float(np.mean(worth))
        return {name.replace(" ", "_"): float(value) for name, value in found.items() if np.isfinite(value)}

    def _tables(
        self, state: State, asked: np.ndarray, said: np.ndarray, worth: list[float]
    ) -> list[dict[str, Any]]:
        groups, x = state["groups"], state["x"]
        rows = [
            [groups["model"][i], groups["task"][i], f"{x[i, 0]:.4g}", f"{value:.4g}", f"{chance:.2f}"]
            for i, value, chance in zip(np.flatnonzero(asked), said, worth)
        ]
        heads = ["model", "task", "k-shot", "tuned, foretold", f"P(gain > {self.margin:g})"]
        return [table("What tuning would reach", heads, rows[:50])]
