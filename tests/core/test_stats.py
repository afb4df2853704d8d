"""Golden values from published examples, scipy and brute force as oracles, and simulated coverage."""

from __future__ import annotations

import itertools
import math
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, norm

from potstill.core.stats import (
    bootstrap_median,
    bootstrap_quantile,
    holm,
    items_to_decide,
    mcnemar_exact,
    paired_drop,
    paired_drop_interval,
    paired_ratio_interval,
    quantile,
    wilson,
    wilson_lower,
    wilson_upper,
)

counts = st.integers(0, 40)
levels = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@st.composite
def right_of(draw: st.DrawFn, least: int = 1) -> tuple[int, int]:
    n = draw(st.integers(least, 400))
    return draw(st.integers(0, n)), n


# ---- one rate ----


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_newcombes_table(k: int, n: int, low: float, high: float) -> None:
    interval = wilson(k, n)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@settings(deadline=None)
@given(right_of(), levels)
def test_wilson_agrees_with_scipy(pair: tuple[int, int], level: float) -> None:
    k, n = pair
    oracle = binomtest(k, n).proportion_ci(level, method="wilson")
    interval = wilson(k, n, level)
    assert interval.low == pytest.approx(oracle.low, abs=1e-12)
    assert interval.high == pytest.approx(oracle.high, abs=1e-12)
    assert 0 <= interval.low <= k / n <= interval.high <= 1
    greater = binomtest(k, n, alternative="greater").proportion_ci(level, method="wilson")
    assert wilson_lower(k, n, 1 - level) == pytest.approx(greater.low, abs=1e-12)


@settings(deadline=None)
@given(right_of(), st.floats(0.005, 0.4))
def test_wilson_bounds_mirror_and_grow_with_the_right_answers(pair: tuple[int, int], alpha: float) -> None:
    k, n = pair
    assert wilson_upper(k, n, alpha) == pytest.approx(1 - wilson_lower(n - k, n, alpha), abs=1e-12)
    if k:
        assert wilson_lower(k - 1, n, alpha) < wilson_lower(k, n, alpha)


@settings(deadline=None)
@given(right_of(), st.floats(0.05, 0.95), st.floats(0.005, 0.4))
def test_wilson_lower_inverts_the_score_test(pair: tuple[int, int], p0: float, alpha: float) -> None:
    k, n = pair
    slack = (k / n - p0) - norm.isf(alpha) * math.sqrt(p0 * (1 - p0) / n)
    if abs(slack) > 1e-9:
        assert (wilson_lower(k, n, alpha) >= p0) == (slack > 0)


def test_wilson_knows_nothing_without_items() -> None:
    assert (wilson(0, 0).low, wilson(0, 0).high) == (0.0, 1.0)
    assert wilson_lower(0, 0, 0.05) == 0.0


@pytest.mark.parametrize(("n", "worst"), [(50, 0.070), (200, 0.061), (1000, 0.055)])
def test_wilson_lower_passes_a_bad_rate_about_as_often_as_alpha(n: int, worst: float) -> None:
    lows = np.array([wilson_lower(k, n, 0.05) for k in range(n + 1)])
    rates = np.linspace(0.5, 0.99, 246)
    errors = [binom.pmf(np.arange(n + 1), n, rate)[lows >= rate].sum() for rate in rates]
    assert 0.04 < np.max(errors) < worst


# ---- paired ----


@settings(deadline=None)
@given(counts, counts)
def test_mcnemar_agrees_with_scipy(b: int, c: int) -> None:
    oracle = binomtest(b, b + c, 0.5, alternative="greater").pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(oracle, rel=1e-9)


def test_mcnemar_of_a_published_table_and_of_many_items() -> None:
    # Complete response before and after consolidation therapy (Cavo et al., 2012): exact two-sided P = 0.052479.
    assert 2 * mcnemar_exact(16, 6) == pytest.approx(0.052479, abs=5e-7)
    assert mcnemar_exact(5200, 4800) == pytest.approx(binom.sf(5199, 10000, 0.5), rel=1e-9)
    assert mcnemar_exact(3000, 0) == pytest.approx(0.0, abs=1e-300)


