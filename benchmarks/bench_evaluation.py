"""Multiple choice by log-likelihood: our scoring against lm-evaluation-harness on the same weights and items.

Both run in one process and in turns, so that neither has the machine to itself; the ratio is median against
median. Prints one JSON object: seconds per round of each, `ratio` (ours / theirs, below 1 is faster) and the
largest difference of the log-likelihoods.

    python benchmarks/bench_evaluation.py [--model FOLDER] [--items 60] [--rounds 5]
"""

import argparse
import json
import logging
import os
import statistics
import time
from pathlib import Path
from typing import Any

from tutelage.models.causal import CausalLM

RESULTS = Path(__file__).resolve().parent / "results" / "evaluation.json"
WORDS = "river garden winter teacher window bread engine music paper forest letter market".split()


def pairs_of(items: int) -> list[tuple[str, str]]:
    """Four options of two to seven words after each prompt of 40 to 120 words; deterministic."""
    pairs = []
    for number in range(items):
        words = [WORDS[(number * 7 + place * place) % len(WORDS)] for place in range(40 + number * 13 % 80)]
        prompt = f"Question {number}: " + " ".join(words) + "\nAnswer:"
        for option in range(4):
            answer = [
                WORDS[(number + option * 5 + place) % len(WORDS)] for place in range(2 + (number + option) % 6)
            ]
            pairs.append((prompt, " " + " ".join(answer)))
    return pairs


def harness(model: CausalLM) -> Any:
    """The same weights behind the harness's Hugging Face model, with the attention it would have used."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from lm_eval.models.huggingface import HFLM

    module = model.copy().module
    module.set_attn_implementation("sdpa")
    return HFLM(pretrained=module, tokenizer=model.tokenizer, batch_size=16, device="cpu")


def run(model: CausalLM, items: int, rounds: int) -> dict[str, Any]:
    """Time both in turns after one warm-up round each."""
    from lm_eval.api.instance import Instance

    outside, pairs = harness(model), pairs_of(items)
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]

    def ours() -> list[float]:
        return [found.sum for found in model.loglikelihood(pairs, joint=True)]

    def theirs() -> list[float]:
        return [found[0] for found in outside.loglikelihood(requests, disable_tqdm=True)]

    difference = max(abs(a - b) for a, b in zip(ours(), theirs(), strict=True))
    seconds: dict[str, list[float]] = {"ours": [], "lm_eval": []}
    for number in range(rounds):
        turns = [("ours", ours), ("lm_eval", theirs)]
        for name, function in turns if number % 2 == 0 else turns[::-1]:
            start = time.perf_counter()
            function()
            seconds[name].append(round(time.perf_counter() - start, 4))
    ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["lm_eval"])
    return {
        "benchmark": "multiple choice by log-likelihood",
        "model": model.name,
        "dtype": str(model.dtype),
        "items": items,
        "options": 4,
        "seconds": seconds,
        "ratio": round(ratio, 3),
        "largest_difference": difference,
    }


def tasks() -> dict[str, Any]:
    """Whole task files on real items and SmolLM2, where both are there."""
    import tempfile

    from benchmarks.choosing.material import SHARED
    from benchmarks.proof.harness import measured
    from tutelage.core.errors import ModelError
    from tutelage.models.fetch import packaged

    try:
        packaged("smollm2")
    except ModelError:
        return {"skipped": "the model is not there: tutelage fetch smollm2"}
    if not SHARED.is_dir():
        return {"skipped": f"the data sets are not there: {SHARED.name}"}
    rows: list[dict[str, Any]] = []
    exact: dict[str, dict[str, list[float]]] = {}
    for dtype in ("float64", "float32", "bfloat16"):
        with tempfile.TemporaryDirectory() as folder:
            rows += measured(Path(folder), dtype, exact)
    proof = [row for row in rows if row["dtype"] == "float64"]
    return {
        "tasks": rows,
        "float64": {
            "tasks": len(proof),
            "accuracies_equal": all(row["accuracies_equal"] for row in proof),
            "largest_difference": max(row["largest_difference"] for row in proof),
        },
    }


def choice() -> dict[str, Any]:
    """The options of one real task, zero-shot and five-shot, in bfloat16."""
    from benchmarks.choosing.material import SHARED
    from benchmarks.proof.choice import measured
    from tutelage.core.errors import ModelError
    from tutelage.models.fetch import packaged

    try:
        packaged("smollm2")
    except ModelError:
        return {"skipped": "the model is not there: tutelage fetch smollm2"}
    return measured() if SHARED.is_dir() else {"skipped": f"the data sets are not there: {SHARED.name}"}


def bench() -> dict[str, Any]:
    """For `python -m benchmarks`: `small`, an untrained model in float32, so that nothing must be fetched;
    `choice`, the speed on a real one; `tasks`, whole task files. `SECTIONS="choice tasks"` measures these and
    leaves the others as they were."""
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    parts = {"small": small, "choice": choice, "tasks": tasks}
    asked = os.environ.get("SECTIONS", "").split() or list(parts)
    return {name: part() if name in asked else before.get(name, {}) for name, part in parts.items()}


def small() -> dict[str, Any]:
    """An untrained model of six layers in float32."""
    from tutelage.models.toy import tiny_causal_lm

    logging.disable(logging.WARNING)
    try:
        model = tiny_causal_lm("llama", layers=6, width=256, vocab_size=2000, texts=WORDS, chat=False)
        return run(model, items=60, rounds=5)
    finally:
        logging.disable(logging.NOTSET)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model folder; default: a small untrained model made on the spot")
    parser.add_argument("--items", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    if asked.model:
        from tutelage.models.load import load_model

        model = load_model(asked.model)
    else:
        from tutelage.models.toy import tiny_causal_lm

        model = tiny_causal_lm("llama", layers=6, width=256, vocab_size=2000, texts=WORDS, chat=False)
    assert isinstance(model, CausalLM)
    print(json.dumps(run(model, asked.items, asked.rounds), indent=1))


if __name__ == "__main__":
    main()
