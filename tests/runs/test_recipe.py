"""Recipes: every mistake is one clear error with its place, before anything runs; every field arrives."""

import ast
import re
from pathlib import Path

import pytest

from tutelage import __version__, runs
from tutelage.core.errors import ConfigError, InputError, TutelageError
from tutelage.runs import Recipe, load_recipe
from tutelage.runs.checks import check_recipe
from tutelage.runs.graph import build_graph

GOOD = """\
name: good
description: a description
sources:
  pool: {path: pool.jsonl}
models:
  base: {load: "0.0"}
steps:
  - {name: chosen, use: data.select.random, from: pool, budget: {tokens: 0.1k}}
  - {name: trained, use: training.toy_fit, model: base, from: chosen, rate: 1e-1}
"""


def broken(bed, text, *, exit_code=2):
    with pytest.raises(TutelageError) as caught:
        bed.load(text)
    error = caught.value
    assert error.exit_code == exit_code
    return complete(error)


def complete(error):
    """The text of an error that says where, what was expected, what was found and what to do."""
    text = str(error)
    for fact in ("where", "expected", "found", "do"):
        assert re.search(rf"^  {fact}: +\S", text, re.M), f"no {fact} in\n{text}"
    assert len(text.splitlines()) <= 6
    return text


def test_every_complaint_about_a_recipe_is_whole():
    """No error of `runs` leaves out one of the four facts (a message that comes from elsewhere hands them on)."""
    for file in sorted(Path(runs.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) in ("ConfigError", "InputError"):
                given = {keyword.arg for keyword in node.keywords}
                lacking = {"where", "expected", "found", "remedy"} - given
                # A recipe that was checked cannot meet it.
                assert not lacking or file.name == "compute.py", (
                    f"{file.name}, line {node.lineno}: no {', '.join(sorted(lacking))}"
                )


@pytest.mark.parametrize(
    ("old", "new", "do"),
    [
        ("description: a description", "description: 3", "write text"),
        ("description: a description", "description: [a]", "write text"),
        ("name: good", "name: good\nseed: many", "whole number"),
        ("name: good", "name: good\nallow_remote: perhaps", "true or false"),
        ("name: good", "name: good night", "letters, digits"),
        ("pool: {path: pool.jsonl}", "pool: pool.jsonl", "write a mapping"),
        ("models:\n", "arms: [a]\nmodels:\n", "write a mapping"),
        ("models:\n", "gates: {a: b}\nmodels:\n", "write a list"),
        ("models:\n", "compare: {baseline: chosen, at: equally}\nmodels:\n", "one of the values expected"),
        ("models:\n", "compare: {baseline: chosen, margin: -1}\nmodels:\n", "in that range"),
        ("models:\n", "compare: {baseline: chosen, margin: wide}\nmodels:\n", "write a number"),
        ("models:\n", "compare: {baseline: chosen, seeds: []}\nmodels:\n", "add what is missing"),
        ("models:\n", "compare: {baseline: chosen, tune: {stepp: x}}\nmodels:\n", "did you mean step"),
        ("models:\n", "compare: {baseline: chosen, budget: {tokns: 1}}\nmodels:\n", "did you mean tokens"),
        ("name: chosen, ", "", "add `name: ...`"),
        ("path: pool.jsonl", "path: pool.jsonl, path: a", "keep one of them"),
        ("path: pool.jsonl", "path: pool.jsonl, [a]: b", "write a name before the colon"),
        ("from: pool,", "from: [[pool]],", "write text"),
    ],
)
def test_the_remedy_fits_what_is_wrong(bed, old, new, do):
    assert old in GOOD
    text = broken(bed, GOOD.replace(old, new, 1))
    assert do in text.splitlines()[-1], text


def test_a_good_recipe_loads_and_goes_round(bed):
    recipe = bed.load(GOOD)
    assert recipe.description == "a description"
    node = build_graph(recipe).nodes["trained"]
    assert node.method.rate == 0.1
    assert build_graph(recipe).nodes["chosen"].method.budget.tokens == 100
    again = Recipe(**recipe.flat()).placed(recipe.folder)
    assert again.flat() == recipe.flat()
    check_recipe(again)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("sources:", "sorces:", "sources"),
        ("budget: {tokens", "budgte: {tokens", "budget"),
        ("budget: {tokens", "budget: {token", "token"),
        ("data.select.random", "data.select.randm", "data.select.random"),
        ("from: pool", "from: pol", "pool"),
        ("model: base", "model: bas", "base"),
        ("rate: 1e-1", "rate: fast", "rate"),
        ("rate: 1e-1", "rate: -1", "greater than 0"),
        ("rate: 1e-1", "inputs: {refrence: pool}", "reference"),
        ("name: trained", "name: chosen", "twice"),
        ("name: trained", "name: pool", "twice"),
        ("model: base, from: chosen", "model: base, from: trained", "not an earlier step"),
        ("from: chosen", "from: base", "is not a dataset"),
        ("model: base", "model: pool", "is not a model"),
        ("model: base, from: chosen", "from: chosen", "needs a model"),
        ("from: chosen, ", "", "needs rows"),
        ("training.toy_fit", "training.schedules.wsd", "no step of its own"),
        ("training.toy_fit", "data.read.jsonl", "belong under sources"),
        ("pool: {path: pool.jsonl}", "pool: {use: data.select.random, path: pool.jsonl}", "read by a reader"),
        ("pool: {path: pool.jsonl}", "pool: {}", "needs `path`"),
        ("pool: {path: pool.jsonl}", "pool: {path: pool.jsonl, lmit: 3}", "limit"),
        ('base: {load: "0.0"}', 'base: {load: "0.0", dtpe: x}', "dtype"),
        ('base: {load: "0.0"}', 'base: {load: "0.0", engine: steam}', "'torch' or 'openvino'"),
        ('base: {load: "0.0"}', 'base: {load: "https://api.example.com/v1"}', "allow_remote"),
        ("name: good", "name: good\nname: again", "given twice"),
        ("name: good", "name: good\nrequire_version: 99", "99"),
        ("name: good", "name: good\nrequire_version: banana", "not a version"),
        ("name: good", "name: good\nreport_to: [a]", "report_to"),
        ("rate: 1e-1", "to: out", "only a writer"),
        ("rate: 1e-1", "at: 3", "forecaster"),
        ("rate: 1e-1", "rate: [", "YAML"),
        ("name: good", "name: &x good", "anchors"),
        ("name: good", "name: !!python/object:os.system good", "YAML"),
        ("name: good", "name: good\nseed: -1", "greater than or equal"),
        ("name: chosen, ", "", "lacks 'name'"),
    ],
)
def test_one_clear_error(bed, old, new, says):
    assert old in GOOD
    text = broken(bed, GOOD.replace(old, new, 1))
    assert says in text
    assert "recipe.yaml" in text


