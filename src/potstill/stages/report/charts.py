"""Charts as SVG inside the page: their text is text, and their colours are the page's, in light and dark mode.

matplotlib draws them. Its output is then fitted into a page: no header, no metadata, ids that are unique on the page,
and CSS variables instead of the placeholder colours below. The same numbers give the same bytes.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from potstill.core.artifacts.metrics import Rate
from potstill.core.format import format_large

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["MARKERS", "Dot", "Line", "cost_chart", "ladder_chart", "rates_chart", "training_chart"]

_WIDTH = 370  # CSS pixels at scale 1: a little smaller on a phone, a little larger on a desktop
_INK, _MUTED, _LINE = "#010203", "#020304", "#030405"
_SERIES = {"teacher": "#040506", "gguf": "#050607", "student": "#060708", "control": "#070809", "start": "#08090a"}
_VARIABLES = {_INK: "ink", _MUTED: "muted", _LINE: "line"} | {v: f"series-{k}" for k, v in _SERIES.items()}
_TICKS = 7
_POINTS = 240  # points of a training curve; more cannot be seen
MARKERS = {"teacher": "D", "gguf": "o", "student": "s", "control": "^", "start": "v"}
"""Marker of each model, by matplotlib's letter: shapes distinguish models where colours do not."""


@dataclass(frozen=True)
class Line:
    """One curve. `model` gives colour and marker; a dotted curve has a marker at each point."""

    model: str
    x: Sequence[float]
    y: Sequence[float]
    dotted: bool = False


@dataclass(frozen=True)
class Dot:
    """One value with its interval, where there is one."""

    title: str
    value: float
    low: float | None
    high: float | None


def ladder_chart(dots: Sequence[Dot], teacher: float | None, label: str, *, percent: bool) -> Markup:
    """A dot with a whisker for each rung, and a line at the teacher's value.

    Args:
        dots: the rungs, from top to bottom.
        teacher: value of the line; None: no line.
        label: text of the chart for screen readers.
        percent: whether values are rates.
    """
    with _drawing(len(dots) * 38 + 40) as (figure, axes):
        colour = _SERIES["gguf"]
        for y, dot in enumerate(dots):
            axes.text(
                0, y - 0.32, dot.title, color=_INK, fontsize=12, va="center", transform=axes.get_yaxis_transform()
            )
            if dot.low is not None and dot.high is not None:
                axes.plot([dot.low, dot.high], [y, y], color=colour, linewidth=2, alpha=0.5, solid_capstyle="round")
            axes.plot([dot.value], [y], marker="o", color=colour, markersize=7, markeredgewidth=0, zorder=3)
        if teacher is not None:
            axes.axvline(teacher, color=_SERIES["teacher"], linewidth=1.2, linestyle=(0, (1, 2)))
        if percent:
            axes.set_xlim(-0.015, 1.015)
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0 %", "25 %", "50 %", "75 %", "100 %"])
        axes.set_ylim(len(dots) - 0.5, -0.75)
        axes.set_yticks([])
        axes.grid(axis="x", color=_LINE, linewidth=1)
        axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
        return _inline(figure, "worth", label)


def rates_chart(groups: Mapping[str, Mapping[str, Rate]], label: str) -> Markup:
    """A dot with a whisker for each model, in one group per behaviour.

    Args:
        groups: rates by the group's title, then by model ("teacher", "gguf", "start", "student", "control").
        label: text of the chart for screen readers.
    """
    models = max((len(g) for g in groups.values()), default=1)
    height = len(groups) * (26 + 15 * models) + 40
    with _drawing(height) as (figure, axes):
        lowest = min(r.low for g in groups.values() for r in g.values())
        left = max(0.0, math.floor(lowest * 10 - 0.2) / 10)
        y = 0.0
        for title, group in groups.items():
            axes.text(left, y, title, color=_INK, fontsize=12.5, fontweight="bold", va="center", ha="left")
            for model, rate in group.items():
                y += 15
                _whisker(axes, rate, y, model)
            y += 26
        axes.set_xlim(left, 1 + (1 - left) * 0.015)
        axes.set_ylim(y - 10, -14)
        axes.set_yticks([])
        step = next(s for s in (0.02, 0.05, 0.1, 0.2) if (1 - left) / s <= 6)
        ticks = [1 - step * i for i in range(int((1 - left) / step + 1e-9) + 1)][::-1]
        axes.set_xticks(ticks, [f"{t:.0%}".replace("%", " %") for t in ticks])
        axes.grid(axis="x", color=_LINE, linewidth=1)
        axes.spines[["left", "right", "top", "bottom"]].set_visible(False)
        return _inline(figure, "kept", label)


def _whisker(axes: Axes, rate: Rate, y: float, model: str) -> None:
    colour = _SERIES[model]
    axes.plot([rate.low, rate.high], [y, y], color=colour, linewidth=2, alpha=0.5, solid_capstyle="round", zorder=2)
    axes.plot([rate.rate], [y], marker=MARKERS[model], color=colour, markersize=7, markeredgewidth=0, zorder=3)


