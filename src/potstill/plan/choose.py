"""`potstill plan RECIPE|MODEL --search`: the students that a device can run, as JSON, as a table, and into a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from potstill.errors import UsageError
from potstill.plan import cost
from potstill.plan.devices import find_device
from potstill.plan.fit import Wish
from potstill.plan.memory import KV_TYPES
from potstill.plan.search import Candidate, Goal, frontier, search
from potstill.plan.source import load_config
from potstill.recipe import Recipe, Target, load_recipe

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["choose", "render_choice", "write_choice"]

_CONTEXT = 4096
_SHOWN = 12


def choose(
    recipe: Recipe | None,
    model: str,
    *,
    devices: Sequence[str] = (),
    context: int | None = None,
    kv_type: str = "f16",
    parallel: int = 1,
    memory_gb: float | None = None,
    decode: float | None = None,
    ttft: float | None = None,
    vocabulary: int | None = None,
    train_on: str = "this",
) -> dict[str, Any]:
    """Students cut from a teacher, and known small models, that a device can run as asked.

    Args:
        recipe: whose chat.context and target are the limits where none is given here, and whose rows are trained on.
        model: the teacher, as of `load_config`.
        devices: one name; this machine, probed quickly, where none is given.
        decode: tokens a second at least.
        ttft: milliseconds to the first token at most, after a prompt of 512 tokens or half the context.
        vocabulary: tokens that the workload uses.
        train_on: device that trains, for the hours.

    Raises:
        UsageError: an option is not known, the teacher has no config.json, or no student meets what is asked.
    """
    goal = _goal(
        recipe.target if recipe else None, recipe, devices, context, kv_type, parallel, memory_gb, decode, ttft
    )
    config = load_config(model)
    found = search(config, goal, vocabulary=vocabulary)
    if not found:
        raise UsageError(_nothing(goal))
    machine = find_device(train_on, quick=True) if recipe else None
    work = cost.Workload.of(recipe) if recipe else None
    shown = frontier(found)[:_SHOWN]
    rows = []
    for one in shown:
        row = one.to_json()
        if recipe and work and machine:
            row["training"] = cost.to_json(_training(recipe, one, config, work, machine))
        rows.append(row)
    return {
        "teacher": model,
        "device": goal.device.name,
        "usable_bytes": goal.device.usable_bytes,
        "context": goal.wish.context,
        "prompt": goal.prompt,
        "decode_tokens_per_s": goal.decode,
        "ttft_seconds": goal.ttft,
        "train_on": machine.name if machine else None,
        "feasible": len(found),
        "students": rows,
    }


def _goal(
    target: Target | None,
    recipe: Recipe | None,
    devices: Sequence[str],
    context: int | None,
    kv_type: str,
    parallel: int,
    memory_gb: float | None,
    decode: float | None,
    ttft: float | None,
) -> Goal:
    """What is asked, on the command line or else by the recipe."""
    if len(devices) > 1:
        raise UsageError("--search chooses for one device: give --device once.")
    if kv_type not in KV_TYPES:
        raise UsageError(f"--kv-type {kv_type!r} is not one of {', '.join(KV_TYPES)}.")
    device = find_device(devices[0]) if devices else find_device("this", quick=True)
    memory = memory_gb * 1e9 if memory_gb else target.memory_mb * 1e6 if target and target.memory_mb else None
    if memory:
        device = device.with_memory(memory)
    wish = Wish(context or (recipe.chat.context if recipe else _CONTEXT), kv_type, parallel)
    milliseconds = ttft or (target.ttft_ms if target else None)
    return Goal(
        device,
        wish,
        decode=decode or (target.decode_tokens_per_s if target else None),
        ttft=milliseconds / 1000 if milliseconds else None,
        prompt=min(512, wish.context // 2),
        file_bytes=int(target.file_mb * 1e6) if target and target.file_mb else None,
    )


def _training(recipe: Recipe, one: Candidate, config: Mapping[str, Any], work: cost.Workload, machine: Any) -> Any:
    from potstill.plan.configs import from_config

    return cost.training(
        one.anatomy.parameters,
        from_config(config).parameters,
        work,
        machine,
        control=recipe.train.control == "sft",
        stored=recipe.train.targets.kind != "online",
        vocab=int(config["vocab_size"]),
    )


def _nothing(goal: Goal) -> str:
    asked = [f"{goal.device.usable_bytes / 1e9:.2f} GB of memory at a context of {goal.wish.context:,}"]
    asked += [f"{goal.decode:g} tokens/s"] if goal.decode else []
    asked += [f"{goal.ttft * 1000:g} ms to the first of {goal.prompt} tokens' answer"] if goal.ttft else []
    asked += [f"a file of {goal.file_bytes / 1e6:g} MB"] if goal.file_bytes else []
    return (
        f"{goal.device.name}: no student that can be cut from this teacher, and no known small model, meets "
        f"{', '.join(asked)}. Ask for less, give it more memory (--memory), or train one from scratch (student.shape)."
    )


def render_choice(found: Mapping[str, Any]) -> RenderableType:
    """The table of students; a pair of numbers is the range that is predicted."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold", box=None, pad_edge=False)
    timed = any("training" in row for row in found["students"])
    for name in (
        "",
        "student",
        "kept",
        "type",
        "memory MB",
        "tokens/s",
        "first ms",
        *(["hours", "disk GB"] * timed),
        "expect",
    ):
        left = name in ("student", "type", "expect")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "student")
    for number, row in enumerate(found["students"], 1):
        low, high = row["decode_tokens_per_s"]
        first = [1000 * seconds for seconds in row["ttft_seconds"]]
        training = row.get("training")
        cells = (
            [f"{training['hours'][0]:.2g}-{training['hours'][1]:.2g}", f"{training['disk_bytes'] / 1e9:.2g}"]
            if training
            else []
        )
        table.add_row(
            str(number), _name(row), f"{row['kept']:.1%}", row["quantization"], f"{row['needed_bytes'] / 1e6:,.0f}",
            f"{low:,.0f}-{high:,.0f}", f"{first[0]:,.0f}-{first[1]:,.0f}", *cells, row["quality_band"],
        )  # fmt: skip
    usable = f"{found['usable_bytes'] / 1e9:.2f} GB for the model"
    head = f"{found['device']}: {usable}, context {found['context']:,}; {found['feasible']} students would do"
    notes = [
        "kept: parameters of the blocks over the teacher's; expect: a rule of thumb by that, not a measurement.",
        "tokens/s and first ms: the predicted range; what is asked is met at its slow end.",
    ]
    if timed:
        notes.append(f"hours: training on {found['train_on']}, at the range of rates that such machines reach.")
    return Group(Text(head, style="bold"), table, *map(Text, notes))


