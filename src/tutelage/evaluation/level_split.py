"""At which level a tuned model generalises: to new categories of tasks, to new tasks, or to new instances only.

Three sets of items: categories never trained on, unseen tasks of seen categories, unseen instances of seen
tasks. An item's gain is the tuned model's score less the untuned one's, because the levels differ in
difficulty. A level's gain is macro-averaged, items -> task -> category, so that large tasks do not dominate;
its clusters are categories at level 1, tasks at level 2 and items at level 3. Gap 12 = gain of level 2 less
that of level 1, gap 23 = level 3 less level 2, by Welch's t since the levels share no items. Differencing,
clusters and the least number of categories are ours.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from tutelage.core.errors import ComparisonError, InputError
from tutelage.core.method import Inputs, Task
from tutelage.core.stats.intervals import mean_interval
from tutelage.core.stats.unpaired import weighted_mean, welch
from tutelage.core.text.duplicates import shared_ids
from tutelage.core.text.rows import text_rows
from tutelage.evaluation._logs import Derived, listed, log_of, one_run, same_items

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.level_split",
    "paper": {
        "title": "OPT-IML: Scaling Language Model Instruction Meta Learning through the Lens of Generalization",
        "identifier": "arXiv:2212.12017",
    },
    "summary": "What tuning gained on unseen categories, unseen tasks and unseen instances, and the gaps between.",
    "inputs": {
        "tuned": "results of the tuned model on unseen categories, unseen tasks, unseen instances, in order",
        "untuned": "results of the untuned model on the same items",
        "trained_on?": "the rows it was tuned on, to be searched for the levels' sources and texts",
        "level_rows?": "the rows of the three levels, for that search",
    },
    "cost": "statistics only",
    "baseline": None,
    "headline": "a gain on new instances of seen tasks says nothing about new tasks",
    "version": 1,
}
LEVELS = ("unseen categories", "unseen tasks", "unseen instances")


def macro_weights(tasks: np.ndarray, categories: np.ndarray) -> np.ndarray:
    """[n] weights that add up to 1: every category alike, within it every task, within it every item."""
    _, first, task, size = np.unique(tasks, return_index=True, return_inverse=True, return_counts=True)
    category = np.unique(categories[first], return_inverse=True)[1]
    within = np.bincount(category)
    return 1.0 / (len(within) * within[category[task]] * size[task])


class LevelSplit(Task):
    """The results' items name their task in `cluster` and their category in `group`. Level 1 has an interval from
    `least_categories` on. `source` is the column of `trained_on` and `level_rows` that names the data set a row is
    from, `task` the one that names its task."""

    least_categories: int = Field(default=10, ge=2)
    source: str = "source"
    task: str = "task"

    def evaluate(self, model: Any, dataset: "Dataset | None", inputs: Inputs) -> "Result":
        """The gain on unseen categories. `extra`: gain of every level, tuned and base score, with bounds; `gap_12`
        and `gap_23` with bounds and p.

        Raises InputError for fewer than three levels, for one category only, for a task whose source was trained
        on and for texts that were; ComparisonError for different items of tuned and base, or items of two levels.
        """
        tuned, base = listed(inputs["tuned"]), listed(inputs["untuned"])
        if len(tuned) != 3 or len(base) != 3:
            raise InputError(
                "three levels are compared",
                where="inputs.tuned, inputs.untuned",
                expected="three results each: " + ", ".join(LEVELS),
                found=f"{len(tuned)} and {len(base)}",
            )
        self._refuse_leaks(inputs)
        extra: dict[str, float] = {}
        gains, first = {}, None
        seen: dict[str, str] = {}
        for level, one, other in zip(LEVELS, tuned, base):
            logs = [log_of(given, f"{side}, {level}") for given, side in ((one, "tuned"), (other, "base"))]
            sides = {"tuned": one_run(logs[0], f"tuned, {level}"), "base": one_run(logs[1], f"base, {level}")}
            keys = same_items(sides)
            twice = [key for key in keys if key in seen]
            if twice:
                raise ComparisonError(
                    "an item is at two levels",
                    where=twice[0],
                    expected="one level",
                    found=f"{seen[twice[0]]}, {level}",
                )
            seen |= dict.fromkeys(keys, level)
            rows = [sides["tuned"][key] for key in keys]
            made = self._level(level, rows, [sides["base"][key]["score"] for key in keys])
            gains[level] = made.pop("gain")
            extra |= {name: value for name, value in made.items() if value == value}
            first = first or (rows, gains[level])
        for name, low, high in (("gap_12", LEVELS[0], LEVELS[1]), ("gap_23", LEVELS[1], LEVELS[2])):
            extra |= welch(name, gains[high], gains[low])
        assert first is not None
        rows, values = first
        # One row for each category: what the interval counts.
        names = sorted({str(row["group"]) for row in rows})
        made_rows = [{"item_key": name, "cluster": None, "group": name} for name in names]
        work = Derived(self, made_rows, inputs, getattr(tuned[0], "system", {}))
        for row, value in zip(made_rows, values):
            work.add(row, score=float(value))
        found = work.result(f"gain on {LEVELS[0]}", direction=1, extra=extra)
        if len(names) >= self.least_categories:
            return found
        reason = f"descriptive only: {len(names)} categories, an interval needs {self.least_categories}"
        return found.model_copy(update={"interval": None, "no_interval": reason})

    def _level(self, level: str, rows: list[dict[str, Any]], base: list[float]) -> dict[str, Any]:
        """Figures of one level, and in `gain` one value for each cluster, whose mean is the level's gain."""
        for row in rows:
            if row["cluster"] is None or row["group"] is None:
                raise InputError(
                    "an item does not name its task and category",
                    where=f"{level}, item {row['item_key']}",
                    expected="task in cluster, category in group",
                    found=f"cluster {row['cluster']!r}, group {row['group']!r}",
                    remedy="give the evaluated rows the columns cluster and group",
                )
        categories = np.array([row["group"] for row in rows])
        # Two categories may have tasks of one name.
        tasks = np.array([f"{row['group']}\t{row['cluster']}" for row in rows])
        if len(set(categories)) < 2:
            raise InputError(
                "one category says nothing of others", where=level, expected="at least two", found=categories[0]
            )
        weights = macro_weights(tasks, categories)
        now, before = np.array([row["score"] for row in rows], dtype=float), np.array(base, dtype=float)
        clusters = {LEVELS[0]: categories, LEVELS[1]: tasks}.get(level, np.arange(len(rows)))
        found: dict[str, Any] = {"gain": weighted_mean(now - before, weights, clusters)}
        found |= {f"tuned[{level}]": float(now @ weights), f"base[{level}]": float(before @ weights)}
        enough = level != LEVELS[0] or len(set(categories)) >= self.least_categories
        name, values = f"gain[{level}]", found["gain"]
        found[name] = float(values.mean())
        if enough and len(values) > 1:
            bounds = mean_interval(values)
            found |= {f"{name}_lo": bounds.lo, f"{name}_hi": bounds.hi}
        return found

    def _refuse_leaks(self, inputs: Inputs) -> None:
        trained, levels = inputs.get("trained_on"), listed(inputs.get("level_rows"))
        if trained is None:
            return
        known = {row.get(self.source) for row in trained.rows()} - {None}
        for level, rows in zip(LEVELS[:2], levels):
            leak = next((row for row in rows.rows() if row.get(self.source) in known), None)
            if leak is not None:
                raise InputError(
                    "a task of an unseen level comes from a data set that was trained on",
                    where=f"{level}, task {leak.get(self.task)!r}, column {self.source!r}",
                    expected="another source",
                    found=leak[self.source],
                    remedy="move the task to the instances of seen tasks",
                )
        for level, rows in zip(LEVELS, levels):
            shared = shared_ids(text_rows(rows), text_rows(trained))
            if shared:
                raise InputError(
                    "texts of a level were trained on",
                    where=level,
                    expected="texts that were not",
                    found=f"{len(shared)} of {len(rows)}, first {', '.join(shared[:3])}",
                    remedy="take them out first (data.filter.decontaminate)",
                )
