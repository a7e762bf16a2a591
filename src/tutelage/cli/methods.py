"""`tutelage methods`: every method with its room, kind, paper and computed status."""

from typing import Annotated

import typer

from tutelage.cli._output import print_json, say


def methods_command(
    pattern: Annotated[str, typer.Argument(help="Show only names or summaries that contain this.")] = "",
    room: Annotated[str | None, typer.Option(help="Show one room: signals, data, training ...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List every method: what it does and how far it is proven."""
    from tutelage.core.discovery import cards

    chosen = [
        card
        for card in cards().values()
        if (room is None or card.room == room) and pattern.lower() in f"{card.name} {card.summary}".lower()
    ]
    if as_json:
        print_json(
            [card.model_dump(mode="json", exclude={"source_file", "config_class", "module"}) for card in chosen]
        )
        return
    width = max((len(card.name) for card in chosen), default=0)
    for card in chosen:
        # The furthest proof says most; the full list is in --json and `explain`.
        say(f"{card.name:<{width}}  {card.status[-1]:<11}  {card.summary}")
    say(f"\n{len(chosen)} methods. `tutelage explain NAME` says what one does, costs and needs.")
