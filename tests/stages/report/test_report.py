"""The page: says what was measured, loads nothing, runs nothing that a model wrote, and fits a phone."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from finished_run import EVIL, RECIPE, finished_run, made_up_example, pair
from fixtures import write_jsonl
from potstill.core.artifacts.coverage import Coverage, CoverageCell
from potstill.core.artifacts.manifest import DataFile
from potstill.core.artifacts.metrics import (
    LeakedRows,
    Metrics,
    ModelMetrics,
    Models,
    Rate,
)
from potstill.core.artifacts.readings import ReadingExample, Readings
from potstill.core.artifacts.step import StepRecord
from potstill.core.artifacts.verdict import Verdict
from potstill.core.recipe import Recipe
from potstill.stages.package.stage import STAGE as PACKAGE
from potstill.stages.report import stage as report
from potstill.stages.report.charts import Line, rates_chart, training_chart
from potstill.stages.report.differences import mark_differences
from potstill.stages.report.distillation import DistillationSection, SplitBar, distillation_section
from potstill.stages.report.facts import read_facts
from potstill.stages.report.page import render_page
from potstill.stages.report.stage import STAGE
from stage_runs import run_stage, stage_inputs

ROOT = Path(report.__file__).parent
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "link", "img", "br", "hr", "input", "path", "circle", "rect", "use"}
Change = Callable[[Metrics], Metrics]

TEXT_ONLY = RECIPE.replace("gates: {exact: 0.9, retention: 0.95, beats_control: true, kl_mean: 0.05}", "").replace(
    "student: {init: teacher_layers, layers: 2}",
    "student: {init: checkpoint, model: someone/small}\ntrain: {objective: sft, control: none}",
)


def packaged_run(
    folder: Path, recipe: str = RECIPE, kind: str = "INCONCLUSIVE", change: Change = lambda metrics: metrics
) -> tuple[Recipe, dict[str, Path]]:
    """A finished run up to its package; its metrics are changed first."""
    loaded, steps = finished_run(folder / "run", recipe, kind)
    change(Metrics.read(steps["evaluate"])).write(steps["evaluate"])
    package = folder / "run" / "runs" / "package-000000000006"
    with made_up_example():
        run_stage(PACKAGE, loaded, steps, package)
    StepRecord.read(steps["gate"]).model_copy(update={"stage": "package"}).write(package)
    return loaded, steps | {"package": package}


def page(
    folder: Path,
    change: Change = lambda metrics: metrics,
    *,
    kind: str = "INCONCLUSIVE",
    recipe: str = RECIPE,
    prepare: Callable[[dict[str, Path]], None] = lambda _: None,
) -> str:
    """The page of a finished run whose metrics were changed first."""
    loaded, steps = packaged_run(folder, recipe, kind, change)
    prepare(steps)
    run_stage(STAGE, loaded, steps, folder / "report")
    assert [p.name for p in (folder / "report").iterdir()] == ["report.html"]
    return (folder / "report" / "report.html").read_text()


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run that has every part."""
    return page(tmp_path_factory.mktemp("usual"))


