"""Cache keys change with everything a result depends on and with nothing else."""

import shutil
from pathlib import Path

import pytest

from tutelage.core import discovery, fingerprint
from tutelage.core.discovery import build
from tutelage.core.fingerprint import code_hash, components, configuration, digest, method_key


def test_digest_ignores_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_configuration_names_components_in_full():
    method = discovery.build("training.fit", {"schedule": {"use": "training.schedules.wsd"}})
    config = configuration(method)
    assert config["schedule"]["use"] == "training.schedules.wsd"
    assert len(config["schedule"]) > 1, "defaults of the component are part of the configuration"
    assert "training.schedules.wsd" in components(config)
    assert "training.objectives.causal_lm" in components(config)


@pytest.mark.parametrize("change", ["field", "input", "extra", "component"])
def test_a_key_changes_with(change):
    fields = {"learning_rate": 1e-3, "schedule": {"use": "training.schedules.cosine"}}
    before = method_key(discovery.build("training.fit", fields), {"rows": "a"}, {"seed": 0})
    assert before == method_key(discovery.build("training.fit", fields), {"rows": "a"}, {"seed": 0})
    contents, extra = {"rows": "a"}, {"seed": 0}
    if change == "field":
        fields["learning_rate"] = 2e-3
    elif change == "input":
        contents = {"rows": "b"}
    elif change == "extra":
        extra = {"seed": 1}
    else:
        fields["schedule"] = {"use": "training.schedules.constant"}
    assert method_key(discovery.build("training.fit", fields), contents, extra) != before


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three modules: method -> shared -> deep (imported in a function)."""
    folder = tmp_path / "outside_pkg" / "signals"
    folder.mkdir(parents=True)
    (tmp_path / "outside_pkg" / "__init__.py").write_text("")
    (folder / "__init__.py").write_text("")
    (folder / "method.py").write_text("from outside_pkg.signals import shared\nimport json\n")
    (folder / "shared.py").write_text("def f():\n    from outside_pkg.signals.deep import g\n    return g()\n")
    (folder / "deep.py").write_text("from tutelage.core.text import words\n\n\ndef g():\n    return 1\n")
    (folder / "unrelated.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    fingerprint._package_root.cache_clear()
    yield folder
    fingerprint._package_root.cache_clear()


@pytest.mark.parametrize(
    ("file", "same"), [("method", False), ("shared", False), ("deep", False), ("unrelated", True)]
)
def test_the_code_hash_follows_imports(package, file, same):
    before = code_hash("outside_pkg.signals.method")
    source = package / f"{file}.py"
    source.write_text(source.read_text() + "\n# changed\n")
    assert (code_hash("outside_pkg.signals.method") == before) is same


def test_the_code_hash_follows_imports_of_the_library(package, tmp_path, monkeypatch):
    copy = tmp_path / "library"
    shutil.copytree(discovery.PACKAGE_ROOT / "core", copy / "core", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "PACKAGE_ROOT", copy)
    fingerprint._package_root.cache_clear()
    before = code_hash("outside_pkg.signals.method")
    words = copy / "core" / "text" / "words.py"
    words.write_text(words.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    assert code_hash("outside_pkg.signals.method") != before


def test_relative_imports_are_followed(package):
    (package / "method.py").write_text("from .shared import f\nfrom . import deep\n")
    before = code_hash("outside_pkg.signals.method")
    (package / "deep.py").write_text("def g():\n    return 2\n")
    assert code_hash("outside_pkg.signals.method") != before


def test_no_file_name_enters_a_key(tmp_path):
    from tutelage.core.dataset import Dataset

    rows = [{"id": "a", "text": "x"}]
    first = Dataset.from_rows(rows).save(Path(tmp_path) / "one")
    second = Dataset.from_rows(rows).save(Path(tmp_path) / "two")
    assert first.hash == second.hash


def test_files_that_decide_a_result_are_in_its_key(tmp_path):
    """A changed task file or its data is another measurement, though path and configuration are the same."""
    (tmp_path / "rows.jsonl").write_text('{"q": "a", "c": ["x", "y"], "a": 0}\n', encoding="utf-8")
    task = "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {test: rows.jsonl}}\ntest_split: test\n"
    task += 'output_type: multiple_choice\ndoc_to_text: "{{q}}"\ndoc_to_target: a\ndoc_to_choice: c\n'
    (tmp_path / "t.yaml").write_text(task, encoding="utf-8")
    method = build("evaluation.lm_eval_task", {"path": "t.yaml", "project": str(tmp_path)})
    first = method_key(method, {})
    assert method_key(method, {}) == first
    (tmp_path / "rows.jsonl").write_text('{"q": "b", "c": ["x", "y"], "a": 0}\n', encoding="utf-8")
    second = method_key(method, {})
    (tmp_path / "t.yaml").write_text(task + "num_fewshot: 0\n", encoding="utf-8")
    assert len({first, second, method_key(method, {})}) == 3
    assert [file.name for file in build("evaluation.instruction_following").files()] == [
        "instruction_probes.jsonl"
    ]
