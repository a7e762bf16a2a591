"""`tutelage audit MODEL --data ...`: run the audits that apply, write the trust report, fail with a gate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.cli._options import AllowRemoteCode, AsJson, DryRun, Limit, Overrides, Workspace, workspace_or_here
from tutelage.cli._output import note, print_json, say
from tutelage.cli._progress import teller

if TYPE_CHECKING:
    from tutelage.core.dataset import Dataset
    from tutelage.runs.audit import Rows
    from tutelage.runs.recipe import Recipe

RECIPE, REPORT = "audit.yaml", "trust-report.html"


def audit_command(
    model: Annotated[
        str,
        typer.Argument(help="A folder, a packaged name, or run:RECIPE/STEP@ARM of the workspace."),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="Rows to measure on: questions with choices, text, prompts; repeatable."),
    ] = None,
    before: Annotated[str | None, typer.Option(help="The model it was made from: what was forgotten?")] = None,
    trained_on: Annotated[str | None, typer.Option(help="Rows it was trained on: what does it give away?")] = None,
    control: Annotated[str | None, typer.Option(help="Rows like the data that it cannot have seen.")] = None,
    curve: Annotated[str | None, typer.Option(help="Scores at growing sizes (columns x, y); with --at.")] = None,
    at: Annotated[float | None, typer.Option(help="Where the curve is forecast, in its unit of x.")] = None,
    gates: Annotated[Path | None, typer.Option(help="Gates as in a recipe (YAML); exit code 3.")] = None,
    workspace: Workspace = None,
    overrides: Overrides = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    allow_remote_code: AllowRemoteCode = False,
    as_json: AsJson = False,
) -> None:
    """Compose a recipe of the audits that apply to the model and the rows, run it, and write the trust report.

    The recipe is left in the workspace as audit.yaml, to be edited and run again with `tutelage run`.
    """
    from tutelage.core.errors import ConfigError
    from tutelage.runs.execute import run

    if not data and trained_on is None:
        raise ConfigError(
            "an audit needs rows",
            where="--data",
            expected="at least one file of rows to measure on",
            found="none",
            remedy="add --data FILE (JSON Lines, CSV, Parquet ...), or --trained-on FILE",
        )
    if (curve is None) != (at is None):
        raise ConfigError("a forecast needs --curve and --at", where="--curve, --at", found="one of them")
    folder = workspace_or_here(workspace).resolve()
    recipe = composed(
        folder,
        models={"model": model, "before": before},
        files={"data": list(data or ()), "trained_on": trained_on, "control": control, "curve": curve},
        at=at,
        gates=gates,
        trust=allow_remote_code,
    )
    path = write_recipe(recipe, folder, overrides or (), allow_remote_code)
    if not as_json:
        for audit, why in recipe.left_out.items():
            note(f"left out: {audit}: {why}")
        if not recipe.gates:
            note("no gates: nothing can fail; give them with --gates, or write them into the recipe")
    from tutelage.runs.recipe import load_recipe

    result = run(
        load_recipe(path, (), limit, True, allow_remote_code),
        folder,
        limit=limit,
        dry_run=dry_run,
        progress=teller(as_json),
    )
    _show(result, recipe, folder, path, as_json)
    raise typer.Exit(result.exit_code)


def composed(
    folder: Path,
    *,
    models: dict[str, str | None],
    files: dict[str, Any],
    at: float | None,
    gates: Path | None,
    trust: bool,
) -> "Recipe":
    """The recipe of the audits that apply; every path in it is absolute, or of a run."""
    from tutelage.runs.audit import Case, audit_recipe, compose, source_name

    loads = {name: _place(given) for name, given in models.items() if given is not None}
    kind = _kind(loads["model"], folder, trust)
    sources: dict[str, str] = {}
    data = []
    for given in files["data"]:
        name = source_name(given, [*sources, "model", "before", "trained_on", "control", "curve", "instructions"])
        sources[name] = _place(given)
        data.append(_described(name, sources[name], folder))
    others: dict[str, Rows | None] = {}
    for name in ("trained_on", "control"):
        if files[name] is not None:
            sources[name] = _place(files[name])
            others[name] = _described(name, sources[name], folder)
    if files["curve"] is not None:
        sources["curve"] = _place(files["curve"])
    case = Case(kind, tuple(data), "before" in loads, others.get("trained_on"), others.get("control"), at)
    steps, left_out = compose(case)
    return audit_recipe(loads, sources, steps, left_out, _gates(gates))


def write_recipe(recipe: "Recipe", folder: Path, overrides: Any, trust: bool) -> Path:
    """Write the recipe into the workspace, with overrides applied, and return its path."""
    import yaml

    from tutelage.runs._overrides import override
    from tutelage.runs.recipe import Recipe

    plain = recipe.flat()
    for change in overrides:
        override(plain, change, Recipe.model_fields)
    path = folder / RECIPE
    folder.mkdir(parents=True, exist_ok=True)
    head = "# Written by `tutelage audit`; run it again with `tutelage run audit.yaml --allow-outside`.\n"
    path.write_text(head + yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def _place(given: str) -> str:
    """An existing path made absolute; anything else (a name, a run) as it is."""
    path = Path(given).expanduser()
    return str(path.resolve()) if path.exists() else given


def _kind(load: str, folder: Path, trust: bool) -> str:
    from tutelage.models.load import load_model
    from tutelage.runs.made import made_path
    from tutelage.runs.paths import of_a_run

    found = made_path(load, folder, "model") if of_a_run(load) else load
    return str(load_model(found, allow_remote_code=trust).kind)


def _described(name: str, path: str, folder: Path) -> "Rows":
    from tutelage.core.errors import InputError
    from tutelage.runs.audit import described

    dataset = _opened(path, folder)
    if dataset.num_rows == 0:
        raise InputError(
            "the audit set is empty",
            where=path,
            expected="at least one row",
            found="0 rows",
            remedy="check the path and what the reader accepts",
        )
    return described(name, dataset)


def _opened(path: str, folder: Path) -> "Dataset":
    from tutelage.core.dataset import Dataset
    from tutelage.core.discovery import build
    from tutelage.core.errors import InputError
    from tutelage.runs.made import made_path
    from tutelage.runs.paths import of_a_run

    if of_a_run(path):
        return Dataset.open(made_path(path, folder, "dataset"))
    if not Path(path).exists():
        raise InputError("this file does not exist", where=path, expected="a file or folder of rows")
    found: Dataset = build("data.read.auto").read(path)  # type: ignore[attr-defined]
    return found


def _gates(path: Path | None) -> list[dict[str, Any]]:
    from tutelage.core.errors import ConfigError
    from tutelage.runs import _yaml

    if path is None:
        return []
    value, _ = _yaml.read(path)
    found = value.get("gates") if isinstance(value, dict) else value
    if not isinstance(found, list):
        raise ConfigError(
            "gates are a list",
            where=path,
            expected="a list of {name, step, at_most | at_least | no_harm ...}, or a mapping with the key gates",
            found=type(found).__name__,
        )
    return found


def _show(result: Any, recipe: "Recipe", folder: Path, path: Path, as_json: bool) -> None:
    from tutelage.cli._verdicts import show_run
    from tutelage.report.build import build_view
    from tutelage.report.render import write

    report = None if result.plan is not None else write(build_view(folder, result.run_id), folder / REPORT)
    if as_json:
        written = {"recipe_file": str(path), "report": None if report is None else str(report)}
        print_json({**result.to_json(), "left_out": recipe.left_out, **written})
        return
    show_run(result, False)
    say(f"wrote {path}" if report is None else f"wrote {path} and {report}")
