"""Size of a store, and how close it is to the teacher, computed without the teacher."""

from __future__ import annotations

import math
from pathlib import Path

from potstill.components.targets.reader import TargetsReader
from potstill.components.targets.sketch import SUMS
from potstill.core.artifacts.training import StoreStats

__all__ = ["render_stats", "store_stats"]


def store_stats(folder: Path) -> StoreStats:
    """Size and fidelity of a store.

    Raises:
        DataError: there is no store.
        StepError: a shard is damaged.
    """
    reader = TargetsReader(folder)
    footers = [shard.footer for shard in reader.shards]
    tokens, entries = sum(f.tokens for f in footers), sum(f.entries for f in footers)
    size = sum(shard.path.stat().st_size for shard in reader.shards)
    mean = {name: sum(f.sums[name] for f in footers) / max(1, tokens) for name in SUMS[reader.meta.kind]}
    entropy, tail = mean.pop("entropy"), mean.pop("tail")
    if reader.meta.kind == "counts":
        gap, squared = mean.pop("gap"), mean.pop("gap_squared")
        mean["bias"] = gap
        mean["bias_standard_error"] = math.sqrt(max(0.0, squared - gap**2) / max(1, tokens - 1))
    counted = {
        "shards": len(footers),
        "sequences": sum(f.sequences for f in footers),
        "tokens": tokens,
        "bytes": size,
        "bytes_per_token": size / tokens if tokens else None,
        "ids_per_token": entries / tokens if tokens else None,
        "entropy": entropy,
        "tail_mass": tail,
    }
    return StoreStats.model_validate(reader.meta.model_dump(exclude={"format"}) | counted | mean)


def render_stats(found: StoreStats) -> str:
    """The numbers of `store_stats` as lines of text."""
    per_token = f"{found.draws} samples per token" if found.kind == "counts" else f"top {found.k} with tail mass"
    lines = [
        f"{per_token}, {found.vocab_size} ids, temperature {found.temperature:g}",
        f"{found.sequences} sequences, {found.tokens} tokens in {found.shards} shards",
    ]
    if not found.tokens:
        return "\n".join(lines)
    lines += [
        f"{found.bytes} bytes: {found.bytes_per_token:.2f} per token, {found.ids_per_token:.2f} ids per token",
        f"entropy of the teacher {found.entropy:.4f} nats, its mass on ids that are not stored {found.tail_mass:.4f}",
    ]
    if found.kind == "counts":
        lines += [
            f"KL(stored || teacher) {found.kl_stored_teacher:.4f} nats: the sampling noise",
            f"bias {found.bias:+.5f} nats, standard error {found.bias_standard_error:.5f}",
        ]
    else:
        lines += [
            f"KL(teacher || stored) {found.kl_buckets:.6f} nats over the stored ids and one bucket of all others",
            f"KL(teacher || stored) {found.kl_even_tail:.4f} nats over all ids, with the tail spread evenly",
        ]
    return "\n".join(lines)
