"""Task files of lm-evaluation-harness: equal to the harness on local data, and refusals that name the key."""

import json
import math
import os
import socket

import pytest

from toy.lookup_model import LookupModel
from tutelage.core.dataset import Dataset
from tutelage.core.errors import ConfigError, InputError
from tutelage.evaluation._lm_eval_prompts import apply_filters, is_match, render
from tutelage.evaluation.lm_eval_task import LmEvalTask

PROOF = {"evaluation.lm_eval_task": ["consistent", "verified"]}
MUTATIONS = [
    ("src/tutelage/evaluation/_lm_eval_scoring.py", "config.target_delimiter + choice) for", "choice) for"),
    ("src/tutelage/evaluation/_lm_eval_prompts.py", 'random.Random(f"{seed}:{key}")', "random"),
    ("src/tutelage/evaluation/_lm_eval_prompts.py", "if row != item]", "]"),
    ("src/tutelage/evaluation/_lm_eval_prompts.py", "to_target + answer + after", "to_target + answer"),
    ("src/tutelage/evaluation/_lm_eval_scoring.py", "joint=True)]\n    alone", "joint=False)]\n    alone"),
    ("src/tutelage/evaluation/lm_eval_task.py", "self.prompts(config, work)", "[''] * len(work.rows)"),
]

QUESTIONS = [
    {
        "question": f"What comes after {number}? ",
        "options": [str(number + 1), f"not {number}", f"{number} é", "none"],
        "label": number % 4,
        "passage": f"The number {number} is followed by {number + 1}.\nA quick fox\tjumps over {number} dogs.",
    }
    for number in range(24)
]

CHOICE = """
task: toy_choice
dataset_path: json
dataset_kwargs: {data_files: {train: data/train.jsonl, test: data/test.jsonl}}
training_split: train
test_split: test
fewshot_split: train
fewshot_config: {sampler: first_n}
num_fewshot: 2
description: "Answer {{ 'each' }} question.\\n\\n"
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: label
doc_to_choice: options
output_type: multiple_choice
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: acc_mutual_info}
metadata: {version: 1.0}
"""
LETTERS = """
task: toy_letters
dataset_path: json
dataset_kwargs: {data_files: {test: data/test.jsonl}}
test_split: test
doc_to_text: "{{question}}\\n{% for o in options %}{{ 'ABCD'[loop.index0] }}. {{o}}\\n{% endfor %}Answer:"
doc_to_target: "{{label}}"
doc_to_choice: ["A", "B", "C", "D"]
output_type: multiple_choice
gen_prefix: "It is"
metric_list: [{metric: acc}, {metric: acc_bytes}]
"""
LAST_WORD = """
task: toy_last_word
dataset_path: json
dataset_kwargs: {data_files: {test: data/test.jsonl}}
test_split: test
doc_to_text: "{{passage.split(' ')[:-1]|join(' ')}} "
doc_to_target: "{{passage.split(' ')[-1]}}"
output_type: loglikelihood
metric_list: [{metric: perplexity, aggregation: perplexity}, {metric: acc}]
"""
ROLLING = """
task: toy_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: data/test.jsonl}}
test_split: test
doc_to_text: ""
doc_to_target: passage
output_type: loglikelihood_rolling
metric_list: [{metric: bits_per_byte}, {metric: word_perplexity}, {metric: byte_perplexity}]
"""
GENERATE = """
task: toy_generate
dataset_path: json
dataset_kwargs: {data_files: {train: data/train.jsonl, test: data/test.jsonl}}
test_split: test
fewshot_split: train
fewshot_config: {sampler: first_n}
num_fewshot: 1
doc_to_text: "Q: {{question}}A:"
doc_to_target: "{{options[0]}}"
output_type: generate_until
generation_kwargs: {until: ["\\n", "Q:"], max_gen_toks: 8, do_sample: false}
filter_list:
  - {name: last, filter: [{function: regex, regex_pattern: "([a-z ]{2})"}, {function: take_first}]}
  - {name: plain, filter: [{function: take_first}]}
metric_list: [{metric: exact_match, ignore_case: true, ignore_punctuation: true}]
"""
# Text and option meet at a space, where joint tokenisation merges and separate tokenisation does not.
JOINT = """
task: toy_joint
dataset_path: json
dataset_kwargs: {data_files: {test: data/test.jsonl}}
test_split: test
doc_to_text: question
doc_to_target: label
doc_to_choice: "{{options}}"
target_delimiter: ""
output_type: multiple_choice
"""
FILES = {
    "joint": JOINT,
    "choice": CHOICE,
    "letters": LETTERS,
    "last_word": LAST_WORD,
    "rolling": ROLLING,
    "generate": GENERATE,
}


