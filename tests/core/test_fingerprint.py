"""Cache keys change with everything a result depends on and with nothing else."""

import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tutelage.core import discovery, fingerprint
from tutelage.core.discovery import build
from tutelage.core.fingerprint import code_hash, components, configuration, digest, method_key

MUTATIONS = [
    ("src/tutelage/core/fingerprint.py", '{**plain, "": list(plain)}', "plain"),
    (
        "src/tutelage/core/fingerprint.py",
        "if module not in sys.modules or file not in _loaded_sources:",
        "if True:",
    ),
    ("src/tutelage/core/fingerprint.py", "    _loaded_sources[_file] = _file.read_bytes()\n", "    pass\n"),
    ("src/tutelage/core/fingerprint.py", '.split(".")[:2]', '.split(".")'),
    ("src/tutelage/core/fingerprint.py", 'if any("train" in card.needs for card in cards)', "if cards"),
]


def test_digest_ignores_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_the_order_of_a_mapping_is_in_the_key():
    """Which part comes first decides which rows it gets."""
    orders = [{"train": 0.7, "held_out": 0.3}, {"held_out": 0.3, "train": 0.7}]
    keys = [method_key(build("data.split.by_group", {"parts": parts}), {"rows": "a"}) for parts in orders]
    assert keys[0] != keys[1]


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
    for name in [name for name in sys.modules if name.partition(".")[0] == "outside_pkg"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("file", "same"), [("method", False), ("shared", False), ("deep", False), ("unrelated", True)]
)
def test_the_code_hash_follows_imports(package, file, same):
    before = code_hash("outside_pkg.signals.method")
    source = package / f"{file}.py"
    source.write_text(source.read_text() + "\n# changed\n")
    assert (code_hash("outside_pkg.signals.method") == before) is same


def test_the_code_of_a_loaded_module_is_what_was_loaded(package):
    """An edit while the process runs changes the keys of later processes; this one goes on with the old code."""
    before = code_hash("outside_pkg.signals.method")
    importlib.import_module("outside_pkg.signals.shared")
    source = package / "shared.py"
    source.write_text(source.read_text() + "\n# changed\n")
    assert code_hash("outside_pkg.signals.method") == before
    del sys.modules["outside_pkg.signals.shared"]
    assert code_hash("outside_pkg.signals.method") != before, "not loaded: the file as it is will be"


def test_modules_loaded_before_the_first_key_are_as_they_were(tmp_path):
    """In a process of its own: the edit comes after the import and before anybody asks for a key."""
    copy = tmp_path / "tutelage"
    shutil.copytree(discovery.PACKAGE_ROOT, copy, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    code = (
        "from pathlib import Path\n"
        "import tutelage.core.text.words as words\n"
        "from tutelage.core.fingerprint import code_hash\n"
        "import sys\n"
        "if sys.argv[1] == 'edit':\n"
        "    file = Path(words.__file__)\n"
        "    file.write_text(file.read_text(encoding='utf-8') + '# changed', encoding='utf-8')\n"
        "print(code_hash('tutelage.signals.length'), words.__file__)\n"
    )

    def key(how):
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        command = [sys.executable, "-c", code, how]
        found, file = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.split()
        assert Path(file).is_relative_to(copy)
        return found

    before = key("plain")
    assert key("edit") == before
    assert key("plain") != before


@pytest.mark.parametrize(
    ("method", "distribution", "counts"),
    [
        ("training.fit", "torch", True),
        ("training.fit", "transformers", True),
        ("training.fit", "numpy", True),
        ("training.fit", "pyarrow", False),
        ("signals.embedding_tfidf", "scikit-learn", True),
        ("data.select.random", "numpy", True),
        ("data.select.random", "torch", False),
    ],
)
def test_a_key_changes_with_the_minor_version_of_what_computes(monkeypatch, method, distribution, counts):
    fields = {"budget": {"rows": 1}} if method == "data.select.random" else {}
    built, real, keys = build(method, fields), importlib.metadata.version, []
    for version in ("7.1.0", "7.1.5", "7.2.0"):
        changed = {distribution: version}
        monkeypatch.setattr(importlib.metadata, "version", lambda name, c=changed: c.get(name) or real(name))
        fingerprint._minor.cache_clear()
        keys.append(method_key(built, {}))
    fingerprint._minor.cache_clear()
    assert keys[0] == keys[1]
    assert (keys[0] != keys[2]) is counts


def test_the_code_hash_follows_imports_of_the_library(package, tmp_path, monkeypatch):
    copy = tmp_path / "library"
    shutil.copytree(discovery.PACKAGE_ROOT / "core", copy / "core", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(fingerprint, "PACKAGE_ROOT", copy)
    fingerprint._package_root.cache_clear()
    before = code_hash("outside_pkg.signals.method")
    words = copy / "core" / "text" / "words.py"
    words.write_text(words.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    fingerprint._loaded_sources.clear()
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
