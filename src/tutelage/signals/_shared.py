"""What several signals share: which part of a row a model scores."""

from typing import Any

import pyarrow as pa

from tutelage.core.errors import InputError
from tutelage.core.text.rows import pair_columns, string_column


def response_pairs(shard: pa.Table, model: Any) -> list[tuple[str, str]] | None:
    """(prompt, response) of every row when rows have a response, None when they are plain texts.

    Of `messages` the last turn is the response and must be the assistant's; the rest, rendered by the model's
    chat template, is the prompt.
    """
    pair = pair_columns(shard.schema)
    if pair is not None:
        prompts, answers = (string_column(shard, name).to_pylist() for name in pair)
        return list(zip(prompts, answers))
    if "messages" not in shard.column_names or "text" in shard.column_names:
        return None
    found = []
    for identifier, messages in zip(shard.column("id").to_pylist(), shard.column("messages").to_pylist()):
        if not messages or messages[-1]["role"] != "assistant":
            raise InputError(
                "a conversation does not end with the assistant",
                where=f"row {identifier}",
                expected="a last message of role assistant",
                found=messages[-1]["role"] if messages else "no message",
                remedy="drop such rows, or cut them after the last answer",
            )
        found.append((model.chat_prompt(messages[:-1]), messages[-1]["content"] or ""))
    return found
