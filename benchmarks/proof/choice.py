"""Multiple choice on a real model in bfloat16 beside lm-evaluation-harness: seconds, answers, and who is right.

The requests are those of one task file (`benchmarks.proof.harness`), equal on both sides and made beforehand, so
that only the scoring of options is timed; ours and theirs take turns in one process. In bfloat16 the harness takes
the log-softmax in bfloat16 as well, in which a log-likelihood near -40 is a multiple of a quarter: options that
differ by less than that tie or change places by chance. `softmax_dtype: float32`, its own remedy, is measured
beside it. The judge is the float32 model: `wrong` is how far each lies from its log-likelihoods, `flips` the items
whose answer differs from its answer.
"""

import json
import logging
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.proof.harness import TASKS, written

ITEMS = {"arc_easy": 64, "arc_easy_5_shot": 16}
REPEATS = 3
# Times of theirs that ours must be faster: without and with demonstrations.
MUST = {"arc_easy": 1.5, "arc_easy_5_shot": 3.0}


def measured() -> dict[str, Any]:
    """Task of `ITEMS` -> what was found."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    logging.disable(logging.WARNING)
    from tutelage.models.load import load_model

    model: Any = load_model("smollm2", dtype="bfloat16")
    exact: Any = load_model("smollm2", dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        chosen = {name: (TASKS[name][0], count, TASKS[name][2]) for name, count in ITEMS.items()}
        found = {name: of_task(name, file, model, exact) for name, file in written(Path(folder), chosen)}
    logging.disable(logging.NOTSET)
    return found


def of_task(name: str, file: Path, model: Any, exact: Any) -> dict[str, Any]:
    """Speed and agreement on one task."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    pairs, truth = requests_of(file, exact)
    rows = [
        json.loads(line) for line in file.with_name(f"{name}-test.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    asked = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    module = model.copy().module
    module.set_attn_implementation("sdpa")
    common = {"pretrained": module, "tokenizer": model.tokenizer, "batch_size": 16, "device": "cpu"}
    outside, careful = HFLM(**common), HFLM(**common, softmax_dtype="float32")
    sides: dict[str, Any] = {
        "ours": lambda: [found.sum for found in model.loglikelihood(pairs, joint=True)],
        "lm_eval": lambda: [found[0] for found in outside.loglikelihood(asked, disable_tqdm=True)],
    }
    answers = {"float32": truth, **{side: function() for side, function in sides.items()}}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    processor: dict[str, list[float]] = {side: [] for side in sides}
    for number in range(REPEATS):
        for side in list(sides) if number % 2 == 0 else list(sides)[::-1]:
            start, before = time.perf_counter(), time.process_time()
            sides[side]()
            seconds[side].append(round(time.perf_counter() - start, 2))
            processor[side].append(round(time.process_time() - before, 2))
    answers["lm_eval, softmax in float32"] = [f[0] for f in careful.loglikelihood(asked, disable_tqdm=True)]
    ratio = statistics.median(seconds["lm_eval"]) / statistics.median(seconds["ours"])
    return {
        "items": len(rows),
        "requests": len(pairs),
        "seconds": seconds,
        "processor_seconds": processor,
        "times_faster": round(ratio, 2),
        "times_faster_by_processor_seconds": round(
            statistics.median(processor["lm_eval"]) / statistics.median(processor["ours"]), 2
        ),
        "must": MUST[name],
        "met": ratio >= MUST[name],
        "answers": judged(answers, rows, [option for _, option in pairs]),
    }


def requests_of(file: Path, exact: Any) -> tuple[list[tuple[str, str]], list[float]]:
    """(context, option) pairs of a task file as we read it, and their log-likelihoods under `exact`."""
    from tutelage.evaluation.lm_eval_task import LmEvalTask

    seen: list[Any] = []
    real = exact.loglikelihood

    def recorded(pairs: Any, *, joint: bool = False) -> Any:
        seen.extend(zip(pairs, found := real(pairs, joint=joint)))
        return found

    exact.loglikelihood = recorded
    try:
        LmEvalTask(path=file.name, project=str(file.parent)).evaluate(exact, None, {})
    finally:
        del exact.loglikelihood
    return [pair for pair, _ in seen], [found.sum for _, found in seen]


def judged(answers: dict[str, list[float]], rows: list[dict[str, Any]], options: list[str]) -> dict[str, Any]:
    """Per side: accuracies, distance from the float32 log-likelihoods, items answered otherwise."""
    gold = [int(row["answer_index"]) for row in rows]
    sizes = [len(row["choices"]) for row in rows]
    starts = np.cumsum([0, *sizes])[:-1]
    lengths = np.array([len(option.removeprefix(" ")) for option in options])
    found: dict[str, Any] = {}
    picks: dict[str, dict[str, list[int]]] = {}
    for side, values in answers.items():
        by_rule = {"acc": np.array(values), "acc_norm": np.array(values) / lengths}
        picks[side] = {
            rule: [int(scores[at : at + size].argmax()) for at, size in zip(starts, sizes)]
            for rule, scores in by_rule.items()
        }
        gaps = np.abs(np.array(values) - np.array(answers["float32"]))
        found[side] = {
            **{rule: round(float(np.mean(np.equal(chosen, gold))), 4) for rule, chosen in picks[side].items()},
            "wrong": {"largest": round(float(gaps.max()), 4), "mean": round(float(gaps.mean()), 4)},
            "flips": {
                rule: [i for i, (a, b) in enumerate(zip(chosen, picks["float32"][rule])) if a != b]
                for rule, chosen in picks[side].items()
            },
        }
        flipped = {item for items in found[side]["flips"].values() for item in items}
        found[side]["answered_as_in_float32"] = round(1 - len(flipped) / len(rows), 4)
    return found