@pytest.fixture
def project(tmp_path):
    (tmp_path / "data").mkdir()
    for name, rows in (("train", QUESTIONS[:4]), ("test", QUESTIONS[4:])):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "data" / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    for name, text in FILES.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


def task(project, name="choice", **fields):
    return LmEvalTask(path=f"{name}.yaml", project=str(project), **fields)


def changed(project, old, new, name="choice"):
    assert old in FILES[name]
    (project / "changed.yaml").write_text(FILES[name].replace(old, new), encoding="utf-8")
    return LmEvalTask(path="changed.yaml", project=str(project))


# -- equal to the harness ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    from tutelage.models.toy import tiny_causal_lm

    return tiny_causal_lm("llama", texts=[json.dumps(row) for row in QUESTIONS], max_length=512, chat=False)


@pytest.fixture(scope="module")
def harness(model, tmp_path_factory):
    """Run one of our task files through lm-eval itself on the same weights."""
    folder = tmp_path_factory.mktemp("harness")
    os.environ |= {"HF_HOME": str(folder), "HF_DATASETS_CACHE": str(folder / "data"), "HF_HUB_OFFLINE": "1"}
    # In the dev extra; never skipped, since this is the proof of the method.
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_defaults=False)

    module = model.copy().module
    module.set_attn_implementation("eager")
    outside = HFLM(pretrained=module, tokenizer=model.tokenizer, batch_size=4, device="cpu")

    def run(project, name):
        import yaml

        config = yaml.safe_load(FILES[name])
        files = config["dataset_kwargs"]["data_files"]
        config["dataset_kwargs"]["data_files"] = {split: str(project / file) for split, file in files.items()}
        found = lm_eval.simple_evaluate(model=outside, tasks=[config], bootstrap_iters=0, task_manager=manager)
        return found["results"][config["task"]], found["samples"][config["task"]]

    return run


@pytest.mark.parametrize("name", ["choice", "letters", "joint"])
def test_multiple_choice_equals_the_harness(project, model, harness, name):
    theirs, samples = harness(project, name)
    ours = task(project, name, ties="first").evaluate(model, None, {})
    assert ours.n_items == len(samples) == 20
    for row, sample in zip(ours.items.table.to_pylist(), samples):
        expected = [float(response[0][0]) for response in sample["resps"]][:4]
        assert row["choice_ll"] == pytest.approx(expected, abs=1e-4)
        assert row["score"] == sample["acc"]
    for metric in ours.extra.keys() - {"ties"}:
        assert ours.extra[metric] == theirs[f"{metric},none"]
    assert ours.estimate == theirs["acc,none"]


def test_log_likelihood_equals_the_harness(project, model, harness):
    theirs, samples = harness(project, "last_word")
    ours = task(project, "last_word").evaluate(model, None, {})
    for row, sample in zip(ours.items.table.to_pylist(), samples):
        assert -row["score"] == pytest.approx(float(sample["resps"][0][0][0]), abs=1e-4)
    assert ours.extra["perplexity"] == pytest.approx(theirs["perplexity,none"], rel=1e-4)
    assert ours.extra["acc"] == theirs["acc,none"]
    assert ours.estimate == pytest.approx(math.log(theirs["perplexity,none"]), rel=1e-4)


def test_rolling_log_likelihood_equals_the_harness(project, model, harness):
    theirs, _ = harness(project, "rolling")
    ours = task(project, "rolling").evaluate(model, None, {})
    for metric in ("bits_per_byte", "word_perplexity", "byte_perplexity"):
        assert ours.extra[metric] == pytest.approx(theirs[f"{metric},none"], rel=1e-5)
    assert ours.estimate == ours.extra["bits_per_byte"]
    words = task(project, "rolling", metric="word_perplexity").evaluate(model, None, {})
    assert (words.metric, words.direction) == ("nll_per_word", -1)
    assert words.estimate == pytest.approx(math.log(theirs["word_perplexity,none"]), rel=1e-5)


def test_generation_and_filters_equal_the_harness(project, model, harness):
    theirs, samples = harness(project, "generate")
    ours = task(project, "generate").evaluate(model, None, {})
    last = [sample for sample in samples if sample["filter"] == "last"]
    for row, sample in zip(ours.items.table.to_pylist(), last, strict=True):
        assert row["raw"] == sample["resps"][0][0]
        assert row["prediction"] == sample["filtered_resps"][0]
        assert row["score"] == sample["exact_match"]
    for name in ("last", "plain"):
        assert ours.extra[f"exact_match,{name}"] == theirs[f"exact_match,{name}"]


# -- prompts ----------------------------------------------------------------------------------------------


def prompts_of(found, dataset=None):
    config = found.config()
    work = found.work(config, LookupModel(), dataset, {})
    return found.prompts(config, work), work


