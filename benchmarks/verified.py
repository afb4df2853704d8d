"""A student of a teacher that errs: taught by all of its answers, and by those that were verified.

    python benchmarks/verified.py [--json FILE] [--runs FOLDER] [--rows N] [--test N] [--epochs N] [--variant NAME ...]

A local endpoint answers requests to the home assistant (six of its tools: single calls and questions) and is wrong in
15 % of its answers, in the four kinds of examples/home-assistant/erring.py. The same student, a small base model that
knows other tasks, is fine-tuned on its answers three times, with as many optimizer steps:

- all: every answer that is whole.
- golds: answers that pass `calls` and `gold`, which compares them with the right answers that the rows have.
- agreement: the rows have no right answers. Each is answered three times, and an answer is learnt that passes `calls`,
  `values` and `agreement`.

The endpoint and the students answer test rows with right answers, of wordings and values that are in no training row.
Differences are paired by row, with 90 % intervals and exact McNemar p-values.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from potstill.components.chat.format import load_chat
from potstill.components.checkers.judge import judge
from potstill.components.runtimes import Sampling
from potstill.components.runtimes.endpoint_reply import Message, hermes_text
from potstill.components.runtimes.hf import HFRuntime
from potstill.components.runtimes.load import load_causal_lm
from potstill.core.artifacts.counts import PairedCounts, Rate
from potstill.core.artifacts.generated import REJECTED, Generated, rows_file
from potstill.core.artifacts.training import Trained
from potstill.core.files import read_json_lines
from potstill.core.recipe import Recipe
from potstill.core.records import Row, read_rows
from potstill.pipeline import run as pipeline

HOME = Path(__file__).resolve().parents[1] / "examples" / "home-assistant"
sys.path.insert(0, str(HOME))
from erring import ErringTeacher  # noqa: E402
from workload import generate  # noqa: E402

TOOLS = ("set_light", "lock_door", "get_weather", "start_vacuum", "add_to_list", "run_scene")
CONTEXT, MAX_NEW = 256, 100
VARIANTS: dict[str, dict[str, Any]] = {
    "all": {"verify": []},
    "golds": {"verify": ["calls", "gold"]},
    "agreement": {
        "verify": {"calls": "keep", "values": "keep", "agreement": "reject"},
        "samples": 3,
        "temperature": 0.8,
    },
}


class Server(ThreadingHTTPServer):
    """The erring teacher behind OpenAI's protocol."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, teacher: ErringTeacher) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.teacher = teacher


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = self.server.teacher.answer(body["messages"][-1]["content"], body.get("seed", 0))
        choice = {"index": 0, "message": said.message, "finish_reason": said.finish_reason}
        data = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def served(teacher: ErringTeacher) -> Iterator[str]:
    """The address of the endpoint."""
    server = Server(teacher)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()


def make_rows(split: str, count: int, seed: int, seen: set[str]) -> list[dict[str, Any]]:
    """Rows of the workload that need one call of one of TOOLS, or a question about it."""
    found: list[dict[str, Any]] = []
    for more in range(40):
        for row in generate(split, 4 * count, seed + more, seen):
            target = row["provenance"]["template"].split("/")[0].split(".")[1]
            if row["behaviour"] in ("tool_call", "clarify") and target in TOOLS:
                found.append({key: value for key, value in row.items() if not key.startswith("_")})
        if len(found) >= count:
            return found[:count]
    raise SystemExit(f"the workload has fewer than {count} {split} rows of this kind")


def write_data(folder: Path, sizes: dict[str, int], seed: int) -> dict[str, list[dict[str, Any]]]:
    """Write the rows of each split, the training rows also without their right answers, and the tools."""
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    rows = {split: make_rows(split, count, seed, seen) for split, count in sizes.items()}
    bare = [{"messages": row["messages"], "provenance": row["provenance"]} for row in rows["train"]]
    for name, each in {**rows, "bare": bare}.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in each)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    tools = json.loads((HOME / "tools.json").read_text(encoding="utf-8"))
    kept = [tool for tool in tools if tool["function"]["name"] in TOOLS]
    (folder / "tools.json").write_text(json.dumps(kept), encoding="utf-8")
    return rows


def recipe(variant: str, data: Path, url: str, epochs: float, seed: int) -> Recipe:
    """The recipe of a variant; `epochs` are those of one answer per row."""
    settings = VARIANTS[variant]
    return Recipe.model_validate(
        {
            "name": f"verified-{variant}",
            "seed": seed,
            "data": {"prompts": data / ("bare.jsonl" if variant == "agreement" else "train.jsonl")}
            | {"test": data / "test.jsonl", "tools": data / "tools.json"},
            "chat": {"context": CONTEXT},
            "teacher": {"kind": "api", "model": "erring", "base_url": url, "max_concurrency": 8},
            "generate": {"max_new_tokens": MAX_NEW, **settings},
            "student": {"init": "checkpoint", "model": str(HOME / "base")},
            "train": {"objective": "sft", "control": "none", "epochs": epochs, "optimizer": "muon"}
            | {"batch_tokens": 2048, "learning_rate": 1e-3, "min_lr_ratio": 0.0},
            "trainer": {"tracker": "none"},
            "worth": {"rungs": []},
        }
    )