class Outline(HTMLParser):
    """Elements in order with attributes; text outside style, spaces of any kind as one; every tag closed in turn."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == [], self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def having(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


# ---- what it says ----


def test_verdict_comes_first_and_names_the_gate(usual: str) -> None:
    text = Outline(usual).text
    assert text.index("Inconclusive") < text.index("Gates")
    assert "1 gate is not decided: retention of teacher. 7 of 8 pass." in text
    assert "About 870 items would decide it" in text


@pytest.mark.parametrize(
    ("kind", "word", "says"),
    [
        ("PASS", "Passes", "All 8 gates pass for the shipped file."),
        ("FAIL", "Fails", "2 gates fail: retention of teacher and peak memory. 6 of 8 pass."),
    ],
)
def test_verdict_in_words(tmp_path: Path, kind: str, word: str, says: str) -> None:
    source = page(tmp_path, kind=kind)
    text = Outline(source).text
    assert word in text and says in text
    assert f"<title>{word}: lights</title>" in source


def test_numbers_stand_with_their_intervals_and_thresholds(usual: str) -> None:
    text = Outline(usual).text
    assert "94.2 % (92.1 to 95.7 %) 90.0 %" in text  # a gate: value, interval, threshold
    assert "96.7 % 86.7 % \N{MINUS SIGN}10.0" in text  # a behaviour: teacher, shipped, change
    assert "86.7 % 77.2 to 93.2 52 of 60" in text  # and with its interval and counts
    assert "Compared with the teacher on the same 430 items: 21 lost, 4 gained, -4.0 points" in text
    assert "Of the teacher's 422 right answers, the shipped file keeps 401 (95.0 %, 90 % interval" in text
    assert "of the teacher's right answers kept (401 of 422; 21 lost, 4 gained) 95.0 %" in text
    assert "All intervals on this page are 90 % intervals" in text and "95 % interval" not in text
    assert "at most 60 MB 96 % used" in text and "at least 200 tokens/s 5.92 times as fast" in text
    assert (
        "1.91 MB as Q8_0" in text
        and "about 5.87 MB (3.07 times as much) as Q8_0" in text
        and "4.92 million (3.07 times as much)" in text
    )
    assert "0.0311 0.028 to 0.0358 0.412 98.3 % 97.9 to 98.7 %" in text
    assert "ab" * 32 in text and "5" * 64 in text
    assert '"retention": 0.95' in html.unescape(text)


def test_whether_distillation_paid_is_said_plainly(tmp_path: Path) -> None:
    facts = read_facts(stage_inputs(STAGE, *packaged_run(tmp_path)))

    def section(broken: int, fixed: int) -> DistillationSection:
        found = pair(broken, fixed, 430)
        paired = facts.metrics.paired.model_copy(update={"student_vs_control": found})
        found_section = distillation_section(
            replace(facts, metrics=facts.metrics.model_copy(update={"paired": paired}))
        )
        assert found_section
        return found_section

    paid = section(9, 48)
    assert paid.word == "It paid" and paid.bar == SplitBar(gained=48, lost=9)
    assert "+9.1 points (90\xa0% interval +6.0 to +12.0); two-sided p < 0.0001, exact McNemar test." in paid.text
    assert section(48, 9).word == "It did not pay"
    assert "\N{MINUS SIGN}9.1 points" in section(48, 9).text
    assert section(9, 10).word == section(0, 0).word == "No difference shown"
    assert section(0, 0).bar is None


def test_the_ladder_alone_compares_where_the_control_ships(tmp_path: Path) -> None:
    facts = read_facts(stage_inputs(STAGE, *packaged_run(tmp_path)))
    heading = "Its distributions, compared with its text alone"
    assert heading in render_page(facts)
    shipped = render_page(replace(facts, ships="text"))
    assert heading not in shipped and "What was the teacher worth?" in shipped
    assert "It paid" not in shipped and "Not measured" not in shipped


def test_regressions_are_shown_side_by_side_with_what_differs(usual: str) -> None:
    assert usual.count('<details class="case"') == 10
    first = usual.split('<details class="case"')[1]
    assert first.index("Teacher</h4>") < first.index("<mark>") < first.index("Shipped file</h4>")
    marked, plain = mark_differences('{"a": "on <b>"}', '{"a": "off <b>"}')
    assert marked == "{&#34;a&#34;: &#34;<mark>on</mark> &lt;b&gt;&#34;}"
    assert plain == "{&#34;a&#34;: &#34;<mark>off</mark> &lt;b&gt;&#34;}"


# ---- what is not there ----


def each_model(metrics: Metrics, change: Callable[[str, ModelMetrics], ModelMetrics | None]) -> Metrics:
    """The metrics with each model changed, or taken out."""
    models = {name: change(name, model) for name, model in metrics.models.present()}
    return metrics.model_copy(update={"models": Models.model_validate({"control": None} | models)})


def no_golds(metrics: Metrics) -> Metrics:
    unjudged = {"exact": None, "behaviours": {}, "schema_valid": None}
    changed = each_model(metrics, lambda name, model: model.model_copy(update=unjudged))
    counts = ("gguf_vs_teacher", "gguf_vs_student", "student_vs_control")
    paired = metrics.paired.model_copy(update=dict.fromkeys(counts))
    return changed.model_copy(update={"paired": paired, "regressions": ()})


def no_control(metrics: Metrics) -> Metrics:
    changed = each_model(metrics, lambda name, model: None if name == "control" else model)
    return changed.model_copy(update={"paired": metrics.paired.model_copy(update={"student_vs_control": None})})


def endpoint(metrics: Metrics) -> Metrics:
    def without(name: str, model: ModelMetrics) -> ModelMetrics:
        size = {"params": None, "bytes": None} if name == "teacher" else {}
        return model.model_copy(update={"fidelity": None} | size)

    return each_model(no_control(metrics), without)


def nothing_lost(metrics: Metrics) -> Metrics:
    return metrics.model_copy(update={"regressions": ()})


def nothing_right(metrics: Metrics) -> Metrics:
    none = Rate.of([False] * 430, None, 0.9)
    return nothing_lost(each_model(metrics, lambda name, model: model.model_copy(update={"exact": none})))


def leaks(metrics: Metrics) -> Metrics:
    leaked = LeakedRows(rows=1, of=431, row_ids=("a" * 12,))
    return metrics.model_copy(update={"leaked": leaked})


@pytest.mark.parametrize(
    ("change", "sentences"),
    [
        (
            no_golds,
            (
                "do not say what is right, so no answers were counted",
                "no right answers to count, so whether distillation paid is unknown. On the same tokens, the mean KL",
                "closer to the teacher. This alone does not show that distillation paid",
                "so regressions are unknown",
                "mean KL from the teacher 0.0311 nats",
            ),
        ),
        (no_control, ("(train.control: none), so the effect of distillation is unknown",)),
        (endpoint, ("Closeness to this teacher could not be measured",)),
        (nothing_lost, ("None: the shipped file gets every item right that the teacher gets right.",)),
        (nothing_right, ("The teacher gets no item right, so there is nothing to lose.",)),
        (leaks, ("1 of 431 test rows was also trained on or used for validation, and is left out of every score.",)),
    ],
)
def test_missing_parts_are_left_out_with_a_sentence(tmp_path: Path, change: Change, sentences: tuple[str, ...]) -> None:
    text = Outline(page(tmp_path, change)).text
    for says in sentences:
        assert says in text
    assert not re.search(r"\b(nan|inf|null|None)\b(?!:)", text.split('"name": "lights"')[0])


def test_a_student_of_the_text_alone_has_no_control(tmp_path: Path) -> None:
    text = Outline(page(tmp_path, no_control, recipe=TEXT_ONLY)).text
    assert "so a control would be the same model" in text


def test_no_gates_is_no_pass(tmp_path: Path) -> None:
    loaded, steps = packaged_run(tmp_path)
    Verdict(verdict="INCONCLUSIVE", confidence=0.9, gates=(), notes=()).write(steps["gate"])
    run_stage(STAGE, loaded, steps, tmp_path / "report")
    text = Outline((tmp_path / "report" / "report.html").read_text()).text
    assert "The recipe sets no gates, so nothing was judged" in text and "Threshold" not in text


def test_without_logs_there_are_no_curves(tmp_path: Path) -> None:
    def prepare(steps: dict[str, Path]) -> None:
        for log in steps["train"].glob("*.log.jsonl"):
            log.unlink()

    assert "There is no training log." in Outline(page(tmp_path, prepare=prepare)).text


def test_the_training_claim_is_there_only_when_it_is_true(usual: str, tmp_path: Path) -> None:
    claim = "No test prompt was in the training data."
    assert claim in Outline(usual).text
    assert claim not in Outline(page(tmp_path, leaks)).text


def errors(metrics: Metrics) -> Metrics:
    def with_errors(name: str, model: ModelMetrics) -> ModelMetrics:
        found = {"wrong_value": 7, "no_call": 2} if name == "teacher" else {"unwanted_call": 1234}
        tools = {"set_light": Rate.of([True, False], None, 0.9)} if name == "gguf" else {}
        return model.model_copy(update={"errors": found, "tools": tools})

    return each_model(metrics, with_errors)


def test_wrong_answers_are_counted_by_kind_and_right_ones_by_tool(usual: str, tmp_path: Path) -> None:
    text = " ".join(Outline(page(tmp_path, errors)).text.split())
    assert "Wrong answers by kind, and right ones by tool" in text
    assert "Wrong value 7 0 0 0 0" in text
    assert "Call where none was wanted 0 1,234 1,234 1,234 1,234 All wrong answers 9 1,234" in text
    assert "Cut off" not in text
    assert "set_light" in text and "1 of 2" in text
    assert "Wrong answers by kind" not in Outline(usual).text


# ---- how it is made ----


def test_structure(usual: str) -> None:
    outline = Outline(usual)
    levels = [int(tag[1]) for tag, _ in outline.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in outline.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for attributes in outline.having("section"):
        assert attributes["aria-labelledby"] in ids
    assert all(a.get("scope") in ("col", "row") for a in outline.having("th"))
    charts = [a for a in outline.having("svg") if a.get("class") == "chart"]
    assert len(charts) == 4
    assert all(a["role"] == "img" and len(str(a["aria-label"])) > 40 for a in charts)
    assert all(a.get("aria-hidden") == "true" for a in outline.having("svg") if a.get("class") != "chart")
    assert outline.having("html")[0]["lang"] == "en"


def test_nothing_is_loaded_and_nothing_runs(usual: str) -> None:
    outline = Outline(usual)
    assert outline.having("script", "link", "img", "iframe", "object", "embed", "base", "form") == []
    for tag, attributes in outline.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), tag
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                assert str(value).startswith("#"), (tag, name, value)
    style = re.findall(r"<style>(.*?)</style>|style=\"(.*?)\"", usual, re.DOTALL)
    assert not re.search(r"@import|url\((?!#)", " ".join(map("".join, style)))
    policy = next(a for a in outline.having("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_what_a_model_wrote_is_text(usual: str) -> None:
    assert "<script" not in usual and "<img" not in usual
    assert usual.count("&lt;script&gt;document.title=") == 2  # in the prompt and in the answer


def test_no_path_of_this_machine(usual: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert str(tmp_path_factory.getbasetemp()) not in usual


def test_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    loaded, steps = packaged_run(tmp_path)
    for name in ("first", "second"):
        run_stage(STAGE, loaded, steps, tmp_path / name)
    assert (tmp_path / "first" / "report.html").read_bytes() == (tmp_path / "second" / "report.html").read_bytes()


def luminance(colour: str) -> float:
    """Relative luminance, by WCAG 2."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_aa(scheme: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", (ROOT / "style.css").read_text(), re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[0]))
    if scheme == "dark":
        colours |= dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[1]))

    def ratio(a: str, b: str) -> float:
        low, high = sorted((luminance(colours[a]), luminance(colours[b])))
        return (high + 0.05) / (low + 0.05)

    for text in ("ink", "muted", "pass", "fail", "open", "none", "series-teacher", "series-gguf", "series-control"):
        assert ratio(text, "paper") >= 4.5, text
    for text in ("ink", "muted"):
        assert ratio(text, "panel") >= 4.5, text
    assert ratio("mark-ink", "mark") >= 4.5
    assert ratio("series-student", "paper") >= 3  # never text, only marks


