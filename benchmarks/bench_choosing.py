"""Choosing data, measured: scores and selectors, mixtures and orders, each against its dumb baseline.

A wide sweep at equal cost on a model of one million weights that first reads half a million tokens of four kinds
of text, from the data sets of `../shared/data`; what holds here is a mechanism on these data, not a paper's
headline. Every recipe in `choosing/` has an oracle, a placebo and a search of equal size for every arm. Work lies
in a folder of its own (`TUTELAGE_BENCH_WORK`, else `benchmarks/.work`), so that a run that was cut off goes on
where it stopped.

    python -m benchmarks choosing

`RECIPES=scores ARMS=similarity_top SEEDS=10-19 python -m benchmarks choosing` repeats an arm with fresh seeds.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bench_specialise import summary
from benchmarks.skip import Skip

HERE = Path(__file__).resolve().parent
SHARED = HERE.parent.parent / "shared" / "data"
WORK = Path(os.environ.get("TUTELAGE_BENCH_WORK", HERE / ".work")) / "choosing"
RECIPES = ("scores", "instructions", "mixtures", "orders")
# Which method an arm stands for: the one whose output decides what is trained on.
METHODS = {
    "scores": {
        "repeated_random": "data.select.repeated_random",
        "perplexity_low": "signals.token_loss",
        "perplexity_high": "signals.token_loss",
        "perplexity_band": "data.filter.band",
        "entropy": "signals.token_uncertainty",
        "margin": "signals.token_uncertainty",
        "gradient_norm": "signals.gradient_norm",
        "miniplm": "signals.loss_difference",
        "ekfac": "signals.ekfac_influence",
        "mates": "signals.influence_regressor",
        "preselect": "signals.predictive_strength",
        "similarity_top": "signals.similarity_tfidf",
        "similarity_gumbel": "data.select.gumbel_top_k",
        "similarity_threshold": "data.select.threshold",
        "classifier": "signals.text_classifier",
        "k_centre": "data.select.k_centre",
        "cluster_balanced": "data.select.cluster_balanced",
        "rules": "data.filter.rules",
        "near_deduplicated": "data.dedup.near",
    },
    "mixtures": {"uniform": "data.mix.fixed", "skill_it": "data.mix.skill_it", "ddk": "data.mix.ddk"},
    "orders": {"cyclical": "data.order.cyclical", "interleaved": "data.order.interleaved"},
}
KINDS = ("medical", "fiction", "verse", "tasks", "maths")
# Rows of each kind in the pile. The field of `scores` is the first, a tenth of it; the base never read that kind.
POOL = {"medical": 300, "fiction": 1050, "verse": 150, "tasks": 800, "maths": 700}
BASE = {"fiction": 1200, "verse": 150, "tasks": 800, "maths": 900}
METHODS["instructions"] = METHODS["scores"]
CHARACTERS = 700
# Kinds of tasks that are wanted (of each, one task is measured and one lies in the pile), and the placebo's.
WANTED = ("Dialogue Generation", "Question Rewriting", "Summarization", "Text Simplification")
TAGGING = ("Pos Tagging", "Named Entity Recognition")


def bench() -> dict[str, Any]:
    from tutelage.runs import load_recipe, run

    if not SHARED.is_dir():
        raise Skip(f"the data sets are not there: {SHARED.name}")
    material()
    tuning()
    asked = [name for name in os.environ.get("RECIPES", ",".join(RECIPES)).split(",") if name]
    comparisons: list[dict[str, Any]] = []
    found: dict[str, Any] = {"model": json.loads((WORK / "model.json").read_text(encoding="utf-8"))}
    for name in asked:
        recipe = load_recipe(HERE / "choosing" / f"{name}.yaml", _changes())
        if os.environ.get("ARMS"):
            recipe = _only(recipe, set(os.environ["ARMS"].split(",")))
        table = run(recipe.placed(WORK), WORK).comparison
        assert table is not None
        told = summary(table, METHODS[name])
        comparisons += [{"bed": f"choosing/{name}", **pair} for pair in told.pop("comparisons")]
        found[name] = {**told, "bed": table["bed"], "notes": list(table["notes"])}
    return {**found, "metric": "held_out", "comparisons": comparisons}


def _changes() -> list[str]:
    first, _, last = os.environ.get("SEEDS", "0-2").partition("-")
    return [f"compare.seeds={list(range(int(first), int(last or first) + 1))}"]


def _only(recipe: Any, arms: set[str]) -> Any:
    """The recipe with these arms, beside those that the comparison itself needs."""
    kept = arms | {recipe.compare.baseline, recipe.compare.placebo, recipe.compare.oracle}
    pairs = [pair for pair in recipe.compare.primary or [] if set(pair) <= kept]
    compare = recipe.compare.model_copy(update={"primary": pairs} if recipe.compare.primary else {})
    return recipe.changed(arms={k: v for k, v in recipe.arms.items() if k in kept}, compare=compare)


def tuning() -> None:
    """Prompts with responses: of each wanted kind one task is in the pile, another is guide and measurement."""
    import pyarrow.parquet as pq

    if (WORK / "tuning_pool.jsonl").exists():
        return
    parts: dict[str, list[dict[str, Any]]] = {"guide": [], "dev": [], "target": [], "pool": []}
    measured: dict[str, str] = {}
    seen: dict[str, int] = {}
    for number, row in enumerate(pq.read_table(SHARED / "super_natural_instructions/train.parquet").to_pylist()):
        category, task = row["category"], row["task"]
        kind = "wanted" if category in WANTED else "tagging" if category in TAGGING else "other"
        made = {
            "id": f"{task}-{number}",
            "prompt": f"{row['instruction'][:300]}\n{row['input'][:400]}\n",
            "completion": row["output"][:400],
            "kind": kind,
            "group": task,
        }
        part = "pool"
        if kind == "wanted" and measured.setdefault(category, task) == task:
            seen[task] = seen.get(task, 0) + 1
            part = "guide" if seen[task] <= 10 else "dev" if seen[task] <= 20 else "target"
        parts[part].append(made)
    for part, rows in parts.items():
        _write(f"tuning_{part}", rows)


def material() -> None:
    """The rows of every part, the base model and the teacher, made once; no document is in two parts."""
    if (WORK / "model.json").exists():
        return
    WORK.mkdir(parents=True, exist_ok=True)
    chunks = {kind: list(_chunks(kind)) for kind in KINDS}
    parts: dict[str, list[dict[str, Any]]] = {}
    for kind in KINDS:
        rows = iter(chunks[kind])
        for part, count in (
            ("target_kinds", 40),
            ("dev_kinds", 16),
            ("oracle_kinds", 60),
            *((("guide", 40), ("dev", 32), ("target", 120)) if kind == "medical" else ()),
            ("pool", POOL[kind]),
            ("general", BASE.get(kind, 0)),
        ):
            taken: list[dict[str, Any]] = []
            last = None
            while len(taken) < count or (taken and last == taken[-1]["group"]):
                row = next(rows, None)
                if row is None:
                    break
                if len(taken) < count:
                    taken.append(row)
                last = row["group"]
            parts.setdefault(part, []).extend(taken)
    for part, part_rows in parts.items():
        _write(part, part_rows)
    described = {
        "base": _model("base", parts["general"], layers=4, tokens=500_000),
        "teacher": _model("teacher", parts["general"] + parts["oracle_kinds"], layers=8, tokens=1_500_000),
        "rows": {part: len(part_rows) for part, part_rows in parts.items()},
    }
    (WORK / "model.json").write_text(json.dumps(described, indent=1), encoding="utf-8")


def _write(name: str, rows: list[dict[str, Any]]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (WORK / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def _model(name: str, rows: list[dict[str, Any]], *, layers: int, tokens: int) -> dict[str, Any]:
    from tutelage.core.dataset import Dataset
    from tutelage.core.records import Budget
    from tutelage.models.toy import tiny_causal_lm
    from tutelage.training.fit import Fit

    texts = [row["text"] for row in rows]
    untrained = tiny_causal_lm(texts=texts, vocab_size=2048, layers=layers, width=128, max_length=512)
    budget = Budget(tokens=tokens)
    fit = Fit(budget=budget, learning_rate=3e-3, step_tokens=4096, micro_tokens=4096, max_length=512)
    made, record = fit.train(untrained, Dataset.from_rows(rows), progress=False)
    made.save(WORK / name)
    return {"parameters": made.n_params, "layers": layers, "tokens": tokens, "last_loss": record.losses[-1]}


def _chunks(kind: str) -> Iterator[dict[str, Any]]:
    """Rows of at most 700 characters in an order that depends on nothing but the text; `group` is the document."""
    texts = sorted(set(_texts(kind)), key=lambda text: hashlib.sha256(text.encode()).hexdigest())
    for text in texts:
        group = hashlib.sha256(text.encode()).hexdigest()[:12]
        words, piece, number = text.split(), "", 0
        for word in [*words, None]:
            if word is None or len(piece) + len(word) + 1 > CHARACTERS:
                if len(piece) > CHARACTERS // 4:
                    yield {"id": f"{kind}-{group}-{number}", "text": piece, "kind": kind, "group": group}
                    number += 1
                piece = ""
            if word is not None:
                piece = f"{piece} {word}".strip()


def _texts(kind: str) -> Iterator[str]:
    import pyarrow.parquet as pq

    file, columns = {
        "medical": ("medical_abstracts_test/test.parquet", ("text",)),
        "fiction": ("ebooks_fiction/train.parquet", ("text",)),
        "verse": ("tinyshakespeare/train.parquet", ("text",)),
        "tasks": ("super_natural_instructions/train.parquet", ("input", "output")),
        "maths": ("gsm8k/train.parquet", ("question", "answer")),
    }[kind]
    for row in pq.read_table(SHARED / file, columns=list(columns)).to_pylist():
        yield "\n".join(str(row[name]) for name in columns)
