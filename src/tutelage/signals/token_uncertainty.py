"""How unsure a model is along each row: entropy, margin and rank of the true token.

Per token: H_t = -sum_v p_v ln p_v (nats); m_t = p_(1) - p_(2); r_t = rank of the true token (1 = most likely).
Columns: the mean of each, and its mean over the tenth of the tokens where it shows most doubt (highest entropy,
lowest margin, highest rank; at least one token). Responses of pairs and conversations, texts whole; long texts in
windows as in signals.token_loss. Empty rows have NaN.
"""

import math
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from tutelage.core.errors import InputError
from tutelage.core.method import Inputs, Scorer, State
from tutelage.core.text.rows import texts
from tutelage.signals._shared import response_pairs

CARD = {
    "name": "signals.token_uncertainty",
    "paper": {"title": "Common practice", "identifier": ""},
    "summary": "Entropy, margin and rank of the true token, averaged over each row and its most doubtful tenth.",
    "reads": ["text"],
    "writes": ["entropy", "entropy_top", "margin", "margin_top", "rank", "rank_top"],
    "inputs": {"model": "the causal language model that is asked"},
    "needs": ["train"],
    "cost": "one forward pass per token, window/stride passes on long texts",
    "baseline": "signals.token_loss",
    "headline": "doubt without knowing the answer; entropy high on noise as well as on what is hard",
    "version": 1,
}

TENTH = 0.1
LARGEST_IS_DOUBT = {"entropy": True, "margin": False, "rank": True}


def summarise(values: np.ndarray, largest: bool) -> tuple[float, float]:
    """(mean, mean of the most doubtful tenth) of the per-token `values` [T]; NaN for none."""
    if not len(values):
        return math.nan, math.nan
    count = max(1, round(TENTH * len(values)))
    ordered = np.sort(values)
    return float(values.mean()), float((ordered[-count:] if largest else ordered[:count]).mean())


class TokenUncertainty(Scorer):
    """`window` and `stride` in tokens (stride: half the window)."""

    window: int = Field(default=1024, ge=2)
    stride: int | None = Field(default=None, ge=1)

    def score(self, shard: pa.Table, state: State, inputs: Inputs) -> dict[str, np.ndarray]:
        model = inputs["model"]
        found = {name: np.full((len(shard), 2), np.nan) for name in LARGEST_IS_DOUBT}
        ids = shard.column("id").to_pylist()
        for row, per_token in enumerate(token_values(model, self._documents(shard, model))):
            for name, largest in LARGEST_IS_DOUBT.items():
                if np.isnan(per_token[name]).any():
                    raise InputError(
                        "the model's output is not a number",
                        where=f"row {ids[row]}",
                        expected="finite logits",
                        found="NaN",
                        remedy="the weights are damaged, or the type overflows: load the model in float32",
                    )
                found[name][row] = summarise(per_token[name], largest)
        return {
            f"{name}{suffix}": found[name][:, i]
            for name in LARGEST_IS_DOUBT
            for i, suffix in enumerate(("", "_top"))
        }

    def _documents(self, shard: pa.Table, model: Any) -> list[list[Any]]:
        """Per row the windows to run, each token marked for scoring in exactly one of them."""
        from tutelage.models.encode import Encoded, encode_prompt, start_id

        window = min(self.window, model.max_length)
        stride = window // 2 if self.stride is None else min(self.stride, window - 1)
        pairs = response_pairs(shard, model)
        first = start_id(model)
        head = [] if first is None else [first]
        sources = []
        if pairs is None:
            sources = [(head, ids) for ids in model.tokenize(texts(shard))]
        else:
            answers = model.tokenize([answer for _, answer in pairs])
            sources = [(encode_prompt(model, prompt), ids) for (prompt, _), ids in zip(pairs, answers)]
        rows = []
        for prompt, ids in sources:
            full = prompt + ids
            done = max(1, len(prompt))
            begin = max(0, done - (window - stride))
            windows = []
            while ids and done < len(full):
                stop = min(begin + window, len(full))
                windows.append(Encoded(full[begin:stop], [begin + k >= done for k in range(stop - begin)], ""))
                done, begin = stop, begin + stride
            rows.append(windows)
        return rows


def token_values(model: Any, rows: list[list[Any]]) -> list[dict[str, np.ndarray]]:
    """Per row, from its windows: entropy, margin, rank of every scored token, float64 [T] each. Windows of all
    rows are packed together, so that nothing is computed for padding."""
    from tutelage.models.logps import token_stats
    from tutelage.models.scoring import scoring_batches

    documents = [document for windows in rows for document in windows]
    values: list[dict[str, np.ndarray]] = [{}] * len(documents)
    with model.scoring():
        for chosen, batch in scoring_batches(model, documents):
            stats = token_stats(model, batch)
            # Row by row of the batch, so the scored tokens come document after document.
            flat = {
                name: getattr(stats, name)[batch.response_mask].double().cpu().numpy() for name in LARGEST_IS_DOUBT
            }
            cuts = np.cumsum([documents[i].n_trained for i in chosen])[:-1]
            parts = {name: np.split(found, cuts) for name, found in flat.items()}
            for place, i in enumerate(chosen):
                values[i] = {name: parts[name][place] for name in LARGEST_IS_DOUBT}
    model.meter.add(scored_tokens=sum(document.n_trained for document in documents))
    found, at = [], 0
    for windows in rows:
        own = values[at : at + len(windows)]
        found.append({n: np.concatenate([np.zeros(0), *(part[n] for part in own)]) for n in LARGEST_IS_DOUBT})
        at += len(windows)
    return found