def training_chart(lines: Sequence[Line], name: str, label: str) -> Markup:
    """Curves over optimizer steps, in nats per token; on a logarithmic scale if they span more than a factor of 8.

    Args:
        lines: the curves.
        name: part of the chart's ids, unique on the page.
        label: text of the chart for screen readers.
    """
    with _drawing(250) as (figure, axes):
        values = [y for line in lines for y in line.y if y > 0]
        if values and max(values) / min(values) > 8:
            axes.set_yscale("log")
            _plain_ticks(axes, min(values), max(values))
        for line in lines:
            x, y = _thin(line.x, line.y)
            mark: dict[str, Any] = {"linewidth": 1.6, "solid_capstyle": "round"}
            if line.dotted:
                mark = {"linewidth": 1.2, "linestyle": (0, (1, 2)), "marker": MARKERS[line.model], "markersize": 5}
            axes.plot(x, y, color=_SERIES[line.model], markeredgewidth=0, **mark)
        axes.grid(axis="y", color=_LINE, linewidth=1)
        axes.set_xlabel("optimizer step", color=_MUTED, fontsize=12)
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.spines["bottom"].set_color(_LINE)
        return _inline(figure, name, label)


def cost_chart(once: float, on_device: float, by_api: float, break_even: float | None, label: str) -> Markup:
    """Total cost over answers, device and endpoint, up to twice the break-even point or a million answers.

    Args:
        once: amount spent for the device before the first answer.
        on_device: cost of one answer.
        by_api: cost of one answer.
        break_even: number of answers at which both have cost the same; None: never.
        label: text of the chart for screen readers.
    """
    with _drawing(230) as (figure, axes):
        most = 2 * break_even if break_even else 1e6
        ends = {"teacher": (0.0, by_api * most), "gguf": (once, once + on_device * most)}
        for model, (first, last) in ends.items():
            marks: dict[str, Any] = {"marker": MARKERS[model], "markevery": [1], "markersize": 7, "markeredgewidth": 0}
            axes.plot([0, most], [first, last], color=_SERIES[model], linewidth=2, clip_on=False, **marks)
        if break_even:
            cost = by_api * break_even
            axes.plot([break_even, break_even], [0, cost], color=_MUTED, linewidth=1.2, linestyle=(0, (1, 2)))
        axes.set_xlim(0, most)
        axes.set_ylim(0, 1.05 * max(max(pair) for pair in ends.values()))
        ticks = [0, most / 2, most]
        axes.set_xticks(ticks, [format_large(tick, short=True) for tick in ticks])
        axes.grid(axis="y", color=_LINE, linewidth=1)
        axes.tick_params(axis="x", pad=7)
        axes.set_xlabel("answers", color=_MUTED, fontsize=12)
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.spines["bottom"].set_color(_LINE)
        return _inline(figure, "cost", label)


def _plain_ticks(axes: Axes, low: float, high: float) -> None:
    """Round numbers of each decade, without exponents."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [m * 10.0**d for d in decades for m in steps if low * 0.9 <= m * 10.0**d <= high * 1.1]
        if len(ticks) <= _TICKS:
            break
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()


def _thin(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Means of neighbouring points, at most `_POINTS` of them."""
    stride = max(1, math.ceil(len(x) / _POINTS))
    cuts = range(0, len(x), stride)
    means = [sum(y[i : i + stride]) / len(y[i : i + stride]) for i in cuts]
    return [sum(x[i : i + stride]) / len(x[i : i + stride]) for i in cuts], means


@contextmanager
def _drawing(height: int) -> Iterator[tuple[Figure, Axes]]:
    """A figure of `_WIDTH` by `height` CSS pixels, independent of the user's matplotlib settings."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    dpi = 72  # one point is one pixel
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "potstill", "font.size": 12, "figure.dpi": dpi}
    with mpl.rc_context(mpl.rcParamsDefault), mpl.rc_context(settings):
        figure = Figure(figsize=(_WIDTH / dpi, height / dpi), layout="constrained")
        axes = figure.add_subplot()
        axes.set_facecolor("none")
        axes.tick_params(length=0, labelsize=12, labelcolor=_MUTED)
        yield figure, axes


def _inline(figure: Figure, name: str, label: str) -> Markup:
    """The figure as an element of the page."""
    out = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=metadata)
    svg = out.getvalue()
    body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"\s*<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    used = set(re.findall(r"[\"(]#([\w-]+)[\")]", body))
    body = re.sub(r' id="([^"]+)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", body)
    body = re.sub(r"([\"(])#([\w-]+)([\")])", lambda m: f"{m[1]}#{name}-{m[2]}{m[3]}" if m[2] in used else m[0], body)
    body = re.sub(r"font: ([^;\"]*?)(\d[\d.]*px) [^;\"]*", r"font: \1\2 var(--sans)", body)
    body = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var(--{variable})")
    width, height = (round(72 * inches) for inches in figure.get_size_inches())
    head = f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
    body = re.sub(r' transform="rotate\(-?0 [^"]*"', "", " ".join(body.split())).replace("> <", "><")
    return Markup(head + body.strip() + "</svg>")
