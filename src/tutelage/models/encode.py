"""The one way to turn a row into token ids and the set of trained tokens.

Prompt and response are tokenised separately and their ids concatenated, because a joint tokenisation may merge
across the boundary into a token that generation never sees. The response and its end token are trained, the
prompt is not; position 0 is never trained (nothing predicts it). Truncation keeps the end of the prompt and the
start of the response.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from tutelage.core.errors import InputError, ModelError, suggest
from tutelage.models.templates import SHIPPED, ChatTemplate


class Tokenizing(Protocol):
    """What encoding needs of a model."""

    template: ChatTemplate | None
    bos_id: int | None
    eos_id: int | None
    prefix_ids: list[int]  # what the tokenizer itself puts before every text ([bos] or nothing)

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]: ...


@dataclass(frozen=True)
class Encoded:
    """One encoded document: `trained[i]` says whether token i counts in the loss; `weights` multiply it. `cut` is
    how many tokens of the row did not fit into the context and are in no document. `columns` are further numbers
    per token that an objective wants in its batch."""

    ids: list[int]
    trained: list[bool]
    example_id: str
    weights: list[float] | None = None
    cut: int = 0
    columns: dict[str, list[float]] | None = None

    def __post_init__(self) -> None:
        sizes = {len(self.trained), *map(len, (self.columns or {}).values())}
        sizes |= set() if self.weights is None else {len(self.weights)}
        if sizes != {len(self.ids)}:
            raise InputError(
                "an encoded row has lists of unequal length",
                where=self.example_id,
                found=f"{len(self.ids)} ids, {len(self.trained)} flags",
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_trained(self) -> int:
        """Tokens that count in the loss."""
        return sum(self.trained)


def tokenizer_text(tokenizer: Any) -> str:
    """All that decides how a tokenizer splits texts. What the last call cut and padded to is no part of it."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return str(sorted(tokenizer.get_vocab().items()))
    backend.no_truncation()
    backend.no_padding()
    return str(backend.to_str())


def start_id(model: Tokenizing) -> int | None:
    """The token put before a raw text so that its first token can be predicted: BOS, else EOS, else none."""
    _refuse_soft_prompt(model)
    return _start(model)


def lead(model: Tokenizing) -> list[int]:
    """What stands before a text of a causal model whose states are wanted: its soft prompt, then `start_id`."""
    first = _start(model)
    return [*getattr(model, "soft_ids", ()), *([] if first is None else [first])]


def _start(model: Tokenizing) -> int | None:
    return model.bos_id if model.bos_id is not None else model.eos_id


def _refuse_soft_prompt(model: Tokenizing) -> None:
    """Text written or scored without the prompt would pass for the prompted model's."""
    if getattr(model, "soft_ids", ()):
        raise ModelError(
            "a model with a soft prompt makes classifiers and vectors, and does not write or score text",
            where=getattr(model, "name", "model"),
            remedy="put a head on it (adapters.classification_head), or take the model without the prompt",
        )


def encode_prompt(model: Tokenizing, prompt: str) -> list[int]:
    """Token ids of a prompt as training, scoring and generation all see it.

    The tokenizer's own prefix (a BOS for Llama) comes first unless the text already spells it, as a rendered
    chat template may; an empty prompt becomes the start token, so that the response's first token has a context.
    """
    _refuse_soft_prompt(model)
    ids = list(model.tokenize([prompt])[0])
    prefix = model.prefix_ids
    if prefix and ids[: len(prefix)] != prefix:
        ids = prefix + ids
    if not ids:
        first = start_id(model)
        return [] if first is None else [first]
    return ids


