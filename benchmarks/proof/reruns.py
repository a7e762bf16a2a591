"""Real reruns: a small Llama trained again and again with nothing but another seed, measured on one held-out set.

A run: fresh weights, the topics of Python's manual in a fresh order, some three seconds of one core. Two recipes
that differ by budget alone: `full`, whose reruns compared with each other are the A/A test, and `short`, so that
there is one difference that is real and known (from the means over all runs). Each run is one file; what is there
is not made again. Held out are whole topics: bits per byte of their passages, and which of four orders of words is
a passage's own. Passages of one topic are one cluster.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

RUNS = {"full": 160, "short": 60}
TOKENS = {"full": 60_000, "short": 45_000}
PASSAGES, OPTIONS = 240, 4


def material() -> tuple[list[str], list[dict[str, Any]], list[dict[str, Any]]]:
    """(training texts, passages to score, questions with four options); topics are in one part only."""
    from tutelage.core.discovery import build

    topics = build("data.read.python_topics").read()  # type: ignore[attr-defined]
    chunks = list(build("data.recipes.text_chunks", {"characters": 600}).apply(topics, {}).rows())  # type: ignore[attr-defined]
    names = sorted({row["group"] for row in chunks})
    order = np.random.default_rng(7).permutation(len(names))
    held = {names[i] for i in order[: len(names) // 2]}
    train = [row["text"] for row in chunks if row["group"] not in held]
    pairs = [
        (row["group"], row["text"][:120], row["text"][120:180])
        for row in chunks
        if row["group"] in held and len(row["text"].split()) >= 30
    ]
    picked = [pairs[i] for i in np.random.default_rng(8).permutation(len(pairs))[:PASSAGES]]
    passages = [
        {"id": str(i), "prompt": prompt, "completion": rest, "cluster": topic}
        for i, (topic, prompt, rest) in enumerate(picked)
    ]
    questions = []
    for i, (topic, prompt, rest) in enumerate(picked):
        answer = i % OPTIONS
        words = rest.split()
        others = [" ".join(np.random.default_rng([i, k]).permutation(words)) for k in range(1, OPTIONS)]
        options = [*others[:answer], " ".join(words), *others[answer:]]
        questions.append({"id": str(i), "prompt": prompt, "choices": options, "answer": answer, "cluster": topic})
    return train, passages, questions


def rerun(recipe: str, seed: int, texts: list[str], passages: Any, questions: Any) -> dict[str, Any]:
    """One training run and its scores per item."""
    from tutelage.core.dataset import Dataset
    from tutelage.core.discovery import build
    from tutelage.models.toy import tiny_causal_lm

    model: Any = tiny_causal_lm("llama", texts, vocab_size=768, layers=2, width=48, chat=False, seed=seed)
    rows = Dataset.from_rows({"id": str(i), "text": text} for i, text in enumerate(texts))
    fields = {
        "budget": {"tokens": TOKENS[recipe]},
        "learning_rate": 0.01,
        "step_tokens": 1024,
        "micro_tokens": 1024,
        "max_length": 256,
        "evaluate_at": [],
    }
    model, _ = build("training.fit", fields).train(model, rows, {"seed": seed}, progress=False)  # type: ignore[attr-defined]
    bits = build("evaluation.bits_per_byte").evaluate(model, passages, {"train_seed": seed}).items  # type: ignore[attr-defined]
    choice = build("evaluation.multiple_choice").evaluate(model, questions, {"train_seed": seed}).items  # type: ignore[attr-defined]
    columns = {"bits": bits.table["score"], "bytes": bits.table["weight"], "right": choice.table["score"]}
    return {name: values.to_pylist() for name, values in columns.items()}


def reruns(work: Path) -> dict[str, Any]:
    """Every run, made where missing: {recipe: {"bits" | "bytes" | "right": [runs, items]}}, and `clusters`."""
    from tutelage.core.dataset import Dataset

    texts, passage_rows, question_rows = material()
    passages, questions = Dataset.from_rows(passage_rows), Dataset.from_rows(question_rows)
    work.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"clusters": np.array([row["cluster"] for row in passage_rows])}
    for number, (recipe, count) in enumerate(RUNS.items()):
        made = []
        for run in range(count):
            file = work / f"{recipe}-{run}.json"
            if not file.exists():
                scores = rerun(recipe, 10_000 * number + run, texts, passages, questions)
                part = file.with_suffix(".part")
                part.write_text(json.dumps(scores), encoding="utf-8")
                part.replace(file)
            made.append(json.loads(file.read_text(encoding="utf-8")))
        found[recipe] = {name: np.array([scores[name] for scores in made]) for name in made[0]}
    return found
