"""Every method, found by discovery, keeps its kind's promises on toy data and toy models.

Nothing here names a method: what a method needs (a model, a second dataset, a numeric column, a budget) is read
from its card and its fields.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from tutelage.core import discovery
from tutelage.core.apply import check_balance, score_dataset
from tutelage.core.dataset import Dataset
from tutelage.core.dataset_builder import DatasetBuilder
from tutelage.core.errors import TutelageError
from tutelage.core.records import Budget, Result

CARDS = discovery.cards()
TOY = Path(__file__).resolve().parent.parent / "toy"
WORDS = "the quick brown fox jumps over a lazy dog while seven calm readers note every little word".split()


def of_kind(kind):
    return sorted(name for name, card in CARDS.items() if card.kind == kind)


def make_rows(count=24, seed=0):
    """Rows with every conventional column, so that any method finds what it reads."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        body = [" ".join(rng.choice(WORDS, 9)).capitalize() + "." for _ in range(4)]
        text = "\n\n".join(body)
        rows.append(
            {
                "id": f"row-{number:02d}",
                "text": text,
                "prompt": " ".join(body[:2]),
                "completion": " " + " ".join(body[2:]),
                "choices": body[:3],
                "answer": number % 3,
                "target": body[2],
                "good": body[0],
                "bad": body[1] + " zz qq",
                "source": f"file-{number % 4}",
                "group": f"group-{number % 6}",
                "kind": "text",
                "label": ("a", "b")[number % 2],
                "gold": ("a", "b")[number % 2],
                "teacher_label": ("a", "b")[number % 3 % 2],
                "label_2": ("a", "b")[number % 5 % 2],
                "inclusion": 1.0,
                "label_suspect": number % 4 == 0,
                "label_error_confidence": number / 24,
                "suggested_label": "a",
                "score": float(rng.normal()),
                "influence": float(rng.normal()),
                "vector": rng.normal(size=4).tolist(),
                "replay": number % 3 == 0,
                "n_tokens": len(text.split()),
                "contaminated": number % 5 == 0,
                "nll_sum": float(rng.gamma(4.0)),
                "judged_against": [f"row-{(number + 1) % count:02d}"],
                "judged_preference": [float(rng.random())],
                "duplicate_of": None if number % 6 else "row-00",
                "cluster": number % 3,
                "title": f"Topic {number}",
                "domain_loss": 1.0 + number % 4 / 10,
                "clear_conf": number / 24,
                "clear_auroc": 0.9,
                "conditioned": number % 4 > 0,
                "planted": number % 3,
                "subject": f"subject-{number % 4}",
                "level": ("remember", "understand", "apply")[number % 3],
                "n_correct": number % 9,
                "n_samples": 8,
                "checks": [{"kind": "max_words", "n": 20}],
                "type": "mc",
                "correct": number % 2 == 0,
                "text_b": body[0],
                "same": number % 2 == 0,
                "gold_texts": [body[1]],
                "gold_labels": ["a"],
                "classes": ["a", "b"],
                "label_probs": [0.9 - 0.8 * (number % 2), 0.1 + 0.8 * (number % 2)],
                "labels": [["a"], ["a", "b"], []][number % 3],
                "predicted": ("a", "b")[number % 2],
                "predicted_probs": [0.9 - 0.8 * (number % 2), 0.1 + 0.8 * (number % 2)],
                "method": ("reference", "other")[number % 2],
                "workload": f"w{number // 2 % 4}",
                "study": number // 8,
                "trial": 0,
                "time": 1.0 + number % 5,
                "human": ("a", "b", "tie")[number % 3],
                "response_a": body[0],
                "response_b": body[1],
                "votes": [("a", "b", None)[(number + j * (number % 5)) % 3] for j in range(3)],
                "vote_sources": ["first", "second", "third"],
            }
        )
    return rows


@pytest.fixture(scope="module")
def data():
    return Dataset.from_rows(make_rows())


@pytest.fixture(scope="module")
def model():
    from tutelage.models.toy import tiny_causal_lm

    return tiny_causal_lm(texts=[row["text"] for row in make_rows()])