def test_the_line_is_named(bed):
    assert "recipe.yaml, line 8" in broken(bed, GOOD.replace("data.select.random", "data.select.randm"))
    assert "recipe.yaml, line 8" in broken(bed, GOOD.replace("budget: {tokens: 0.1k}", "budget: {tokens: x}"))
    assert "line 3" in broken(bed, GOOD.replace("sources:", "sorces:"))


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b\n"])
def test_a_file_that_is_no_mapping(bed, text):
    path = bed.folder / "r.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="mapping of keys"):
        load_recipe(path)


def test_files_that_cannot_be_read(bed):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_recipe(bed.folder / "none.yaml")
    (bed.folder / "latin.yaml").write_bytes("name: caf\xe9".encode("latin-1"))
    with pytest.raises(ConfigError, match="UTF-8"):
        load_recipe(bed.folder / "latin.yaml")
    (bed.folder / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_recipe(bed.folder / "bom.yaml").name == "good"
    (bed.folder / "huge.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(ConfigError, match="too large"):
        load_recipe(bed.folder / "huge.yaml")


def test_yaml_without_surprises(bed):
    text = GOOD.replace("description: a description", "description: on").replace("rate: 1e-1", "rate: 2.5e-1")
    recipe = bed.load(text)
    assert recipe.description == "on"
    assert build_graph(recipe).nodes["trained"].method.rate == 0.25
    dated = bed.load(GOOD.replace("a description", "2024-01-01"))
    assert dated.description == "2024-01-01"


@pytest.mark.parametrize("version", [__version__, f">={__version__}", ">=0.0.1"])
def test_require_version_that_fits(bed, version):
    assert (
        bed.load(GOOD.replace("name: good", f'name: good\nrequire_version: "{version}"')).require_version
        == version
    )


def test_overrides(bed):
    overrides = ["trained.rate=0.5", "steps.chosen.budget.tokens=50", "seed=3", "sources.pool.path=pool.jsonl"]
    recipe = bed.load(GOOD, overrides)
    graph = build_graph(recipe)
    assert graph.nodes["trained"].method.rate == 0.5
    assert graph.nodes["chosen"].method.budget.tokens == 50
    assert recipe.seed == 3


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trained", "key=value"),
        ("traned.rate=1", "trained"),
        ("steps.traned.rate=1", "trained"),
        ("trained=1", "whole step"),
        ("name.x=1", "plain value"),
        ("trained.rte=1", "rate"),
    ],
)
def test_overrides_that_are_wrong(bed, override, says):
    with pytest.raises(ConfigError, match=says) as caught:
        bed.load(GOOD, [override])
    complete(caught.value)


