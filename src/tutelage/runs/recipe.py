"""A recipe: a flat list of named steps over named sources and models, as a frozen record.

`load_recipe` reads one from YAML, `Recipe(...)` builds the same from Python; both are checked whole before
anything runs (see `runs.checks`). Nothing is computed in a recipe: a value is a value, and a reference is the name
of an earlier step, a source or a model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from tutelage.core.errors import ConfigError
from tutelage.core.records import Budget, Record, parse_quantity
from tutelage.models.endpoint_options import EndpointOptions
from tutelage.runs import _yaml
from tutelage.runs._overrides import override
from tutelage.runs._recipe_errors import place, recipe_error

Axis = Literal["equal_total_flops", "equal_tokens", "equal_seconds", "equal_labels", "none"]
RESERVED = ("name", "use", "from", "model", "inputs", "evaluators", "foreach", "to", "at")


class _Strict(Record):
    """Recipe records are written by people: names may be given as in YAML (`from`) or Python (`from_`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, ser_json_inf_nan="constants")


class Source(_Strict):
    """Where rows come from: `{path: folder-or-file}`, or `{use: data.read.name, path?, fields...}`. The path
    `run:RECIPE/STEP@ARM` means the rows that an earlier run in the workspace made."""

    use: str = "data.read.auto"
    path: str | None = None
    fields: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, given: Any) -> Any:
        return _gather(given, ("use", "path", "fields"))

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.path is None and self.use == "data.read.auto":
            raise ValueError("a source needs `path`, or `use` with a reader")
        return self


class ModelSpec(_Strict):
    """A model to load: a folder, packaged name, hub name or endpoint, as `models.load.load_model` takes it; or
    `run:RECIPE/STEP@ARM`, the model that an earlier run in the workspace made (see `runs.made`).

    For an endpoint `model` is its name there, `key_env` the environment variable that holds the key, and
    `endpoint` how it is asked: budget, prices, max_spend, concurrency, timeout, api.
    `allow_remote_code` permits code that comes with the model, here and in models trained from it, to run.
    `engine: openvino` lets openvino-genai make the model's completions (see `models.openvino_lm`).
    """

    load: str
    adapter: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    model: str | None = None
    key_env: str | None = None
    endpoint: EndpointOptions | None = None
    allow_remote_code: bool = False
    engine: Literal["torch", "openvino"] = "torch"


class Foreach(_Strict):
    """Run the step once per value of `over`; the field value `"$<as>"` is replaced by it."""

    over: list[Any] = Field(min_length=1)
    as_: str = Field(alias="as", pattern=r"^[A-Za-z_]\w*$")


class Watch(_Strict):
    """An evaluation while a model trains: a Task and the rows it measures on."""

    use: str
    from_: str = Field(alias="from")
    fields: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, given: Any) -> Any:
        return _gather(given, ("use", "from", "from_", "fields"))


class Step(_Strict):
    """One step. Keys that are not the recipe's own are the configuration of the method `use`.

    `evaluators` (training only) measure while the model trains, `to` (writers only) is where the files go below
    the workspace, `at` (forecasters only) is the point of the forecast, in the unit of its x.
    """

    name: str = Field(pattern=r"^[A-Za-z_][\w-]*$")
    use: str
    from_: list[str] = Field(default_factory=list, alias="from")
    model: str | None = None
    inputs: dict[str, Any] = Field(default_factory=dict)
    evaluators: dict[str, Watch] = Field(default_factory=dict)
    foreach: Foreach | None = None
    to: str | None = None
    at: float | None = None
    fields: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, given: Any) -> Any:
        given = _gather(given, (*RESERVED, "from_", "fields"))
        if isinstance(given, dict) and isinstance(given.get("from"), str):
            given = {**given, "from": [given["from"]]}
        return given

    @field_validator("at", mode="before")
    @classmethod
    def _quantity(cls, value: Any) -> Any:
        return parse_quantity(value)

    def merged(self, change: Mapping[str, Any]) -> "Step":
        """The step with an arm's fields: with `use` its method's fields are replaced, without they are merged."""
        plain = {key: value for key, value in change.items() if key in RESERVED}
        fields = {key: value for key, value in change.items() if key not in RESERVED}
        kept = {} if "use" in change and change["use"] != self.use else self.fields
        own = self.model_dump(by_alias=True, exclude={"fields"})
        inputs = {**self.inputs, **(plain.pop("inputs", None) or {})}
        inputs = {key: value for key, value in inputs.items() if value is not None}
        return Step(**{**own, **plain, "inputs": inputs, "fields": {**kept, **fields}})


