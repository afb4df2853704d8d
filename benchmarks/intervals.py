"""How often the intervals of a verdict cover the true value, and how often its words are wrong.

Rates, medians and paired differences are enumerated: the probability of every possible count, without random draws.
Clustered rates, KL and agreement are simulated with a fixed seed, and so are the decisions at "about N items". Each
worst case over all rates of the grid is one line of the table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom, multinomial

from potstill.core.artifacts.counts import PairedCounts
from potstill.core.stats import (
    effective_items,
    items_for_pairs,
    items_for_rate,
    paired_interval,
    quantile_interval,
    rate_interval,
)
from potstill.stages.evaluate.fidelity import Divergences, fidelity
from potstill.stages.evaluate.means import ratio_interval

SIZES = (50, 200, 600)
RATES = [*np.linspace(0.5, 0.95, 46), *np.linspace(0.955, 1.0, 46)]
DIFFERING = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5)
SHARES = (0.0, 0.05, 0.1, 0.2, 0.35, 0.5)  # of the differing items, those that are lost; the rest by symmetry
Line = dict[str, Any]


def rates(level: float) -> Iterator[Line]:
    """One rate, over all counts."""
    for n in SIZES:
        found = [rate_interval(k, n, level) for k in range(n + 1)]
        lows, highs = np.array([i.low for i in found]), np.array([i.high for i in found])
        covered, wrong = 1.0, 0.0
        for rate in RATES:
            chance = binom.pmf(np.arange(n + 1), n, rate)
            above, below = chance[lows > rate + 1e-12].sum(), chance[highs < rate - 1e-12].sum()
            covered, wrong = min(covered, 1 - above - below), max(wrong, above, below)
        yield {"case": "rate", "n": n, "level": level, "coverage": covered, "one_end_misses": wrong}


def pairs(level: float, sizes: tuple[int, ...]) -> Iterator[Line]:
    """The difference of two models on the same items, over all counts of lost and gained."""
    for n in sizes:
        interval = lru_cache(None)(lambda b, c, n=n: paired_interval(b, c, n, level))
        covered, wrong, false = 1.0, 0.0, 0.0
        for differing in DIFFERING:
            for share in SHARES:
                lost, gained = differing * share, differing * (1 - share)
                above = below = 0.0
                for b, c, weight in _likely(n, lost, gained):
                    ends = interval(b, c)
                    above += weight * (ends.low > lost - gained + 1e-12)
                    below += weight * (ends.high < lost - gained - 1e-12)
                covered, wrong = min(covered, 1 - above - below), max(wrong, above, below)
                if share == 0.5:
                    false = max(false, above, below)
        yield {
            "case": "paired difference", "n": n, "level": level, "coverage": covered, "one_end_misses": wrong,
            "false_better_or_worse": false,
        }  # fmt: skip


def _likely(n: int, lost: float, gained: float) -> Iterator[tuple[int, int, float]]:
    most = [int(n * rate + 5 * np.sqrt(n * rate) + 5) for rate in (lost, gained)]
    b, c = np.meshgrid(np.arange(most[0] + 1), np.arange(most[1] + 1), indexing="ij")
    inside = b + c <= n
    table = np.stack([b[inside], c[inside], n - b[inside] - c[inside]], axis=-1)
    chance = multinomial.pmf(table, n, [lost, gained, 1 - lost - gained])
    for (b_items, c_items, _), weight in zip(table.tolist(), chance.tolist(), strict=True):
        if weight > 2e-6:
            yield b_items, c_items, weight


def medians(level: float) -> Iterator[Line]:
    """Median and 95th percentile: with values 1 to n, an end is the rank of the value that it takes."""
    for q in (0.5, 0.95):
        for n in (50, 120, 200, 600):
            found = quantile_interval(list(range(1, n + 1)), q, level)
            above = binom.cdf(found.low - 1, n, q) if np.isfinite(found.low) else 0.0
            below = binom.sf(found.high - 1, n, q) if np.isfinite(found.high) else 0.0
            yield {"case": f"quantile {q:g}", "n": n, "level": level, "coverage": 1 - above - below,
                   "one_end_misses": max(above, below)}  # fmt: skip


def grouped(level: float, trials: int, sizes: tuple[int, ...]) -> Iterator[Line]:
    """Rates and paired differences of items in groups of four that agree with a correlation from 0 to 1."""
    rng = np.random.default_rng(1)
    for n in sizes:
        groups = [item // 4 for item in range(n)]
        held: dict[str, list[float]] = {"rate": [], "paired difference": []}
        for rate in (0.5, 0.8, 0.95, 0.99):
            for alike in (0.0, 0.5, 1.0):
                hits = {"rate": 0, "paired difference": 0}
                for _ in range(trials):
                    first, second = _grouped(rng, groups, rate, alike), _grouped(rng, groups, rate, alike)
                    effective = effective_items(first.astype(float).tolist(), groups, level)
                    found = rate_interval(first.mean() * effective, effective, level)
                    hits["rate"] += found.low <= rate <= found.high
                    pair = PairedCounts.of(first.tolist(), second.tolist(), [str(g) for g in groups], level)
                    assert pair
                    hits["paired difference"] += pair.low <= 0 <= pair.high
                for case, count in hits.items():
                    held[case].append(count / trials)
        for case, shares in held.items():
            yield {"case": f"{case}, groups of 4", "n": n, "level": level, "coverage": min(shares), "trials": trials}


def _grouped(rng: np.random.Generator, groups: list[int], rate: float, alike: float) -> np.ndarray:
    shared, alone = rng.random(len(groups)) < rate, rng.random(len(groups)) < rate
    together = rng.random(len(groups)) < alike  # of a group: one draw decides for all its items
    index = np.array(groups)
    return np.where(together[index], shared[index], alone)


def means(level: float, trials: int, sizes: tuple[int, ...]) -> Iterator[Line]:
    """Mean KL per token where rows have 5 to 60 tokens, and agreement where the likeliest token rarely differs."""
    rng = np.random.default_rng(2)
    for n in sizes:
        for sigma in (0.5, 1.0, 1.5, 2.0):
            hits = 0
            for _ in range(trials):
                tokens = rng.integers(5, 60, n)
                found = ratio_interval((rng.lognormal(0, sigma, n) * tokens).tolist(), tokens.tolist(), level)
                hits += found.low <= np.exp(sigma**2 / 2) <= found.high
            yield {"case": f"mean KL, lognormal rows, sigma {sigma:g}", "n": n, "level": level,
                   "coverage": hits / trials, "trials": trials}  # fmt: skip
        for odd, within in ((0.002, 0.5), (0.02, 0.2), (0.1, 0.1), (0.5, 0.02)):
            hits = 0
            for _ in range(trials // 2):
                sizes = rng.integers(5, 60, n)
                agree = [rng.random(s) >= within * (rng.random() < odd) for s in sizes]
                found = fidelity(Divergences([np.zeros(s) for s in sizes], agree), level)
                hits += found.top1_low <= 1 - odd * within <= found.top1_high
            yield {"case": f"agreement {1 - odd * within:.4g}, {odd:.1%} of rows differ", "n": n, "level": level,
                   "coverage": hits / (trials // 2), "trials": trials // 2}  # fmt: skip


def decisions(alpha: float, trials: int) -> Iterator[Line]:
    """The probability of a decision at the number of items that a gate's sentence names."""
    rng, level = np.random.default_rng(3), 1 - 2 * alpha
    for k, n, minimum in ((45, 50, 0.8), (90, 100, 0.85), (190, 200, 0.93), (570, 600, 0.96), (120, 200, 0.65)):
        items = items_for_rate(k, n, minimum, alpha)
        assert items
        found = [rate_interval(i, items, level) for i in range(items + 1)]
        decided = np.array([i.low >= minimum or i.high < minimum for i in found])
        share = binom.pmf(np.arange(items + 1), items, k / n)[decided].sum()
        yield {"case": f"floor or retention {minimum:g}, {k} of {n}", "n": items, "decides": share}
    for b, c, n, threshold in ((5, 0, 600, 0.02), (25, 25, 500, 0.02), (4, 1, 200, 0.05), (12, 20, 430, 0.0),
                               (3, 1, 600, 0.0), (2, 5, 50, 0.0)):  # fmt: skip
        items = items_for_pairs(b, c, n, threshold, alpha)
        assert items
        interval = lru_cache(None)(lambda lost, gained, items=items: paired_interval(lost, gained, items, level))
        draws = rng.multinomial(items, [b / n, c / n, 1 - (b + c) / n], size=trials).tolist()
        ends = [interval(lost, gained) for lost, gained, _ in draws]
        share = float(np.mean([i.low > threshold or i.high < threshold for i in ends]))
        name = f"drop below {threshold:g}" if threshold else "better"
        yield {"case": f"{name}, {b} lost and {c} gained of {n}", "n": items, "decides": share, "trials": trials}


def main() -> None:
    """Print the table; write it with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the table")
    parser.add_argument("--tiny", action="store_true", help="fewer sizes and trials: a minute")
    arguments = parser.parse_args()
    trials = 100 if arguments.tiny else 400
    lines: list[Line] = []
    for level in (0.9,) if arguments.tiny else (0.9, 0.95):
        sizes = SIZES[:2] if arguments.tiny else SIZES
        parts = (
            rates(level),
            pairs(level, sizes),
            medians(level),
            grouped(level, trials, sizes),
            means(level, trials, sizes),
        )
        for part in (*parts, decisions((1 - level) / 2, 2 * trials)):
            begun = time.perf_counter()
            for line in part:
                lines.append(line | {"seconds": round(time.perf_counter() - begun, 2)})
                begun = time.perf_counter()
                print("  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                                for key, value in line.items()), flush=True)  # fmt: skip
    if arguments.json:
        arguments.json.write_text(json.dumps(lines, indent=2) + "\n")


if __name__ == "__main__":
    main()