@settings(deadline=None)
@given(counts, counts)
def test_mcnemar_moves_with_the_evidence(b: int, c: int) -> None:
    assert mcnemar_exact(b + 1, c) < mcnemar_exact(b, c) or b + c == 0
    both_ways = mcnemar_exact(b, c) + mcnemar_exact(c, b)
    assert both_ways == pytest.approx(1 + math.comb(b + c, b) / 2 ** (b + c))  # only X = b is counted twice


def test_paired_drop_by_hand() -> None:
    drop, error = paired_drop(30, 20, 500)
    assert drop == pytest.approx(0.02)
    assert error == pytest.approx(math.sqrt((0.1 - 0.0004) / 500))
    assert paired_drop(0, 0, 10) == (0.0, 0.0)


@settings(deadline=None)
@given(counts, counts, st.integers(0, 60))
def test_paired_drop_error_is_the_sample_deviation(b: int, c: int, rest: int) -> None:
    n = b + c + rest
    if n:
        values = [1.0] * b + [-1.0] * c + [0.0] * rest
        drop, error = paired_drop(b, c, n)
        assert drop == pytest.approx(float(np.mean(values)))
        assert error == pytest.approx(float(np.std(values)) / math.sqrt(n), abs=1e-9)


@pytest.mark.parametrize(
    ("b", "c", "n", "level", "low", "high"),
    [
        (1, 7, 21, 0.95, -0.517, -0.026),  # Bentur et al. (2009), in Fagerland et al. (2014)
        (6, 16, 161, 0.95, -0.1240, -0.0054),  # Cavo et al. (2012)
        (28, 25, 618, 0.90, -0.0148, 0.0247),  # R: PropCIs::scoreci.mp(25, 28, 618, 0.90)
    ],
)
def test_drop_interval_gives_published_values(b: int, c: int, n: int, level: float, low: float, high: float) -> None:
    interval = paired_drop_interval(b, c, n, level)
    digits = 3 if n == 21 else 4
    assert (round(interval.low, digits), round(interval.high, digits)) == (low, high)


@pytest.mark.parametrize(
    ("table", "low", "high", "digits"),
    [((1, 7, 1), 0.065, 0.907, 3), ((59, 16, 6), 0.7476, 0.9876, 4)],  # the same two studies
)
def test_ratio_interval_gives_published_values(
    table: tuple[int, int, int], low: float, high: float, digits: int
) -> None:
    interval = paired_ratio_interval(*table)
    assert (round(interval.low, digits), round(interval.high, digits)) == (low, high)


def _best_likelihood(terms: list[tuple[int, float, float]], low: float, high: float) -> float:
    """x in [low, high] that maximises sum of count * log(start + slope x), found numerically."""

    def cost(x: float) -> float:
        return -sum(k * math.log(max(start + slope * x, 1e-300)) for k, start, slope in terms if k)

    return float(minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 60), levels)
def test_drop_interval_ends_where_the_score_statistic_is_z(b: int, c: int, rest: int, level: float) -> None:
    n = b + c + rest
    interval = paired_drop_interval(b, c, n, level)
    assert -1 <= interval.low < (b - c) / n < interval.high <= 1
    for end in (interval.low, interval.high):
        terms = [(b, end, 1.0), (c, 0.0, 1.0), (rest, 1 - end, -2.0)]
        q = _best_likelihood(terms, max(0.0, -end), (1 - end) / 2)
        statistic = (b - c - n * end) / math.sqrt(n * (2 * q + end * (1 - end)))
        assert abs(statistic) == pytest.approx(norm.ppf((1 + level) / 2), rel=1e-4)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 30), st.integers(1, 30), levels)
def test_ratio_interval_ends_where_the_score_statistic_is_z(
    both: int, first_only: int, second_only: int, level: float
) -> None:
    n = both + first_only + second_only
    interval = paired_ratio_interval(both, first_only, second_only, level)
    ratio = (both + second_only) / (both + first_only)
    assert 0 < interval.low < ratio < interval.high
    for f in (interval.low, interval.high):
        # p = P(first only); q = P(second only) = 1 - (1 - p)/f; P(both) = 1 - p - q
        terms = [(first_only, 0.0, 1.0), (second_only, 1 - 1 / f, 1 / f), (both, 1 / f, -1 - 1 / f)]
        p = _best_likelihood(terms, max(0.0, 1 - f), 1 / (1 + f))
        q = 1 - (1 - p) / f
        variance = (1 - p - q) * (1 - f) ** 2 + q + f * f * p
        statistic = (both + second_only - f * (both + first_only)) / math.sqrt(n * variance)
        assert abs(statistic) == pytest.approx(norm.ppf((1 + level) / 2), rel=1e-4)


