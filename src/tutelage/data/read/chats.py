"""Chats: ShareGPT (`conversations` of `from`/`value`) and the OpenAI form (`messages` of `role`/`content`).

Both become the column `messages`, a list of {role, content}; roles are system, user, assistant and tool. A
`system` column is put in front. Content given as text parts is joined. Further keys of a message (`name`,
`tool_calls`) and further columns are kept. JSON Lines or one JSON array, plain or compressed.
"""

from typing import Any

from tutelage.core.errors import InputError, suggest
from tutelage.core.method import Reader
from tutelage.data.read._reader import RecordReader

CARD = {
    "name": "data.read.chats",
    "paper": {"title": "Common practice: ShareGPT and OpenAI chat records"},
    "summary": "Reads chats in ShareGPT or OpenAI form into messages of role and content.",
    "writes": ["messages"],
    "needs": [],
    "cost": "one pass over the file, memory bounded",
    "baseline": None,
    "headline": "An unknown role or an empty chat is named with its line, never dropped quietly.",
    "version": 1,
}
ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
    "function_call": "assistant",
}


def to_messages(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages of one record; raises InputError naming the message and what is wrong with it."""
    column = "conversations" if "conversations" in record else "messages"
    turns = record.get(column)
    if not isinstance(turns, list) or not turns:
        raise InputError(
            "a chat has no messages",
            expected="a non-empty list in the column messages or conversations",
            found=f"columns {', '.join(record)}" if column not in record else f"{column}: {turns!r}",
            remedy=suggest("messages", record) if column not in record and record else "remove the row",
        )
    messages = [_message(turn, f"{column}[{number}]") for number, turn in enumerate(turns)]
    system = record.get("system")
    if isinstance(system, str) and system and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    return messages


def _message(turn: Any, place: str) -> dict[str, Any]:
    if not isinstance(turn, dict):
        raise InputError(f"{place} is not an object", expected="role and content", found=repr(turn)[:80])
    role = turn.get("role", turn.get("from"))
    if not isinstance(role, str) or role.lower() not in ROLES:
        raise InputError(
            f"{place} has no known role",
            expected=", ".join(sorted(ROLES)),
            found=repr(role),
            remedy=suggest(str(role), ROLES),
        )
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        content = "".join(part["text"] for part in content)
    if content is None and turn.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        raise InputError(
            f"{place} has no text",
            expected="text in content (or value)",
            found=f"{type(content).__name__}: {content!r}"[:80],
            remedy="only text is read; remove images and other parts",
        )
    rest = {key: value for key, value in turn.items() if key not in ("role", "from", "content", "value")}
    return {"role": ROLES[role.lower()], "content": content, **rest}


class Chats(RecordReader, Reader):
    """One chat per record; `limit` stops after so many."""

    def row(self, record: dict[str, Any]) -> dict[str, Any]:
        rest = {k: v for k, v in record.items() if k not in ("conversations", "messages", "system")}
        return {**rest, "messages": to_messages(record)}
