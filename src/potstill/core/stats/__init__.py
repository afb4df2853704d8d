"""Intervals and tests behind every number that is printed: pure functions, each with its source.

Nothing here draws at random, and nothing needs more than the standard library.
"""

from __future__ import annotations

from potstill.core.stats.calibration import brier_scores, calibrated_error, calibration_error
from potstill.core.stats.clusters import Groups, effective_items, independent_items
from potstill.core.stats.intervals import Interval
from potstill.core.stats.means import mean_interval, mean_p_value
from potstill.core.stats.pairs import drop_p_value, lowest_drop, paired_interval, paired_p_value
from potstill.core.stats.planning import (
    items_for_pairs,
    items_for_rate,
    items_if_all_better,
    items_if_all_right,
    items_if_unchanged,
)
from potstill.core.stats.quantiles import quantile, quantile_interval
from potstill.core.stats.rates import rate_interval, rate_p_value
from potstill.core.stats.several import holm, p_value_from_interval

__all__ = [
    "Groups",
    "Interval",
    "brier_scores",
    "calibrated_error",
    "calibration_error",
    "drop_p_value",
    "effective_items",
    "holm",
    "independent_items",
    "items_for_pairs",
    "items_for_rate",
    "items_if_all_better",
    "items_if_all_right",
    "items_if_unchanged",
    "lowest_drop",
    "mean_interval",
    "mean_p_value",
    "p_value_from_interval",
    "paired_interval",
    "paired_p_value",
    "quantile",
    "quantile_interval",
    "rate_interval",
    "rate_p_value",
]
