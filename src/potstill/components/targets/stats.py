"""What a store holds and how true it is to its teacher, without the teacher."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from potstill.components.targets.reader import TargetsReader
from potstill.components.targets.sketch import SUMS

__all__ = ["render_stats", "store_stats"]


def store_stats(folder: Path) -> dict[str, Any]:
    """Size and fidelity of a store; divergences in nats a token, measured against the full distribution when written.

    counts: `tail_mass` (the teacher's mass on ids that were not drawn), `kl_stored_teacher` = KL(stored || teacher),
    the sampling noise, and `bias`: mean of -ln p over the draws less the entropy of p, which is 0 within its
    `bias_standard_error` when the draws are unbiased.
    top_k: `tail_mass` outside the k, `kl_buckets` = KL(teacher || stored) over the k ids and one bucket of all others
    (what coding loses), `kl_even_tail` = the same over the whole vocabulary with the tail spread evenly (what cutting
    at k loses as well). Of a teacher behind an endpoint the rest is not known, and counts as spread evenly.

    Raises:
        DataError: there is no store.
        StepError: a shard is damaged.
    """
    reader = TargetsReader(folder)
    footers = [shard.footer for shard in reader.shards]
    tokens, entries = sum(f["tokens"] for f in footers), sum(f["entries"] for f in footers)
    size = sum(shard.path.stat().st_size for shard in reader.shards)
    mean = {name: sum(f["sums"][name] for f in footers) / max(1, tokens) for name in SUMS[reader.meta.kind]}
    found: dict[str, Any] = {
        **reader.meta.model_dump(exclude_none=True),
        "shards": len(footers),
        "sequences": sum(f["sequences"] for f in footers),
        "tokens": tokens,
        "bytes": size,
        "bytes_per_token": size / tokens if tokens else None,
        "ids_per_token": entries / tokens if tokens else None,
        "entropy": mean.pop("entropy"),
        "tail_mass": mean.pop("tail"),
    }
    if reader.meta.kind == "counts":
        gap, squared = mean.pop("gap"), mean.pop("gap_squared")
        found["bias"] = gap
        found["bias_standard_error"] = math.sqrt(max(0.0, squared - gap**2) / max(1, tokens - 1))
    return found | mean


def render_stats(found: dict[str, Any]) -> str:
    """The numbers of `store_stats` as lines for a person."""
    size = f"{found['draws']} draws a token" if found["kind"] == "counts" else f"top {found['k']} with tail mass"
    lines = [
        f"{size}, {found['vocab_size']} ids, temperature {found['temperature']:g}",
        f"{found['sequences']} sequences, {found['tokens']} tokens in {found['shards']} shards",
    ]
    if found["tokens"]:
        lines += [
            f"{found['bytes']} bytes: {found['bytes_per_token']:.2f} a token, {found['ids_per_token']:.2f} ids a token",
            f"teacher's entropy {found['entropy']:.4f} nats, its mass on ids not stored {found['tail_mass']:.4f}",
        ]
        if found["kind"] == "counts":
            lines += [
                f"KL(stored || teacher) {found['kl_stored_teacher']:.4f} nats: the noise of the draws",
                f"bias {found['bias']:+.5f} nats, standard error {found['bias_standard_error']:.5f}",
            ]
        else:
            lines += [
                f"KL(teacher || stored) {found['kl_buckets']:.6f} nats over the kept ids and one bucket of the rest",
                f"KL(teacher || stored) {found['kl_even_tail']:.4f} nats over all ids, the rest spread evenly",
            ]
    return "\n".join(lines)
