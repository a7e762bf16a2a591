"""Running an lm-eval task by its output type: requests to the model, and scores by the harness's conventions."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tutelage.core.errors import ConfigError, InputError
from tutelage.evaluation import _lm_eval_prompts as lm
from tutelage.evaluation._choices import CHOICE_METRICS, best_choice, choice_values, gold_index, softmax
from tutelage.evaluation._lm_eval_config import SECOND_ROUTE, LmEvalConfig
from tutelage.evaluation._shared import Measurement

# What each output type can report, and what it does by default, in the harness's order.
METRICS: dict[str, tuple[str, ...]] = {
    "multiple_choice": CHOICE_METRICS,
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity", "bits_per_byte"),
    "generate_until": ("exact_match",),
}
DEFAULTS = METRICS | {"multiple_choice": ("acc", "acc_norm")}
TOKEN_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True)
class Run:
    """One evaluation: `metrics` maps each metric to its options, the headline first; `filter` names the filter
    pipeline of the headline (null = the first)."""

    config: LmEvalConfig
    model: Any
    work: Measurement
    prompts: list[str]
    metrics: dict[str, dict[str, Any]]
    ties: str
    filter: str | None


@dataclass(frozen=True)
class Scored:
    """What the log now holds: the metric of its scores, and every metric's value."""

    metric: str
    direction: Literal[1, -1]
    unit: str
    extra: dict[str, float]


def measure(run: Run) -> Scored:
    """Measure by the task's output type."""
    runners = {
        "multiple_choice": _multiple_choice,
        "loglikelihood": _loglikelihood,
        "loglikelihood_rolling": _rolling,
        "generate_until": _generate,
    }
    return runners[run.config.output_type](run)


def metrics_of(config: LmEvalConfig, headline: str | None, path: str) -> dict[str, dict[str, Any]]:
    """Metric -> its options, `headline` (or the file's first) first; others than ours are an error."""
    known = METRICS[config.output_type]
    found = {}
    for entry in config.metric_list or [{"metric": name} for name in DEFAULTS[config.output_type]]:
        options = dict(entry)
        name, aggregation = options.pop("metric", None), options.pop("aggregation", None)
        options.pop("higher_is_better", None)
        special = {"bits_per_byte": "bits_per_byte", "perplexity": "perplexity"}
        usual = special.get(str(name), "weighted_perplexity" if str(name).endswith("_perplexity") else "mean")
        if name not in known or aggregation not in (None, usual):
            raise ConfigError(
                f"unsupported metric {name!r}" + (f" with aggregation {aggregation!r}" if aggregation else ""),
                where=f"{path}: metric_list",
                expected=f"{', '.join(known)} for {config.output_type}",
                remedy=SECOND_ROUTE,
            )
        found[str(name)] = options
    first = headline or next(iter(found))
    if first not in found:
        raise ConfigError("the task has no such metric", where="metric", expected=", ".join(found), found=first)
    return {first: found.pop(first)} | found


def _multiple_choice(run: Run) -> Scored:
    config, work = run.config, run.work
    pairs: list[tuple[str, str]] = []
    options, golds = [], []
    for row, prompt in zip(work.rows, run.prompts):
        choices = lm.choices_of(config, row, work.where(row)) or []
        target = lm.target_of(config, row, work.where(row))
        targets = target if isinstance(target, list) else [target]
        golds.append({gold_index(one, choices, work.where(row), "doc_to_target") for one in targets})
        options.append(choices)
        pairs += [(prompt, config.target_delimiter + choice) for choice in choices]
    found = [ll.sum for ll in run.model.loglikelihood(pairs, joint=True)]
    alone: list[float] | None = None
    if "acc_mutual_info" in run.metrics:
        alone = [ll.sum for ll in run.model.loglikelihood([("", option) for _, option in pairs], joint=True)]
    totals = dict.fromkeys([*run.metrics, "ties"], 0.0)
    start = 0
    for row, choices, gold in zip(work.rows, options, golds):
        part = slice(start, start := start + len(choices))
        values = choice_values(found[part], choices, alone[part] if alone else None)
        picked = {metric: best_choice(values[metric], gold, run.ties) for metric in run.metrics}
        for metric, one in picked.items():
            totals[metric] += one.score
        head = next(iter(picked.values()))
        totals["ties"] += head.tied > 1
        shares = softmax(found[part])
        work.add(
            row,
            score=head.score,
            prediction=choices[head.first],
            target=" | ".join(choices[index] for index in sorted(gold)),
            choice_ll=found[part],
            p_correct=sum(shares[index] for index in gold),
        )
    return Scored(next(iter(run.metrics)), 1, "", _shares(totals, work))


def _loglikelihood(run: Run) -> Scored:
    targets = [_text(run, row) for row in run.work.rows]
    found = run.model.loglikelihood(list(zip(run.prompts, targets)), joint=True)
    accuracy = next(iter(run.metrics)) == "acc"
    for row, target, ll in zip(run.work.rows, targets, found):
        value = float(ll.is_greedy) if accuracy else -ll.sum
        run.work.add(row, score=value, target=target, tokens_in=ll.n_tokens)
    n = len(found)
    values = {
        "perplexity": math.exp(-sum(ll.sum for ll in found) / n),
        "acc": sum(ll.is_greedy for ll in found) / n,
    }
    extra = {name: values[name] for name in run.metrics}
    return Scored("acc", 1, "", extra) if accuracy else Scored("nll", -1, "nats/item", extra)