@pytest.fixture(scope="module")
def inputs(data, model):
    # What is reported on shares no text with what anything is fitted or guided by.
    apart = Dataset.from_rows(make_rows(12, seed=1))
    given = {"model": model, "base": model, "teacher": model, "judge": model, "evaluation": apart, "seed": 0}
    given |= {"writer": model, "encoder": model, "protected": apart, "control": apart}
    given["classifier"] = discovery.build("adapters.tfidf_classifier").convert({}, apart, {})
    sides = [make_rows(), make_rows()[1:]]
    given["surrogates"] = [
        discovery.build("adapters.tfidf_classifier").convert({}, Dataset.from_rows(rows), {}) for rows in sides
    ]
    # What a person labelled is never labelled again.
    given["gold"] = Dataset.from_rows({**row, "id": f"gold-{n}"} for n, row in enumerate(make_rows(8, seed=5)))
    given["labels"] = Dataset.from_rows([{"label": "a", "description": "first"}, {"label": "b"}])
    # The same rows, each time with other losses.
    losses = [Dataset.from_rows(make_rows(seed=seed)) for seed in (2, 3, 4)]
    measured = discovery.build("evaluation.bits_per_byte").evaluate(model, data, {})
    given |= {"result": measured, "before": measured, "after": [measured] * 6}
    given |= {"trained_on": apart, "separate": None, "scorer": None}
    given["measured"] = discovery.build("evaluation.multiple_choice").evaluate(model, data, {})
    # Three sets of items without a common one.
    apart_by_level = [Dataset.from_rows(make_rows(seed=seed)) for seed in (6, 7, 8)]
    levels = [discovery.build("evaluation.multiple_choice").evaluate(model, rows, {}) for rows in apart_by_level]
    given |= {"tuned": levels, "untuned": levels, "level_rows": None}
    given |= {"attacks": [given["measured"]] * 3, "benign": given["measured"]}
    return {**given, "losses": losses, "results": None, "listed": Dataset.from_rows(make_rows()[:4]), "*": data}


def inputs_for(name, inputs):
    card = CARDS[name]
    found = {"seed": 0}
    for key in card.inputs:
        plain = key.rstrip("?")
        found[plain] = inputs.get(plain, inputs["*"])
    return found | {key: model_for(name, inputs) for key in ("model", "base") if key in card.inputs}


def model_for(name, inputs):
    """A model of the kind that the card asks for."""
    asked = [purpose for key, purpose in CARDS[name].inputs.items() if key in ("model", "base")]
    return inputs["classifier" if asked and asked[0].startswith("the classifier") else "model"]


def fields_for(name):
    """Values for the common knobs a method cannot do without."""
    known = discovery.load(name).model_fields
    offered = {
        "budget": Budget(rows=6),
        "column": "score",
        "direction": "higher",
        "one_of": None,
        "least": 0.0,
        "minimum": 0.0,
        "equals": None,
    }
    # Only what has no usable default of its own.
    chosen = {
        key: value
        for key, value in offered.items()
        if key in known and value is not None and known[key].default in (None, "")
    }
    if name == "signals.constant":
        chosen = {"column": "mark"}
    if "column" in known and known["column"].default == "embedding":
        chosen["column"] = "vector"
    if name in ("signals.neighbour_distance", "signals.neighbour_agreement"):
        chosen["k"] = 3
    if name == "signals.pattern_votes":
        chosen = {"sources": {"animals": {"a": ["fox", "dog"], "b": ["re:read.*"]}, "time": {"b": ["while"]}}}
    if name == "signals.polar":
        chosen |= {"machine": "first"}
    if name == "signals.predictive_strength":
        chosen = {"benchmark_scores": (1.0, 2.0, 3.0), "least_share": 0.25}
    if name == "signals.pairwise_quality":
        # A model that knows nothing is decided about nothing.
        chosen = {"confidence": 0.0}
    if name == "signals.instruction_quality":
        chosen = {"indicators": ("influence",), "loss_column": "nll_sum", "significance": 1.0}
    if name == "signals.pass_rate":
        chosen = {"samples": 2, "max_new_tokens": 4}
    if name == "data.filter.where":
        chosen = {"column": "kind", "equals": "text"}
    if name == "data.filter.rules":
        chosen = {"profile": "none", "keep": {"score": {"min": 0.0}}}
    if name == "signals.domain_loss":
        chosen = {"column": "group"}
    if name == "signals.skill_graph":
        chosen = {"column": "group", "skills": [f"group-{i}" for i in range(6)]}
    if name == "data.augment.traps":
        chosen = {"perplexity": (1.0, 1001.0), "length": 3, "pairs": 2, "buckets": 1}
    if name == "evaluation.exposure":
        chosen = {"column": "title"}
    if name == "evaluation.adversarial":
        chosen = {"edit_rate": 1.0, "similarity": -1.0}
    if name == "evaluation.dsl":
        chosen = {"positive": "a", "splits": 2}
    if name == "evaluation.screening":
        chosen = {"column": "score", "positive": "a", "recall": 0.5}
    if name == "evaluation.lm_eval_task":
        chosen = {"path": "task.yaml", "project": str(TOY)}
    return chosen


