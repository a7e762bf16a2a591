"""Code that comes with a model: refused unless the recipe or the command line says so, recorded, and good for the
models that are trained from it."""

import shutil
from pathlib import Path

import pytest

from toy.command_line import RECIPE, documents, tutelage, write_rows
from toy.own_code import bring_code, own_cache
from tutelage.core.store import Store
from tutelage.runs.ledger import Ledger

pytest.importorskip("torch")
MUTATIONS = [
    ("src/tutelage/runs/outside.py", "allow_remote_code=spec.allow_remote_code", "allow_remote_code=False"),
    ("src/tutelage/runs/engine.py", "any(v.allow_remote_code for v in given)", "False"),
    ("src/tutelage/runs/recipe.py", 'trusted = {"allow_remote_code": True}', "trusted = {}"),
    ("src/tutelage/cli/inspect.py", "load_model(model, allow_remote_code=allow_remote_code)", "load_model(model)"),
    ("src/tutelage/models/export.py", "_load(work, bool(model.own_code))", "_load(work)"),
]
PERMITTED = RECIPE.replace("{load: base}", "{load: base, allow_remote_code: true}")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    from tutelage.models.toy import tiny_causal_lm

    return tiny_causal_lm(texts=[row["text"] for row in documents()]).save(tmp_path_factory.mktemp("m") / "base")


@pytest.fixture
def bed(base, tmp_path, monkeypatch) -> Path:
    """A project whose base model brings code, which leaves the file `ran`."""
    bring_code(shutil.copytree(base, tmp_path / "base"), tmp_path / "ran")
    own_cache(monkeypatch, tmp_path / "cache")
    write_rows(tmp_path / "docs.jsonl", documents())
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_recipe_permits_it_and_what_it_trained_loads_again(bed, capfd):
    refused = tutelage(capfd, "run", "recipe.yaml")
    assert refused.code == 2 and "allow_remote_code: true at the model in the recipe" in refused.err
    assert not (bed / "ran").exists()
    (bed / "recipe.yaml").write_text(PERMITTED, encoding="utf-8")
    assert tutelage(capfd, "validate", "recipe.yaml").code == 0
    assert not (bed / "ran").exists(), "checking a recipe runs no code of a model"
    done = tutelage(capfd, "run", "recipe.yaml")
    assert done.code == 0 and "held_out: bits_per_byte" in done.out, done.err
    assert (bed / "ran").exists()
    run = Ledger(bed).run()
    assert run["recipe"]["models"]["base"]["allow_remote_code"] is True
    trained = next(step for step in run["steps"] if step["step"] == "trained")
    assert trained["facts"]["own_code"] == ["modeling_own.py"]
    stored = Store(bed / ".tutelage" / "store").get(trained["key"])
    assert (stored.path / "model" / "modeling_own.py").is_file()
    # A recipe that took its permission back does not run the stored code either.
    (bed / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    assert tutelage(capfd, "run", "recipe.yaml").code == 2
    resumed = tutelage(capfd, "resume", run["run_id"])
    assert resumed.code == 0, "a run goes on as it was permitted"


def test_an_adapter_on_such_a_base(bed, capfd):
    adapted = "  - {name: adapted, use: adapters.lora, model: base, rank: 2}\n  - name: trained\n"
    text = PERMITTED.replace("  - name: trained\n", adapted).replace("    model: base\n", "    model: adapted\n")
    (bed / "recipe.yaml").write_text(text, encoding="utf-8")
    done = tutelage(capfd, "run", "recipe.yaml")
    assert done.code == 0 and "held_out: bits_per_byte" in done.out, done.err


@pytest.mark.parametrize(
    "command",
    [
        ["run", "recipe.yaml"],
        ["plan", "recipe.yaml"],
        ["compare", "recipe.yaml", "--baseline", "data.select.random", "--dry-run"],
        ["inspect", "docs.jsonl", "--model", "base"],
        ["export", "base", "out"],
        ["chat", "base", "--max-new-tokens", "1"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_loads_a_model_asks_and_can_be_told(bed, capfd, monkeypatch, command):
    import io

    if command[0] == "compare":
        text = RECIPE.replace("data.select.random", "data.select.top_k, column: n_bytes, direction: higher")
        (bed / "recipe.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n"))
    refused = tutelage(capfd, *command)
    assert refused.code == 2 and "--allow-remote-code" in refused.err, refused.err
    assert not (bed / "ran").exists()
    allowed = tutelage(capfd, *command, "--allow-remote-code")
    assert allowed.code == 0, allowed.err
    assert (bed / "ran").exists()
    if command[0] == "run":
        assert Ledger(bed).run()["recipe"]["models"]["base"]["allow_remote_code"] is True
