"""Predictions against published facts: file sizes, KV caches, buffers and speeds of models in llama.cpp.

    python benchmarks/plan_facts.py FACTS.csv [--configs FOLDER] [--headers FOLDER] [--fit] [--misses] [--json FILE]

A row of the CSV file has the columns model, quant, context, device, quantity, value, unit and source. A model's shape
is FOLDER/MODEL.json (a config.json; default: `plan/configs` next to the facts) or, for a model that is only known as a
GGUF header, FOLDER/MODEL.gguf. Prints a Markdown table: how many facts of each kind are hit, how far predictions are
off, and how wide the ranges of speed are. `--misses` lists every fact that is missed, and every one that is left out.
`--fit` asks llama.cpp itself, by its fit to the memory of a CPU, about every header in FOLDER, which may be a sparse
file, and compares that in a second table.

A file size is hit within 1 %, a cache or a buffer of weights within the MiB to which llama.cpp rounds it, a compute
buffer within 10 %, and a speed inside the predicted range. What a discrete GPU has no room for is on a laptop's
processor. A file whose source says that it holds an output matrix of its own is compared with the model untied.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from memory_fit import memory_fit

from potstill.components.hardware.devices import Device, find_device
from potstill.components.hardware.fit import Serving, device_memory, fit
from potstill.components.hardware.memory import Memory
from potstill.components.hardware.speed import Placement, Speed, speed
from potstill.components.models.source import load_spec
from potstill.components.models.spec import ModelSpec
from potstill.core.errors import PotstillError, UsageError

HOST_BANDWIDTH = 83.2e9
"""Of DDR5-5200, the memory of the i9-13900HK behind the RTX 5070 (pull request 787 of llmfit names the processor)."""
ALLOCATED = 4096
"""Tokens for which the common programs around llama.cpp make a cache by default."""
_UNTIED = "output.weight stored"
"""In the source of a file whose publisher stored the matrix that config.json ties to the embedding."""
_FITTED = (4096, 32768)
"""Contexts for which llama.cpp's own fit is asked."""
UNITS = {"bytes": 1.0, "MiB": 2.0**20, "GiB": 2.0**30, "tokens/s": 1.0}
NOT_DEVICES = {
    "": "Laptop DDR5-5600", "CPU": "Laptop DDR5-5600", "Jetson Orin CUDA": "Jetson AGX Orin",
    "CUDA (Qwen3-Coder-30B-A3B, same shape)": "NVIDIA A100 80GB", "Vulkan": "Intel Arc A770",
}  # fmt: skip
"""Facts that name a backend instead of a device."""


@dataclass(frozen=True)
class Compared:
    """A fact and its prediction, both in the fact's unit; the prediction is a range, of one number for a size."""

    fact: Mapping[str, str]
    kind: str
    low: float
    high: float
    value: float
    hit: bool

    @property
    def off(self) -> float:
        """Relative error: 0 inside the range, else of its nearer end."""
        nearest = min(max(self.value, self.low), self.high)
        return nearest / self.value - 1


def compare(fact: Mapping[str, str], spec: ModelSpec) -> Compared | None:
    """A fact against what potstill predicts; None for a quantity that it does not predict."""
    name, _, kv = fact["device"].partition(", kv ")
    device = find_device(NOT_DEVICES.get(name, name))
    serving = Serving(int(fact["context"] or 512), kv or "f16")
    quantity, unit = fact["quantity"].removesuffix(" (llama.cpp fit)"), UNITS.get(fact["unit"], 1.0)
    value = float(fact["value"])
    if quantity in ("decode", "prompt"):
        rate = served_speed(spec, fact["quant"], device, serving)
        low, high = rate.decode if quantity == "decode" else rate.prefill
        return Compared(fact, quantity, low, high, value, low <= value <= high)
    found = SIZES.get(quantity)
    if found is None:
        return None
    typed = (spec.untied() if _UNTIED in fact["source"] else spec).quantized(fact["quant"])
    size = found(typed, device_memory(typed, device, serving)) / unit
    kind = f"{quantity}, {'CPU' if device.kind == 'cpu' else 'GPU'}" if quantity == "compute buffer" else quantity
    near = {"file size": 0.01 * value, "compute buffer": 0.1 * value}.get(quantity, 1.0)
    return Compared(fact, kind, size, size, value, abs(size - value) <= near)


SIZES: dict[str, Callable[[ModelSpec, Memory], float]] = {
    "file size": lambda _, held: held.weights,
    "model buffer": lambda spec, held: spec.data_bytes - held.unread,
    "KV buffer": lambda _, held: held.kv,
    "compute buffer": lambda _, held: held.compute,
}


