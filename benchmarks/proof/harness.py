"""Task files of lm-evaluation-harness on real items and a real model: are our numbers its numbers, and how fast?

Five tasks, each a YAML that both sides read, on the first items of public sets. In float64 on both sides (a few
items: it is slow) log-likelihoods must agree to 1e-4 and accuracies exactly, which proves that prompts, tokens and
sums are the same; the norms of the model stay in float32 there. In float32 and bfloat16 the sides may differ by
their rounding: `off` is how far each lies from the float64 figures of the same items. Seconds are of the whole
call, ours and theirs in turn.
"""

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.choosing.material import SHARED

FEW = 3  # items of each task in float64
METRICS = [{"metric": "acc"}, {"metric": "acc_norm"}]
# Name -> (file, number of items, what the YAML says besides).
TASKS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "arc_easy": ("arc_easy/test.jsonl", 24, {"doc_to_text": "Question: {{question}}\nAnswer:"}),
    "arc_easy_5_shot": (
        "arc_easy/test.jsonl",
        12,
        {
            "doc_to_text": "Question: {{question}}\nAnswer:",
            "num_fewshot": 5,
            "fewshot_split": "train",
            "fewshot_config": {"sampler": "first_n"},
        },
    ),
    "hellaswag": ("hellaswag_sample/validation.jsonl", 12, {"doc_to_text": "{{question}}"}),
    "boolq": (
        "boolq/validation.parquet",
        16,
        {
            "doc_to_text": "{{context}}\nQuestion: {{question}}?\nAnswer:",
            "doc_to_choice": ["no", "yes"],
            "doc_to_target": "{{answer}}",
            "metric_list": METRICS[:1],
        },
    ),
    "lambada": (
        "lambada_test/test.parquet",
        24,
        {
            "doc_to_text": "{{question}}",
            "doc_to_target": " {{answer}}",
            "output_type": "loglikelihood",
            "metric_list": [{"metric": "perplexity", "aggregation": "perplexity"}, {"metric": "acc"}],
        },
    ),
}
DEFAULTS = {
    "output_type": "multiple_choice",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{answer_index}}",
    "metric_list": METRICS,
}


def rows_of(name: str, count: int, skip: int = 0) -> list[dict[str, Any]]:
    file = SHARED / name
    if file.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.read_table(file).slice(skip, count).to_pylist()  # type: ignore[no-any-return]
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[skip : skip + count]]


def written(folder: Path, tasks: Mapping[str, tuple[str, int, dict[str, Any]]]) -> Iterator[tuple[str, Path]]:
    """Every task's YAML and rows in `folder`: (name, file)."""
    for name, (source, count, fields) in tasks.items():
        files = {"test": f"{name}-test.jsonl", "train": f"{name}-train.jsonl"}
        for split, rows in (("test", rows_of(source, count)), ("train", rows_of(source, 20, count))):
            text = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / files[split]).write_text(text, encoding="utf-8")
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "test_split": "test",
            **{key: value for key, value in DEFAULTS.items() if key not in fields},
            **fields,
        }
        if task["output_type"] == "loglikelihood":
            task.pop("doc_to_choice")
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task, sort_keys=False), encoding="utf-8")
        yield name, folder / f"{name}.yaml"


def measured(folder: Path, dtype: str, exact: dict[str, dict[str, list[float]]]) -> list[dict[str, Any]]:
    """Each task once by us and once by the harness. `exact` gets each side's float64 log-likelihoods, by task, and
    the other precisions are compared with them."""
    os.environ |= {"HF_HOME": str(folder), "HF_DATASETS_CACHE": str(folder / "data"), "HF_HUB_OFFLINE": "1"}
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    from tutelage.evaluation.lm_eval_task import LmEvalTask
    from tutelage.models.load import load_model

    logging.disable(logging.WARNING)
    model: Any = load_model("smollm2", dtype="float32" if dtype == "float64" else dtype)
    tasks = TASKS
    if dtype == "float64":
        model = model.around(model.module.double())
        tasks = {name: (source, FEW, fields) for name, (source, _, fields) in TASKS.items()}
    module = model.copy().module
    module.set_attn_implementation("sdpa")
    outside = HFLM(pretrained=module, tokenizer=model.tokenizer, batch_size=16, device="cpu")
    manager = TaskManager(include_defaults=False)
    found = []
    for number, (name, file) in enumerate(written(folder, tasks)):
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        files = config["dataset_kwargs"]["data_files"]
        config["dataset_kwargs"]["data_files"] = {split: str(folder / path) for split, path in files.items()}
        task = LmEvalTask(path=file.name, project=str(folder), ties="first")

        def ours(task: Any = task) -> Any:
            return task.evaluate(model, None, {})

        def theirs(config: Any = config) -> Any:
            return lm_eval.simple_evaluate(model=outside, tasks=[config], bootstrap_iters=0, task_manager=manager)

        seconds, got = {}, {}
        turns = [("ours", ours), ("lm_eval", theirs)]
        for side, function in turns if number % 2 == 0 else turns[::-1]:
            start = time.perf_counter()
            got[side] = function()
            seconds[side] = round(time.perf_counter() - start, 2)
        sums = log_likelihoods(name, got["ours"], got["lm_eval"])
        entry = {"task": name, "dtype": dtype, **compared(name, got["ours"], got["lm_eval"], sums)}
        if dtype == "float64":
            exact[name] = sums
        elif name in exact:
            truth = exact[name]["ours"]
            gaps = {side: max(abs(a - b) for a, b in zip(values, truth)) for side, values in sums.items()}
            entry["off"] = {side: float(f"{gap:.3g}") for side, gap in gaps.items()}
        found.append({**entry, "seconds": seconds})
        found[-1]["ratio"] = round(seconds["ours"] / seconds["lm_eval"], 3)
    logging.disable(logging.NOTSET)
    return found


def log_likelihoods(name: str, ours: Any, theirs: dict[str, Any]) -> dict[str, list[float]]:
    """Each side's log-likelihoods of every option of every item, in order."""
    rows, samples = ours.items.table.to_pylist(), theirs["samples"][name]
    assert len(rows) == len(samples)
    return {
        "ours": [value for row in rows for value in (row.get("choice_ll") or [-row["score"]])],
        "lm_eval": [float(response[0][0]) for sample in samples for response in sample["resps"]],
    }


def compared(name: str, ours: Any, theirs: dict[str, Any], sums: dict[str, list[float]]) -> dict[str, Any]:
    """Largest difference of log-likelihoods, and whether every accuracy is the same number."""
    results = theirs["results"][name]
    accuracies = {
        metric: results[f"{metric},none"] for metric in ("acc", "acc_norm") if f"{metric},none" in results
    }
    same = all(ours.extra.get(metric, ours.estimate) == value for metric, value in accuracies.items())
    return {
        "items": len(theirs["samples"][name]),
        "largest_difference": float(f"{max(abs(a - b) for a, b in zip(*sums.values(), strict=True)):.3g}"),
        "accuracies": accuracies,
        "accuracies_equal": same,
    }
