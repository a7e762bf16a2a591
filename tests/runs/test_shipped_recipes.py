"""Every recipe that ships is valid and runs, small, on a toy model."""

import json
import random
from pathlib import Path

import pytest

from tutelage.models.toy import tiny_causal_lm
from tutelage.runs import load_recipe, run
from tutelage.runs.paths import of_a_run

REAL_MODELS = True  # no stand-ins: these are the recipes as users run them
RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))
# Arms spend what the baseline spends on its rows, of which scoring takes its share: fewer rows are scored, or the
# baseline has more.
LIMIT = {"preselect": 80, "skill-it": 80}
# Recipes on labelled news read the whole of a toy corpus.
NEWS = 400
LIMIT |= dict.fromkeys(
    ["few-label-classifier", "prediction-pretraining", "self-training", "weak-labels", "teacher-student"], NEWS
)
# Who gives the labels is what differs between the arms, and so is the price.
PRICED_APART = {"teacher-student"}
FEWER = {
    "teacher-student": [
        "compare.seeds=[0]",
        "sample.budget.rows=80",
        "audit.budget.rows=16",
        "asking.budget.rows=16",
        "test_rows.budget.rows=30",
        "politics.splits=1",
        "politics.learner=linear",
    ],
    "miniplm": ["candidates.budget.tokens=1200"],
    "mates": ["probed.budget.rows=12", "tried.reference_rows=2", "tried.moment_rows=2", "tried.max_length=32"],
    "datacomp": ["candidates.budget.tokens=1200"],
    # Short rows, so that few tokens hold enough of them for both sides of a classifier's split.
    "preselect": [
        "chunks.characters=250",
        "guide_chunks.characters=250",
        "sample.budget.tokens=1200",
        "strong.least_share=0.5",
        "predicted.held_out=0.5",
        "bench_items.budget.rows=2",
        "scout_field.budget.tokens=300",
        "scout_code.budget.tokens=300",
        "scout_licences.budget.tokens=300",
    ],
    "stability-gap": ["trained.evaluate_at=[0,1]"],
    "skill-it": ["short.budget.tokens=150", "graph_some.budget.rows=3"],
    # A judge that knows nothing is decided about nothing.
    "llm2llm": ["trained.budget.tokens=300", "written.max_new_tokens=8"],
    "knowledge-from-documents": [
        "graph.max_new_tokens=16",
        "reworded.max_new_tokens=16",
        "trained.budget.tokens=300",
        "compare.seeds=[0,1]",
    ],
    "few-label-classifier": [
        "compare.seeds=[0]",
        "compare.first_seeds={}",
        "repeat.times=2",
        "test_rows.budget.rows=30",
        "parted.parts={pool: 0.25, test: 0.75}",
    ],
    "weak-labels": ["compare.seeds=[0]", "seen.budget.rows=150", "test_rows.budget.rows=30"],
    "self-training": [
        "compare.seeds=[0]",
        "sampled.budget.rows=60",
        "test_rows.budget.rows=30",
        "parted.parts={pool: 0.1, test: 0.9}",
    ],
    "trust-report": [
        "instructions_before.max_new_tokens=2",
        "instructions_after.max_new_tokens=2",
        "exam_seen.max_new_tokens=4",
        "consistency.max_new_tokens=2",
        "extraction.suffix_tokens=4",
        "canaries.candidates=15",
        "grown.foreach.over=[60,90,120,150,300,600]",
        "curve.foreach.over=[60,90,120,150,300,600]",
        "twice_the_data.at=1200",
    ],
    "qurating": ["sample.budget.rows=8", "judged.pairs_per_row=1", "judged.confidence=0"],
}
# Words of each class, some of which the recipes' own lists look for.
CLASSES = {
    "business": "shares profit bank oil market sales firm loan".split(),
    "entertainment": "film actor oscar music band song album stage".split(),
    "politics": "minister parliament lords labour election voters campaign law".split(),
    "sports": "match cup league players team coach goal race".split(),
    "tech": "computer mobile broadband internet software users virus chip".split(),
}
# What the trust report is about: a run of the main job, as small as it can be.
MAIN_JOB = """
name: specialise
sources: {topics: {use: data.read.python_topics, limit: 6}}
models: {base: {load: toy}}
steps:
  - {name: chunks, use: data.recipes.text_chunks, from: topics, characters: 400}
  - {name: chosen, use: data.select.random, from: chunks, budget: {rows: 12}}
  - {name: planted, use: data.augment.canaries, from: chosen}
  - {name: adapted, use: adapters.lora, model: base}
  - {name: trained, use: training.fit, model: adapted, from: planted, budget: {rows: 9}, keep_checkpoints: [0.5]}
  - {name: target_items, use: data.recipes.continuation, from: chunks, prompt_words: 8, completion_words: 20}
  - {name: curve_items, use: data.select.random, from: target_items, budget: {rows: 6}, allow_short: true, seed: 3}
  - {name: held_out, use: evaluation.bits_per_byte, from: curve_items, model: trained}
arms: {random: {}, similarity: {chosen: {budget: {rows: 14}}}}
compare: {baseline: random, at: none, seeds: [0]}
"""
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


