"""Tasks written for lm-evaluation-harness: the part of its task YAML that needs no code, evaluated by us.

Prompts, joint tokenisation, filters and metrics follow lm-evaluation-harness 0.4, so that log-likelihoods and
accuracies equal its own. Departures: demonstrations are drawn per item (its random stream is shared by all items,
so a subset changes every later prompt); ties share the point unless `ties: first`; an index outside the options is
an error; a perplexity is reported in `extra`, while estimate and interval are those of the mean loss it is the
exponential of (nats per item, word or byte), because that is what items can be compared on.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from tutelage.core.errors import ConfigError
from tutelage.core.method import Inputs, Task
from tutelage.evaluation import _lm_eval_prompts as lm
from tutelage.evaluation._lm_eval_config import LmEvalConfig, load_config, load_split
from tutelage.evaluation._lm_eval_scoring import Run, measure, metrics_of
from tutelage.evaluation._shared import Measurement

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Result

CARD = {
    "name": "evaluation.lm_eval_task",
    "paper": {"title": "Lessons from the Trenches on Reproducible Evaluation", "identifier": "arXiv:2405.14782"},
    "summary": "A task file of lm-evaluation-harness on local data, with our statistics.",
    "inputs": {"model": "the causal language model that is measured"},
    "needs": ["train"],
    "cost": "as the task says: one pass per option, or prompt and generated tokens per item",
    "baseline": None,
    "headline": "the same numbers as the harness for tasks without code, with intervals and paired items",
    "version": 1,
}


class LmEvalTask(Task):
    """`path`: the YAML file, below `project` (as its data files must be). A dataset given to the step replaces the
    task's own evaluation rows. `metric` and `filter` choose what carries the interval (default: the first);
    `num_fewshot` null = as the file says; `limit` = the first so many rows. `allow_task_code` lets the file's
    `!function` templates run Python found beside it, and the result records that."""

    path: str = ""
    project: str = "."
    metric: str | None = None
    filter: str | None = None
    num_fewshot: int | None = Field(default=None, ge=0)
    fewshot_seed: int = 0
    limit: int | None = Field(default=None, ge=1)
    ties: Literal["split", "first"] = "split"
    allow_task_code: bool = False

    def files(self) -> list[Path]:
        """Task files and code beside the one named, and its data files, as far as they exist."""
        if not self.path:
            return []
        folder = (Path(self.project) / self.path).parent
        named = self.config().dataset_kwargs.get("data_files") or {}
        names = (
            [n for value in named.values() for n in ([value] if isinstance(value, str) else value)]
            if isinstance(named, dict)
            else [named]
        )
        beside = [file for pattern in ("*.yaml", "*.yml", "*.py") for file in folder.glob(pattern)]
        data = [file for name in names for file in (folder / name, Path(self.project) / name) if file.is_file()]
        return sorted({file.resolve() for file in [*beside, *data]})

    def config(self) -> LmEvalConfig:
        """The task file, checked; raises ConfigError naming the key that is not supported, and why."""
        if not self.path:
            raise ConfigError("no task file is named", where="path", expected="the path of a task YAML file")
        found = load_config(self.path, Path(self.project), self.allow_task_code)
        if self.num_fewshot is not None:
            found = found.model_copy(update={"num_fewshot": self.num_fewshot})
        if found.filter_list and found.output_type != "generate_until":
            raise ConfigError(
                "filters are for generated text",
                where=f"{self.path}: filter_list",
                expected="output_type: generate_until",
                found=found.output_type,
                remedy="take filter_list out, or have the answers generated",
            )
        return found

    def prompts(self, config: LmEvalConfig, work: Measurement) -> list[str]:
        """The full prompt of every item; depends on the item and the seed alone, not on the other items."""
        if not config.num_fewshot:
            pool: list[dict[str, Any]] = []
        elif config.fewshot_config.samples is not None:
            pool = config.fewshot_config.samples
        else:
            pool = load_split(config, config.demonstration_split, self.path, Path(self.project))
        found = []
        for row in work.rows:
            shots = lm.demonstrations(config, pool, row, self.fewshot_seed, work.key(row)) if pool else []
            found.append(lm.prompt_of_doc(config, row, shots, work.where(row)))
        return found

    def work(self, config: LmEvalConfig, model: Any, dataset: "Dataset | None", inputs: Inputs) -> Measurement:
        """The rows to evaluate, with their keys."""
        if dataset is None:
            rows = load_split(config, config.eval_split, self.path, Path(self.project))
        else:
            rows = [{k: v for k, v in row.items() if k != "id"} for row in dataset.rows()]
        return Measurement(self, model, rows[: self.limit], inputs, task_id=f"{self.name}:{config.task}")

    def evaluate(self, model: Any, dataset: "Dataset | None", inputs: Inputs) -> "Result":
        """The chosen metric with its interval; the file's other metrics are in `extra`."""
        config = self.config()
        metrics = metrics_of(config, self.metric, self.path)
        work = self.work(config, model, dataset, inputs)
        run = Run(config, model, work, self.prompts(config, work), metrics, self.ties, self.filter)
        found = measure(run)
        system = {"num_fewshot": config.num_fewshot, "fewshot_seed": self.fewshot_seed, "tokenisation": "joint"}
        if self.allow_task_code:
            system["task_code_allowed"] = True
        return work.result(
            found.metric, direction=found.direction, unit=found.unit, extra=found.extra, system=system
        )