class Until(_Strict):
    """End a `repeat` early when the estimate of the Task step `metric` passes a mark."""

    metric: str
    below: float | None = None
    above: float | None = None


class Repeat(_Strict):
    """Run all steps `times` times; `carry: {name: step}` makes a name stand for the last round's step."""

    times: int = Field(ge=1, le=1000)
    carry: dict[str, str] = Field(default_factory=dict)
    until: Until | None = None


class Tune(_Strict):
    """A search on a grid, the same and equally expensive for every trained arm; chosen on the Task step `on`."""

    step: str
    field: str
    grid: list[Any] = Field(min_length=1)
    on: str
    budget: Budget


class Compare(_Strict):
    """Which arms are compared, on what, at which equal cost.

    `baseline` is an arm, or a method that takes the place of the step it is the baseline of. `primary` pairs are
    declared before anything runs; without them every other arm against the baseline is primary. `first_seeds`
    gives an arm fewer runs, with the first so many seeds: it is compared over these; with one, it serves gates
    alone and no claim is made about it. `one_factor`: every other arm changes at most one step of the baseline,
    so that a difference has one cause (an arm that changes nothing is the control); placebo, oracle and arms that
    do not train are free.
    """

    baseline: str
    metric_step: str | None = None
    also: list[str] = Field(default_factory=list)
    at: Axis = "equal_total_flops"
    budget: Budget | None = None
    seeds: list[int] = Field(default_factory=lambda: [0, 1, 2], min_length=1)
    tune: Tune | None = None
    primary: list[tuple[str, str]] | None = None
    first_seeds: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    margin: float | None = Field(default=None, gt=0)
    placebo: str | None = None
    oracle: str | None = None
    one_factor: bool = False

    @property
    def single(self) -> set[str]:
        """Arms that run with one seed where others have more: they serve gates."""
        return {arm for arm, count in self.first_seeds.items() if count == 1 and len(self.seeds) > 1}

    @model_validator(mode="after")
    def _axes(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError("seeds must differ")
        axis = AXIS_UNIT[self.at]
        if self.budget is not None and getattr(self.budget, str(axis), None) is None:
            unit = axis if axis in Budget.model_fields else "no unit at all: leave it out"
            raise ValueError(f"with at: {self.at} the budget is given in {unit}")
        return self


AXIS_UNIT: dict[str, str | None] = {
    "equal_total_flops": "flops",
    "equal_tokens": "tokens",
    "equal_seconds": "seconds",
    # What is asked of people: no training takes it up, so every arm must spend as much by itself.
    "equal_labels": "labels",
    "none": None,
}


class Gate(_Strict):
    """A condition that ends the run with exit code 3 when it does not hold.

    `step` is a Task step, or without arms a forecaster's. `at_least`/`at_most` bound its estimate, or with
    `against` the difference (as improvement) to that arm or step; `no_harm: m` asks for "not worse than
    `against` by more than m". `arm` limits it to one arm. `expect: fail` turns it round: a planted failure must
    be noticed.
    """

    name: str
    step: str | None = None
    arm: str | None = None
    against: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    no_harm: float | None = Field(default=None, ge=0)
    on_undecided: Literal["pass", "fail"] | None = None
    expect: Literal["pass", "fail"] = "pass"

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        given = [n for n in ("at_least", "at_most", "no_harm") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError("a gate has exactly one of at_least, at_most, no_harm")
        if self.no_harm is not None and self.against is None:
            raise ValueError("no_harm needs `against`: the step or arm before")
        return self


class Recipe(_Strict):
    """A whole recipe; see the module. `left_out` names what is not measured and why, for the report."""

    name: str = Field(pattern=r"^[\w.-]+$")
    description: str = ""
    sources: dict[str, Source] = Field(default_factory=dict)
    models: dict[str, ModelSpec] = Field(default_factory=dict)
    steps: list[Step] = Field(min_length=1)
    repeat: Repeat | None = None
    arms: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    compare: Compare | None = None
    gates: list[Gate] = Field(default_factory=list)
    left_out: dict[str, str] = Field(default_factory=dict)
    allow_remote: bool = False
    report_to: str | None = None
    seed: int = Field(default=0, ge=0)
    require_version: str | None = None

    _folder: Path = PrivateAttr(default_factory=Path.cwd)
    _allow_outside: bool = PrivateAttr(default=False)
    _lines: dict[tuple[str | int, ...], int] = PrivateAttr(default_factory=dict)
    _file: str = PrivateAttr(default="recipe")

    def __init__(self, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            # The cause is kept: `load_recipe` reports it again with the file's lines.
            raise recipe_error(Recipe, error, "recipe", {}) from error

    @property
    def folder(self) -> Path:
        """What relative paths start from: the recipe file's folder, or the current one."""
        return self._folder

    @property
    def allow_outside(self) -> bool:
        """Whether sources may lie outside the recipe's folder and the workspace."""
        return self._allow_outside

    def placed(self, folder: Path, allow_outside: bool = False) -> "Recipe":
        """The same recipe with paths relative to `folder`."""
        copy = self.model_copy()
        copy._folder, copy._allow_outside = folder.resolve(), allow_outside
        copy._lines, copy._file = self._lines, self._file
        return copy

    def changed(self, **fields: Any) -> "Recipe":
        """A copy with other top-level fields, in the same place."""
        copy = self.model_copy(update=fields)
        copy._folder, copy._allow_outside = self._folder, self._allow_outside
        copy._lines, copy._file = self._lines, self._file
        return copy

    def where(self, *path: str | int) -> str:
        """`recipe.yaml, line 12: steps[2].budget`, as far as it is known."""
        return place(path, self._file, self._lines)

    def flat(self) -> dict[str, Any]:
        """As a plain dict in YAML's shape; `Recipe(**flat)` gives the recipe back."""
        plain = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
        watches = [watch for step in plain["steps"] for watch in step.get("evaluators", {}).values()]
        for entry in [*plain["steps"], *plain.get("sources", {}).values(), *watches]:
            entry.update(entry.pop("fields", {}))
        return plain


def load_recipe(
    path: str | Path,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    allow_outside: bool = False,
    allow_remote_code: bool = False,
) -> Recipe:
    """Read and check a recipe file.

    `overrides` are `key.sub=value` with steps by name (`trained.learning_rate=1e-4`, `compare.seeds=[0,1]`);
    `limit` makes it small (see `limited`); `allow_remote_code` is written into every model of it. Raises
    ConfigError with the line where the file is wrong.
    """
    from tutelage.runs.checks import check_recipe
    from tutelage.runs.limit import limited

    file = Path(path)
    value, lines = _yaml.read(file)
    if not isinstance(value, dict):
        raise ConfigError(
            "a recipe is a mapping of keys",
            where=file,
            expected="name, sources, models, steps",
            found=type(value).__name__,
            remedy="`tutelage init` writes one to start from",
        )
    for change in overrides:
        override(value, change, Recipe.model_fields)
    try:
        recipe = Recipe.model_validate(value)
    except ConfigError as error:
        if isinstance(error.__cause__, ValidationError):
            raise recipe_error(Recipe, error.__cause__, str(file), lines) from None
        raise
    recipe._lines, recipe._file = lines, str(file)
    if allow_remote_code:
        trusted = {"allow_remote_code": True}
        models = {name: spec.model_copy(update=trusted) for name, spec in recipe.models.items()}
        recipe = recipe.changed(models=models)
    recipe = recipe.placed(file.parent, allow_outside)
    check_recipe(recipe)
    return recipe if limit is None else limited(recipe, limit)


def _gather(given: Any, own: Sequence[str]) -> Any:
    """Split a flat mapping into the record's own keys and `fields`."""
    if not isinstance(given, Mapping):
        return given
    fields = {key: value for key, value in given.items() if key not in own}
    mine = {key: value for key, value in given.items() if key in own}
    if fields:
        mine["fields"] = {**mine.get("fields", {}), **fields}
    return mine
