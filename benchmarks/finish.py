"""Finish the embedded teacher's quantized file: how much of the KL that quantization costs is won back?

    python benchmarks/finish.py [--quantization Q4_0] [--steps 60] [--rows 8] [--rate 6e-5] [--norm-rate 6e-4]
        [--wrong-rate 3e-3] [--held-out 48] [--model FOLDER] [--json FILE]

The checkpoint is converted as it is, and after finishing. Printed are the mean KL from the checkpoint on held-out rows,
in nats per token, the sizes of both files, the largest difference between a weight in training and in the file, and the
CPU seconds. Then the same with a rate that is far too high: the training must stop early, and leave the file of plain
quantization, byte by byte. The exit code is 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

from potstill.components.chat.format import load_chat
from potstill.components.conversion.convert import convert_checkpoint
from potstill.components.conversion.file_weights import largest_difference
from potstill.components.training.finishing import FinishTask, finish_weights, whole_rows
from potstill.components.training.rows import training_examples
from potstill.core.artifacts.exported import Finished
from potstill.core.recipe import Finish
from potstill.core.records import read_rows

HOME = Path(__file__).parents[1] / "examples" / "home-assistant"
CONTEXT = 512


def finish(task: FinishTask, settings: Finish, work: Path) -> tuple[Finished, Path, float, float]:
    """What happened, the finished file, its largest difference from the training, and CPU seconds."""
    begun = time.process_time()
    found, values = finish_weights(task, settings, work / "finished")
    seconds = time.process_time() - begun
    file = convert(work / "finished", work / "finished.gguf", task.quantization)
    return found, file, largest_difference(file, work / "finished", values), seconds


def convert(checkpoint: Path, out: Path, quantization: str) -> Path:
    """The checkpoint's file."""
    convert_checkpoint(checkpoint, out, quantization=quantization, metadata={"general.name": "model"})
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=HOME / "teacher")
    parser.add_argument("--quantization", default="Q4_0")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--rate", type=float, default=6e-5)
    parser.add_argument("--norm-rate", type=float, default=6e-4)
    parser.add_argument("--wrong-rate", type=float, default=3e-3)
    parser.add_argument("--held-out", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    chat = load_chat(args.model)
    train, held_out = (
        whole_rows(
            training_examples(
                list(read_rows(HOME / "data" / name, tools=HOME / "tools.json", limit=limit)), chat, CONTEXT
            )
        )
        for name, limit in (("train.jsonl", args.steps * args.rows), ("validation.jsonl", args.held_out))
    )
    task = FinishTask(args.model, args.quantization, train, held_out, chat.vocab_size, chat.eos_id, args.seed)
    settings = Finish(steps=args.steps, rows=args.rows, learning_rate=args.rate, norm_learning_rate=args.norm_rate)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        plain = convert(args.model, work / "plain.gguf", args.quantization)
        found, file, difference, seconds = finish(task, settings, work)
        print(f"{args.quantization}: {', '.join(f'{p.step}: {p.kl:.5f}' for p in found.points)}")
        print(f"KL {found.kl_before:.5f} -> {found.kl_after:.5f}: {found.won_back:.1%} won back in {seconds:.0f} CPU s")
        print(f"{plain.stat().st_size:,} bytes before, {file.stat().st_size:,} after; largest difference {difference}")
        same_size = plain.stat().st_size == file.stat().st_size
        wrong_settings = settings.model_copy(
            update={"learning_rate": args.wrong_rate, "norm_learning_rate": args.wrong_rate}
        )
        wrong, file, _, _ = finish(task, wrong_settings, work)
        undone = file.read_bytes() == plain.read_bytes()
        print(f"rate {args.wrong_rate:g}: {', '.join(f'{p.step}: {p.kl:.5f}' for p in wrong.points)}")
        kept = "is that of plain quantization" if undone else "differs from that of plain quantization"
        print(f"stopped after {wrong.stopped} of {wrong.steps} steps; the file {kept}")
    if args.json:
        row = found.to_json() | {"case": args.quantization, "won_back": found.won_back, "cpu_seconds": seconds}
        args.json.write_text(json.dumps([row], indent=2) + "\n")
    sys.exit(not (found.won_back > 0 and same_size and difference <= 1e-6 and undone and wrong.stopped < wrong.steps))


if __name__ == "__main__":
    main()