def test_a_prompt_by_hand(project):
    prompts, _ = prompts_of(task(project))
    assert prompts[0] == (
        "Answer each question.\n\n"
        "Question: What comes after 0? \nAnswer: 1\n\n"
        "Question: What comes after 1? \nAnswer: not 1\n\n"
        "Question: What comes after 4? \nAnswer:"
    )


def test_a_subset_has_the_same_prompts_as_the_full_run(project):
    found = changed(project, "fewshot_config: {sampler: first_n}", "fewshot_config: {split: test}")
    full, _ = prompts_of(found)
    subset, _ = prompts_of(found, Dataset.from_rows(QUESTIONS[14:]))
    assert subset == full[10:]
    assert len(set(full)) == 20
    # Each item draws its own demonstrations.
    assert len({prompt.rsplit("Question", 1)[0] for prompt in full}) > 10
    other, _ = prompts_of(found.model_copy(update={"fewshot_seed": 1}))
    assert other != full


def test_an_item_is_never_its_own_demonstration(project):
    found = changed(project, "fewshot_config: {sampler: first_n}", "fewshot_config: {split: test}")
    for prompts in (prompts_of(found)[0], prompts_of(found.model_copy(update={"num_fewshot": 19}))[0]):
        for number, prompt in enumerate(prompts, 4):
            assert prompt.count(f"after {number}? ") == 1
    with pytest.raises(InputError, match="too few rows"):
        prompts_of(found.model_copy(update={"num_fewshot": 20}))


