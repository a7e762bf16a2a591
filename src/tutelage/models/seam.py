"""The seam between methods and models: the `Model` base and the small records that models return.

A kind of model implements the verbs it can (score_texts, loglikelihood, generate, hidden_states, embed,
predict_proba); calling another raises ModelError. No torch here, so endpoints and n-gram models can use it.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.errors import ModelError, StoreError
from tutelage.core.meter import Meter
from tutelage.core.store import disk_errors


@dataclass(frozen=True)
class TextScore:
    """Loss of one text. `nll_sum` in nats over `n_tokens` scored tokens, which cover `n_bytes_scored` bytes
    of UTF-8; NaN and 0 for an empty text. `per_token` [n_tokens] is -log p of each scored token."""

    nll_sum: float
    n_tokens: int
    n_bytes_scored: int
    first_token_scored: bool
    per_token: np.ndarray | None = None


@dataclass(frozen=True)
class LogLikelihood:
    """Log-probability of a continuation: `sum` in nats over `n_tokens`; `is_greedy` = argmax at every token."""

    sum: float
    n_tokens: int
    is_greedy: bool


@dataclass(frozen=True)
class Generation:
    """One completion. `text` ends before the stop string or end token; `truncated` = the token limit ended it,
    `refused` = a server would not answer."""

    text: str
    token_ids: tuple[int, ...]
    truncated: bool
    prompt_tokens: int
    refused: bool = False


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Make `folder` and write a model into it; raises StoreError when the place cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with disk_errors():
            yield
    except OSError as error:
        raise StoreError(
            "a model cannot be saved",
            where=folder,
            expected="a folder that can be written, with space for the model",
            found=error,
            remedy="free some space, or choose another folder",
        ) from error


class Model:
    """A model of any kind. `kind` is "causal", "encoder", "ngram", "endpoint" ...; `meter` counts what it cost."""

    kind: str = ""
    # The token ids of trained vectors that stand before every document (models.soft_prompt).
    soft_ids: Sequence[int] = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self.meter = Meter()
        # The name under which `load_model` finds exactly this model again; a trained copy of it has none.
        self.packaged: str | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of weights and tokenizer: equal fingerprints give equal outputs."""
        raise NotImplementedError

    @property
    def own_code(self) -> dict[str, str]:
        """File name -> source of code that came with the model and runs with it; empty for most."""
        return {}

    def save(self, path: str | Path) -> Path:
        """Write the model below `path`; `load_model(path)` gives it back."""
        raise self._cannot("be saved")

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, no special token added."""
        raise self._cannot("tokenise")

    def score_texts(
        self, texts: Sequence[str], *, window: int = 1024, stride: int | None = None, per_token: bool = False
    ) -> list[TextScore]:
        """Loss of each text, in input order."""
        raise self._cannot("score texts")

    def loglikelihood(self, pairs: Sequence[tuple[str, str]]) -> list[LogLikelihood]:
        """log p(continuation | context) for each (context, continuation)."""
        raise self._cannot("give log-likelihoods")

    def generate(self, prompts: Sequence[str], max_new_tokens: int = 64) -> list[Generation]:
        """One completion per prompt."""
        raise self._cannot("generate text")

    def hidden_states(self, texts: Sequence[str], layer: int) -> Iterable[np.ndarray]:
        """Per text [tokens, width] float32: the output of layer `layer` (0 = embeddings)."""
        raise self._cannot("give hidden states")

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[texts, width] float32."""
        raise self._cannot("embed")

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray:
        """[texts, classes] float32, rows sum to 1."""
        raise self._cannot("predict classes")

    def _cannot(self, what: str) -> ModelError:
        return ModelError(
            f"a model of kind {self.kind!r} cannot {what}",
            where=self.name,
            remedy="use a model of another kind for this step",
        )


def as_texts(texts: Sequence[Any], where: str) -> list[str]:
    """Check that every value is a string; raises ModelError naming the position."""
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ModelError(
                "a text is not a string", where=f"{where}, item {i}", expected="str", found=type(text).__name__
            )
    return list(texts)
