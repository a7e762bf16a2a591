"""One vector per text from a model's hidden states: the mean over tokens of one layer."""

from collections.abc import Sequence

import numpy as np

from tutelage.models.seam import Model


def text_vectors(model: Model, texts: Sequence[str], layer: int | None) -> np.ndarray:
    """[n, d] float32, not centred; a text without tokens is NaN.

    `layer` counts from 0, the token embeddings; None: what the model itself takes for a text's vector (`embed`).
    """
    found: list[np.ndarray | None]
    if layer is None:
        counts = [len(ids) for ids in model.tokenize(texts)]
        embedded = iter(model.embed([text for text, count in zip(texts, counts) if count]))
        found = [next(embedded) if count else None for count in counts]
    else:
        found = [states.mean(axis=0) if len(states) else None for states in model.hidden_states(texts, layer)]
    width = next((len(vector) for vector in found if vector is not None), 1)
    return np.array([np.full(width, np.nan) if v is None else v for v in found], dtype=np.float32)
