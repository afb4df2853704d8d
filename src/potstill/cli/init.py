"""`potstill init`: a recipe from what you have; or a tokenizer and a model to start from, where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from potstill.cli.options import PlainFloat, json_option

__all__ = ["init"]


@click.command()
@click.argument("folder", metavar="[FOLDER]", required=False, type=click.Path(path_type=Path))
@click.argument("more", nargs=-1, metavar="[FILE]...", type=click.Path(path_type=Path))
@click.option(
    "--from", "sources", multiple=True, metavar="FILE...", type=click.Path(path_type=Path),
    help="Write a recipe from these files or folders: rows, tables, logs, tools, a task in words.",
)  # fmt: skip
@click.option(
    "--from-log", "log", metavar="FILE", type=click.Path(path_type=Path),
    help="Print what a log of requests holds; with FOLDER, also write a recipe from it.",
)  # fmt: skip
@click.option(
    "--price",
    nargs=2,
    type=PlainFloat(min=0),
    metavar="IN OUT",
    help="With --from-log: price of 10^6 tokens of prompt, of answer.",
)
@click.option("--teacher", metavar="MODEL", help="Teacher of the recipe: a hub id, a folder, or an endpoint's name.")
@click.option("--endpoint", metavar="URL", help="Address of the teacher's endpoint, if it is behind one.")
@click.option("--student", metavar="MODEL", help="Model that the student starts from.")
@click.option(
    "--tokenizer", "rows", metavar="ROWS", type=click.Path(path_type=Path),
    help="Instead of a recipe: train a tokenizer on the text of this JSONL file of training rows.",
)  # fmt: skip
@click.option("--tools", metavar="FILE", type=click.Path(path_type=Path), help="JSON file of the rows' tools.")
@click.option("--vocabulary", type=int, default=4096, show_default=True, metavar="N", help="Tokens of the vocabulary.")
@click.option("--shape", metavar="SHAPE", help="Also write a model of this shape with random weights.")
@click.option("--context", type=int, default=1024, show_default=True, metavar="N", help="Longest text, in tokens.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    metavar="S",
    help="Seed of the split, or of random weights.",
)
@json_option
def init(
    folder: Path | None, more: tuple[Path, ...], sources: tuple[Path, ...], log: Path | None,
    price: tuple[float, float] | None, teacher: str | None, endpoint: str | None, student: str | None,
    rows: Path | None, tools: Path | None, vocabulary: int, shape: str | None, context: int, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Write a recipe with split rows, or a tokenizer, into FOLDER.

    With --from, FOLDER gets a recipe, rows for training, validation and test, and the tools. The files may be JSONL or
    CSV of prompts with or without answers, folders of examples, an OpenAPI document or a list of tools, logs in the
    shape of OpenAI's API, and a text file that says what the task is.

    With --from-log, the tasks in a log are printed: how much of it a program can check, how much of the traffic a
    student could take, and what it costs today.

    With --tokenizer, FOLDER gets a tokenizer, and with --shape also a model with random weights, which a recipe names
    as student.model (init: checkpoint) or as teacher.model (with finetune). SHAPE is written as in 'potstill fit', such
    as llama:layers=4,hidden=256,ffn=704,heads=4.
    """
    from potstill.cli.render.page import print_json

    ways = {"--from": sources, "--from-log": log, "--tokenizer": rows}
    if sum(map(bool, ways.values())) != 1:
        raise click.UsageError(
            "Give one of --from with files to write a recipe, --from-log with a log of requests, or --tokenizer with "
            "rows to train a tokenizer."
        )
    if more and not sources:
        raise click.UsageError(f"Unexpected {more[0]}. Only --from takes several files.")
    if price and not log:
        raise click.UsageError("--price is for --from-log.")
    if folder is None and not log:
        raise click.UsageError("Missing FOLDER: name a new folder.")
    _refuse_unused(recipe=bool(folder and not rows), tokenizer=bool(rows))
    if folder and (folder.is_symlink() or folder.resolve() == Path.cwd()):
        raise click.UsageError(f"{folder} is a link or the current folder. Name a new folder.")
    if folder and folder.exists() and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise click.UsageError(f"{folder} exists and is not an empty folder. Name a new one.")
    audit = _audit(log, price, as_json=as_json) if log else {}
    if audit and as_json and folder is None:
        print_json(audit)
    if folder and rows:
        _tokenizer(folder, rows, tools, vocabulary, shape, context, seed, as_json)
    elif folder:
        _start(folder, (log,) if log else (*sources, *more), teacher, student, endpoint, seed, as_json, audit)


def _refuse_unused(*, recipe: bool, tokenizer: bool) -> None:
    """Refuse options that would not be read."""
    context = click.get_current_context()
    for names, read, what in (
        (("teacher", "endpoint", "student"), recipe, "a recipe, with FOLDER and --from or --from-log"),
        (("tools", "vocabulary", "shape", "context"), tokenizer, "--tokenizer"),
    ):
        for name in names:
            if not read and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
                raise click.UsageError(f"--{name} is for {what}.")


def _audit(log: Path, price: tuple[float, float] | None, *, as_json: bool) -> dict[str, Any]:
    """What a log holds, for JSON; else it is printed."""
    from potstill.apps.init.audit import audit_log
    from potstill.apps.init.sources.files import read_sources
    from potstill.cli.render.init import say_audit
    from potstill.core.recipe.terms import TokenPrice

    found = read_sources([log])
    audit = audit_log(found.requests, len(found.left_out), TokenPrice(*price) if price else None)
    if not as_json:
        say_audit(audit)
    return {**vars(audit), "checkable": audit.checkable, "takeable": audit.takeable}


def _start(
    folder: Path, sources: tuple[Path, ...], teacher: str | None, student: str | None, endpoint: str | None, seed: int,
    as_json: bool, audit: dict[str, Any],
) -> None:  # fmt: skip
    """Write a recipe; `audit` is what its log holds, for JSON."""
    from potstill.apps.init.sources.files import read_sources
    from potstill.apps.init.start import Models, start_recipe
    from potstill.cli.render.init import say_started
    from potstill.cli.render.page import print_json

    chosen = {"teacher": teacher, "student": student, "endpoint": endpoint}
    models = Models(**{name: value for name, value in chosen.items() if value})
    started = start_recipe(read_sources(sources), folder, models, seed)
    if as_json:
        print_json({**vars(started), "audit": audit} if audit else started)
    else:
        say_started(started)


def _tokenizer(
    folder: Path, rows: Path, tools: Path | None, vocabulary: int, shape: str | None, context: int, seed: int,
    as_json: bool,
) -> None:  # fmt: skip
    """Train a tokenizer, and write a model with random weights if a shape is given."""
    from potstill.apps.init.model import write_random_model
    from potstill.apps.init.tokenizer import train_tokenizer
    from potstill.cli.render.page import print_json, say
    from potstill.core.files import replacing
    from potstill.core.recipe import Shape
    from potstill.core.records import read_rows

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