def make(name):
    return discovery.build(name, fields_for(name))


def frozen(data):
    return data.hash, data.num_rows, tuple(data.column_names)


@pytest.mark.parametrize("name", of_kind("Scorer"))
def test_scorer_adds_columns_and_nothing_else(name, data, inputs):
    before = frozen(data)
    scored = score_dataset(make(name), data, inputs_for(name, inputs))
    assert frozen(data) == before, "the input was changed"
    assert scored.ids() == data.ids()
    added = set(scored.column_names) - set(data.column_names)
    replaced = {w for w in CARDS[name].writes if w in data.column_names}
    assert added | replaced, "a scorer writes at least one column"
    declared = {w for w in CARDS[name].writes if "{" not in w}
    if len(declared) == len(CARDS[name].writes):
        assert added <= declared and declared <= set(scored.column_names), f"card writes {sorted(declared)}"
    again = score_dataset(make(name), data, inputs_for(name, inputs))
    assert again.hash == scored.hash, "same input, other output"


@pytest.mark.parametrize("name", of_kind("Scorer"))
def test_a_score_does_not_hang_on_how_the_rows_are_cut(name, data, inputs):
    builder = DatasetBuilder(rows_per_shard=7)
    for row in data.rows():
        builder.add(row)
    whole, parts = (score_dataset(make(name), rows, inputs_for(name, inputs)) for rows in (data, builder.finish()))
    assert parts.num_shards > whole.num_shards == 1
    for column in whole.column_names:
        assert alike(whole.column(column).to_pylist(), parts.column(column).to_pylist()), column


