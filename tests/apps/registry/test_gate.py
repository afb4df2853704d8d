"""The gate against a release: drops that are shown fail, margins that are excluded pass, waivers are in writing."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from potstill.apps.registry.gate import GateSettings, judge_release
from potstill.apps.registry.reports import junit, markdown
from potstill.apps.registry.waivers import Waiver, read_waivers
from potstill.components.suites.pairs import more_items, paired_items, slice_counts
from potstill.components.suites.rates import ALL
from potstill.core.artifacts.release import ReleaseVerdict
from potstill.core.errors import DataError, UsageError
from potstill.core.stats import paired_interval
from suite_results import Results, first_wrong, item_results, results_of, sha256

TODAY = datetime.date(2026, 6, 1)
GOOD = {"call": first_wrong(200, 20), "refuse": first_wrong(100, 5)}
WEAK = {"call": first_wrong(200, 20), "refuse": first_wrong(100, 35)}


def judged(before: Results, after: Results, *waivers: Waiver, **settings: Any) -> ReleaseVerdict:
    return judge_release(before, after, "1", GateSettings(today=TODAY, **settings), waivers)


def verdicts(found: ReleaseVerdict) -> dict[str, str]:
    return {each.slice: each.verdict for each in found.slices}


def waiver(model: str = "weak", expires: datetime.date = datetime.date(2026, 12, 31), **what: str) -> Waiver:
    return Waiver(owner="Ana", reason="repair is under way", expires=expires, models=(sha256(model)[:12],), **what)


def test_a_weakened_behaviour_fails_and_is_named() -> None:
    found = judged(results_of(item_results(GOOD)), results_of(item_results(WEAK), "weak"))
    assert found.verdict == "FAIL"
    assert verdicts(found) == {"tag refuse": "FAIL", ALL: "FAIL", "tag call": "PASS"}
    refuse = next(each for each in found.slices if each.slice == "tag refuse")
    assert (refuse.before, refuse.after, refuse.broken, refuse.fixed, refuse.drop) == (95, 65, 30, 0, 0.3)
    assert refuse.p_value == pytest.approx(3 * stats.binomtest(30, 30, 0.5, alternative="greater").pvalue)
    assert [flip.item for flip in found.flips if flip.broken] == [f"refuse-{n}" for n in range(5, 35)]


def test_an_unchanged_model_passes() -> None:
    good = results_of(item_results(GOOD))
    assert judged(good, good).verdict == "PASS"
    assert judged(good, good, margin=0.01).verdict == "INCONCLUSIVE"


def test_the_exact_p_value_and_holm_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    outcomes = [{tag: list(rng.random(80) < rate) for tag, rate in (("a", 0.9), ("b", 0.7), ("c", 0.5))} for _ in "xy"]
    before, after = (results_of(item_results(each)) for each in outcomes)
    found = judged(before, after)
    pairs = paired_items(before[1], after[1])
    raw = {}
    for tag in (ALL, "a", "b", "c"):
        counts = slice_counts(pairs, tag, 0.05)
        assert counts is not None
        test = stats.binomtest(counts.broken, counts.broken + counts.fixed, 0.5, alternative="greater")
        raw["tag " + tag if tag != ALL else ALL] = test.pvalue
    ordered = sorted(raw, key=raw.__getitem__)
    running = 0.0
    for rank, name in enumerate(ordered):
        running = max(running, min(1.0, (4 - rank) * raw[name]))
        (p_value,) = (each.p_value for each in found.slices if each.slice == name)
        assert p_value == pytest.approx(running)


def test_few_items_are_inconclusive_and_say_how_many_more_would_decide() -> None:
    small = {"refuse": first_wrong(30, 3)}
    found = judged(results_of(item_results(small)), results_of(item_results({"refuse": first_wrong(30, 4)})))
    assert found.verdict == "INCONCLUSIVE"
    (refuse,) = (each for each in found.slices if each.slice == "tag refuse")
    assert refuse.more_items and refuse.more_items > 30
    assert f"About {refuse.more_items:,} more items would decide it." in refuse.why


@pytest.mark.parametrize(("broken", "fixed"), [(4, 4), (10, 10), (6, 4)])
def test_so_many_items_decide_in_four_of_five_releases(broken: int, fixed: int) -> None:
    n, margin, alpha = 100, 0.05, 0.05
    before = [True] * broken + [False] * fixed + [True] * (n - broken - fixed)
    after = [False] * broken + [True] * fixed + [True] * (n - broken - fixed)
    counts = slice_counts(paired_items(item_results({"t": before}), item_results({"t": after})), "t", alpha)
    assert counts is not None
    more = more_items(counts, margin, alpha)
    assert more is not None
    shares = [broken / n, fixed / n, 1 - (broken + fixed) / n]
    drawn = np.random.default_rng(0).multinomial(n + more, shares, size=200)
    passed = [paired_interval(int(b), int(c), n + more, 1 - 2 * alpha).high < margin for b, c, _ in drawn]
    assert np.mean(passed) == pytest.approx(0.8, abs=0.12)


def test_a_core_item_may_not_break() -> None:
    before = results_of(item_results(GOOD, core=["call-50"]))
    broken = {**GOOD, "call": [right and n != 50 for n, right in enumerate(GOOD["call"])]}
    after = results_of(item_results(broken, core=["call-50"]), "weak")
    found = judged(before, after)
    assert verdicts(found)["core item call-50"] == "FAIL"
    assert "question 50 of call" in found.slices[0].why
    assert judged(before, results_of(item_results(broken), "weak")).verdict == "PASS"  # not core: within the margin
    assert judged(before, after, waiver(item="call-50")).verdict == "WAIVED"


def test_a_waiver_lets_a_tag_pass_in_writing_and_expires() -> None:
    before, after = results_of(item_results(GOOD)), results_of(item_results(WEAK), "weak")
    found = judged(before, after, waiver(tag="refuse"))
    assert found.verdict == "WAIVED"
    assert verdicts(found) == {"tag refuse": "WAIVED", ALL: "PASS", "tag call": "PASS"}
    assert "waived by Ana until 2026-12-31: repair is under way" in found.slices[0].why
    on_the_day = waiver(tag="refuse", expires=TODAY)
    assert judged(before, after, on_the_day).verdict == "WAIVED"
    late = judged(before, after, waiver(tag="refuse", expires=TODAY - datetime.timedelta(days=1)))
    assert late.verdict == "FAIL"
    assert verdicts(late)["waiver of tag refuse"] == "FAIL"
    assert verdicts(late)["tag refuse"] == "FAIL"


def test_an_expired_waiver_fails_even_where_nothing_is_lost() -> None:
    good = results_of(item_results(GOOD), "weak")
    found = judged(good, good, waiver(tag="refuse", expires=datetime.date(2020, 1, 1)))
    assert (found.verdict, found.slices[0].slice) == ("FAIL", "waiver of tag refuse")


@pytest.mark.parametrize("other", [waiver("another", tag="refuse"), waiver(tag="call"), waiver(suite="another")])
def test_a_waiver_of_something_else_waives_nothing(other: Waiver) -> None:
    found = judged(results_of(item_results(GOOD)), results_of(item_results(WEAK), "weak"), other)
    assert verdicts(found)["tag refuse"] == "FAIL"


def test_waived_items_and_suites() -> None:
    before, after = results_of(item_results(GOOD)), results_of(item_results(WEAK), "weak")
    assert judged(before, after, waiver(suite="lights")).verdict == "WAIVED"
    items = [waiver(item=f"refuse-{n}") for n in range(5, 35)]
    assert judged(before, after, *items, margin=0.1).verdict == "WAIVED"
    assert judged(before, after, *items[:10], margin=0.1).verdict == "FAIL"


def test_a_loss_that_was_accepted_beforehand() -> None:
    before, after = results_of(item_results(GOOD)), results_of(item_results(WEAK), "weak")
    settings = {"accepted": {"refuse": 0.5, ALL: 0.2}}
    assert verdicts(judged(before, after, **settings))["tag refuse"] == "PASS"
    assert verdicts(judged(before, after, accepted={"refuse": 0.1}))["tag refuse"] == "FAIL"


def test_new_items_are_reported_and_do_not_gate() -> None:
    more = {**GOOD, "new": [False] * 50}
    found = judged(results_of(item_results(GOOD)), results_of(item_results(more)))
    assert (found.verdict, found.items, found.new_items) == ("PASS", 300, 50)


@pytest.mark.parametrize("condition", ["template", "runtime_version", "processor", "quantization"])
def test_other_conditions_are_refused_unless_asked_for(condition: str) -> None:
    before, after = results_of(item_results(GOOD)), results_of(item_results(GOOD), **{condition: "other"})
    with pytest.raises(UsageError, match=rf"{condition} .* and other.*--across {condition}"):
        judged(before, after)
    assert judged(before, after, across=[condition]).differing == (condition,)


@pytest.mark.parametrize("condition", ["batch_size", "seed"])
def test_other_numbers_are_refused(condition: str) -> None:
    with pytest.raises(UsageError, match=f"--across {condition}"):
        judged(results_of(item_results(GOOD)), results_of(item_results(GOOD), **{condition: 99}))


def test_groups_count_as_fewer_items() -> None:
    """Ten phrasings of one question that break together show less than ten questions that break."""

    def verdict_of(group: str | None) -> str:
        before = results_of(item_results({"t": [True] * 60}, group=None))
        after = item_results({"t": first_wrong(60, 10)})
        after = [each.model_copy(update={"group": group}) if not each.right else each for each in after]
        return verdicts(judged(before, results_of(after)))["tag t"]

    assert verdict_of(None) == "FAIL"
    assert verdict_of("one question") == "INCONCLUSIVE"


def test_reports_for_ci() -> None:
    from xml.etree import ElementTree

    evil = item_results(WEAK)
    evil = [each.model_copy(update={"prompt": "a|b <script>\x1b[2J\n# x"}) for each in evil]
    found = judged(results_of(item_results(GOOD)), results_of(evil, "weak"))
    suite = ElementTree.fromstring(junit(found))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "2", "0")
    assert [case.get("name") for case in suite if case.find("failure") is not None] == [ALL, "tag refuse"]
    text = markdown(found)
    assert "| tag refuse | **FAIL** | 95 of 100 | 65 | 30 | 0 | +30.0 |" in text
    assert "<script>" not in text and "\x1b" not in text
    assert "<details><summary>Broke: 30</summary>" in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1", "must have the one key"),
        ("waivers: [{tag: a, owner: o, reason: r, expires: 2026-01-01}]", "waiver 1: models"),
        ("waivers: [{tag: a, reason: r, expires: 2026-01-01, models: [abcdef01]}]", "waiver 1: owner"),
        ("waivers: [{owner: o, reason: r, expires: 2026-01-01, models: [abcdef01]}]", "names one of item"),
        ("waivers: [{tag: a, item: b, owner: o, reason: r, expires: 2026-01-01, models: [abcdef01]}]", "names one of"),
        ("waivers: [{tag: a, owner: o, reason: r, expires: 2026-02-31, models: [abcdef01]}]", "waivers.yaml"),
        ("waivers: [{tag: a, owner: o, reason: r, expires: never, models: [abcdef01]}]", "waiver 1: expires"),
        ("waivers: [{tag: a, owner: o, reason: r, expires: 2026-01-01, models: [short]}]", "waiver 1: models"),
        ("waivers: [", "not valid YAML"),
    ],
)  # fmt: skip
def test_a_waiver_that_says_too_little_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "waivers.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_waivers(path)
