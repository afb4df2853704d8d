"""Commands that predict: what a model or a recipe needs, how fast it runs, and whether it may ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from potstill.cli.options import json_option, load_language, recipe_argument

if TYPE_CHECKING:
    from potstill.apps.plan.options import Ask, Wanted

__all__ = ["calibrate_device", "licences", "plan"]


@click.command()
@click.argument("model", metavar="MODEL|RECIPE", required=False)
@click.option("--device", "devices", multiple=True, metavar="D", help="Device name; 'this' measures this machine.")
@click.option("--context", type=int, metavar="N", help="Tokens of one conversation.  [default: 4096, or the recipe's]")
@click.option(
    "--quantization", "quantizations", multiple=True, metavar="Q",
    help="Of a MODEL, or of --search's students.  [default: Q4_K_M; --search: Q8_0, Q6_K, Q4_K_M]",
)  # fmt: skip
@click.option("--kv-type", default="f16", show_default=True, metavar="T", help="Type of the KV cache.")
@click.option("--parallel", type=int, default=1, show_default=True, metavar="P", help="Conversations at once.")
@click.option("--memory", "memory_gb", type=float, metavar="GB", help="Memory free for the model, in 10^9 bytes.")
@click.option("--host", metavar="D", help="Machine that a card is in.  [default: Desktop DDR5-5600]")
@click.option("--devices", "list_devices", is_flag=True, help="List the devices that are known, and stop.")
@click.option("--search", is_flag=True, help="List students of this teacher, or the recipe's, that the device can run.")
@click.option("--decode", type=float, metavar="T", help="--search: tokens a second at least.  [default: the recipe's]")
@click.option(
    "--ttft", type=float, metavar="MS", help="--search: longest time to the first token.  [default: the recipe's]"
)
@click.option(
    "--vocabulary", type=int, metavar="V",
    help="--search: tokens kept of the vocabulary.  [default: all, or the recipe's]",
)  # fmt: skip
@click.option("--train-on", default="this", show_default=True, metavar="D", help="Device that trains, for the hours.")
@click.option(
    "--write", metavar="ID|ROW", help="--search: put that student into the recipe; a row where a device is named."
)
@json_option
def plan(model: str | None, list_devices: bool, as_json: bool, search: bool, **asked: Any) -> None:
    """Say whether a model runs on a device, how fast, and what a recipe's student needs, before anything is paid for.

    MODEL is a config.json, a model's folder, a GGUF file, a hub id, or a shape such as
    llama:layers=16,hidden=2048,ffn=8192,heads=32,kv_heads=8,vocab=128256,tied=1. A RECIPE is a .yaml file.
    """
    from potstill.apps.plan.options import Ask, Wanted, refuse_idle

    recipe = Path(model) if model and Path(model).suffix.lower() in (".yaml", ".yml") else None
    kind = ("recipe" if recipe else "model") + (" search" if search else "")
    refuse_idle(_given(click.get_current_context()), "devices" if list_devices else kind)
    if list_devices:
        _list_devices(as_json)
        return
    if model is None:
        raise click.UsageError("Missing argument 'MODEL|RECIPE'.")
    wanted = Wanted(**{key: asked.pop(key) for key in Wanted.__dataclass_fields__})
    host, ask = asked.pop("host"), Ask(**asked)
    if search:
        _search(recipe, model, ask, wanted, as_json)
    elif recipe:
        from potstill.apps.plan.budget import plan_recipe
        from potstill.cli.render.run import print_plan

        planned = plan_recipe(load_language(recipe), ask, wanted.train_on)
        click.echo(json.dumps(planned)) if as_json else print_plan(planned)
    else:
        from potstill.apps.plan.answer import answer, to_json
        from potstill.cli.render.run import print_fits

        fits = answer(model, ask, quantizations=wanted.quantizations, host=host)
        click.echo(json.dumps(to_json(fits))) if as_json else print_fits(fits)


def _given(context: click.Context) -> list[str]:
    """Options and arguments that the command line gives, but those that say what to do and how to print it."""
    said = [p for p in context.command.params if p.name not in ("list_devices", "search", "as_json")]
    given = [p for p in said if context.get_parameter_source(p.name or "") is ParameterSource.COMMANDLINE]
    return [p.opts[0] if p.param_type_name == "option" else str(p.metavar) for p in given]


def _list_devices(as_json: bool) -> None:
    """`plan --devices`."""
    from potstill.apps.plan.answer import devices_json
    from potstill.cli.render.run import print_devices

    click.echo(json.dumps(devices_json())) if as_json else print_devices()


def _search(path: Path | None, model: str, ask: Ask, wanted: Wanted, as_json: bool) -> None:
    """`plan --search`; a recipe is written before anything is printed, so that what is refused prints nothing."""
    from potstill.apps.plan.choose import choose, write_choice
    from potstill.cli.render.run import print_choice

    found = choose(load_language(path) if path else None, model, ask, wanted)
    if path and found["written"]:
        write_choice(path, found["written"])
    click.echo(json.dumps(found)) if as_json else print_choice(found)
    if path and found["written"]:
        click.echo(f"{path}: student and export.quantization are those of {found['written']['id']} now.", err=True)


@click.command()
@recipe_argument
@json_option
def licences(recipe: Path, as_json: bool) -> None:
    """Say whether the student may ship, by the licences of teacher, base student and data. Not legal advice."""
    from potstill.cli.render.run import print_licences
    from potstill.components.licences.licences import licence_verdict

    verdict = licence_verdict(load_language(recipe)).to_json()
    click.echo(json.dumps(verdict)) if as_json else print_licences(verdict)


@click.command("calibrate-device")
@click.argument("files", metavar="[GGUF]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="llama.cpp's threads.")
@json_option
def calibrate_device(files: tuple[Path, ...], threads: int, as_json: bool) -> None:
    """Run GGUFs in llama.cpp, random ones if none are given, and keep this machine's rates for plans of 'this'."""
    from potstill.components.hardware.calibrate import calibrate

    stored = calibrate(files, threads, lambda text: click.echo(text, err=True))
    click.echo(json.dumps(stored) if as_json else f"Rates for {threads} threads are in {stored['file']}.")
