"""`tutelage audit`: compose a recipe of the audits that apply to a model and the rows given, and say of every
other one why it was left out.

What applies follows from the kind of the model, the columns of each data file, and what was given besides: the
model it was made from (`before`), the rows it was trained on (`trained_on`), rows it cannot have seen (`control`),
points of a learning curve (`curve`). The recipe is an ordinary one: it can be written down, edited and run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.runs.recipe import Recipe

Fields = dict[str, Any]
# Rows that an audit of its own asks for: what it costs must not grow with the file.
ITEMS = {"extraction": 50, "contamination": 50}
GENERAL_MARGIN = 0.15
# Rows with equal values there ask the same in other words.
WORDINGS = "question_id"


@dataclass(frozen=True)
class Rows:
    """One data file: its name in the recipe and what it holds. `planted`: canaries, traps, or nothing."""

    name: str
    columns: frozenset[str]
    planted: str = ""

    def has(self, *columns: str) -> bool:
        """Whether all these columns are there."""
        return self.columns.issuperset(columns)

    @property
    def choices(self) -> bool:
        """Multiple choice."""
        return self.has("choices", "answer") and (self.has("prompt") or self.has("messages"))

    @property
    def text(self) -> bool:
        """Text whose likelihood says something: documents, or completions of prompts."""
        return self.has("text") or self.has("prompt", "completion")

    @property
    def answers(self) -> bool:
        """Questions with one right answer in words."""
        return not self.choices and self.has("prompt", "answer")


@dataclass(frozen=True)
class Case:
    """What is audited: the model's kind, the data files, and what was given besides."""

    kind: str
    data: tuple[Rows, ...]
    before: bool = False
    trained_on: Rows | None = None
    control: Rows | None = None
    curve_at: float | None = None
    left_out: dict[str, str] = field(default_factory=dict)

    def of(self, what: str) -> list[Rows]:
        """The data files of one shape."""
        return [rows for rows in self.data if getattr(rows, what)]

    def without(self, audit: str, why: str) -> list[Fields]:
        """Leave an audit out."""
        self.left_out[audit] = why
        return []


def described(name: str, dataset: Dataset) -> Rows:
    """What a data file holds."""
    planted = next((what for what in ("canaries", "traps") if what in dataset.report), "")
    columns = frozenset(dataset.column_names)
    return Rows(name, columns, planted or ("rows" if "planted" in columns else ""))


def compose(case: Case) -> tuple[list[Fields], dict[str, str]]:
    """(steps, audit -> why it was left out); raises InputError when nothing applies to the data."""
    if case.kind == "classifier":
        steps = _classified(case)
    elif case.kind == "causal":
        steps = [step for part in (_measured, _answers, _training, _forecast) for step in part(case)]
    else:
        raise ConfigError(
            "this kind of model cannot be audited",
            where="model",
            expected="a causal language model or a classifier",
            found=case.kind,
            remedy="audit a model made from it: a head on it is a classifier",
        )
    if not steps:
        raise InputError(
            "no audit applies to these rows",
            where="--data",
            expected="rows with prompt, choices and answer; text; prompt and completion; or text and label for a "
            "classifier",
            found="; ".join(f"{rows.name}: {', '.join(sorted(rows.columns))}" for rows in case.data),
            remedy="; ".join(f"{audit}: {why}" for audit, why in list(case.left_out.items())[:3]),
        )
    return steps, dict(case.left_out)


def _step(name: str, use: str, **fields: Any) -> Fields:
    rows = fields.pop("rows", None)
    return {"name": name, "use": use, **({"from": rows} if rows else {}), **fields}


def _classified(case: Case) -> list[Fields]:
    steps = []
    for rows in case.data:
        if not rows.has("text", "label"):
            case.without(f"classification of {rows.name}", "it has no columns text and label")
            continue
        models = ("model", "before") if case.before else ("model",)
        for model in models:
            name = f"{rows.name}_{'after' if model == 'model' else 'before'}"
            steps.append(_step(name, "evaluation.classification", rows=rows.name, model=model))
        steps.append(_step(f"{rows.name}_calibration", "evaluation.calibration", rows=rows.name, model="model"))
    for audit in ("memorisation", "contamination", "option bias", "semantic consistency", "forecast"):
        case.without(audit, "is an audit of language models" if audit != "forecast" else "no points (--curve)")
    return steps


