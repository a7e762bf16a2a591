"""Design-based supervised learning: what machine labels say about a population, corrected by a few gold labels.

Of N rows a random part has a gold outcome Y (R = 1), row i with known probability pi_i. g predicts Y from the
machine label and the features, fitted on labelled rows of other folds (K folds, clusters kept together), and

    Y~_i = g_i + R_i / pi_i (Y_i - g_i),    sum_i x_i (Y~_i - h(x_i' theta)) = 0,

with h the identity (x = 1: the mean; with covariates: linear regression) or the logistic function. Since Y~ has
the mean of Y whatever g is, wrong machine labels cost width and never validity. V = J^-1 B J^-T / N with B the
mean outer product of the moments, summed within clusters first. Over S random splits into folds the estimate is
the median, and se^2 the median of se_s^2 + (theta_s - estimate)^2. Departure from the paper: only the outcome may
be labelled by machine, never a covariate.
"""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator
from scipy import special, stats

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.records import Interval
from tutelage.evaluation._dsl import Design, cross_fit, read_design
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.dsl",
    "paper": {
        "title": "Using Imperfect Surrogates for Downstream Inference: Design-based Supervised Learning for "
        "Social Science Applications of Large Language Models",
        "identifier": "arXiv:2306.04746",
    },
    "summary": "Shares and regressions from machine labels and a random sample of gold ones, intervals valid.",
    "reads": ["{gold}", "{surrogate}", "{inclusion}?", "{label_source}?"],
    "needs": ["train"],
    "cost": "folds times splits small fits, no model",
    "baseline": None,
    "headline": "valid whatever the machine's errors; as narrow as they allow, and never far from gold alone",
    "version": 1,
}


