"""`python -m fuzz`: many hostile inputs of every kind; exit code 1 if any is a fault of potstill."""

from __future__ import annotations

import sys
import time
from collections import Counter
from multiprocessing.pool import ThreadPool

import click

from fuzz.harness import Kind, Result, run_inputs
from fuzz.kinds import KINDS

_EXAMPLES = 5


@click.command()
@click.option("--inputs", type=int, default=100_000, show_default=True, help="Number of inputs of all kinds together.")
@click.option("--kind", "names", multiple=True, help="Kind of input. Default: all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the first input of each kind.")
@click.option("--jobs", type=int, default=2, show_default=True, help="Kinds that run at the same time.")
def main(inputs: int, names: tuple[str, ...], seed: int, jobs: int) -> None:
    """Try hostile inputs, and print how many of each kind were accepted, refused, or a fault."""
    kinds = [kind for kind in KINDS if not names or kind.name in names]
    total = sum(kind.share for kind in kinds)

    def tried(kind: Kind) -> tuple[Kind, float, list[Result]]:
        begun = time.monotonic()
        count = max(1, round(inputs * kind.share / total))
        return kind, begun, list(run_inputs(kind, range(seed, seed + count)))

    faults = 0
    with ThreadPool(jobs) as pool:
        for kind, begun, results in pool.imap_unordered(tried, kinds):
            counts = Counter(result.outcome for result in results)
            listed = ", ".join(f"{outcome} {count:,}" for outcome, count in counts.most_common())
            print(
                f"{kind.name:<12} {len(results):>7,} inputs  {time.monotonic() - begun:>6.0f} s  {listed}", flush=True
            )
            failed = [result for result in results if result.is_fault]
            faults += len(failed)
            by_place = {(result.outcome, result.detail[-40:]): result for result in reversed(failed)}
            for result in list(by_place.values())[:_EXAMPLES]:
                print(f"  --kind {result.kind} --seed {result.seed} --inputs 1: {result.outcome}: {result.detail!r}")
    print(f"{faults:,} faults")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
