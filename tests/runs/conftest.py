"""A workspace with planted rows, toy methods and toy models; nothing here needs torch."""

import json
from pathlib import Path

import pytest
import yaml

from toy.toy_methods import model as toy_model
from toy.toy_methods.training import toy_fit
from tutelage.core import discovery
from tutelage.runs import Recipe, load_recipe, paths, run
from tutelage.runs import engine as engine_module

PACKAGE = Path(toy_model.__file__).parent


@pytest.fixture(autouse=True)
def toy_methods(monkeypatch):
    found = [("tutelage", discovery.PACKAGE_ROOT), ("toy.toy_methods", PACKAGE)]
    monkeypatch.setattr(discovery, "_packages", lambda: found)
    discovery.cards.cache_clear()
    toy_fit.INTERRUPT_AT.clear()
    toy_fit.TRAINED_ROWS.clear()
    yield
    discovery.cards.cache_clear()


@pytest.fixture(autouse=True)
def toy_models(monkeypatch, request):
    """Models of recipes are toys: `load: 1.5` is a model with that skill."""
    if getattr(request.module, "REAL_MODELS", False):
        return
    monkeypatch.setattr(
        engine_module,
        "load_spec",
        lambda recipe, workspace, name: toy_model.ToyModel(float(recipe.models[name].load)),
    )
    monkeypatch.setattr(paths, "model_path", lambda *given: None)
    monkeypatch.setattr(
        engine_module,
        "load_stored_model",
        lambda artifact, _allowed: toy_model.ToyModel.open(artifact.path / "model"),
    )


STEPS = [
    {"name": "chosen", "use": "data.select.random", "from": "pool", "budget": {"tokens": 200}},
    {"name": "trained", "use": "training.toy_fit", "model": "base", "from": "chosen", "budget": {"tokens": 200}},
    {"name": "result", "use": "evaluation.toy_task", "from": "test", "model": "trained"},
]


class Bed:
    """A folder with data and recipes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        pool = [{"id": f"p{i}", "text": f"row {i}", "worth": (i % 10) / 10, "n_tokens": 10} for i in range(100)]
        test = [
            {"id": f"t{i}", "text": f"item {i}", "difficulty": (i % 7) / 7, "group": f"g{i % 8}"}
            for i in range(40)
        ]
        for name, rows in (("pool", pool), ("test", test), ("dev", test[:20])):
            self.write(
                name,
                rows if name != "dev" else [{**r, "id": "d" + r["id"], "text": r["text"] + "!"} for r in rows],
            )

    def write(self, name, rows):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (self.folder / f"{name}.jsonl").write_text(text, encoding="utf-8")

    def plain(self, **changes):
        return {
            "name": "bed",
            "sources": {name: {"path": f"{name}.jsonl"} for name in ("pool", "test")},
            "models": {"base": {"load": "0.0"}},
            "steps": [dict(step) for step in STEPS],
            **changes,
        }

    def recipe(self, **changes) -> Recipe:
        return Recipe(**self.plain(**changes)).placed(self.folder)

    def file(self, text=None, **changes) -> Path:
        path = self.folder / "recipe.yaml"
        path.write_text(text or yaml.safe_dump(self.plain(**changes), sort_keys=False), encoding="utf-8")
        return path

    def load(self, text=None, overrides=(), limit=None, **changes) -> Recipe:
        return load_recipe(self.file(text, **changes), overrides, limit)

    def run(self, recipe=None, events=None, **options):
        heard = None if events is None else events.append
        return run(recipe or self.recipe(), self.folder, progress=heard, **options)


@pytest.fixture
def bed(tmp_path):
    return Bed(tmp_path)


def cached(events):
    """step -> whether it came from the store."""
    return {event["name"]: event["cached"] for event in events if event["event"] == "done"}