def served_speed(spec: ModelSpec, quantization: str, device: Device, serving: Serving) -> Speed:
    """Predicted speed of a conversation that is as long as the fact's; the cache is made for ALLOCATED tokens or more.

    A machine with more memory than the list says is one of its larger versions.
    """
    typed, places = spec.quantized(quantization), [Placement(device, 1.0)]
    if device.kind == "gpu":
        host = replace(find_device("Laptop DDR5-5600").with_memory(2**40), bandwidth=HOST_BANDWIDTH)
        found = fit(spec, quantization, device, replace(serving, context=max(serving.context, ALLOCATED)), host)
        if found.split:
            places = found.split.placements(typed, device, host)
        elif found.speed is None:
            raise UsageError(f"{spec.name} does not fit on {device.name}.")
    return speed(typed, places, serving.context, serving.kv_type)


def read_facts(path: Path) -> list[dict[str, str]]:
    """Rows of the CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fitted(headers: Path) -> list[dict[str, str]]:
    """llama.cpp's own fit of every file in a folder, as facts."""
    facts = []
    for path in sorted(headers.glob("*.gguf")):
        for context in _FITTED:
            found = memory_fit(path, context)
            sizes = {"model buffer": found.model, "KV buffer": found.context, "compute buffer": found.compute}
            for quantity, value in sizes.items():
                fact = {"model": path.stem, "quant": "", "context": str(context), "device": "CPU", "unit": "MiB"}
                facts.append(fact | {"quantity": quantity, "value": str(value), "source": "llama.cpp's fit"})
    return facts


def compare_all(facts: Iterable[Mapping[str, str]], configs: Path, headers: Path) -> tuple[list[Compared], list[str]]:
    """Every fact that can be compared, and a line about every other one."""

    @cache
    def spec_of(name: str) -> ModelSpec:
        plain = name.partition(" ")[0]
        path = next((p for p in (configs / f"{plain}.json", headers / f"{plain}.gguf") if p.is_file()), None)
        if path is None:
            raise UsageError(f"{name}: no config.json and no header.")
        return replace(load_spec(str(path)), name=name)

    found, left = [], []
    for fact in facts:
        try:
            one = compare(fact, spec_of(fact["model"]))
        except (PotstillError, KeyError) as error:
            left.append(f"{fact['model']}, {fact['quantity']}: {error}")
            continue
        found.append(one) if one else left.append(f"{fact['model']}, {fact['quantity']}: not predicted")
    return found, left


def table(found: list[Compared]) -> list[str]:
    """A line per kind of fact."""
    lines = ["| Fact | Number | Hit | Median error | Largest | Range, high / low |", "|---|---|---|---|---|---|"]
    for kind in sorted({one.kind for one in found}):
        own = [one for one in found if one.kind == kind]
        off = sorted((one.off for one in own), key=abs)
        share = sum(one.hit for one in own) / len(own)
        wide = statistics.median(one.high / one.low for one in own) if own[0].high > own[0].low else None
        cells = [kind, str(len(own)), f"{share:.1%}", f"{statistics.median(map(abs, off)):.1%}", f"{off[-1]:+.0%}"]
        lines.append(f"| {' | '.join([*cells, f'{wide:.2f}' if wide else '-'])} |")
    return lines


def say_misses(found: Iterable[Compared]) -> None:
    """Print a line for every fact that is missed."""
    for one in found:
        if not one.hit:
            fact, span = one.fact, f"{one.low:,.4g}" + (f" to {one.high:,.4g}" if one.high > one.low else "")
            where = f"{fact['model']} {fact['quant']}, context {fact['context'] or '-'}, {fact['device'] or '-'}"
            print(f"{one.kind}: {where}: {one.value:,.6g}, predicted {span} ({one.off:+.1%})")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("facts", type=Path)
    parser.add_argument("--configs", type=Path)
    parser.add_argument("--headers", type=Path, default=Path("."))
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--misses", action="store_true")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    configs = args.configs or args.facts.parent / "plan" / "configs"
    found, left = compare_all(read_facts(args.facts), configs, args.headers)
    print(*table(found), "", sep="\n")
    print(f"{len(found)} facts compared, {len(left)} not.")
    if args.fit:
        own, unread = compare_all(fitted(args.headers), args.headers, args.headers)
        print("", "llama.cpp's own fit:", "", *table(own), sep="\n")
        found, left = found + own, left + unread
    if args.misses:
        say_misses(found)
        print(*left, sep="\n")
    if args.json:
        args.json.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