def train(variant: str, data: Path, url: str, runs: Path, steps: float, seed: int) -> tuple[Path, dict[str, Any]]:
    """Answer the rows and train the student; the folder of its weights, and what became of the answers.

    Args:
        steps: number of passes over all rows that a student's steps amount to.
    """
    rows = sum(1 for _ in read_json_lines(data / "train.jsonl"))
    given = recipe(variant, data, url, steps, seed)
    generated = pipeline.run(given, runs, until="generate").folder("generate")
    kept = Generated.read(generated).splits["train"].kept
    begun = time.monotonic()
    result = pipeline.run(recipe(variant, data, url, steps * rows / kept, seed), runs, until="train")
    seconds, folder = time.monotonic() - begun, result.folder("train")
    return folder / "student", {
        "kept": kept,
        "answers": kinds_of(generated, data),
        "verdicts": Generated.read(generated).splits["train"].verdicts,
        "steps": Trained.read(folder).student.steps,
        "seconds": seconds,
    }


def kinds_of(folder: Path, data: Path) -> dict[str, dict[str, int]]:
    """How many of the right and of the wrong answers were kept and rejected, judged by the rows' golds."""
    golds = {row.row_id: row for row in read_rows(data / "train.jsonl", tools=data / "tools.json")}
    found = {"right": Counter[str](), "wrong": Counter[str]()}
    for name, file in (("kept", rows_file("train")), ("rejected", REJECTED)):
        if not (folder / file).stat().st_size:
            continue
        for row in read_rows(folder / file, tools=folder / "tools.json"):
            assert row.completion is not None
            text = hermes_text(Message.model_validate(row.completion.for_api()))
            right = judge(text, golds[row.row_id].model_copy(update={"completion": None})).exact
            found["right" if right and not row.unfinished else "wrong"][name] += 1
    return {kind: dict(counts) for kind, counts in found.items()}


def right_answers(folder: Path, rows: Sequence[Row]) -> list[bool]:
    """Which test rows a model answers rightly."""
    runtime = HFRuntime(load_causal_lm(folder), load_chat(folder), CONTEXT, 100)
    said = runtime.answer(rows, Sampling(MAX_NEW), f"answer test rows: {folder.parent.parent.name}")
    return [a.finish_reason == "stop" and bool(judge(a.text, row).exact) for a, row in zip(said, rows, strict=True)]


def tabulate(right: dict[str, list[bool]], groups: Sequence[str]) -> list[dict[str, Any]]:
    """Rates of all models, and each student's difference from the endpoint and from the student of all answers."""
    rows = []
    for name, outcomes in right.items():
        rate = Rate.of(outcomes, groups, 0.9)
        assert rate is not None
        row: dict[str, Any] = {"case": "home assistant", "variant": name, "right": rate.to_json()}
        line = f"{name:<12} {rate.rate:7.1%} right ({rate.low:.1%} to {rate.high:.1%})"
        for other in ("endpoint", "all"):
            if name in ("start", "endpoint", other):
                continue
            pair = PairedCounts.of(outcomes, right[other], groups, 0.9)
            assert pair is not None
            row[f"against {other}"] = pair.to_json()
            line += (
                f"  against {other}: {100 * pair.gain:+.1f} points ({100 * pair.low:+.1f} to {100 * pair.high:+.1f}), "
                f"p = {pair.p_value:.2g}"
            )
        print(line, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--runs", type=Path, default=Path("runs/verified"))
    parser.add_argument("--rows", type=int, default=4000, help="that the endpoint answers for training")
    parser.add_argument("--test", type=int, default=600)
    parser.add_argument("--epochs", type=float, default=3, help="passes over as many rows")
    parser.add_argument("--share", type=float, default=0.15, help="of wrong answers")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="may be repeated; all where left out")
    args = parser.parse_args()
    runs = args.runs.absolute()
    data = runs / "data"
    raw = write_data(data, {"test": args.test, "train": args.rows}, args.seed)
    teacher = ErringTeacher(
        [*raw["train"], *raw["test"]], json.loads((data / "tools.json").read_text()), args.share, args.seed
    )
    tests = read_rows(data / "test.jsonl", tools=data / "tools.json")
    tests = [row.model_copy(update={"completion": None}) for row in tests]
    found: dict[str, dict[str, Any]] = {}
    right = {"endpoint": [said_rightly(teacher, row) for row in tests]}
    right["start"] = right_answers(HOME / "base", tests)
    with served(teacher) as url:
        for variant in args.variant or VARIANTS:
            folder, found[variant] = train(variant, data, url, runs, args.epochs, args.seed)
            print(f"{variant}: {json.dumps(found[variant])}", flush=True)
            right[variant] = right_answers(folder, tests)
    table = tabulate(right, [str(row.provenance["template"]) for row in tests])
    for row in table:
        row |= found.get(row["variant"], {})
    if args.json:
        machine = {"machine": platform.processor() or platform.machine(), "rows": args.rows, "epochs": args.epochs}
        args.json.write_text(json.dumps([row | machine for row in table], indent=2) + "\n", encoding="utf-8")


def said_rightly(teacher: ErringTeacher, row: Row) -> bool:
    """Whether the endpoint's answer to a test row is right."""
    said = teacher.answer(row.messages[-1].content or "")
    text = hermes_text(Message.model_validate(said.message))
    return said.finish_reason == "stop" and bool(judge(text, row).exact)


if __name__ == "__main__":
    main()
