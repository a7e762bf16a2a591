"""Every recipe that ships is valid and runs, small, on a toy model."""

from pathlib import Path

import pytest

from tutelage.models.toy import tiny_causal_lm
from tutelage.runs import load_recipe, run

REAL_MODELS = True  # no stand-ins: these are the recipes as users run them
RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))
# The whole budget of a toy is a few thousand tokens, of which scoring takes its share: fewer rows are scored.
FEWER = {"miniplm": ["candidates.budget.tokens=1200"]}
TEXT = [
    "def add(a, b):\n    return a + b\n",
    "The statement is executed when the condition is true.",
    "MIT licence",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "toy"
    tiny_causal_lm(texts=TEXT).save(folder)
    tiny_causal_lm(texts=TEXT, layers=3, seed=1).save(folder.with_name("teacher"))
    return folder


def test_there_are_recipes():
    assert "specialise" in [file.stem for file in RECIPES]


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipe_is_valid_as_written(file):
    assert load_recipe(file).name == file.stem


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipe_runs_small(file, model, tmp_path):
    # A toy costs a hundred thousandth of the real model, so its budget in FLOPs is that much smaller too.
    models = {"base": model, "teacher": model.with_name("teacher")}
    changes = [f"models.{name}.load={models[name]}" for name in load_recipe(file).models]
    changes += ["compare.budget.flops=2e9", "compare.tune.budget.tokens=600", *FEWER.get(file.stem, [])]
    result = run(load_recipe(file, changes, limit=60), tmp_path, limit=60)
    assert result.status in ("passed", "gate failed")
    trained = [arm for arm in result.comparison["arms"] if arm["trained"]]
    assert all(arm["failed"] is None or arm["name"] == "destructive" for arm in trained)
    spent = [
        sum(c["forward_flops"] + c["backward_flops"] for c in arm["cost"]) for arm in trained if not arm["failed"]
    ]
    assert max(spent) <= 1.1 * min(spent), "arms at equal total cost"