def _measured(case: Case) -> list[Fields]:
    """What the model can do on every probe, and before; what changed."""
    probes: list[tuple[str, str, Fields]] = []
    for rows in case.data:
        use = next(
            (
                method
                for shape, method in (
                    ("choices", "evaluation.multiple_choice"),
                    ("answers", "evaluation.exact_match"),
                    ("text", "evaluation.bits_per_byte"),
                )
                if getattr(rows, shape)
            ),
            None,
        )
        if use is None:
            case.without(f"{rows.name}", "its columns are of no shape that a language model is measured on")
        else:
            probes.append((rows.name, use, {"rows": rows.name}))
    if not probes:
        return []
    probes.append(("instructions", "evaluation.instruction_following", {}))
    steps = []
    for name, use, fields in probes:
        if case.before:
            steps.append(_step(f"{name}_before", use, model="before", **fields))
        steps.append(_step(f"{name}_after", use, model="model", **fields))
    names = [name for name, _, _ in probes]
    if not case.before:
        case.without("forgetting", "needs the model it was made from (--before)")
        return steps
    inputs = {"before": [f"{n}_before" for n in names], "after": [f"{n}_after" for n in names]}
    changes = {"stages": ["update"], "probes": names, "margin": GENERAL_MARGIN}
    return [*steps, _step("changes", "evaluation.transfer_matrix", **changes, inputs=inputs)]


def _answers(case: Case) -> list[Fields]:
    """Whether answers mean what they say: calibration, order of the options; whether the exam was seen before."""
    steps = []
    asked = case.of("choices")
    for rows in asked:
        measured = {"measured": f"{rows.name}_after"}
        steps.append(_step(f"{rows.name}_calibration", "evaluation.calibration", inputs=measured))
        steps.append(_step(f"{rows.name}_order", "evaluation.option_bias", rows=rows.name, model="model"))
        if case.before:
            sides = {"source": f"{rows.name}_before", "derived": f"{rows.name}_after"}
            steps.append(_step(f"{rows.name}_loyalty", "evaluation.loyalty", inputs=sides))
    if not asked:
        for audit in ("calibration", "option bias"):
            case.without(audit, "needs rows with prompt, choices and answer")
    worded = [rows for rows in case.data if rows.has("prompt", WORDINGS)]
    for rows in worded:
        asked_twice = {"rows": rows.name, "model": "model", "question": WORDINGS}
        steps.append(_step(f"{rows.name}_consistency", "evaluation.semantic_consistency", **asked_twice))
    if not worded:
        case.without("semantic consistency", f"needs a column {WORDINGS}, equal for wordings of one question")
    for rows in case.of("answers"):
        steps.append(_step(f"{rows.name}_uncertainty", "evaluation.sar", rows=rows.name, model="model"))
    control = {"inputs": {"control": case.control.name}} if case.control else {}
    for rows in (rows for rows in case.data if rows.choices or rows.text):
        named = {} if rows.has("source") else {"dataset_name": rows.name}
        fields: Fields = {"rows": rows.name, "model": "model", "items": ITEMS["contamination"], **named, **control}
        steps.append(_step(f"{rows.name}_seen", "evaluation.guided_completion", **fields))
    if steps and not case.control:
        case.without("proof of contamination", "needs rows that the model cannot have seen (--control)")
    return steps


def _training(case: Case) -> list[Fields]:
    """What the model gives away of its training text."""
    rows = case.trained_on
    if rows is None:
        for audit in ("memorisation", "extraction of training text"):
            case.without(audit, "needs the rows it was trained on (--trained-on)")
        return []
    control = {"inputs": {"control": case.control.name}} if case.control else {}
    steps = []
    if rows.has("text") or rows.has("prompt"):
        fields = {"rows": rows.name, "model": "model", "items": ITEMS["extraction"], **control}
        steps.append(_step("extraction", "evaluation.extraction", **fields))
    use = {"canaries": "evaluation.exposure", "traps": "evaluation.membership", "rows": "evaluation.membership"}
    if not rows.planted:
        case.without("planted canaries", "none were planted in the training rows (data.augment.canaries, traps)")
    else:
        steps.append(_step("planted", use[rows.planted], rows=rows.name, model="model"))
        if case.before:
            steps.append(_step("planted_before", use[rows.planted], rows=rows.name, model="before"))
    return steps


def _forecast(case: Case) -> list[Fields]:
    if case.curve_at is None:
        return case.without(
            "forecast of more data", "needs scores at five or more sizes (--curve and --at); one model is no curve"
        )
    return [_step("forecast", "forecasting.learning_curve", rows="curve", at=case.curve_at)]


def audit_recipe(
    models: Mapping[str, str],
    sources: Mapping[str, str],
    steps: Sequence[Fields],
    left_out: Mapping[str, str],
    gates: Sequence[Mapping[str, Any]] = (),
) -> Recipe:
    """The recipe of an audit: `models` and `sources` by name, each a path or what else a recipe takes."""
    return Recipe(
        name="audit",
        models={name: {"load": load} for name, load in models.items()},
        sources={name: {"path": path} for name, path in sources.items()},
        steps=[dict(step) for step in steps],
        gates=[dict(gate) for gate in gates],
        left_out=dict(left_out),
    )


def source_name(path: str, taken: Sequence[str]) -> str:
    """A step-like name for a data file, from its stem; numbered where it is taken."""
    stem = "".join(char if char.isalnum() else "_" for char in Path(path).name.split(".")[0]).strip("_").lower()
    stem = stem if stem[:1].isalpha() else f"data_{stem}".rstrip("_")
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return name