@settings(deadline=None)
@given(counts, counts, st.integers(0, 60))
def test_exchanging_the_models_mirrors_both_intervals(b: int, c: int, rest: int) -> None:
    n = b + c + rest
    if n == 0:
        return
    one, other = paired_drop_interval(b, c, n), paired_drop_interval(c, b, n)
    assert (one.low, one.high) == (-other.high, -other.low)
    assert -1 <= one.low <= one.high <= 1
    ratio, inverse = paired_ratio_interval(rest, b, c), paired_ratio_interval(rest, c, b)
    assert 0 <= ratio.low <= ratio.high
    assert ratio.low == pytest.approx(0.0 if math.isinf(inverse.high) else 1 / inverse.high)


@settings(deadline=None)
@given(counts, counts, st.integers(0, 60))
def test_more_confidence_is_a_wider_interval(b: int, c: int, rest: int) -> None:
    n = b + c + rest
    if n == 0:
        return
    narrow, wide = paired_drop_interval(b, c, n, 0.8), paired_drop_interval(b, c, n, 0.99)
    assert wide.low <= narrow.low <= narrow.high <= wide.high
    thin, thick = paired_ratio_interval(rest, b, c, 0.8), paired_ratio_interval(rest, b, c, 0.99)
    assert thick.low <= thin.low <= thin.high <= thick.high


@settings(deadline=None)
@given(st.integers(1, 500), st.floats(0.01, 0.2))
def test_no_discordant_item_is_not_certainty(n: int, alpha: float) -> None:
    z = float(norm.isf(alpha))
    assert paired_drop_interval(0, 0, n, 1 - 2 * alpha).high == pytest.approx(z * z / (n + z * z))
    # With nothing but shared right answers, the ratio's lower bound is the bound of a rate of n in n.
    assert paired_ratio_interval(n, 0, 0, 1 - 2 * alpha).low == pytest.approx(wilson_lower(n, n, alpha))


def test_ratio_interval_without_right_answers_says_nothing() -> None:
    nothing = paired_ratio_interval(0, 0, 0)
    assert nothing.low == 0.0
    assert math.isinf(nothing.high)
    assert math.isinf(paired_ratio_interval(0, 0, 5).high)
    assert paired_ratio_interval(0, 5, 0).low == 0.0


@pytest.mark.parametrize(
    ("first", "ratio", "second_only"), [(0.9, 0.95, 0.02), (0.9, 0.9, 0.02), (0.95, 1.0, 0.02), (0.6, 0.8, 0.08)]
)
def test_paired_intervals_cover_at_the_nominal_level(first: float, ratio: float, second_only: float) -> None:
    """Each end of a 90 % interval misses in 5 % of 3000 simulated suites of 300 items, within sampling error."""
    both = first * ratio - second_only
    first_only = first - both
    cells = [both, first_only, second_only, 1 - both - first_only - second_only]
    draws = np.random.default_rng(7).multinomial(300, cells, size=3000).tolist()
    ratio_ci = lru_cache(None)(lambda a, b, c: paired_ratio_interval(a, b, c, 0.9))
    drop_ci = lru_cache(None)(lambda b, c: paired_drop_interval(b, c, 300, 0.9))
    drop = first_only - second_only
    misses = np.zeros(4)
    for a, b, c, _ in draws:
        r, d = ratio_ci(a, b, c), drop_ci(b, c)
        misses += (r.low > ratio + 1e-12, r.high < ratio - 1e-12, d.low > drop, d.high < drop)
    assert np.all(np.abs(misses / len(draws) - 0.05) < 0.017), misses / len(draws)


# ---- planning, several tests ----