def _name(row: Mapping[str, Any]) -> str:
    if row["origin"] != "teacher":
        return str(row["origin"])
    cut = {key: value for key, value in row["student"].items() if key != "init"}
    return "the teacher's " + ", ".join(f"{key} {value}" for key, value in cut.items())


def write_choice(path: Path, row: Mapping[str, Any]) -> None:
    """Put a student and its quantization into a recipe; other lines and comments stay as they are.

    Raises:
        RecipeError: the recipe would not be valid; the file is then as it was.
    """
    before = path.read_text(encoding="utf-8")
    text = _replace_section(before, "student", dict(row["student"]))
    whole = yaml.safe_load(text)
    export = {**(whole.get("export") or {}), "quantization": row["quantization"]}
    path.write_text(_replace_section(text, "export", export), encoding="utf-8")
    try:
        load_recipe(path)
    except Exception:
        path.write_text(before, encoding="utf-8")
        raise


def _replace_section(text: str, name: str, values: Mapping[str, Any]) -> str:
    """The YAML text with one top-level section written anew, or added at its end."""
    lines = text.splitlines(keepends=True)
    written = yaml.safe_dump({name: dict(values)}, sort_keys=False).splitlines(keepends=True)
    start = next((i for i, line in enumerate(lines) if line.startswith(f"{name}:")), None)
    if start is None:
        return text.rstrip("\n") + "\n\n" + "".join(written)
    end = start + 1
    while end < len(lines) and (lines[end].startswith((" ", "\t")) and lines[end].strip()):
        end += 1
    return "".join([*lines[:start], *written, *lines[end:]])
