"""What a recipe brings in from outside: sources read into datasets, models loaded, each once per run."""

import json
import re
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from tutelage.core.dataset import Dataset
from tutelage.core.errors import InputError, StoreError
from tutelage.core.fingerprint import configuration, digest, method_key
from tutelage.core.records import Cost
from tutelage.core.store import Artifact, Store
from tutelage.models.endpoint_options import EndpointOptions
from tutelage.runs import payload
from tutelage.runs.components import build_method
from tutelage.runs.environment import processor
from tutelage.runs.limit import first_rows
from tutelage.runs.paths import STATE, allowed, model_path, of_a_run, source_path, tree_hash
from tutelage.runs.recipe import ModelSpec, Recipe


def reader_of(recipe: Recipe, name: str, limit: int | None = None) -> Any:
    """The configured reader of a source; one that can stop early does so at `limit` rows."""
    source = recipe.sources[name]
    reader: Any = build_method(source.use, source.fields, lambda key: recipe.where("sources", name, key))
    if limit is not None and "limit" in type(reader).model_fields:
        reader = reader.model_copy(update={"limit": min(limit, reader.limit or limit)})
    return reader


def source_key(recipe: Recipe, workspace: Path, name: str, limit: int | None) -> tuple[str, Dataset | None]:
    """The cache key of a source, and its rows where they had to be read for it.

    A source without a path is read every time: there is nothing to hash before, so what was read is the key.
    """
    source, reader = recipe.sources[name], reader_of(recipe, name, limit)
    if source.path is None:
        found = reader.read(None)
        return digest([source.use, configuration(reader), found.hash, limit]), found
    path = source_path(recipe, workspace, name)
    if of_a_run(source.path):
        made = Dataset.open(path)
        return digest(["run", made.hash, limit]), made
    contents = {"files": tree_hash(path, allowed(recipe, workspace), recipe.allow_outside)}
    return method_key(reader, contents, {"limit": limit}), None


def read_source(
    recipe: Recipe, workspace: Path, store: Store, name: str, limit: int | None
) -> tuple[Artifact, bool]:
    """(the source as an artifact, whether it was there already)."""
    source, reader = recipe.sources[name], reader_of(recipe, name, limit)
    path = None if source.path is None else str(source_path(recipe, workspace, name))
    started = time.perf_counter()
    key, ready = source_key(recipe, workspace, name, limit)

    def write(folder: Path) -> dict[str, Any]:
        dataset = reader.read(path) if ready is None else ready
        if dataset.num_rows == 0:
            raise InputError(
                f"the source {name!r} has no rows",
                where=path or source.use,
                expected="at least one row",
                found=_quarantine(dataset),
                remedy="check the path and what the reader accepts",
            )
        kept = first_rows(dataset, limit) if limit else dataset
        saved = kept.save(folder / payload.DATASET)
        facts = {
            "rows": saved.num_rows,
            "quarantined": dataset.quarantined.num_rows,
            "columns": saved.column_names,
            "report": dataset.report,
        }
        cost = Cost(seconds=time.perf_counter() - started)
        return {"content": saved.hash, "cost": cost.model_dump(), "facts": facts, "method": source.use}

    cached = store.get(key) is not None
    return store.put(key, write, kind="dataset"), cached


def load_spec(recipe: Recipe, workspace: Path, name: str) -> Any:
    """Load a model of the recipe: from a path (see `paths.model_path`), else by the name that it is known under.

    The precision that `auto` comes to is decided by a timed probe; it is remembered in the workspace for each
    model, so that the same recipe resumes, and finds its results, in the same precision on a busier machine.
    """
    from tutelage.models.classifier import share
    from tutelage.models.load import load_model

    spec = recipe.models[name]
    if re.match(r"https?://", spec.load):
        return _endpoint(recipe, workspace, spec)
    source = model_path(recipe, workspace, name) or spec.load
    adapter = model_path(recipe, workspace, name, "adapter")
    memory = workspace / STATE / "precision.json"
    place = f"{spec.load}: {spec.device} on {processor()}"
    known = _remembered(memory)
    dtype = known.get(place, "auto") if spec.dtype == "auto" else spec.dtype
    # A hub name in the recipe is the permission to download it, once.
    model = load_model(
        source,
        adapter=adapter,
        device=spec.device,
        dtype=dtype,
        offline=False,
        allow_remote_code=spec.allow_remote_code,
    )
    found = getattr(model, "precision", None) or str(getattr(model, "dtype", "")).removeprefix("torch.")
    if spec.dtype == dtype == "auto" and found and memory.parent.is_dir():
        _remember(memory, place, found)
    if adapter is None:
        share(model, spec.device, spec.dtype)
    if spec.engine == "openvino":
        from tutelage.models.openvino_lm import with_openvino

        return with_openvino(model)
    return model


def _endpoint(recipe: Recipe, workspace: Path, spec: ModelSpec) -> Any:
    """A model server. Its answers are kept in the workspace: a run that stopped does not pay for them twice."""
    from tutelage.models.endpoint import EndpointLM, served_model

    options = spec.endpoint or EndpointOptions()
    return EndpointLM(
        spec.load,
        spec.model or served_model(spec.load, spec.key_env, recipe.allow_remote),
        key_env=spec.key_env,
        allow_remote=recipe.allow_remote,
        cache=workspace / STATE / "answers",
        **{name: getattr(options, name) for name in EndpointOptions.model_fields},
    )


def _remembered(file: Path) -> dict[str, str]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _remember(file: Path, place: str, precision: str) -> None:
    part = file.with_suffix(".part")
    try:
        # Another recipe of the workspace may remember its model at the same moment.
        with FileLock(file.with_suffix(".lock")):
            part.write_text(json.dumps({**_remembered(file), place: precision}), encoding="utf-8")
            part.replace(file)
    except OSError as error:
        raise StoreError(
            "the precision chosen for a model could not be remembered",
            where=file,
            expected="a workspace that can be written",
            found=error.strerror or str(error),
            remedy="free space, choose another --workspace, or write dtype: float32 in the recipe",
        ) from None


def load_stored_model(artifact: Artifact, allow_remote_code: bool = False) -> Any:
    """The model of an artifact, in the precision it was saved in."""
    from tutelage.models.load import load_model

    dtype = artifact.meta["facts"].get("dtype") or "auto"
    return load_model(artifact.path / payload.MODEL, dtype=dtype, allow_remote_code=allow_remote_code)


def _quarantine(dataset: Dataset) -> str:
    rows = dataset.quarantined.slice(0, 3).to_pylist()
    return "; ".join(f"{row['where']}: {row['reason']}" for row in rows) or "nothing"