def test_a_limit_takes_the_first_rows_and_no_connection_is_opened(project, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    full = task(project).evaluate(LookupModel(), None, {})
    part = task(project, limit=5).evaluate(LookupModel(), None, {})
    assert part.n_items == 5
    assert list(part.items.scores()) == list(full.items.scores())[:5]


def test_ties_are_shared_unless_the_first_wins(project):
    lls = {}
    prompts, _ = prompts_of(task(project, "letters"))
    for prompt in prompts:
        lls |= {(prompt, f" {letter}"): -1.0 for letter in "ABCD"}
    split = task(project, "letters").evaluate(LookupModel(lls), None, {})
    first = task(project, "letters", ties="first").evaluate(LookupModel(lls), None, {})
    assert set(split.items.scores().values()) == {0.25}
    assert split.extra["ties"] == 1.0
    assert first.estimate == 0.25
    assert set(first.items.scores().values()) == {0.0, 1.0}


def test_included_files_are_the_base(project):
    (project / "base.yaml").write_text(CHOICE, encoding="utf-8")
    (project / "child.yaml").write_text("include: base.yaml\ntask: child\nnum_fewshot: 0\n", encoding="utf-8")
    config = LmEvalTask(path="child.yaml", project=str(project)).config()
    assert (config.task, config.num_fewshot, config.output_type) == ("child", 0, "multiple_choice")
    (project / "base.yaml").write_text("include: child.yaml\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="circle"):
        LmEvalTask(path="child.yaml", project=str(project)).config()


# -- filters and metrics ----------------------------------------------------------------------------------


def test_filters_by_hand():
    outputs = ["I say 7", "it is 9", "no: 9"]
    number = {"function": "regex", "regex_pattern": r"(\d+)"}
    first = {"function": "take_first"}
    assert apply_filters([number, first], outputs, "f") == ("7", True)
    assert apply_filters([number, {"function": "majority_vote"}, first], outputs, "f") == ("9", True)
    two = [number, {"function": "take_first_k", "k": 2}, {"function": "majority_vote"}]
    assert apply_filters(two, outputs, "f") == ("7", True)
    assert apply_filters([number, first], ["none"], "f") == ("[invalid]", False)
    with pytest.raises(ConfigError, match="several answers"):
        apply_filters([number], outputs, "f")
    with pytest.raises(ConfigError, match="unsupported filter 'custom'"):
        apply_filters([{"function": "custom"}], outputs, "f")
    with pytest.raises(ConfigError, match="repeats >= 5"):
        apply_filters([{"function": "take_first_k", "k": 5}], outputs, "f")


def test_repeated_samples_are_voted_on(project):
    text = FILES["generate"].replace("num_fewshot: 1", "num_fewshot: 0\nrepeats: 3")
    text = text[: text.index("filter_list")] + (
        "filter_list: [{name: vote, filter: [{function: majority_vote}, {function: take_first}]}]\n"
        "metric_list: [{metric: exact_match}]\n"
    )
    (project / "vote.yaml").write_text(text, encoding="utf-8")
    found = LmEvalTask(path="vote.yaml", project=str(project), limit=1)
    prompt = prompts_of(found)[0][0]
    model = LookupModel(outputs={(prompt, 0): "no", (prompt, 1): "5", (prompt, 2): "5"})
    assert found.evaluate(model, None, {}).estimate == 1.0


def test_exact_match_options():
    assert not is_match("The Sun.", "the sun", {})
    assert is_match("The Sun.", "the sun", {"ignore_case": True, "ignore_punctuation": True})
    assert is_match("sun 7", "sun ", {"ignore_numbers": True})
    assert is_match("<b>sun", "sun", {"regexes_to_ignore": ["<b>"]})


# -- refusals ---------------------------------------------------------------------------------------------


def test_code_is_refused_with_the_name_of_the_flag(project):
    (project / "code.py").write_text("def question(doc):\n    return doc['question'].upper()\n", encoding="utf-8")
    found = changed(
        project, 'doc_to_text: "Question: {{question}}\\nAnswer:"', "doc_to_text: !function code.question"
    )
    with pytest.raises(ConfigError, match="--allow-task-code") as error:
        found.config()
    assert "!function code.question" in str(error.value)
    assert "changed.yaml:11" in str(error.value)
    allowed = found.model_copy(update={"allow_task_code": True, "limit": 1})
    result = allowed.evaluate(LookupModel(), None, {})
    assert result.system["task_code_allowed"] is True
    assert "WHAT COMES AFTER 4" in prompts_of(allowed)[0][0]


@pytest.mark.parametrize("key", ["process_docs", "custom_dataset", "process_results", "unsafe_code"])
def test_keys_that_mean_code_are_refused(project, key):
    with pytest.raises(ConfigError, match=f"'{key}' is not supported.*allow-task-code"):
        changed(project, "num_fewshot: 2", f"{key}: true").config()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_fewshot: 2", "num_fewshots: 2", "did you mean num_fewshot"),
        ("num_fewshot: 2", "should_decontaminate: true", "should_decontaminate"),
        ("num_fewshot: 2", "num_fewshot: two", "num_fewshot"),
        ("sampler: first_n", "sampler: balanced", "fewshot_config.sampler"),
        ("output_type: multiple_choice", "output_type: essay", "output_type"),
        ("{metric: acc_mutual_info}", "{metric: brier_score}", "unsupported metric 'brier_score'"),
        ("{metric: acc_mutual_info}", "{metric: acc, aggregation: median}", "median"),
        ("dataset_path: json", "dataset_path: allenai/ai2_arc", "not a local file"),
        ("test: data/test.jsonl", "test: ../data/test.jsonl", "leaves the project"),
        ("test: data/test.jsonl", "test: data/none.jsonl", "does not exist"),
        ("doc_to_target: label", "doc_to_target: 5", "row 1, field doc_to_target"),
        ("doc_to_target: label", "doc_to_target: 5", "from 0 to 3"),
        ("{{question}}", "{{qestion}}", "'qestion' is undefined"),
        ("{{question}}", "{{question.__class__.__mro__}}", "cannot be filled"),
        ("doc_to_choice: options", "doc_to_choice: question", "no list of options"),
        ("task: toy_choice", "- not a mapping\n#", "not"),
    ],
)
def test_what_is_not_supported_is_named(project, old, new, message):
    found = changed(project, old, new)
    with pytest.raises((ConfigError, InputError)) as error:
        found.evaluate(LookupModel(), None, {})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("max_gen_toks: 8", "top_p: 0.5", "top_p"),
        ("{function: take_first}", "{function: lowercase}", "unsupported filter 'lowercase'"),
    ],
)
def test_unsupported_generation_is_named(project, old, new, message):
    with pytest.raises(ConfigError, match=message):
        changed(project, old, new, "generate").evaluate(LookupModel(), None, {})


def test_links_out_of_the_project_are_refused(project, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "secret.jsonl"
    outside.write_text("{}\n", encoding="utf-8")
    (project / "data" / "test.jsonl").unlink()
    (project / "data" / "test.jsonl").symlink_to(outside)
    with pytest.raises(InputError, match="leaves the project"):
        task(project).evaluate(LookupModel(), None, {})


def test_a_torn_data_line_names_its_place(project):
    with (project / "data" / "test.jsonl").open("a", encoding="utf-8") as out:
        out.write('{"question": "torn')
    with pytest.raises(InputError, match=r"test\.jsonl:21"):
        task(project).evaluate(LookupModel(), None, {})


def test_no_path_and_unknown_choices_are_errors(project):
    with pytest.raises(ConfigError, match="no task file"):
        LmEvalTask().evaluate(LookupModel(), None, {})
    with pytest.raises(ConfigError, match="no such metric"):
        task(project, metric="acc_bytes").evaluate(LookupModel(), None, {})
    with pytest.raises(ConfigError, match="no such filter"):
        task(project, "generate", filter="none").evaluate(LookupModel(), None, {})


def test_templates_cannot_reach_python():
    with pytest.raises(InputError, match="cannot be filled"):
        render("{{ ''.__class__.__base__.__subclasses__() }}", {"a": 1}, "row 1")
