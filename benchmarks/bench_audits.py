"""Audits of a language model against planted truth: what was planted how often, and which of it the audits find.

memorisation   small llamas trained on the Python manual with canaries, passages and traps planted 1 to 64 times;
               the same models trained without them are the floor
option_bias    models with a known pull towards a position: bias found, its interval, accuracy with order taken out
blank_prompt   four ways to score the same items over the checkpoints of one training: tau with its interval
smollm2        what the audits say of a real model of 135 million weights, where it is at hand
contaminated   the same model with an adapter trained on 12 passages of an exam, 1 to 64 times, and on none

`SECTIONS=contaminated python -m benchmarks audits` makes one section and keeps the others as they were.

    python -m benchmarks audits
"""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.dataset import Dataset
from tutelage.core.discovery import build
from tutelage.core.records import Budget, Result
from tutelage.core.stats.stability import stability
from tutelage.models.seam import LogLikelihood

COPIES = (1, 2, 4, 8, 16, 32, 64)
EACH = 4
SEEDS = (0, 1, 2)
PASSES = 1
SHARES = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


RESULTS = Path(__file__).resolve().parent / "results" / "audits.json"
EXAM, EXAM_COPIES = 12, (0, 1, 4, 16, 64)


def bench() -> dict[str, Any]:
    chunks = pile()
    sections = {one.__name__: one for one in (memorisation, option_bias, smollm2, contaminated)}
    asked = [name for name in os.environ.get("SECTIONS", ",".join(sections)).split(",") if name]
    before = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    parts = {name: before[name] for name in sections if name in before}
    for name in asked:
        start = time.perf_counter()
        parts[name] = sections[name](chunks)
        parts[name]["seconds"] = round(time.perf_counter() - start, 1)
    return {name: parts[name] for name in sections if name in parts}


def pile() -> list[str]:
    """Passages of 60 words of the Python manual, in an order that is always the same."""
    topics = build("data.read.python_topics").read()
    words = [word for text in topics.column("text").to_pylist() for word in text.split()]
    passages = [" ".join(words[at : at + 60]) for at in range(0, len(words) - 60, 60)]
    return [passages[i] for i in np.random.default_rng(0).permutation(len(passages))]


def numbers(result: Result, *names: str) -> dict[str, float]:
    """Some of a result's figures, rounded."""
    return {name: round(result.extra[name], 4) for name in names if name in result.extra}


# -- planted text ---------------------------------------------------------------------------------------------


def planted(chunks: list[str], seed: int) -> dict[str, Any]:
    """What one model is trained on, what was planted in it how often, and what was held back."""
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(len(chunks)).tolist()
    count = EACH * len(COPIES)
    secret, unseen = [chunks[i] for i in drawn[:count]], [chunks[i] for i in drawn[count : 2 * count]]
    rest = [chunks[i] for i in drawn[2 * count : 2 * count + 560]]
    times = [COPIES[n % len(COPIES)] for n in range(count)]
    clean = Dataset.from_rows({"text": text} for text in rest)
    writer = _writer(rest)
    trapped = build(
        "data.augment.traps",
        {
            "pairs": 32,
            "length": 20,
            "repeats": (1, 4, 16, 64),
            "perplexity": (1.0, 100_001.0),
            "buckets": 1,
            "seed": seed,
        },
    ).apply(clean, {"writer": writer})
    canaries = build("data.augment.canaries", {"count": count, "repeats": COPIES, "seed": seed}).apply(trapped, {})
    rows = [{"text": row["text"]} for row in canaries.rows()]
    rows += [{"text": text} for text, n in zip(secret, times) for _ in range(n)]
    return {
        "clean": clean,
        "dirty": Dataset.from_rows(rows),
        "canaries": canaries,
        "traps": Dataset.from_rows([{"text": "-"}], report={k: trapped.report[k] for k in ("traps", "seal")}),
        "passages": Dataset.from_rows({"text": text, "planted": n} for text, n in zip(secret, times)),
        "unseen": Dataset.from_rows({"text": text} for text in unseen),
    }


def _writer(texts: list[str]) -> Any:
    from tutelage.models.ngram import NGramLM

    return NGramLM(2).fit(texts)


