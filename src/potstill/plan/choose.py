"""`potstill plan RECIPE|MODEL --search`: the students that a device can run, as JSON, as a table, and into a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from potstill.chat import ChatFormat, load_chat, resolve_model
from potstill.errors import UsageError
from potstill.plan import cost
from potstill.plan.ask import Ask
from potstill.plan.configs import from_config
from potstill.plan.devices import find_device
from potstill.plan.fit import Wish
from potstill.plan.limits import Limits
from potstill.plan.search import Goal, frontier, search
from potstill.plan.source import load_config
from potstill.recipe import Recipe, Target, load_recipe

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["choose", "render_choice", "write_choice"]

_CONTEXT = 4096
_SHOWN = 12
_PROMPT = 512
"""Tokens of a prompt where no recipe says what prompts are like."""


def choose(
    recipe: Recipe | None,
    model: str,
    ask: Ask,
    *,
    decode: float | None = None,
    ttft: float | None = None,
    vocabulary: int | None = None,
    train_on: str = "this",
) -> dict[str, Any]:
    """Students cut from a teacher, and known small models, that a device can run as asked.

    Args:
        recipe: whose chat.context and target are the limits where none is given here, and whose rows are trained on.
        model: the teacher, as of `load_config`.
        ask: one device at most; where none is given the recipe's, or this machine, probed quickly.
        decode: tokens a second at least.
        ttft: milliseconds to the first token at most, after a prompt of the recipe's mean length; without a recipe
            of 512 tokens or half the context.
        vocabulary: tokens that the workload uses; counted where the recipe trims the student's (student.vocabulary).
        train_on: device that trains, for the hours.

    Raises:
        UsageError: a device is not known, the teacher has no config.json, or no student meets what is asked.
    """
    config = load_config(model)
    work = None
    if recipe:
        chat = _teacher_chat(recipe)
        work = cost.Workload.of(recipe, chat)
        if recipe.student.vocabulary == "workload":
            vocabulary = vocabulary or cost.used_tokens(recipe, chat)
    target = recipe.target if recipe else Target()
    wish = ask.wish(recipe.chat.context if recipe else _CONTEXT)
    limits = _limits(target, work, wish, decode, ttft)
    goal = Goal(ask.one_device(target.device) or ask.all_devices()[0], wish, limits)
    # plain text needs no tokenizer in common, and forward_kl is told over spans of text where there is none
    compared = recipe is not None and recipe.train.objective not in ("sft", "forward_kl")
    found = search(config, goal, vocabulary=vocabulary, same_tokenizer=compared)
    if not found:
        raise UsageError(_nothing(goal))
    machine = find_device(train_on, quick=True)
    shown = frontier(found)[:_SHOWN]
    rows = [one.to_json() for one in shown]
    if recipe and work:
        teacher = from_config(config)
        for row, one in zip(rows, shown, strict=True):
            spent = cost.training(one.anatomy.parameters, teacher.parameters, recipe, work, machine, teacher.vocab)
            row["training"] = spent.to_json()
    return {
        "teacher": model,
        "device": goal.device.name,
        "usable_bytes": goal.device.usable_bytes,
        "context": wish.context,
        "limits": asdict(limits),
        "vocabulary": vocabulary,
        "train_on": machine.name if recipe else None,
        "feasible": len(found),
        "students": rows,
    }


def _teacher_chat(recipe: Recipe) -> ChatFormat:
    teacher = recipe.teacher
    return load_chat(resolve_model(teacher.model, teacher.revision, weights=False), recipe.chat.template)


def _limits(target: Target, work: cost.Workload | None, wish: Wish, decode: float | None, ttft: float | None) -> Limits:
    """The recipe's limits, and over them what the command line asks."""
    asked = Limits.of(target, work.prompt if work else min(_PROMPT, wish.context // 2))
    return replace(asked, decode=decode or asked.decode, ttft=ttft / 1000 if ttft else asked.ttft)


def _nothing(goal: Goal) -> str:
    asked = [f"{goal.device.usable_bytes / 1e9:.2f} GB of memory at a context of {goal.wish.context:,}"]
    limits = goal.limits
    asked += [f"{limits.decode:g} tokens/s"] if limits.decode else []
    asked += [f"{limits.ttft * 1000:g} ms to the first token after {limits.prompt} of prompt"] if limits.ttft else []
    asked += [f"a file of {limits.file_bytes / 1e6:g} MB"] if limits.file_bytes else []
    asked += [f"{limits.peak_bytes / 1e6:g} MB at the peak"] if limits.peak_bytes else []
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
    columns = ("", "student", "kept", "type", "file MB", "memory MB", "tokens/s", "first ms")
    for name in (*columns, *(["hours", "disk GB"] * timed), "expect"):
        words = name in ("student", "expect")
        table.add_column(name, justify="left" if words or name == "type" else "right", no_wrap=not words)
    for number, row in enumerate(found["students"], 1):
        low, high = row["decode_tokens_per_s"]
        training = row.get("training")
        cells = [_hours(*training["hours"]), f"{training['disk_bytes'] / 1e9:.2g}"] if training else []
        table.add_row(
            str(number), _name(row), f"{row['kept']:.1%}", row["quantization"], f"{row['file_bytes'] / 1e6:,.3g}",
            f"{row['needed_bytes'] / 1e6:,.0f}", f"{low:,.0f}-{high:,.0f}", f"{1000 * row['ttft_seconds'][1]:,.0f}",
            *cells, row["quality_band"],
        )  # fmt: skip
    usable = f"{found['usable_bytes'] / 1e9:.2f} GB for the model"
    head = f"{found['device']}: {usable}, context {found['context']:,}; {found['feasible']} students would do"
    notes = [
        "student: what the teacher is cut to, or a known small model.",
        "kept: parameters of the blocks over the teacher's; expect: a rule of thumb by that, not a measurement.",
        "tokens/s: the predicted range; first ms: to the first token, at the slow end, after "
        f"{found['limits']['prompt']} tokens of prompt.",
    ]
    if found["vocabulary"]:
        notes.append(f"A vocabulary trimmed to about {found['vocabulary']:,} tokens, as --write notes in the recipe.")
    if timed:
        notes.append(f"hours: training on {found['train_on']}, at the range of rates that such machines reach.")
    return Group(Text(head, style="bold"), table, *map(Text, notes))


def _hours(low: float, high: float) -> str:
    return f"{low:.2g}-{high:.2g}" if low >= 0.01 else f"<{max(high, 0.01):.2g}"


def _name(row: Mapping[str, Any]) -> str:
    if row["origin"] != "teacher":
        return str(row["origin"])
    return ", ".join(f"{key} {value}" for key, value in row["student"].items() if key not in ("init", "vocabulary"))


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
