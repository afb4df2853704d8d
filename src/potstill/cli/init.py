"""`potstill init`: a tokenizer and a model to start from, where there is none."""

from __future__ import annotations

from pathlib import Path

import click

from potstill.cli.options import json_option

__all__ = ["init"]


@click.command()
@click.argument("folder", metavar="FOLDER", type=click.Path(path_type=Path))
@click.option(
    "--tokenizer", "rows", required=True, metavar="ROWS", type=click.Path(path_type=Path),
    help="JSONL file of training rows whose text the tokenizer is trained on.",
)  # fmt: skip
@click.option("--tools", metavar="FILE", type=click.Path(path_type=Path), help="JSON file of the rows' tools.")
@click.option("--vocabulary", type=int, default=4096, show_default=True, metavar="N", help="Tokens of the vocabulary.")
@click.option("--shape", metavar="SHAPE", help="Also write a model of this shape with random weights.")
@click.option("--context", type=int, default=1024, show_default=True, metavar="N", help="Longest text, in tokens.")
@click.option("--seed", type=int, default=0, show_default=True, metavar="S", help="Seed of the random weights.")
@json_option
def init(
    folder: Path, rows: Path, tools: Path | None, vocabulary: int, shape: str | None, context: int, seed: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Train a tokenizer on your rows, and write it into FOLDER.

    With --shape, FOLDER also gets a model with random weights, which a recipe names as student.model (init: checkpoint)
    or as teacher.model (with finetune). SHAPE is written as in 'potstill fit', such as
    llama:layers=4,hidden=256,ffn=704,heads=4.
    """
    from potstill.apps.init.model import write_random_model
    from potstill.apps.init.tokenizer import train_tokenizer
    from potstill.cli.render.page import print_json, say
    from potstill.core.files import replacing
    from potstill.core.recipe import Shape
    from potstill.core.records import read_rows

    if folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise click.UsageError(f"{folder} exists and is not an empty folder. Name a new one.")
    try:
        wanted = Shape.parse(shape) if shape else None
    except ValueError as error:
        raise click.UsageError(f"--shape: {error}.") from None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as building:
        trained = train_tokenizer(read_rows(rows, tools=tools), building, vocabulary)
        parameters = write_random_model(building, wanted, context, seed) if wanted else None
    if as_json:
        print_json({"folder": str(folder), "tokens": trained.tokens, "bytes_per_token": trained.bytes_per_token,
                    "parameters": parameters})  # fmt: skip
        return
    say(f"{folder}: a tokenizer of {trained.tokens:,} tokens; {trained.bytes_per_token:.2f} bytes per token.")
    if trained.tokens < vocabulary:
        say(f"The rows have too few different words for {vocabulary:,} tokens.")
    if parameters is not None:
        say(
            f"A model of {parameters:,} parameters with random weights is in it: name it as student.model "
            "or teacher.model."
        )