def solve(
    x: np.ndarray, outcome: np.ndarray, weight: np.ndarray, logistic: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(theta [p], moments [N, p], J^-1 [p, p]) of sum_i w_i x_i (outcome_i - h(x_i' theta)) = 0.

    Raises InputError for covariates that depend on each other, or a logistic fit without a solution.
    """
    used = weight > 0
    if np.linalg.matrix_rank(x[used]) < x.shape[1]:
        raise InputError(
            "the covariates depend on each other",
            where="covariates",
            expected="columns of which none follows from the others, also among the rows with gold labels",
            found=f"{used.sum()} rows",
            remedy="leave out the constant or repeated one, or add gold labels",
        )
    root = np.sqrt(weight)
    if logistic:
        theta = _newton(x, outcome, weight)
        fitted = special.expit(x @ theta)
        bend = weight * fitted * (1 - fitted)
    else:
        theta = np.linalg.lstsq(x * root[:, None], outcome * root, rcond=None)[0]
        fitted, bend = x @ theta, weight
    inverse = np.linalg.inv((x * bend[:, None]).T @ x / len(x))
    return theta, x * (weight * (outcome - fitted))[:, None], inverse


def _newton(x: np.ndarray, outcome: np.ndarray, weight: np.ndarray) -> np.ndarray:
    theta = np.zeros(x.shape[1])
    for _ in range(100):
        fitted = special.expit(x @ theta)
        bend = (x * (weight * fitted * (1 - fitted))[:, None]).T @ x
        if np.linalg.cond(bend) > 1e14:
            break
        step = np.linalg.solve(bend, x.T @ (weight * (outcome - fitted)))
        # Corrected outcomes leave [0, 1], so that a full step may go too far.
        theta = theta + step * min(1.0, 5.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-10:
            return theta
    raise InputError(
        "the logistic regression has no solution",
        where="covariates",
        expected="outcomes that the covariates do not separate",
        remedy="use estimand: linear, fewer covariates or more gold labels",
    )


def sandwich(moments: np.ndarray, inverse: np.ndarray, clusters: np.ndarray | None) -> np.ndarray:
    """[p, p] variance of theta: J^-1 B J^-T / N, moments [N, p] summed within `clusters` [N] first."""
    n = len(moments)
    if clusters is not None:
        _, place = np.unique(clusters, return_inverse=True)
        moments = np.stack([np.bincount(place, weights=column) for column in moments.T], axis=1)
    return inverse @ (moments.T @ moments / n) @ inverse.T / n


class Dsl(Task):
    """`gold` holds the outcome of sampled rows and null elsewhere: a number, or classes of which `positive` is 1.
    `surrogate` is the machine's label, probability or list of probabilities; null is a value of its own.
    `inclusion` is the probability with which a row was drawn for gold labelling; `rescale` scales it to the drawn
    share, for probabilities known up to a factor. `coefficient` is the covariate to report (null: the first).
    `features` are further numeric columns that `learner` may use: a random forest, least squares, or the
    surrogate as it is. With `half_width`, what a mean's interval should be on either side, `gold_needed` tells how
    many gold rows, drawn at random, that takes with these machine labels. For the difference of two systems give
    the differences of their scores as gold and surrogate: one draw of items serves both."""

    estimand: Literal["mean", "linear", "logistic"] = "mean"
    gold: str = "label"
    surrogate: str = "teacher_label"
    inclusion: str = "inclusion"
    label_source: str = "label_source"
    positive: str | None = None
    covariates: tuple[str, ...] = ()
    coefficient: str | None = None
    features: tuple[str, ...] = ()
    learner: Literal["forest", "linear", "surrogate"] = "forest"
    folds: int = Field(default=5, ge=2)
    splits: int = Field(default=10, ge=1)
    rescale: bool = False
    half_width: float | None = Field(default=None, gt=0)
    level: float = Field(default=0.95, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> "Dsl":
        if (self.estimand == "mean") == bool(self.covariates):
            raise ValueError("covariates go with estimand linear or logistic, and these need at least one")
        if self.half_width is not None and self.estimand != "mean":
            raise ValueError("half_width plans the gold labels of a mean")
        if self.coefficient is not None and self.coefficient not in self.covariates:
            raise ValueError(f"coefficient is one of the covariates {list(self.covariates)}")
        return self

    def evaluate(self, model: Any, dataset: "Dataset", inputs: Inputs) -> "Result":
        """The mean of the outcome, or one coefficient. `extra`: every coefficient with its error, gold alone, the
        machine's labels at face value, and by what factor these labels stretch the gold ones.

        Raises InputError for gold labels that were not drawn with known probability.
        """
        dataset.require(self.gold, self.surrogate)
        work = Measurement(self, None, dataset, inputs)
        design = read_design(self, work.rows)
        names = ("mean",) if self.estimand == "mean" else ("intercept", *self.covariates)
        wanted = names.index(self.coefficient) if self.coefficient else min(1, len(names) - 1)
        logistic, every = self.estimand == "logistic", np.ones(len(work.rows))

        def fit(outcome: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            theta, moments, inverse = solve(design.x, outcome, weight, logistic)
            variance = np.diagonal(sandwich(moments, inverse, design.clusters))
            return theta, variance, (moments @ inverse.T)[:, wanted]

        fits = [
            fit(design.corrected(cross_fit(self, design, self.seed * 1_000_003 + split)), every)
            for split in range(self.splits)
        ]
        missed = np.nan_to_num(design.outcome) - cross_fit(self, design, self.seed * 1_000_003)
        thetas = np.array([theta for theta, _, _ in fits])
        point = np.median(thetas, axis=0)
        error = np.sqrt(np.median([v + (theta - point) ** 2 for theta, v, _ in fits], axis=0))
        influence = np.mean([one for _, _, one in fits], axis=0)
        for row, score, gold in zip(work.rows, point[wanted] + influence - influence.mean(), design.outcome):
            said = row.get(self.surrogate)
            work.add(
                row,
                score=float(score),
                prediction=None if said is None else str(said),
                target=None if np.isnan(gold) else f"{gold:g}",
            )
        drawn = design.labelled / design.inclusion
        alone, spread, _ = fit(np.nan_to_num(design.outcome), drawn)
        extra = {"se": error[wanted], "gold_rows": design.labelled.sum(), "gold_only": alone[wanted]}
        extra["gold_only_se"] = np.sqrt(spread[wanted])
        extra["gold_stretch"] = spread[wanted] / error[wanted] ** 2
        if self.estimand == "mean":
            extra |= self._planned(design, missed)
        if not np.isnan(design.face).all():
            naive, spread, _ = fit(np.nan_to_num(design.face), 1.0 - np.isnan(design.face))
            extra |= {"machine_only": naive[wanted], "machine_only_se": np.sqrt(spread[wanted])}
        for number, name in enumerate(names) if len(names) > 1 else ():
            extra |= {f"b[{name}]": point[number], f"se[{name}]": error[number]}
        half = float(stats.norm.isf((1 - self.level) / 2) * error[wanted])
        interval = Interval(
            lo=float(point[wanted]) - half,
            hi=float(point[wanted]) + half,
            level=self.level,
            method="normal, design-based" + (", cluster-robust" if design.clusters is not None else ""),
            covers="items+labels" if design.clusters is None else "clusters",
        )
        metric = self.estimand if len(names) == 1 else f"{self.estimand} coefficient of {names[wanted]}"
        found = work.result(metric, direction=1, extra={key: float(value) for key, value in extra.items()})
        return found.model_copy(update={"interval": interval, "no_interval": None})

    def _planned(self, design: Design, missed: np.ndarray) -> dict[str, float]:
        """`residual_share` = V / var(Y), V = var(Y - g), below 1 where the machine's labels are worth having; and
        n from half^2 = z^2 (var(Y) / N + V (1/n - 1/N)), left out where no number of gold rows would do."""
        weight = (design.labelled / design.inclusion)[design.labelled]

        def spread(values: np.ndarray) -> float:
            kept = values[design.labelled]
            return float(np.average((kept - np.average(kept, weights=weight)) ** 2, weights=weight))

        outcome, rest, rows = spread(design.outcome), spread(missed), len(missed)
        found = {"residual_share": rest / outcome if outcome else float("nan")}
        if self.half_width is not None:
            wanted = (self.half_width / stats.norm.isf((1 - self.level) / 2)) ** 2
            left = wanted - outcome / rows + rest / rows
            if left > 0:
                found["gold_needed"] = float(min(rows, np.ceil(rest / left)))
        return {name: value for name, value in found.items() if value == value}
