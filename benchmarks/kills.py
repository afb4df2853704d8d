"""Kill whole runs with SIGKILL at random moments, resume them, and compare them with one that was not killed.

    python benchmarks/kills.py [--kills 100] [--each 6] [--task language] [--seed 0] [--json FILE]

Half of the moments are drawn from the time that the uninterrupted run took; for the other half a stage is drawn first,
so that short stages are hit too. A run is killed up to `--each` times, and then goes on to its end. What it ends with
must be the same, bit for bit, but for times; no process may be left, no lock held, no file half written, and no step
may run again that was finished. The exit code is 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import itertools
import json
import queue
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from small_runs import NAME, RECIPES, VERDICT_CODES, alive, start, step_files, step_line

from potstill.core.hashing import hash_file

ORPHAN_SECONDS = 10.0
TIMES = {"seconds", "tokens_per_s", "mfu", "resumed_at", "speed"}
"""Keys that say how long something took, or where it was resumed."""
MEASURED = {"DONE", "step.json", "speed.json", "report.html", "README.md", "manifest.json"}
"""Files that have measured times or hashes of such files in them; of these, only the existence is compared."""


@dataclass
class Call:
    """One call of `potstill run`.

    killed   whether it was killed before it ended
    lines    lines that it printed, each with the seconds since the start
    """

    killed: bool
    code: int
    lines: list[tuple[float, str]]

    def steps(self) -> list[tuple[float, str, str, str]]:
        """Seconds, stage, `done` or `cached`, and directory of each step that ended."""
        found = ((second, step_line(line)) for second, line in self.lines)
        return [(second, *step) for second, step in found if step]


@dataclass
class Found:
    """What the kills have led to."""

    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    orphans: int = 0
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        """Note and print a fault."""
        self.faults.append(text)
        print(text, flush=True)


def call(recipe: Path, runs: Path, kill_at: tuple[str | None, float] | None = None) -> Call:
    """Run the recipe, and kill it so many seconds after a stage has ended (None: after the start)."""
    mark = str(runs)
    process = start("run", recipe, "--runs", runs, mark=mark)
    begun = time.monotonic()
    lines: queue.Queue[tuple[float, str] | None] = queue.Queue()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.put((time.monotonic() - begun, line))
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    after, offset = kill_at or ("", 0.0)
    deadline = begun + offset if after is None else None
    seen: list[tuple[float, str]] = []
    killed = False
    while True:
        wait = None if deadline is None or killed else max(0.0, deadline - time.monotonic())
        try:
            line = lines.get(timeout=wait)
        except queue.Empty:
            process.send_signal(signal.SIGKILL)
            killed = True
            continue
        if line is None:
            break
        seen.append(line)
        step = step_line(line[1])
        if step and step[0] == after:
            deadline = begun + line[0] + offset
    code = process.wait()
    return Call(code == -signal.SIGKILL, code, seen)


def moments(reference: Call, count: int, draw: random.Random) -> list[tuple[str | None, float]]:
    """Moments to kill at, in order: the stage that has ended, and seconds since then."""
    ends = [(None, 0.0), *((stage, second) for second, stage, _, _ in reference.steps())]
    spans = [(stage, begin, end) for (stage, begin), (_, end) in itertools.pairwise(ends)]
    drawn: list[float] = []
    for _ in range(count):
        if draw.random() < 0.5:
            drawn.append(draw.uniform(0.0, ends[-1][1]))
        else:
            _, begin, end = draw.choice(spans)
            drawn.append(draw.uniform(begin, end))
    return [next((stage, at - begin) for stage, begin, end in spans if at <= end) for at in sorted(drawn)]


def finished(folder: Path) -> set[str]:
    """Directories of finished steps."""
    return {done.parent.name for done in folder.glob("*/DONE")}


def left_alive(mark: str) -> list[int]:
    """Processes that are still there some seconds after the kill."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while (left := alive(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def content(name: str, path: Path) -> Any:
    """What of a step's file (`STAGE/PATH`) must be equal in two runs; None where only its existence counts."""
    if path.name in MEASURED or "/trackers/" in name:
        return None
    if path.name.endswith(".log.jsonl"):
        return [timeless(json.loads(line)) for line in path.read_text().splitlines()]
    if path.suffix == ".json" and name.count("/") == 1:
        return timeless(json.loads(path.read_text()))
    return hash_file(path)


