"""What teachers are worth: the worth ladder of several workloads, over training seeds.

    python benchmarks/worth.py [--json FILE] [--runs FOLDER] [--seeds N] [RECIPE ...]

Without recipes, it runs recipes/quickstart.yaml, tinystories.yaml, snips.yaml and clinc150.yaml, whose first lines say
which data they need. Each rung is the same student, trained once for each seed with as many optimizer steps. Values are
shares of right answers, or nats per byte of held-out text that people wrote (tinystories, where less is better).
Intervals are Student's t over the seeds, and "p" is a paired t test against the rung before. Finished stages in
`--runs` are not repeated.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from potstill.core.artifacts.answers import ClassifiedRow, answers_file, read_answers
from potstill.core.artifacts.metrics import ClassifierMetrics, Metrics
from potstill.core.artifacts.worth import RungName, Worth
from potstill.core.recipe import ClassifierRecipe, load_recipe
from potstill.stages.evaluate.worth import Ladder, RungScores

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ("quickstart", "tinystories", "snips", "clinc150")
FIRST_SEED = 17


def run(recipe: Path, runs: Path, **changes: object) -> Path:
    """Run a recipe with changed keys; the directory of its evaluate step."""
    sweep = [part for key, value in changes.items() for part in ("--sweep", f"{key.replace('__', '.')}={value}")]
    command = [sys.executable, "-m", "potstill", "run", str(recipe), "--runs", str(runs), "--json", *sweep]
    out = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if out.returncode not in (0, 3, 4):
        sys.exit(f"{recipe}: the run ended with exit code {out.returncode}.")
    (variant,) = json.loads(out.stdout)["variants"]
    return Path(variant["stages"]["evaluate"]["dir"])


def classifier_worth(recipe: Path, runs: Path, seeds: int) -> Worth:
    """The ladder of a classifier, whose recipe trains one seed at a time."""
    rungs: dict[RungName, list[list[float]]] = {}
    teacher = 0.0
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        folder = run(recipe, runs, seed=seed)
        metrics = ClassifierMetrics.read(folder)
        teacher += metrics.models.teacher.exact.rate / seeds
        files: dict[RungName, str] = {"start": "start", "labels": "control", "distributions": "student"}
        for rung, model in files.items():
            answers = read_answers(folder / answers_file(model), ClassifiedRow)
            rungs.setdefault(rung, []).append([float(answer.exact) for answer in answers])
    rows = len(rungs["start"][0])
    ladder = Ladder("exact", [1] * rows, [None] * rows, 0.9)
    return ladder.worth({rung: RungScores(scores) for rung, scores in rungs.items()}, teacher)


def measure(recipe: Path, runs: Path, seeds: int) -> Worth | None:
    """The ladder of a recipe over several seeds."""
    if isinstance(load_recipe(recipe), ClassifierRecipe):
        return classifier_worth(recipe, runs, seeds)
    return Metrics.read(run(recipe, runs, worth__seeds=seeds)).worth


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "recipes", nargs="*", type=Path, default=[ROOT / "recipes" / f"{name}.yaml" for name in RECIPES]
    )
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    found: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "seeds": args.seeds}
    for recipe in args.recipes:
        worth = measure(recipe, args.runs, args.seeds)
        if worth is None:
            sys.exit(f"{recipe}: the test rows have neither right answers nor text of people.")
        print(recipe.stem)
        for cells in (worth.columns, *worth.cells()):
            print("  " + "  ".join(f"{cell:<28}" for cell in cells))
        print(f"  {worth.sentence}", flush=True)
        found[recipe.stem] = worth.model_dump(mode="json") | {"cheapest": worth.cheapest.rung}
        if args.json:
            args.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
