"""`tutelage init`: a recipe to start from, in an empty or existing folder."""

from pathlib import Path
from typing import Annotated

import typer

from tutelage.cli._output import say
from tutelage.core.errors import ConfigError, InputError

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


CLASSIFIER = """\
# A classifier from a file of texts of which some have a label, and a first honest figure of how good it is: every
# labelled text scored by a fit without it, for vectors of a small encoder and for plain words. Then:
#   tutelage run {name} && tutelage report
#   tutelage predict calibrated NEW-TEXTS.csv
# What to label next is in outputs/ask-next.jsonl: tutelage label outputs/ask-next.jsonl --labels {classes}
# With a hundred labels or more hold some out: data.split.by_group, then evaluation.classification on that part.
name: {stem}
sources:
  texts: {{path: {texts}}}
models:
  encoder: {{load: minilm}}   # once: tutelage fetch minilm
steps:
  - {{name: labelled, use: data.filter.where, from: texts, column: label}}
  - {{name: words, use: adapters.tfidf_classifier, from: labelled}}
  - {{name: vectors, use: adapters.linear_head, model: encoder, from: labelled}}
  - {{name: calibrated, use: adapters.calibrate, model: vectors, precision: 0.9}}
  - {{name: accuracy_words, use: evaluation.out_of_fold, model: words}}
  - {{name: accuracy, use: evaluation.out_of_fold, model: calibrated}}
  - {{name: unlabelled, use: data.filter.without, from: texts, inputs: {{taken: labelled}}}}
  - {{name: predicted, use: signals.class_probabilities, from: unlabelled, model: calibrated}}
  - {{name: asking, use: data.select.uncertain, from: predicted, by: margin, budget: {{rows: 20}}}}
  - {{name: ask_next, use: data.write.jsonl, from: asking, to: outputs/ask-next.jsonl}}
"""


def init_command(
    folder: Annotated[Path, typer.Argument(help="Where the recipe goes.")] = Path(),
    documents: Annotated[str, typer.Option(help="Your documents, relative to the folder.")] = "documents",
    labels: Annotated[
        str | None,
        typer.Option(help="A file of texts with a column label, filled for some: a recipe for a classifier."),
    ] = None,
) -> None:
    """Write a starter recipe."""
    file = folder / "recipe.yaml"
    if file.exists():
        raise ConfigError("there is a recipe already", where=file, remedy="choose another folder, or edit it")
    if labels is None:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(STARTER.format(name=file.name, stem="specialise", documents=documents), encoding="utf-8")
        say(f"wrote {file}\nnext: put text into {folder / documents}, then `tutelage validate {file}`")
        return
    classes = _classes(folder / labels)
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(
        CLASSIFIER.format(name=file.name, stem="classifier", texts=labels, classes=",".join(classes)),
        encoding="utf-8",
    )
    say(f"wrote {file} for {len(classes)} classes\nnext: `tutelage run {file}`")


def _classes(file: Path) -> tuple[str, ...]:
    """The classes of a file's labels; raises InputError where a classifier cannot be made of them."""
    from tutelage.core.discovery import build
    from tutelage.core.labels import LabelSpace

    rows = build("data.read.auto").read(str(file))  # type: ignore[attr-defined]
    space = LabelSpace.of(rows)
    if len(space) < 2:
        raise InputError(
            "all labelled texts have one class", where=file, expected="at least two classes", found=space.names[0]
        )
    return space.names
