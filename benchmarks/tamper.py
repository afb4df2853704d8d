"""Damage every file of every finished step of a run, and of its package: is it noticed, named and made again?

    python benchmarks/tamper.py [--task language classifier] [--most 0] [--seed 0] [--json FILE]

A small run is finished once. Then one file at a time is damaged: a byte is flipped, the file is cut to half, emptied,
deleted, or takes the place of another file of its step. `potstill run` must name the file, keep the damaged step under
another name, and make the step again as it was, or refuse to go on. `potstill verify` must name each file of the
package that was damaged. `--most` takes that many cases of each task, by chance. The exit code is 1 where one of these
does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

from click.testing import CliRunner, Result
from kills import content
from small_runs import NAME, RECIPES, VERDICT_CODES, step_line

from damage import WAYS, damage
from potstill.cli.main import main as potstill


def cases(folder: Path) -> Iterator[tuple[str, str, str]]:
    """File, other file and way of each damage that changes something in a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    contents = {path: path.read_bytes() for path in files}
    for number, path in enumerate(files):
        others = files[number + 1 :] + files[:number]
        other = next((other for other in others if contents[other] != contents[path]), None)
        for way in WAYS:
            if (other or way != "swap") and (contents[path] or way in ("delete", "swap")):
                yield str(path.relative_to(folder)), str((other or path).relative_to(folder)), way


def call(*words: str | Path) -> Result:
    """A command in this process, whose libraries are loaded once."""
    return CliRunner().invoke(potstill, [str(word) for word in words])


def damage_step(recipe: Path, runs: Path, step: Path, case: tuple[str, str, str]) -> str:
    """Damage a finished step, run again, and say what came of it; the step is as before afterwards."""
    name, other, way = case
    stage = step.name.rpartition("-")[0]
    kept = runs / "kept"
    shutil.copytree(step, kept, dirs_exist_ok=True)
    damage(step / name, way, step / other)
    said = call("run", recipe, "--runs", runs, "--until", stage)
    named = any(Path(file).name in said.stderr for file in ((name, other) if way == "swap" else (name,)))
    made = any(line and line[:2] == (stage, "done") for line in map(step_line, said.stderr.splitlines()))
    if isinstance(said.exception, Exception):
        outcome = f"traceback: {said.exception!r}"
    elif said.exit_code not in VERDICT_CODES:
        outcome = "refused" if named else f"refused without the name: {said.stderr[-300:]}"
    elif not made or not named:
        outcome = f"silent: {said.stderr[-300:]}"
    elif not list(step.parent.glob(f"{step.name}.changed-*")):
        outcome = "not kept"
    else:
        label = f"{stage}/{name}"
        whole = "trackers/" in name or (step / name).is_file()  # a tracker's file has the time in its name
        same = whole and content(label, step / name) == content(label, kept / name)
        outcome = "made again" if same else f"other content than before in {name}"
    for folder in step.parent.glob(f"{step.name}*"):
        shutil.rmtree(folder)
    kept.rename(step)
    return outcome


def damage_package(package: Path, case: tuple[str, str, str]) -> str:
    """Damage a copy of the package, and verify it."""
    name, other, way = case
    copy = package.parent.parent.parent / "package"
    shutil.copytree(package, copy)
    damage(copy / name, way, copy / other)
    said = call("verify", copy)
    shutil.rmtree(copy)
    if isinstance(said.exception, Exception):
        return f"traceback: {said.exception!r}"
    named = name in said.stderr or (way == "swap" and other in said.stderr)
    return "refused" if said.exit_code == 1 and named else f"silent: {said.output[-300:]}"


def measure(task: str, most: int, seed: int, work: Path) -> Iterator[tuple[str, tuple[str, str, str], str]]:
    """What was damaged, how, and what came of it."""
    recipe, runs = RECIPES[task](work), work / "runs"
    whole = call("run", recipe, "--runs", runs)
    if whole.exit_code not in VERDICT_CODES:
        sys.exit(f"the run failed:\n{whole.output}")
    steps = sorted((step for step in (runs / NAME).iterdir() if step.is_dir()), key=lambda step: step.stat().st_mtime)
    packages = [path.parent for path in runs.glob("*/package-*/package/manifest.json")]
    todo = [(folder, case) for folder in steps + packages for case in cases(folder)]
    if 0 < most < len(todo):
        todo = random.Random(seed).sample(todo, most)
    for folder, case in todo:
        if folder in packages:
            yield "verify", case, damage_package(folder, case)
        else:
            yield folder.name.rpartition("-")[0], case, damage_step(recipe, runs, folder, case)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", nargs="+", choices=sorted(RECIPES), default=sorted(RECIPES, reverse=True))
    parser.add_argument("--most", type=int, default=0, help="cases of each task; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for task in args.task:
        begun = time.monotonic()
        counts: dict[str, Counter[str]] = {}
        with tempfile.TemporaryDirectory() as folder:
            for stage, (name, other, way), outcome in measure(task, args.most, args.seed, Path(folder).resolve()):
                held = outcome in ("made again", "refused")
                counts.setdefault(stage, Counter())[outcome if held else "faults"] += 1
                if not held:
                    print(f"{task} {stage}: {way} {name}{f' with {other}' * (way == 'swap')}: {outcome}", flush=True)
        for stage, found in counts.items():
            row = {"case": task, "variant": stage, "damaged": found.total()}
            rows.append(row | {key.replace(" ", "_"): found[key] for key in ("made again", "refused", "faults")})
            print(f"{task:<11}{stage:<10}{found.total():>5}  {dict(found)}", flush=True)
        print(f"{task}: {sum(map(Counter.total, counts.values()))} cases in {time.monotonic() - begun:.0f} s")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(any(row["faults"] for row in rows))


if __name__ == "__main__":
    main()