def trained(rows: Dataset, seed: int, folder: str | None = None, passes: int = PASSES) -> Any:
    """A llama of 0.85 million weights after `passes` over the rows; kept checkpoints where there is a folder."""
    from tutelage.models.toy import tiny_causal_lm

    model = tiny_causal_lm(
        "llama", rows.column("text").to_pylist()[:400], vocab_size=2000, layers=4, width=128, seed=seed, chat=False
    )
    fit = build(
        "training.fit",
        {
            "budget": Budget(rows=passes * rows.num_rows),
            "learning_rate": 3e-3,
            "step_tokens": 512,
            "micro_tokens": 1024,
            "keep_checkpoints": SHARES if folder else (),
            "seed": seed,
        },
    )
    return fit.train(model, rows, {"seed": seed}, checkpoint_dir=folder, progress=False)


def memorisation(chunks: list[str]) -> dict[str, Any]:
    runs = []
    ranks: dict[str, Any] = {}
    for seed in SEEDS:
        made = planted(chunks, seed)
        with tempfile.TemporaryDirectory() as folder:
            dirty, record = trained(made["dirty"], seed, folder)
            if seed == SEEDS[0]:
                ranks = blank_prompts(chunks, record)
        clean, _ = trained(made["clean"], seed)
        runs.append({"dirty": audited(dirty, clean, made), "clean": audited(clean, clean, made)})
    found: dict[str, Any] = {
        "seeds": len(SEEDS),
        "weights": 850_000,
        "passes": PASSES,
        "per_count_and_seed": EACH,
    }
    for side in ("dirty", "clean"):
        names = runs[0][side]
        found[side] = {
            name: {key: round(float(np.mean([run[side][name][key] for run in runs])), 3) for key in names[name]}
            for name in names
        }
    return {**found, "checkpoints": ranks}