def test_items_to_decide_by_hand() -> None:
    z = norm.isf(0.05) + norm.isf(0.2)
    assert items_to_decide(25, 25, 500, 0.02, 0.05, 0.2) == math.ceil(z**2 * 0.1 / 0.0004) == 1546
    # No item differs: the smallest n whose upper bound z^2/(n + z^2) is below the margin.
    n = items_to_decide(0, 0, 10, 0.02, 0.05, 0.2)
    assert paired_drop_interval(0, 0, n, 0.9).high < 0.02 <= paired_drop_interval(0, 0, n - 1, 0.9).high


def test_items_to_decide_lets_an_unchanged_model_pass_with_the_promised_power() -> None:
    n = items_to_decide(25, 25, 500, 0.02, 0.05, 0.2)
    draws = np.random.default_rng(3).multinomial(n, [0.05, 0.05, 0.9], size=2000).tolist()
    upper = lru_cache(None)(lambda b, c: paired_drop_interval(b, c, n, 0.9).high)
    assert np.mean([upper(b, c) < 0.02 for b, c, _ in draws]) == pytest.approx(0.8, abs=0.03)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_closed_testing_with_bonferroni(p_values: list[float]) -> None:
    everyone = range(len(p_values))
    subsets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(everyone, size)]
    oracle = [max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in subsets if i in s) for i in everyone]
    assert holm(p_values) == pytest.approx(oracle)


def test_holm_of_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


# ---- quantiles ----


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_quantile_agrees_with_numpy(values: list[float], q: float) -> None:
    assert quantile(values, q) == pytest.approx(float(np.quantile(values, q)), rel=1e-9, abs=1e-6)


@pytest.mark.parametrize(("n", "q"), [(4, 0.5), (5, 0.3), (31, 0.5), (100, 0.95)])
def test_bootstrap_quantile_is_the_naive_bootstrap(n: int, q: float) -> None:
    rng = np.random.default_rng(11)
    values = rng.lognormal(size=n)
    naive = np.quantile(values[rng.integers(0, n, size=(20_000, n))], q, axis=1)
    for tail in np.arange(0.02, 0.5, 0.06).tolist():
        interval = bootstrap_quantile(values.tolist(), q, seed=5, confidence=1 - 2 * tail, resamples=8_000)
        # Compared as ranks: the two laws are the same, so each end sits at its own tail of the other's.
        for end, share in ((interval.low, tail), (interval.high, 1 - tail)):
            assert np.mean(naive < end - 1e-9) <= share + 0.015
            assert np.mean(naive <= end + 1e-9) >= share - 0.015


def test_bootstrap_median_covers_and_depends_on_its_seed_alone() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for trial in range(200):
        interval = bootstrap_quantile(rng.exponential(size=100).tolist(), 0.5, seed=trial, resamples=800)
        hits += interval.low <= math.log(2) <= interval.high
    assert 0.90 <= hits / 200 <= 0.985
    values = rng.normal(size=30).tolist()
    assert bootstrap_median(values, 1) == bootstrap_median(values[::-1], 1)
    assert bootstrap_median(values, 1) != bootstrap_median(values, 2)


def test_bootstrap_of_equal_values_is_a_point() -> None:
    interval = bootstrap_median([3.5] * 7, seed=0)
    assert (interval.low, interval.high) == (3.5, 3.5)
    assert bootstrap_median([2.0], seed=0).high == 2.0


# ---- wrong use ----


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson(5, 4),
        lambda: wilson(-1, 4),
        lambda: wilson(1, 4, 1.0),
        lambda: wilson_lower(1, 4, 0.0),
        lambda: mcnemar_exact(-1, 2),
        lambda: paired_drop(3, 3, 5),
        lambda: paired_drop(0, 0, 0),
        lambda: paired_drop_interval(3, 3, 5),
        lambda: paired_ratio_interval(1, -1, 0),
        lambda: items_to_decide(1, 1, 10, 0.0, 0.05, 0.2),
        lambda: holm([0.1, 1.5]),
        lambda: holm([math.nan]),
        lambda: quantile([], 0.5),
        lambda: quantile([1.0, math.nan], 0.5),
        lambda: quantile([1.0], 1.1),
        lambda: bootstrap_median([1.0], 0, confidence=0.0),
    ],
)
def test_senseless_input_is_refused(call) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"must|needs|not defined"):
        call()