def test_charts_take_the_pages_colours_and_say_what_they_show() -> None:
    teacher = Rate(k=90, n=100, effective=100, rate=0.9, low=0.8, high=0.95)
    rates = {"A <b> (3)": {"teacher": teacher, "gguf": teacher.model_copy(update={"rate": 0.85})}}
    chart = rates_chart(rates, 'teacher "90"')
    assert 'aria-label="teacher &#34;90&#34;"' in chart and "A &lt;b&gt; (3)" in chart
    assert "var(--series-teacher)" in chart and "var(--series-gguf)" in chart
    assert not re.search(r"#0[0-9a-f]{5}", chart)
    assert "DejaVu" not in chart and "http" not in chart


def test_long_curves_are_thinned_and_short_ones_drawn() -> None:
    wave = Line("student", range(1, 100_001), [2 + math.sin(i) for i in range(100_000)])
    assert len(training_chart([wave], "c", "a wave of a hundred thousand points")) < 20_000
    single = training_chart([Line("student", [1], [0.5]), Line("control", [1], [0.5], dotted=True)], "d", "one point")
    assert "var(--series-control)" in single


# ---- in a browser ----


def browse(source: str, folder: Path, script: str, widths: tuple[int, ...] = (360,), *flags: str) -> list[Any]:
    """What `script` finds at each width: it runs outside the page, and sees it in a frame as `view`."""
    frames = "".join(f'<iframe width="{w}" height="800" srcdoc="{html.escape(source)}"></iframe>' for w in widths)
    outer = folder / "outer.html"
    outer.write_text(f"""<!doctype html><meta charset="utf-8"><style>iframe {{border: 0}}</style><body>{frames}
        <pre id="found"></pre><script>
        onload = () => {{
            const found = [...document.querySelectorAll("iframe")].map(frame => frame.contentDocument).map(view => {{
                {script}
            }});
            document.getElementById("found").textContent = JSON.stringify(found);
        }};</script>""")
    assert CHROMIUM
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=4000", *flags, "--dump-dom"]
    ran = subprocess.run([*command, outer.as_uri()], capture_output=True, text=True, timeout=240, check=False)
    found = re.search(r'<pre id="found">(.*?)</pre>', ran.stdout, re.DOTALL)
    assert found and found[1], ran.stderr[-2000:]
    return list(json.loads(html.unescape(found[1])))


