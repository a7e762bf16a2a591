"""`tutelage init`: a recipe to start from, in an empty or existing folder."""

from pathlib import Path
from typing import Annotated

import typer

from tutelage.core.errors import ConfigError

STARTER = """\
# Specialise a small model on your own documents, and prove it. Change the paths, then:
#   tutelage validate {name}
#   tutelage plan {name}
#   tutelage run {name}
name: {stem}
sources:
  documents: {{path: {documents}}}
models:
  base: {{load: smollm2}}   # fetch it once, or give a model folder
steps:
  - {{name: split, use: data.split.by_group, from: documents, parts: {{train: 0.7, held_out: 0.3}}}}
  - {{name: train_documents, use: data.filter.where, from: split, column: split, equals: train}}
  - {{name: held_documents, use: data.filter.where, from: split, column: split, equals: held_out}}
  - {{name: chunks, use: data.recipes.text_chunks, from: train_documents}}
  - {{name: sized, use: signals.length, from: chunks, inputs: {{model: base}}}}
  - {{name: chosen, use: data.select.random, from: sized, budget: {{tokens: 20k}}, allow_short: true}}
  - {{name: adapted, use: adapters.lora, model: base, rank: 16}}
  - name: trained
    use: training.fit
    model: adapted
    from: chosen
    objective: {{use: training.objectives.causal_lm}}
    schedule: {{use: training.schedules.cosine}}
    budget: {{tokens: 20k}}
  - {{name: held_out, use: evaluation.bits_per_byte, from: held_documents, model: trained}}
arms:
  base: {{held_out: {{model: base}}}}
  trained: {{}}
compare:
  baseline: base
  metric_step: held_out
  seeds: [0, 1, 2]
"""


def init_command(
    folder: Annotated[Path, typer.Argument(help="Where the recipe goes.")] = Path(),
    documents: Annotated[str, typer.Option(help="Your documents, relative to the folder.")] = "documents",
) -> None:
    """Write a starter recipe."""
    file = folder / "recipe.yaml"
    if file.exists():
        raise ConfigError("there is a recipe already", where=file, remedy="choose another folder, or edit it")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(STARTER.format(name=file.name, stem="specialise", documents=documents), encoding="utf-8")
    typer.echo(f"wrote {file}\nnext: put text into {folder / documents}, then `tutelage validate {file}`")