def timeless(value: Any) -> Any:
    """JSON without times."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def contents(folder: Path) -> dict[str, Any]:
    """What the steps of a run left, without the files of trackers, of which each call writes its own."""
    return {name: content(name, path) for name, path in step_files(folder) if "/trackers/" not in name}


def answers(runs: Path) -> list[str]:
    """Keys of the answers in the journals of teachers."""
    found = []
    for file in sorted((runs / ".answers").glob("*.sqlite")):
        with closing(sqlite3.connect(file)) as connection:
            found += [str(key) for (key,) in connection.execute("SELECT key FROM requests WHERE state != 'asked'")]
    return sorted(found)


def check_end(runs: Path, base: Path, found: Found) -> None:
    """Compare a run that was killed and resumed with the one that was not."""
    where = runs.name
    now, want = contents(runs / NAME), contents(base / NAME)
    for name in sorted(now.keys() | want.keys()):
        if name not in now or name not in want or now[name] != want[name]:
            found.fault(f"{where}: {name} is not as in the uninterrupted run")
    if answers(runs) != answers(base):
        found.fault(f"{where}: the stored answers are not those of the uninterrupted run")
    for path in runs.rglob("*"):
        if ".tmp" in path.name or ".changed-" in path.name:
            found.fault(f"{where}: {path.relative_to(runs)} was left")
    for step in (runs / NAME).iterdir():
        if step.is_dir() and not (step / "DONE").is_file():
            found.fault(f"{where}: {step.name} has no DONE")


def check_resumed(resumed: Call, done: set[str], runs: Path, found: Found) -> None:
    """What was finished at the kill is found again, and the lock is free."""
    for _, _, word, step in resumed.steps():
        if step in done and word != "cached":
            found.fault(f"{runs.name}: {step} was finished and ran again")
    for _, line in resumed.lines:
        if "another potstill" in line or "Traceback" in line or "since the step finished" in line:
            found.fault(f"{runs.name}: {line.strip()}")


def one_run(recipe: Path, runs: Path, at: Iterable[tuple[str | None, float]], names: list[str], found: Found) -> Call:
    """Kill a run at these moments, and let it go on to its end."""
    found.runs += 1
    done: set[str] = set()
    for moment in at:
        killed = call(recipe, runs, moment)
        check_resumed(killed, done, runs, found)
        if killed.killed:
            found.orphans += len(left := left_alive(str(runs)))
            if left:
                found.fault(f"{runs.name}: processes {left} were left by a kill {moment[1]:.2f} s after {moment[0]}")
        done = finished(runs / NAME)
        if killed.killed:
            stages = {step.rpartition("-")[0] for step in done}
            found.kills[next((name for name in names if name not in stages), "end")] += 1
    last = call(recipe, runs)
    check_resumed(last, done, runs, found)
    return last


def measure(args: argparse.Namespace, work: Path) -> tuple[Found, list[str]]:
    """The uninterrupted run, and then as many killed ones as it takes."""
    recipe = RECIPES[args.task](work)
    base = work / "whole"
    reference = call(recipe, base)
    names = [stage for _, stage, _, _ in reference.steps()]
    if reference.code not in VERDICT_CODES:
        sys.exit("the uninterrupted run failed:\n" + "".join(line for _, line in reference.lines))
    print(f"uninterrupted: {reference.steps()[-1][0]:.1f} s, {len(contents(base / NAME))} files", flush=True)
    draw, found = random.Random(args.seed), Found()
    while found.kills.total() < args.kills:
        runs = work / f"killed-{found.runs}"
        at = moments(reference, min(args.each, args.kills - found.kills.total()), draw)
        last = one_run(recipe, runs, at, names, found)
        if last.code == reference.code:
            check_end(runs, base, found)
            shutil.rmtree(runs)
        else:
            said = "".join(line for _, line in last.lines[-5:])
            found.fault(f"{runs.name}: exit code {last.code} and not {reference.code}: {said}")
        print(f"{found.kills.total()} kills in {found.runs} runs, {len(found.faults)} faults", flush=True)
    return found, names


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--each", type=int, default=6, help="kills of one run")
    parser.add_argument("--task", choices=sorted(RECIPES), default="language")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found, names = measure(args, Path(folder).resolve())
    rows: list[dict[str, Any]] = [
        {"case": name, "variant": "SIGKILL", "kills": found.kills[name]} for name in [*names, "end"]
    ]
    total = {"kills": found.kills.total(), "runs": found.runs, "orphans": found.orphans, "faults": found.faults}
    rows.append({"case": "all", "variant": "SIGKILL", **total, "seconds": round(time.monotonic() - begun)})
    for row in rows:
        print(f"{row['case']:<10}{row['kills']:>5}")
    print(f"{found.runs} runs, {found.orphans} processes left, {len(found.faults)} faults, {rows[-1]['seconds']} s")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(bool(found.faults))


if __name__ == "__main__":
    main()