OVERFLOW = """
    view.querySelectorAll("details").forEach(d => d.open = true);
    const width = view.documentElement.clientWidth;
    const wide = [...view.querySelectorAll("body *")].filter(e => !e.closest(".scroll, pre, thead, svg")
        && e.getBoundingClientRect().right > width + 0.5).map(e => e.tagName + "." + e.className);
    return {width, scroll: view.documentElement.scrollWidth - width, wide: wide.slice(0, 5),
            tall: view.documentElement.scrollHeight > 2000};
"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_page_fits_every_width(usual: str, tmp_path: Path) -> None:
    for found in browse(usual, tmp_path, OVERFLOW, (320, 360, 768, 1280)):
        assert found == {"width": found["width"], "scroll": 0, "wide": [], "tall": True}


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_script_in_an_answer_does_not_run_even_without_the_policy(usual: str, tmp_path: Path) -> None:
    source = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", usual)
    script = "return {title: view.title, scripts: view.scripts.length, text: view.body.innerText};"
    found = browse(source, tmp_path, script)[0]
    assert found["title"] == "Inconclusive: lights" and found["scripts"] == 0
    assert EVIL in found["text"].replace("\n", "")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_dark_mode_is_dark(usual: str, tmp_path: Path) -> None:
    script = "const s = getComputedStyle(view.body); return [s.backgroundColor, s.color];"
    dark = browse(usual, tmp_path, script, (360,), "--blink-settings=preferredColorScheme=0")
    assert dark == [["rgb(20, 23, 27)", "rgb(231, 234, 238)"]]


# ---- costs ----


def test_without_a_price_the_page_has_no_costs(usual: str) -> None:
    assert "What an answer costs" not in usual
    assert "except for the costs" not in usual


def priced(folder: Path, output: float, prices: str = "") -> str:
    """The page of a run whose teacher has a price, and whose teacher was asked 100 tokens and said 50."""
    recipe = f"{RECIPE}prices: {{input: 1, output: {output}, {prices}}}\n"

    def answer(steps: dict[str, Path]) -> None:
        rows = [{"provenance": {"prompt_tokens": 100, "completion_tokens": 50}} for _ in range(4)]
        write_jsonl(steps["generate"] / "train.jsonl", rows)

    return page(folder, recipe=recipe, prepare=answer)


def test_costs_stand_beside_the_endpoints(tmp_path: Path) -> None:
    text = priced(tmp_path, 18, "device_hour: 3600, train_hour: 36")
    # 11.3 ms to the first token, 50 tokens at 1184 a second; 3600 per hour is 1 per second; 162.4 s of training
    seconds = 0.0113 + 50 / 1184
    assert f'<td class="nowrap">{1e6 * seconds:,.2f}</td>' in text
    assert '<td class="nowrap">1,000.00</td>' in text and "The endpoint is cheaper" in text
    cheap = priced(tmp_path / "cheap", 18, "train_hour: 36")
    once = 36 * 162.4 / 3600
    answers = once / (1e-3 - seconds / 3600 * 0.003)
    assert f"after {answers:,.0f} answers: {once:.3g} were spent" in cheap
    assert cheap.count('aria-label="The student has paid for itself') == 1
    assert "except for the costs that the recipe declares" in cheap
    assert "from the first answer" in priced(tmp_path / "free", 18)


def read_in_two_ways(found: Metrics) -> Metrics:
    example = ReadingExample(row_id="ab" * 6, prompt="on, <now>", text="<call>\x1b[2J", served="set_light({})")
    readings = Readings(answers=430, different=3, example=example)
    shipped = found.models.gguf.model_copy(update={"readings": readings})
    return found.model_copy(update={"models": found.models.model_copy(update={"gguf": shipped})})


def test_answers_that_the_endpoint_reads_differently_are_counted_with_an_example(tmp_path: Path) -> None:
    page = render_page(read_facts(stage_inputs(STAGE, *packaged_run(tmp_path, change=read_in_two_ways))))
    assert "All 430 test rows went through llama.cpp&#39;s chat endpoint" in page
    assert "In 3 of 430 answers of the shipped file" in page
    assert "&lt;call&gt;" in page and "set_light({})" in page and "<call>" not in page


def test_a_page_says_that_readings_agree(tmp_path: Path) -> None:
    def agree(found: Metrics) -> Metrics:
        shipped = found.models.gguf.model_copy(update={"readings": Readings(answers=430, different=0)})
        return found.model_copy(update={"models": found.models.model_copy(update={"gguf": shipped})})

    page = render_page(read_facts(stage_inputs(STAGE, *packaged_run(tmp_path, change=agree))))
    assert "reads the same calls and words in each answer" in page and "What users get" not in page


def test_a_page_says_what_the_checkers_of_answers_said(usual: str) -> None:
    assert "<dt>Answers trained on</dt><dd>22 of 24; 2 rejected (1 length, 1 gold)</dd>" in usual
    assert "<dt>Answers verified</dt><dd>gold: 20 pass, 1 fail, 2 unknown</dd>" in usual


def test_a_page_says_on_what_its_teacher_was_fine_tuned(tmp_path: Path) -> None:
    facts = read_facts(stage_inputs(STAGE, *packaged_run(tmp_path)))
    assert "<dt>Teacher fine-tuned on" not in render_page(facts)
    rows = DataFile(file="gold.jsonl", rows=800, sha256="a" * 64, bytes=1)
    manifest = facts.manifest.model_copy(
        update={"teacher": facts.manifest.teacher.model_copy(update={"finetuned_on": rows})}
    )
    assert "<dt>Teacher fine-tuned on</dt><dd>gold.jsonl, 800 rows</dd>" in render_page(
        replace(facts, manifest=manifest)
    )


def test_the_quotas_of_a_curriculum_are_shown(tmp_path: Path) -> None:
    recipe, steps = packaged_run(tmp_path)
    facts = read_facts(stage_inputs(STAGE, recipe, steps))
    assert "What the training rows cover" not in render_page(facts)
    cells = (CoverageCell(of={"label": "<b>", "noise": "typos"}, quota=5, accepted=3, written=4),)
    page = render_page(replace(facts, coverage=Coverage(curriculum="c@1", rows=9, written=4, cells=cells)))
    assert "c@1: 0 of 1 quotas are met (label: &lt;b&gt;, noise: typos lacks 2 of 5)" in page
    assert "<td>5</td><td>3</td><td>4</td><td>2</td>" in page