def test_from_python_the_same_errors():
    with pytest.raises(ConfigError, match="'steps'"):
        Recipe(name="x")
    with pytest.raises(ConfigError, match="unknown recipe key"):
        Recipe(name="x", stepz=[], steps=[{"name": "a", "use": "data.select.random", "from": "b"}])


def test_components_nest_one_level(bed):
    fit = (
        "{name: t, use: training.fit, model: base, from: pool, schedule: {use: training.schedules.wsd, wramup: 1}}"
    )
    assert "wramup" in broken(bed, GOOD + f"  - {fit}\n")
    fit = fit.replace("wramup: 1", "x: {use: y}")
    assert "one level" in broken(bed, GOOD + f"  - {fit}\n")
    fit = "{name: t, use: training.fit, model: base, from: pool, schedule: {use: training.schedules.wds}}"
    assert "training.schedules.wsd" in broken(bed, GOOD + f"  - {fit}\n")


def test_inputs_of_a_card_are_asked_for(bed):
    step = "{name: s, use: signals.similarity_tfidf, from: pool}"
    assert "lacks the input" in broken(bed, GOOD + f"  - {step}\n")


def test_a_task_with_its_own_items_needs_no_rows(bed):
    step = {"name": "follows", "use": "evaluation.instruction_following", "model": "base"}
    assert build_graph(bed.recipe(steps=[step])).nodes["follows"].rows == ()
    with pytest.raises(ConfigError, match="needs rows"):
        build_graph(bed.recipe(steps=[{**step, "use": "evaluation.toy_task"}]))