def _rolling(run: Run) -> Scored:
    texts = [_text(run, row) for row in run.work.rows]
    # As good as disjoint windows of the model's full length, as in the harness; equal for texts that fit in one.
    size = run.model.max_length
    nats = [found.nll_sum for found in run.model.score_texts(texts, window=size, stride=size - 1)]
    n_bytes = [len(text.encode("utf-8")) for text in texts]
    n_words = [len(re.split(r"\s+", text)) for text in texts]
    name = next(iter(run.metrics))
    scale = math.log(2) if name == "bits_per_byte" else 1.0
    for row, nll, weight in zip(run.work.rows, nats, n_words if name == "word_perplexity" else n_bytes):
        run.work.add(row, score=nll / scale / weight, weight=float(weight))
    values = {
        "word_perplexity": math.exp(sum(nats) / sum(n_words)),
        "byte_perplexity": math.exp(sum(nats) / sum(n_bytes)),
        "bits_per_byte": sum(nats) / sum(n_bytes) / math.log(2),
    }
    extra = {metric: values[metric] for metric in run.metrics}
    if name == "bits_per_byte":
        return Scored(name, -1, "bits/byte", extra)
    unit = name.removesuffix("_perplexity")
    return Scored(f"nll_per_{unit}", -1, f"nats/{unit}", extra)


def _generate(run: Run) -> Scored:
    work = run.work
    temperature, limit, stop = decoding(run.config)
    repeats = [
        run.model.generate(run.prompts, max_new_tokens=limit, temperature=temperature, stop=stop, seed=repeat)
        for repeat in range(run.config.repeats)
    ]
    plain: list[dict[str, Any]] = [{"name": "none", "filter": [{"function": "take_first"}]}]
    filters = {
        str(entry.get("name", "none")): entry.get("filter", []) for entry in run.config.filter_list or plain
    }
    first = run.filter or next(iter(filters))
    if first not in filters:
        raise ConfigError("the task has no such filter", where="filter", expected=", ".join(filters), found=first)
    totals = {f"exact_match,{name}": 0.0 for name in filters} | {"truncated": 0.0}
    for number, row in enumerate(work.rows):
        outputs = [found[number] for found in repeats]
        totals["truncated"] += outputs[0].truncated
        accepted = _accepted(run, row)
        for name, steps in filters.items():
            answer, parsed = lm.apply_filters(steps, [output.text for output in outputs], f"filter {name}")
            right = any(lm.is_match(answer, one, run.metrics["exact_match"]) for one in accepted)
            totals[f"exact_match,{name}"] += right
            if name == first:
                work.add(
                    row,
                    score=float(right),
                    status="ok" if parsed or right else "unparsed",
                    prediction=answer,
                    target=" | ".join(accepted),
                    raw=outputs[0].text,
                    tokens_in=outputs[0].prompt_tokens,
                    tokens_out=sum(len(output.token_ids) for output in outputs),
                )
    return Scored("exact_match", 1, "", _shares(totals, work))


def _shares(totals: dict[str, float], work: Measurement) -> dict[str, float]:
    return {name: total / len(work.rows) for name, total in totals.items()}


def decoding(config: LmEvalConfig) -> tuple[float, int, tuple[str, ...]]:
    """(temperature, token limit, stop strings) by the harness's rules: greedy, 256 tokens, the demonstration
    delimiter, unless the file says otherwise."""
    given = dict(config.generation_kwargs or {})
    until: str | Sequence[str] = given.pop("until", None) or [config.fewshot_delimiter]
    limits = [given.pop(name) for name in TOKEN_LIMITS if name in given]
    sample, temperature = given.pop("do_sample", None), given.pop("temperature", 0.0)
    if given:
        raise ConfigError(
            f"unsupported generation_kwargs {sorted(given)}",
            where="generation_kwargs",
            expected=f"until, do_sample, temperature, {', '.join(TOKEN_LIMITS)}",
            found=", ".join(sorted(given)),
            remedy=SECOND_ROUTE,
        )
    stop = (until,) if isinstance(until, str) else until
    limit = limits[0] if limits else 256
    words = isinstance(stop, list | tuple) and all(isinstance(one, str) and one for one in stop)
    if (
        not words
        or type(limit) is not int
        or limit < 1
        or type(temperature) not in (int, float)
        or temperature < 0
    ):
        raise ConfigError(
            "generation_kwargs are not valid",
            where="generation_kwargs",
            expected="until: text or a list of it, a limit of at least 1 token, a temperature of at least 0",
            found=f"{until!r}, {limit!r}, {temperature!r}",
            remedy="correct them in the task file",
        )
    return 0.0 if sample is False else float(temperature), limit, tuple(stop)


def _text(run: Run, row: dict[str, Any]) -> str:
    found = lm.target_of(run.config, row, run.work.where(row))
    if not isinstance(found, str) or not found:
        raise InputError(
            "doc_to_target gives no text", where=run.work.where(row), expected="a string", found=repr(found)
        )
    return found


def _accepted(run: Run, row: dict[str, Any]) -> list[str]:
    where = run.work.where(row)
    found = lm.target_of(run.config, row, where)
    choices = lm.choices_of(run.config, row, where)
    if choices is not None:
        return [choices[gold_index(found, choices, where, "doc_to_target")]]
    return [str(one) for one in (found if isinstance(found, list) else [found])]
