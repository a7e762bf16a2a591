"""`tutelage chat MODEL`: talk to a model on a terminal, or send it one message per line through a pipe."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from tutelage.cli._options import AllowRemoteCode
from tutelage.cli._output import note, plain, say
from tutelage.core.errors import ModelError


def chat_command(
    model: Annotated[str, typer.Argument(help="Folder, .gguf file, packaged name, hub name or endpoint URL.")],
    adapter: Annotated[Path | None, typer.Option(help="PEFT adapter to put on the model.")] = None,
    system: Annotated[str, typer.Option(help="System message.")] = "",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 256,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of sampled answers.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    served_name: Annotated[str | None, typer.Option("--model", help="Model name at an endpoint.")] = None,
    key_env: Annotated[str | None, typer.Option(help="Environment variable with the endpoint's key.")] = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Let text leave this machine.")] = False,
    allow_remote_code: AllowRemoteCode = False,
) -> None:
    """Talk to a model; Ctrl-D ends. Without a terminal: one message per line, the answers on standard output."""
    from tutelage.models.load import load_model

    loaded: Any = load_model(
        model,
        device=device,
        adapter=adapter,
        model=served_name,
        key_env=key_env,
        allow_remote=allow_remote,
        allow_remote_code=allow_remote_code,
    )
    templated = loaded.kind == "endpoint" or getattr(loaded, "template", None) is not None
    if not templated:
        note("this model has no chat template: every message is continued as plain text")
        if system:
            raise ModelError(
                "a system message needs a chat template", where=model, remedy="leave --system out for this model"
            )
    options: Any = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    opening = [{"role": "system", "content": system}] if system else []
    messages: list[dict[str, str]] = []
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    if interactive:
        note(f"{loaded.name}; Ctrl-D ends")
    for turn, said in enumerate(_said(interactive)):
        messages.append({"role": "user", "content": said})
        if templated:
            messages = _fitting(loaded, opening, messages, max_new_tokens)
        prompt = loaded.chat_prompt(opening + messages) if templated else said
        # A model in this process is read while it speaks; an endpoint answers at once.
        streams = loaded.kind == "causal"
        listener: Any = {"on_text": _show_piece} if streams else {}
        (answer,) = loaded.generate([prompt], seed=seed + turn, **options, **listener)
        messages.append({"role": "assistant", "content": answer.text})
        ending = " [...]" if answer.truncated else ""
        if streams:
            say(ending)
        else:
            _show(answer.text + ending, interactive)


def _said(interactive: bool) -> Iterator[str]:
    """What the user says, one message at a time; empty lines are passed over."""
    if not interactive:
        yield from (line.strip() for line in sys.stdin if line.strip())
        return
    from rich.console import Console

    console = Console()
    while True:
        try:
            said = console.input("[bold]you>[/bold] ").strip()
        except EOFError:
            console.print()
            return
        if said:
            yield said


def _fitting(
    loaded: Any, opening: list[dict[str, str]], messages: list[dict[str, str]], max_new_tokens: int
) -> list[dict[str, str]]:
    """The latest messages that leave room for an answer; older turns are forgotten, and that is said."""
    if not hasattr(loaded, "max_length"):
        return messages  # an endpoint knows its own limit
    kept = messages
    while len(kept) > 1:
        length = int(loaded.count_tokens([loaded.chat_prompt(opening + kept)])[0])
        if length + max_new_tokens < loaded.max_length:
            break
        kept = kept[2:]
    if len(kept) < len(messages):
        note(f"the context is full: the oldest {len(messages) - len(kept)} messages are forgotten")
    return kept


def _show_piece(text: str) -> None:
    """A piece of an answer as it comes; control characters are shown, not obeyed."""
    typer.echo(plain(text), nl=False)


def _show(text: str, interactive: bool) -> None:
    # A model may write control sequences; they are shown, not obeyed.
    shown = plain(text)
    if not interactive:
        say(shown)
        return
    from rich.console import Console

    Console().print(shown, markup=False, highlight=False)
