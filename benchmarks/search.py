"""How long `potstill search` takes: three teachers on three devices.

    python benchmarks/search.py [--rounds N] [--json FILE]

CPU seconds of the search alone, medians of rounds in turn.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

from potstill.apps.plan.candidates import Goal, feasible_candidates
from potstill.components.hardware.devices import find_device
from potstill.components.hardware.fit import Serving
from potstill.components.models.source import load_config
from potstill.components.sizing.limits import Limits

CONFIGS = Path(__file__).parent.parent / "tests" / "configs"
TEACHERS = ("qwen3-4b", "llama-3.1-8b", "qwen2.5-72b")
DEVICES = ("Raspberry Pi 5", "Phone LPDDR4X 4GB", "RTX 3060")


def seconds(teacher: str, device: str) -> float:
    """CPU seconds of one search."""
    config = load_config(str(CONFIGS / f"{teacher}.json"))
    goal = Goal(find_device(device), Serving(2048), Limits(decode=10.0))
    begun = time.process_time()
    feasible_candidates(config, goal)
    return time.process_time() - begun


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    pairs = [(teacher, device) for teacher in TEACHERS for device in DEVICES]
    found: dict[tuple[str, str], list[float]] = {pair: [] for pair in pairs}
    for _ in range(args.rounds):
        for pair in pairs:
            found[pair].append(seconds(*pair))
    rows = [
        {"case": teacher, "variant": device, "seconds": statistics.median(found[teacher, device])}
        for teacher, device in pairs
    ]
    print(f"{platform.machine()}, {platform.system()}")
    for row in rows:
        print(f"{row['case']:<14} {row['variant']:<18} {row['seconds']:5.2f} s")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