class TestForeach:
    def test_runs_once_per_value_and_pairs_values(self, bed):
        steps = [
            {
                "name": "part",
                "use": "data.select.random",
                "from": "pool",
                "budget": {"rows": "$n"},
                "foreach": {"over": [3, 5], "as": "n"},
            },
            {"name": "scored", "use": "signals.toy_score", "from": "part", "foreach": {"over": [3, 5], "as": "n"}},
            {"name": "both", "use": "signals.toy_score", "from": "scored[3]"},
            {"name": "all", "use": "signals.toy_score", "from": "scored"},
        ]
        graph = build_graph(bed.recipe(steps=steps))
        assert list(graph.nodes) == ["part[3]", "part[5]", "scored[3]", "scored[5]", "both", "all"]
        assert graph.nodes["part[5]"].method.budget.rows == 5
        assert graph.nodes["scored[5]"].rows == ("part[5]",)
        assert graph.nodes["both"].rows == ("scored[3]",)
        assert graph.nodes["all"].rows == ("scored[3]", "scored[5]")

    def test_only_whole_values_are_replaced(self, bed):
        steps = [
            {
                "name": "kept",
                "use": "data.filter.where",
                "from": "pool",
                "column": "text",
                "equals": "a $n",
                "foreach": {"over": [1], "as": "n"},
            }
        ]
        assert build_graph(bed.recipe(steps=steps)).nodes["kept[1]"].method.equals == "a $n"


class TestPaths:
    def test_outside_is_refused_unless_allowed(self, bed, tmp_path_factory):
        other = tmp_path_factory.mktemp("other")
        (other / "x.jsonl").write_text('{"text": "a"}\n')
        for path in (str(other / "x.jsonl"), f"../{other.name}/x.jsonl"):
            recipe = bed.recipe(sources={"pool": {"path": path}, "test": {"path": "test.jsonl"}})
            with pytest.raises(ConfigError, match="leaves the workspace"):
                bed.run(recipe)

    def test_allow_outside_is_the_opt_in(self, bed, tmp_path_factory):
        other = tmp_path_factory.mktemp("other")
        (other / "pool.jsonl").write_text((bed.folder / "pool.jsonl").read_text())
        file = bed.file(sources={"pool": {"path": str(other / "pool.jsonl")}, "test": {"path": "test.jsonl"}})
        assert bed.run(load_recipe(file, allow_outside=True)).status == "passed"

    def test_links_that_lead_out_are_refused(self, bed, tmp_path_factory):
        other = tmp_path_factory.mktemp("other")
        (other / "secret.jsonl").write_text('{"text": "a"}\n')
        (bed.folder / "docs").mkdir()
        (bed.folder / "docs" / "link.jsonl").symlink_to(other / "secret.jsonl")
        with pytest.raises(ConfigError, match="leaves the workspace"):
            bed.run(bed.recipe(sources={"pool": {"path": "docs"}, "test": {"path": "test.jsonl"}}))
        (bed.folder / "docs" / "link.jsonl").unlink()
        (bed.folder / "docs" / "folder").symlink_to(other)
        with pytest.raises(ConfigError, match="leaves the workspace"):
            bed.run(bed.recipe(sources={"pool": {"path": "docs"}, "test": {"path": "test.jsonl"}}))

    def test_a_missing_and_an_empty_source(self, bed):
        with pytest.raises(InputError, match="does not exist"):
            bed.run(bed.recipe(sources={"pool": {"path": "nope.jsonl"}, "test": {"path": "test.jsonl"}}))
        (bed.folder / "empty").mkdir()
        with pytest.raises(InputError, match="nothing to read"):
            bed.run(bed.recipe(sources={"pool": {"path": "empty"}, "test": {"path": "test.jsonl"}}))