@pytest.fixture(autouse=True)
def news(tmp_path_factory, monkeypatch):
    """The packaged news, made up: no test needs what `tutelage fetch` brings."""
    folder = tmp_path_factory.mktemp("packaged")
    rng = random.Random(0)
    with (folder / "texts.jsonl").open("w", encoding="utf-8") as lines:
        for number in range(NEWS):
            label = list(CLASSES)[number % len(CLASSES)]
            words = [
                rng.choice(CLASSES[label]) if rng.random() < 0.4 else f"w{rng.randrange(60)}" for _ in range(30)
            ]
            row = {"id": f"{label}-{number}", "text": " ".join(words), "label": label}
            lines.write(json.dumps(row) + "\n")
    monkeypatch.setattr("tutelage.models.fetch.packaged", lambda name: folder)


def test_there_are_recipes():
    assert "specialise" in [file.stem for file in RECIPES]


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipe_is_valid_as_written(file):
    assert load_recipe(file).name == file.stem


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.stem)
def test_recipe_runs_small(file, model, tmp_path):
    models = {"base": model, "teacher": model.with_name("teacher"), "judge": model, "writer": model}
    models |= {"encoder": model}
    compare = load_recipe(file).compare
    by_tokens = compare is not None and compare.at in ("equal_tokens", "none")
    loads = {name: spec.load for name, spec in load_recipe(file).models.items()}
    changes = [f"models.{name}.load={models[name]}" for name, load in loads.items() if not of_a_run(load)]
    if file.stem == "trust-report":
        (tmp_path / "main.yaml").write_text(MAIN_JOB, encoding="utf-8")
        run(load_recipe(tmp_path / "main.yaml", [f"models.base.load={model}"]), tmp_path)
    if compare is not None:
        changes += ["compare.tune.budget.tokens=600"] if compare.tune is not None else []
    changes += FEWER.get(file.stem, [])
    limit = LIMIT.get(file.stem, 30)
    result = run(load_recipe(file, changes, limit=limit), tmp_path, limit=limit)
    assert result.status in ("passed", "gate failed")
    if result.comparison is None:
        assert all(value.load() is not None for value in result.values.values())
        return
    trained = [arm for arm in result.comparison["arms"] if arm["trained"]]
    failed = {arm["name"]: arm["failed"] for arm in trained if arm["failed"]}
    assert set(failed) <= {"destructive"}, failed
    parts = ("scored_tokens", "trained_tokens") if by_tokens else ("forward_flops", "backward_flops")
    if compare is not None and compare.at == "equal_labels":
        parts = ("labels",)
        trained = [arm for arm in trained if arm["name"] != compare.oracle]
    spent = [sum(c[part] for c in arm["cost"] for part in parts) for arm in trained if not arm["failed"]]
    assert file.stem in PRICED_APART or max(spent) <= 1.1 * min(spent), "arms at equal total cost"