def alike(one, other):
    """Equal, numbers but for rounding: packs hold other rows."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-4, abs=1e-5, nan_ok=True)
    return one == other


@pytest.mark.parametrize("name", of_kind("Transform"))
def test_transform_accounts_for_every_row(name, data, inputs):
    if name == "data.label.pseudo":
        data = data.drop_columns("label")
    before = frozen(data)
    result = make(name).apply(data, inputs_for(name, inputs))
    assert frozen(data) == before, "the input was changed"
    check_balance(data, result, name)
    assert all(reason for reason in result.dropped.column("reason").to_pylist())
    again = make(name).apply(data, inputs_for(name, inputs))
    assert again.hash == result.hash, "same input, other output"
    json.dumps(result.report)


@pytest.mark.parametrize("name", of_kind("Transform") + of_kind("Scorer"))
def test_missing_columns_are_one_clear_error(name, inputs):
    card = CARDS[name]
    if not [column for column in card.reads if "{" not in column and not column.endswith("?")]:
        pytest.skip("reads no fixed column")
    bare = Dataset.from_rows([{"id": "a", "nothing": 1}, {"id": "b", "nothing": 2}])
    method = make(name)
    with pytest.raises(TutelageError):
        if card.kind == "Scorer":
            score_dataset(method, bare, inputs_for(name, inputs))
        else:
            method.apply(bare, inputs_for(name, inputs))


@pytest.mark.parametrize("name", of_kind("Sampler"))
def test_sampler_repeats_and_resumes(name, data):
    def take(draws, count):
        return [draws.next() for _ in range(count)]

    whole = take(make(name).start(data, seed=3), 60)
    assert whole == take(make(name).start(data, seed=3), 60), "same seed, other order"
    assert all(0 <= index < data.num_rows for index in whole)
    for cut in (0, 1, 7, 24, 25, 50):
        first = make(name).start(data, seed=3)
        take(first, cut)
        state = json.loads(json.dumps(first.state_dict()))
        second = make(name).start(data, seed=3)
        second.load_state_dict(state)
        assert take(second, 60 - cut) == whole[cut:], f"resumed at {cut}"


@pytest.mark.parametrize("name", of_kind("Schedule"))
def test_schedule_is_a_pure_function_in_the_unit_interval(name):
    schedule = make(name)
    values = [schedule.multiplier(float(seen), 1000.0) for seen in range(0, 1000, 7)]
    assert all(0.0 <= value <= 1.0 + 1e-12 for value in values)
    assert max(values) > 0
    assert values == [schedule.multiplier(float(seen), 1000.0) for seen in range(0, 1000, 7)]


@pytest.mark.parametrize("name", of_kind("Objective"))
def test_objective_returns_a_sum_and_its_weight(name, data, model):
    from tutelage.models.packing import pack

    if "classifier" in discovery.load(name).trains:
        head = "adapters.multi_label_head" if name.endswith("multi_label") else "adapters.classification_head"
        model = discovery.build(head).convert({"base": model}, data, {})
        model.head.weight.requires_grad_()
    objective = make(name).start(model)
    encoded = [objective.encode(row, model, 64) for row in data.take([0, 1, 2]).to_pylist()]
    encoded = [item if isinstance(item, list) else [item] for item in encoded]
    sizes = [len(item) for item in encoded] if objective.joint_rows else None
    documents = [one for item in encoded for one in item]
    for batch in pack(documents, 512 if sizes else 64, isolation=model.isolation, together=sizes):
        loss = objective.loss(model, batch)
        assert float(loss.weight) > 0
        assert np.isfinite(float(loss.sum.detach()))
        assert loss.sum.requires_grad


@pytest.mark.parametrize("name", of_kind("Task"))
def test_task_reports_an_interval_and_its_items(name, data, inputs):
    model = model_for(name, inputs)
    if not CARDS[name].reads:
        data = None  # it brings its own rows, or measures results
    result = make(name).evaluate(model, data, inputs_for(name, inputs))
    assert isinstance(result, Result)
    assert result.items is not None and len(result.items) > 0
    assert result.interval is not None or result.no_interval
    assert Result.model_validate_json(result.model_dump_json()).model_dump() == result.model_dump()
    again = make(name).evaluate(model, data, inputs_for(name, inputs))
    assert again.estimate == result.estimate
    assert again.item_log == result.item_log


@pytest.fixture(scope="module")
def points():
    """Measured runs with every column that a forecaster may read: six runs of growing size, eight points each."""
    rows = []
    for run in range(6):
        for step in range(8):
            x, score = 100.0 * 2**step, 0.9 - 2.0 * (100.0 * 2**step) ** -0.4 - 0.2 / (run + 2)
            row = {"id": f"{run}-{step}", "x": x, "y": score + 0.001 * ((7 * run + 3 * step) % 5), "seed": run}
            row |= {
                "size": 1e6 * 4**run,
                "cohort": f"c{run % 3}",
                "run": f"r{run}",
                "final": 0.9 - 0.2 / (run + 2),
            }
            row |= {"model": f"m{run}", "task": f"t{step}", "k_shot": score, "tuned": score + 0.05}
            rows.append({**row, "score": score, "validation_loss": 1 - score, "cross_entropy": 2 - score})
    return Dataset.from_rows(rows)


@pytest.mark.parametrize("name", of_kind("Forecaster"))
def test_forecaster_tells_its_back_test_and_repeats(name, points, inputs):
    before = frozen(points)
    method = make(name)
    given = {"seed": 0} | {key: value for key, value in inputs_for(name, inputs).items() if key == "model"}
    at = float(points.numpy("size" if "size" in type(method).model_fields else "x").max()) * 2
    at = at if method.takes_at else None
    result = method.predict(method.fit(points, given), at)
    assert frozen(points) == before, "the input was changed"
    assert isinstance(result, Result) and (result.interval is not None or result.no_interval)
    assert result.system["told"] and all(isinstance(line, str) for line in result.system["told"])
    first = " ".join(result.system["told"])
    assert any(word in first for word in ("held-out", "leaving one", "random", "last checkpoint", "run all"))
    assert Result.model_validate_json(result.model_dump_json()).model_dump() == result.model_dump()
    assert method.predict(method.fit(points, given), at).model_dump() == result.model_dump()
    bare = Dataset.from_rows([{"id": "a", "nothing": 1}])
    with pytest.raises(TutelageError, match="no column"):
        method.fit(bare, given)


@pytest.mark.parametrize("name", of_kind("Adapter"))
def test_adapter_leaves_its_input_as_it_was(name, data, inputs):
    if name == "adapters.external_command":
        pytest.skip("runs an outside program: its own test starts a real one")
    if "qlora" in CARDS[name].needs:
        pytest.importorskip("bitsandbytes")
    model = model_for(name, inputs)
    before = model.fingerprint
    converted = make(name).convert({"base": model}, data, inputs_for(name, inputs))
    assert model.fingerprint == before
    assert converted is not model


@pytest.mark.parametrize("name", sorted(CARDS))
def test_a_changed_field_changes_the_cache_key(name):
    method = make(name)
    hashes = {method.config_hash()}
    changed = 0
    for field in type(method).model_fields:
        value = getattr(method, field)
        other = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v * 0.5 + 0.0123}.get(type(value))
        if other is None:
            continue
        try:
            hashes.add(type(method)(**{**fields_for(name), field: other(value)}).config_hash())
            changed += 1
        except TutelageError:
            continue
    assert len(hashes) == changed + 1


def test_a_method_is_two_files_in_another_package(tmp_path, monkeypatch):
    """A third party adds a method by one module and its test, declared by an entry point."""
    import subprocess
    import sys

    package = tmp_path / "outside_methods" / "signals"
    package.mkdir(parents=True)
    (tmp_path / "outside_methods" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "vowels.py").write_text(
        '"""Share of vowels in a text: v / n for v vowels among n characters; an example of a signal."""\n\n'
        "from tutelage.core.method import Inputs, Scorer, State\n\n"
        'CARD = {"name": "signals.vowels", "paper": {"title": "Common practice"},'
        ' "summary": "Share of vowels among all characters.", "reads": ["text"], "writes": ["vowels"],'
        ' "cost": "one pass", "baseline": None, "headline": "none", "version": 1}\n\n\n'
        "class Vowels(Scorer):\n"
        '    """Letters that count as vowels."""\n\n'
        '    letters: str = "aeiou"\n\n'
        "    def score(self, shard, state: State, inputs: Inputs):\n"
        '        texts = shard.column("text").to_pylist()\n'
        '        return {"vowels": [sum(t.count(c) for c in self.letters) / max(len(t), 1) for t in texts]}\n'
    )
    (tmp_path / "test_vowels.py").write_text(
        "from tutelage.core import discovery\n"
        "from tutelage.core.apply import score_dataset\n"
        "from tutelage.core.dataset import Dataset\n\n\n"
        "def test_vowels():\n"
        "    assert discovery.find('signals.vowels').module == 'outside_methods.signals.vowels'\n"
        "    data = Dataset.from_rows([{'text': 'abcd'}, {'text': 'aeio'}])\n"
        "    scored = score_dataset(discovery.build('signals.vowels'), data, {})\n"
        "    assert scored.numpy('vowels').tolist() == [0.25, 1.0]\n"
    )
    info = tmp_path / "outside_methods-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tutelage.methods]\noutside = outside_methods\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_vowels.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