COMPARE = {"baseline": "plain", "metric_step": "result"}
ARMS = {"plain": {}, "other": {"trained": {"rate": 2.0}}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arms": ARMS}, "never run"),
        ({"arms": ARMS, "compare": {**COMPARE, "baseline": "plan"}}, "plain"),
        ({"arms": {**ARMS, "bad": {"traned": {}}}, "compare": COMPARE}, "trained"),
        ({"arms": {**ARMS, "bad": {"trained": {"rte": 1}}}, "compare": COMPARE}, "rate"),
        ({"arms": {**ARMS, "bad": {"trained": {"model": "pool"}}}, "compare": COMPARE}, "not a model"),
        ({"arms": {**ARMS, "bad": {"trained": {"name": "x"}}}, "compare": COMPARE}, "rename"),
        ({"arms": ARMS, "compare": {**COMPARE, "metric_step": "trained"}}, "result"),
        ({"arms": ARMS, "compare": {**COMPARE, "placebo": "pla"}}, "plain"),
        ({"arms": ARMS, "compare": {**COMPARE, "oracle": "x"}}, "oracle"),
        ({"arms": ARMS, "compare": {**COMPARE, "also": ["trained"]}}, "Task steps"),
        ({"arms": ARMS, "compare": {**COMPARE, "primary": [["other", "plan"]]}}, "plain"),
        ({"arms": ARMS, "compare": {**COMPARE, "primary": [["other", "other"]]}}, "itself"),
        ({"arms": ARMS, "compare": {**COMPARE, "seeds": [1, 1]}}, "differ"),
        ({"arms": ARMS, "compare": {**COMPARE, "seeds": []}}, "seeds"),
        ({"arms": ARMS, "compare": {**COMPARE, "at": "equal_tokens", "budget": {"flops": 1}}}, "tokens"),
        ({"arms": ARMS, "compare": {**COMPARE, "at": "equally"}}, "equal_total_flops"),
        ({"gates": [{"name": "g", "step": "trained", "at_least": 1}]}, "Task step"),
        ({"gates": [{"name": "g", "step": "result"}]}, "exactly one"),
        ({"gates": [{"name": "g", "step": "result", "no_harm": 0.1}]}, "against"),
        ({"gates": [{"name": "g", "step": "result", "arm": "x", "at_least": 1}]}, "no compare"),
        ({"arms": ARMS, "compare": COMPARE, "gates": [{"name": "g", "arm": "othr", "at_least": 1}]}, "other"),
        ({"repeat": {"times": 0}}, "times"),
        ({"repeat": {"times": 2, "carry": {"base": "result"}}}, "changes its kind"),
        ({"repeat": {"times": 2, "carry": {"chosen": "trained"}}}, "source or a model"),
        ({"repeat": {"times": 2, "carry": {"base": "traned"}}}, "trained"),
        ({"repeat": {"times": 2, "until": {"metric": "trained", "below": 1}}}, "Task step"),
        ({"repeat": {"times": 2, "until": {"metric": "result"}}}, "exactly one"),
    ],
)
def test_one_clear_error_about_the_whole(bed, changes, says):
    with pytest.raises(ConfigError, match=says) as caught:
        check_recipe(bed.recipe(**changes))
    complete(caught.value)


TUNE = {"step": "trained", "field": "rate", "grid": [0.5, 1.0], "on": "dev_result", "budget": {"tokens": 50}}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"step": "chosen"}, "trained"),
        ({"field": "rte"}, "rate"),
        ({"grid": [0.5, -1.0]}, "greater than 0"),
        ({"on": "result"}, "proves nothing"),
        ({"on": "peeking"}, "proves nothing"),
        ({"on": "trained"}, "dev_result"),
    ],
)
def test_tuning_on_what_decides_is_refused(bed, change, says):
    steps = [
        *bed.plain()["steps"],
        {"name": "dev_result", "use": "evaluation.toy_task", "from": "dev", "model": "trained"},
        {"name": "peeking", "use": "evaluation.toy_task", "from": "test", "model": "trained", "scale": 2.0},
    ]
    sources = {name: {"path": f"{name}.jsonl"} for name in ("pool", "test", "dev")}
    compare = {**COMPARE, "tune": {**TUNE, **change}}
    with pytest.raises(ConfigError, match=says) as caught:
        check_recipe(bed.recipe(steps=steps, sources=sources, arms=ARMS, compare=compare))
    complete(caught.value)


MUTATIONS = [
    ("src/tutelage/runs/_recipe_errors.py", '"bool": "write true or false",', ""),
    ("src/tutelage/runs/_recipe_errors.py", 'if one["type"] == "extra_forbidden"', "if False"),
    ("src/tutelage/core/errors.py", "found=name,\n        remedy=suggest", "remedy=suggest"),
]