def encode_joint(model: Tokenizing, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """(context ids, continuation ids) of the two tokenised as one string, cut where the context's own tokens end.

    The convention of lm-evaluation-harness, for tasks that ask for its numbers: white space at the end of the
    context belongs to the continuation.
    """
    kept = context.rstrip()
    if not kept:
        return encode_prompt(model, ""), list(model.tokenize([context + continuation])[0])
    whole, before = encode_prompt(model, context + continuation), encode_prompt(model, kept)
    return whole[: len(before)], whole[len(before) :]


def encode_text(
    model: Tokenizing, text: str, *, max_length: int, example_id: str = "", eos: bool = True
) -> Encoded:
    """A raw text, all of it trained, cut to its first `max_length` tokens; EOS is appended where it fits."""
    first, *others = split_text(model, text, max_length=max_length, example_id=example_id, eos=eos)
    return replace(first, cut=sum(window.n_trained for window in others))


def split_text(
    model: Tokenizing, text: str, *, max_length: int, example_id: str = "", eos: bool = True
) -> list[Encoded]:
    """A raw text as consecutive windows of at most `max_length` tokens that together train every token once.

    Each window begins with the start token (BOS, else EOS), which is not trained.
    """
    ids = list(model.tokenize([text])[0])
    if not ids:
        raise InputError("a text is empty", where=example_id, remedy="drop empty rows before training")
    if eos and model.eos_id is not None:
        ids.append(model.eos_id)
    first = start_id(model)
    head = [] if first is None else [first]
    step = max_length - len(head)
    windows = [head + ids[i : i + step] for i in range(0, len(ids), step)]
    found = [Encoded(w, [False] + [True] * (len(w) - 1), example_id) for w in windows if len(w) > 1]
    return [_checked(e) for e in found] or [_checked(Encoded(windows[0], [False], example_id))]


def encode_pair(
    model: Tokenizing,
    prompt: str,
    response: str,
    *,
    max_length: int,
    example_id: str = "",
    partial: bool = False,
) -> Encoded:
    """A prompt and its response; EOS is appended and trained unless the response is `partial`."""
    if not response:
        raise InputError(
            "a response is empty", where=example_id, expected="a non-empty completion", remedy="drop the row"
        )
    response_ids = list(model.tokenize([response])[0])
    if not partial and model.eos_id is not None:
        response_ids.append(model.eos_id)
    prompt_ids = encode_prompt(model, prompt)
    over = len(prompt_ids) + len(response_ids) - max_length
    if over > 0:
        # One token must stay before the response, else its first token could not be trained.
        prompt_ids = prompt_ids[min(over, len(prompt_ids) - 1) :] if prompt_ids else prompt_ids
        response_ids = response_ids[: max_length - len(prompt_ids)]
    trained = [False] * len(prompt_ids) + [True] * len(response_ids)
    if trained:
        trained[0] = False
    return _checked(Encoded(prompt_ids + response_ids, trained, example_id, cut=max(over, 0)))


def encode_messages(
    model: Tokenizing,
    messages: Sequence[Mapping[str, Any]],
    *,
    max_length: int,
    example_id: str = "",
    turns: Literal["all", "last"] = "all",
) -> Encoded:
    """A conversation through the chat template: assistant turns are trained with their end-of-turn token.

    `turns="last"` trains the last assistant turn only. Too long a conversation loses tokens of its beginning
    (prompt) as long as a prompt is left, then of its end.
    """
    _refuse_soft_prompt(model)
    pieces = require_template(model).pieces(messages, example_id=example_id)
    last = max((i for i, piece in enumerate(pieces) if piece.trained), default=-1)
    if last < 0:
        raise InputError(
            "a conversation has no assistant turn to train on",
            where=example_id,
            expected="at least one message with role assistant",
            found=", ".join(str(m.get("role")) for m in messages),
            remedy="drop the row, or check which role the answers were given",
        )
    ids: list[int] = []
    trained: list[bool] = []
    for i, (piece, piece_ids) in enumerate(zip(pieces, model.tokenize([p.text for p in pieces]))):
        flag = piece.trained and (turns == "all" or pieces[last].turn == piece.turn) and i <= last
        ids += piece_ids
        trained += [flag] * len(piece_ids)
        if flag and piece.append_eos and model.eos_id is not None:
            ids.append(model.eos_id)
            trained.append(True)
    over = len(ids) - max_length
    if over > 0:
        # Drop untrained tokens at the front first: a question's end and its answer's start are worth more.
        front = min(over, trained.index(True) - 1) if trained.index(True) > 0 else 0
        ids, trained = ids[front : front + max_length], trained[front : front + max_length]
    if trained:
        trained[0] = False
    return _checked(Encoded(ids, trained, example_id, cut=max(over, 0)))


def encode_row(
    row: Mapping[str, Any],
    model: Tokenizing,
    max_length: int,
    *,
    turns: Literal["all", "last"] = "all",
    text_eos: bool = True,
) -> Encoded:
    """Encode a row by its conventional columns: `messages`, else `prompt` + `completion`, else `text`."""
    name = str(row.get("id", ""))
    if row.get("messages") is not None:
        return encode_messages(model, row["messages"], max_length=max_length, example_id=name, turns=turns)
    if row.get("prompt") is not None and row.get("completion") is not None:
        return encode_pair(
            model,
            row["prompt"],
            row["completion"],
            max_length=max_length,
            example_id=name,
            partial=bool(row.get("partial")),
        )
    if row.get("text") is not None:
        return encode_text(model, row["text"], max_length=max_length, example_id=name, eos=text_eos)
    raise InputError(
        "a row has none of the columns that can be trained on",
        where=name,
        expected="messages, or prompt and completion, or text",
        found=", ".join(row) or "no column",
        remedy=suggest("text", row) if row else "check the reader",
    )


def require_template(model: Tokenizing) -> ChatTemplate:
    """The model's chat template; raises InputError where it has none."""
    if model.template is None:
        raise InputError(
            "the model has no chat template",
            where=getattr(model, "name", "model"),
            remedy="give it one: model.use_template(name), of " + ", ".join(SHIPPED),
        )
    return model.template


def _checked(encoded: Encoded) -> Encoded:
    if encoded.n_trained == 0:
        raise InputError(
            "a row has no token to train on",
            where=encoded.example_id,
            expected="at least one trained token after truncation",
            found=f"{len(encoded.ids)} tokens, none trained",
            remedy="raise max_length, or drop the row",
        )
    return encoded
