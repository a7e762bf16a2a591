"""`validate` finds sources and models that are not there, or not where they may be, before anything is spent."""

import shutil
from pathlib import Path

import pytest

from toy.command_line import RECIPE, documents, tutelage, write_rows
from tutelage.models import fetch

MUTATIONS = [
    ("src/tutelage/runs/paths.py", "if not written.is_absolute():", "if False:"),
    ("src/tutelage/runs/paths.py", "if named and packaged[spec.load] is None:", "if False:"),
    ("src/tutelage/runs/paths.py", 'given.startswith((".", "~", "/"))', 'given.startswith("/")'),
    ("src/tutelage/cli/validate.py", "check_paths(found, workspace_or_here(workspace))", "[]"),
    ("src/tutelage/runs/execute.py", "    paths.check_paths(recipe, folder)\n", ""),
]


@pytest.fixture
def bed(tmp_path, monkeypatch) -> Path:
    """A project in a folder of its own; what a model folder holds is looked at when it is loaded."""
    folder = tmp_path / "project"
    (folder / "base").mkdir(parents=True)
    write_rows(folder / "docs.jsonl", documents(12))
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


def refused(answer, *facts: str) -> None:
    assert answer.code == 2 and "Traceback" not in answer.err, answer.err
    for key in ("where:", "expected:", "found:", "do:"):
        assert f"  {key}" in answer.err, answer.err
    for fact in facts:
        assert fact in answer.err, f"{fact!r} is not in\n{answer.err}"


def test_what_is_there_is_valid(bed, capfd):
    answer = tutelage(capfd, "validate", "recipe.yaml")
    assert answer.code == 0 and "valid; 7 steps" in answer.out and answer.err == ""
    assert tutelage(capfd, "validate", "recipe.yaml", "--json").json()["notes"] == []


@pytest.mark.parametrize("command", ["validate", "run", "plan"])
def test_a_missing_source(bed, capfd, command):
    (bed / "docs.jsonl").unlink()
    answer = tutelage(capfd, command, "recipe.yaml")
    refused(answer, "the source 'docs' does not exist", "line 2: sources.docs.path", str(bed / "docs.jsonl"))
    assert not (bed / ".tutelage").exists()


@pytest.mark.parametrize("command", ["validate", "run", "plan"])
@pytest.mark.parametrize("load", ["base", "./base", "models/deep/base", "base.gguf", "~/no/such/base"])
def test_a_missing_model(bed, capfd, load, command):
    shutil.rmtree(bed / "base")
    answer = tutelage(capfd, command, "recipe.yaml", "--set", f"models.base.load={load}")
    refused(answer, "the model 'base' does not exist", "line 3: models.base.load", load.lstrip("./~"))
    assert not (bed / ".tutelage").exists(), "nothing was read before"


def test_a_missing_adapter(bed, capfd):
    answer = tutelage(capfd, "validate", "recipe.yaml", "--set", "models.base.adapter=owner/adapter")
    refused(answer, "the adapter of model 'base' does not exist", "models.base.adapter", str(bed / "owner"))


def test_names_are_not_looked_up(bed, capfd, monkeypatch):
    for name in ("owner/model", "http://localhost:8080/v1"):
        answer = tutelage(capfd, "validate", "recipe.yaml", "--set", f"models.base.load={name}")
        assert answer.code == 0 and answer.err == "", answer.err
    for folder, said in ((None, "note: model 'base': smollm2 is not on this machine yet"), (bed, "")):
        monkeypatch.setattr(fetch, "fetched", lambda folder=folder: {"smollm2": folder})
        answer = tutelage(capfd, "validate", "recipe.yaml", "--set", "models.base.load=smollm2")
        assert answer.code == 0 and answer.err.startswith(said) and bool(answer.err) == bool(said)
    refused(tutelage(capfd, "validate", "recipe.yaml", "--set", "models.base.load=smolm2"), "did you mean smollm2")


@pytest.mark.parametrize("field", ["load", "adapter"])
def test_a_model_elsewhere_is_named_in_full_or_allowed(bed, capfd, field):
    outside = bed.parent / "models" / "base"
    outside.mkdir(parents=True)
    up = ("--set", f"models.base.{field}=../models/base")
    refused(
        tutelage(capfd, "validate", "recipe.yaml", *up), "leaves the workspace", str(outside), "--allow-outside"
    )
    assert tutelage(capfd, "validate", "recipe.yaml", *up, "--allow-outside").code == 0
    assert tutelage(capfd, "validate", "recipe.yaml", *up, "-w", bed.parent).code == 0, "inside the workspace"
    assert tutelage(capfd, "validate", "recipe.yaml", "--set", f"models.base.{field}={outside}").code == 0
    try:
        (bed / "linked").symlink_to(outside, target_is_directory=True)
    except OSError:
        pytest.skip("no right to make links here")
    linked = ("--set", f"models.base.{field}=linked")
    refused(tutelage(capfd, "validate", "recipe.yaml", *linked), "leaves the workspace", str(outside))