def audited(model: Any, clean: Any, made: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Every audit of memorisation of one model, by how often its texts were planted."""
    exposure = build("evaluation.exposure").evaluate(model, made["canaries"], {})
    extraction = build("evaluation.extraction", {"prefix_tokens": 60, "suffix_tokens": 40}).evaluate(
        model, made["passages"], {"control": made["unseen"]}
    )
    member = build("evaluation.membership").evaluate(model, made["traps"], {"writer": clean})
    blind = build("evaluation.membership", {"score_by": "min_k"}).evaluate(model, made["traps"], {})
    found = {
        "exposure": {str(n): exposure.extra[f"exposure[{n}]"] for n in COPIES}
        | {
            "control": exposure.extra["control"],
            "all": exposure.estimate,
            "p_below_.05": exposure.extra["p"] < 0.05,
        },
        "canary_extracted": {str(n): exposure.extra[f"extracted[{n}]"] for n in COPIES},
        "passage_extracted": {str(n): extraction.extra[f"recall[{n}]"] for n in COPIES}
        | {"control": extraction.extra["control"]},
        "passage_leading": {
            "planted": extraction.extra["leading"],
            "control": extraction.extra["control_leading"],
        },
        "trap_auc": {str(n): member.extra[f"auc[{n} copies]"] for n in (1, 4, 16, 64)}
        | {"ratio": member.estimate, "min_k": blind.estimate, "null_sd": member.extra["null_sd"]},
        "flagged": {},
    }
    rows = list(made["passages"].rows())
    for n in COPIES:
        items = Dataset.from_rows({"text": row["text"]} for row in rows if row["planted"] == n)
        guided = build("evaluation.guided_completion", {"dataset_name": "Python manual", "style": "header"})
        result = guided.evaluate(model, items, {"control": made["unseen"]})
        found["flagged"][str(n)] = result.estimate
        found["flagged"]["control"] = (result.extra["control_exact"] + result.extra["control_near_exact"]) / (
            made["unseen"].num_rows
        )
    return found


# -- ranks of checkpoints -------------------------------------------------------------------------------------


def blank_prompts(chunks: list[str], record: Any) -> dict[str, Any]:
    """tau of each way to score over the checkpoints of one training, on items of text that it did not see."""
    from tutelage.models.load import load_model

    rng = np.random.default_rng(1)
    held = chunks[-120:]
    rows = []
    for number, text in enumerate(held):
        words = text.split()
        others = [held[i].split()[20:26] for i in rng.choice(len(held), 3, replace=False) if i != number]
        options = [" ".join(words[20:26]), *[" ".join(one) for one in others]]
        if len(set(options)) < 4:
            continue
        order = rng.permutation(4).tolist()
        statement = " ".join([*words[8:20], "___", *words[26:34]])
        rows.append({"prompt": statement, "choices": [options[i] for i in order], "answer": order.index(0)})
    items = Dataset.from_rows(rows)
    plain = Dataset.from_rows({"text": text} for text in held)
    scores: dict[str, list[list[float]]] = {}
    for share in sorted(record.kept, key=float):
        model = load_model(record.kept[share])
        for scorer in ("blank", "blank_bytes", "cloze", "letter"):
            result = build("evaluation.blank_prompt", {"scorer": scorer}).evaluate(model, items, {})
            scores.setdefault(scorer, []).append(list(result.items.scores().values()))
        bits = build("evaluation.bits_per_byte").evaluate(model, plain, {}).items.scores()
        scores.setdefault("bits_per_byte", []).append([-value for value in bits.values()])
    found: dict[str, Any] = {"checkpoints": len(record.kept), "items": len(rows)}
    for name, table in scores.items():
        rank = stability(range(len(table)), np.array(table))
        interval = rank.interval
        found[name] = {
            "first": round(float(np.mean(table[0])), 3),
            "last": round(float(np.mean(table[-1])), 3),
            "tau": None if rank.tau is None else round(rank.tau, 3),
            "interval": None if interval is None else [round(interval.lo, 3), round(interval.hi, 3)],
        }
    return found


# -- planted bias ---------------------------------------------------------------------------------------------


class Pulled:
    """Logits u(option) + pull towards the first position, as a model."""

    name = fingerprint = "pulled"
    template = None

    def __init__(self, contents: dict[str, float], pull: float) -> None:
        self.contents, self.pull = contents, pull

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]

    def loglikelihood(self, pairs: list[tuple[str, str]]) -> list[LogLikelihood]:
        found = []
        for prompt, letter in pairs:
            options = [line.split(". ", 1)[1] for line in prompt.split("\n")[1:-1]]
            logits = np.array([self.contents[one] for one in options])
            logits[0] += self.pull
            value = logits[ord(letter[-1]) - ord("A")] - np.logaddexp.reduce(logits)
            found.append(LogLikelihood(float(value), 1, False))
        return found


def option_bias(chunks: list[str], draws: int = 40, items: int = 50) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    found = []
    for pull in (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0):
        measured = []
        for _ in range(draws):
            rows: list[dict[str, Any]] = []
            contents: dict[str, float] = {}
            for n in range(items):
                options = [f"o{n}{k}" for k in range(4)]
                values = rng.normal(0, 1, 4)
                contents.update(zip(options, values.tolist()))
                # The right option is the one it likes best three times in four.
                gold = int(values.argmax()) if rng.random() < 0.75 else int(rng.integers(4))
                rows.append({"prompt": f"Q{n}", "choices": options, "answer": gold})
            measured.append(
                build("evaluation.option_bias").evaluate(Pulled(contents, pull), Dataset.from_rows(rows), {})
            )
        # The probability of the first position, over many more items than any audit has.
        values = rng.normal(0, 1, (200_000, 4))
        shifted = values + np.array([pull, 0, 0, 0])
        truth = float((np.exp(shifted[:, 0]) / np.exp(shifted).sum(1)).mean()) - 0.25 if pull else 0.0
        extras = [one.extra for one in measured]
        found.append(
            {
                "pull": pull,
                "true_bias": round(truth, 4),
                "bias": round(float(np.mean([one["first_bias"] for one in extras])), 4),
                "covered": float(
                    np.mean(
                        [one["first_bias_lo"] - 1e-9 <= truth <= one["first_bias_hi"] + 1e-9 for one in extras]
                    )
                ),
                "found": float(np.mean([one["first_bias_lo"] > 1e-9 for one in extras])),
                **{
                    name: round(float(np.mean([one[f"accuracy_{name}"] for one in extras])), 4)
                    for name in ("given", "adjusted", "adjusted_log", "worst")
                },
                "changed": round(float(np.mean([one.estimate for one in measured])), 4),
            }
        )
    return {"items": items, "draws": draws, "options": 4, "pulls": found}


# -- a real model ---------------------------------------------------------------------------------------------


def smollm2(chunks: list[str]) -> dict[str, Any]:
    from tutelage.core.errors import TutelageError
    from tutelage.models.load import load_model

    try:
        model = load_model("smollm2")
    except TutelageError as error:
        return {"skipped": error.what}
    rng = np.random.default_rng(0)
    choices, questions, wordings = [], [], []
    for number in range(60):
        a, b = (int(x) for x in rng.integers(2, 50, 2))
        wrong = [a + b + int(d) for d in rng.choice([-11, -10, -2, -1, 1, 2, 10, 11], 3, replace=False)]
        options = [str(x) for x in rng.permutation([a + b, *wrong])]
        choices.append(
            {"prompt": f"What is {a} plus {b}?", "choices": options, "answer": options.index(str(a + b))}
        )
        questions.append({"prompt": f"Question: What is {a} plus {b}?\nAnswer:", "answer": str(a + b)})
        for text in (f"What is {a} plus {b}?", f"What does {a} + {b} equal?", f"Add {b} to {a}."):
            wordings.append({"prompt": f"Question: {text}\nAnswer:", "answer": str(a + b), "group": number})
    bias = build("evaluation.option_bias").evaluate(model, Dataset.from_rows(choices), {})
    cloze = build("evaluation.multiple_choice").evaluate(model, Dataset.from_rows(choices), {})
    sar = build("evaluation.sar", {"max_new_tokens": 6}).evaluate(model, Dataset.from_rows(questions), {})
    same = build("evaluation.semantic_consistency", {"ask_to_choose": True, "max_new_tokens": 6}).evaluate(
        model, Dataset.from_rows(wordings), {}
    )
    manual = Dataset.from_rows({"text": text} for text in chunks[:40])
    guided = build("evaluation.guided_completion", {"dataset_name": "the Python language reference"})
    seen = guided.evaluate(model, manual, {})
    names = [name for name in sar.extra if name.startswith(("auroc", "gain", "accuracy"))]
    return {
        "option_bias": {"changed": round(bias.estimate, 4)}
        | numbers(bias, "first_bias", "first_bias_lo", "first_bias_hi", "entropy", "mass", "no_signal")
        | numbers(bias, "accuracy_given", "accuracy_adjusted", "accuracy_worst")
        | {"cloze": round(cloze.estimate, 4)},
        "sar": {"auroc": round(sar.estimate, 4), "no_interval": sar.no_interval} | numbers(sar, *names),
        "consistency": {"bleu": round(same.estimate, 4)}
        | numbers(
            same, "agree[exact]", "accuracy", "right_only", "most_common", "accuracy_chosen", "accuracy_majority"
        ),
        "guided_completion": {"flagged": seen.estimate, "verdict": seen.system["verdict"]}
        | numbers(seen, "exact", "near_exact", "p", "rouge_guided", "rouge_general"),
    }


if __name__ == "__main__":
    import json

    print(json.dumps(bench(), indent=1))


def contaminated(chunks: list[str]) -> dict[str, Any]:
    """What guided completion and extraction find of an exam that an adapter was trained on so often."""
    from tutelage.core.errors import ModelError
    from tutelage.models.load import load_model

    try:
        base = load_model("smollm2")
    except ModelError as error:
        return {"skipped": f"{error.what}: {error.remedy}"}
    exam, control, rest = chunks[:EXAM], chunks[EXAM : 2 * EXAM], chunks[2 * EXAM : 3 * EXAM]
    named = {
        name: Dataset.from_rows({"id": f"{name}{i}", "text": text} for i, text in enumerate(texts))
        for name, texts in (("exam", exam), ("control", control))
    }
    found: dict[str, Any] = {"passages": EXAM, "copies": {}}
    for copies in EXAM_COPIES:
        rows = Dataset.from_rows({"text": text} for text in [*rest, *(exam * copies)])
        adapted = build("adapters.lora", {"rank": 16}).convert({"base": base}, None, {})
        fields = {"budget": Budget(rows=rows.num_rows), "learning_rate": 2e-3, "step_tokens": 1024}
        model, _ = build("training.fit", fields).train(adapted, rows, {"seed": 0}, progress=False)
        fields = {"dataset_name": "The Python Manual", "style": "header", "items": EXAM, "max_new_tokens": 32}
        completed = build("evaluation.guided_completion", fields).evaluate(
            model, named["exam"], {"control": named["control"]}
        )
        extracted = build("evaluation.extraction", {"prefix_tokens": 32, "suffix_tokens": 24}).evaluate(
            model, named["exam"], {"control": named["control"]}
        )
        guided = numbers(completed, "rouge_guided", "rouge_general", "p", "control_rouge_guided", "set_flagged")
        found["copies"][str(copies)] = {
            "guided_completion": {
                "flagged": round(completed.estimate, 4), "verdict": completed.system["verdict"], **guided
            },
            "extraction": {
                "extracted": round(extracted.estimate, 4), **numbers(extracted, "leading", "control_extracted")
            },
        }  # fmt: skip
    return found
