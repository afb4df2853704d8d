"""The page's top: the verdict in a word and a sentence, its gates, and the main numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from potstill.core.artifacts.verdict import GateResult, Verdict
from potstill.core.format import format_number, format_size
from potstill.stages.report.facts import Facts
from potstill.stages.report.text import BEHAVIOURS, interval, percent, unbroken, value

__all__ = ["Figure", "GateRow", "VerdictSection", "verdict_section", "verdict_with"]

_TONES = {"PASS": "pass", "FAIL": "fail", "INCONCLUSIVE": "open"}
_WORDS = {"PASS": "Passes", "FAIL": "Fails", "INCONCLUSIVE": "Inconclusive"}
_BADGES = {"PASS": "Pass", "FAIL": "Fail", "INCONCLUSIVE": "Inconclusive"}
_BEHAVIOUR_KEY = "gates.behaviours."


@dataclass(frozen=True)
class GateRow:
    """A gate as a row of the table."""

    name: str
    tone: str
    verdict: str
    value: str
    interval: str
    threshold: str
    detail: str


@dataclass(frozen=True)
class Figure:
    """A number below the verdict."""

    value: str
    name: str


@dataclass(frozen=True)
class VerdictSection:
    """The verdict; `tone` is the name of its colour and symbol."""

    tone: str
    word: str
    headline: str
    gates: Sequence[GateRow]
    figures: Sequence[Figure]


def verdict_section(facts: Facts) -> VerdictSection:
    """The verdict on a language model, gate by gate."""
    return verdict_with(facts.verdict, _figures(facts))


def verdict_with(verdict: Verdict, figures: Sequence[Figure]) -> VerdictSection:
    """A verdict, gate by gate, with the main numbers."""
    return VerdictSection(
        tone=_TONES[verdict.verdict],
        word=_WORDS[verdict.verdict],
        headline=_headline(verdict.gates),
        gates=[_row(gate) for gate in verdict.gates],
        figures=figures,
    )


def _row(gate: GateResult) -> GateRow:
    return GateRow(
        name=_name(gate),
        tone=_TONES[gate.verdict],
        verdict=_BADGES[gate.verdict],
        value=value(gate.value, gate.unit),
        interval=interval(gate.low, gate.high, gate.unit),
        threshold=value(gate.threshold, gate.unit),
        detail=unbroken(gate.detail),
    )


def _name(gate: GateResult) -> str:
    behaviour = gate.key.removeprefix(_BEHAVIOUR_KEY)
    return f"exact match: {BEHAVIOURS[behaviour].lower()}" if behaviour in BEHAVIOURS else gate.name


def _headline(gates: Sequence[GateResult]) -> str:
    """How many gates pass, and which do not."""
    if not gates:
        return "The recipe sets no gates, so nothing was judged. The numbers are below."
    names = {word: [_name(gate) for gate in gates if gate.verdict == word] for word in _WORDS}
    passed, failed, undecided = (names[word] for word in ("PASS", "FAIL", "INCONCLUSIVE"))
    if len(passed) == len(gates):
        return f"{'The only gate passes' if len(gates) == 1 else f'All {len(gates)} gates pass'} for the shipped file."
    parts = []
    if failed:
        parts.append(f"{len(failed)} {'gate fails' if len(failed) == 1 else 'gates fail'}: {_listed(failed)}.")
    if undecided:
        count = f"{len(undecided)} {'gate' if len(undecided) == 1 else 'gates'}"
        parts.append(f"{count} {'is' if len(undecided) == 1 else 'are'} not decided: {_listed(undecided)}.")
    return " ".join([*parts, f"{len(passed)} of {len(gates)} pass."])


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _figures(facts: Facts) -> list[Figure]:
    """The few main numbers."""
    metrics = facts.metrics
    shipped, run = metrics.models.gguf, facts.speed
    pair, out = metrics.paired.gguf_vs_teacher, list[Figure]()
    if pair and pair.kept:
        counts = f"{pair.kept.k:,} of {pair.kept.n:,}; {pair.broken:,} lost, {pair.fixed:,} gained"
        out.append(Figure(percent(pair.kept.rate), f"of the teacher's right answers kept ({counts})"))
    elif shipped.fidelity:
        out.append(Figure(f"{format_number(shipped.fidelity.kl_mean)} nats", "mean KL from the teacher"))
    if shipped.bytes:
        same = facts.metrics.models.teacher_as_shipped
        of_teacher = f", {percent(shipped.bytes / same)} of the teacher as {shipped.format}" if same else ""
        out.append(Figure(format_size(shipped.bytes), f"file{of_teacher}"))
    out.append(Figure(f"{format_number(run.peak_rss_mb)} MB", "peak memory"))
    out.append(Figure(f"{format_number(run.ttft_ms.median)} ms", "to the first token"))
    out.append(Figure(format_number(run.decode_tokens_per_s.median), "tokens per second"))
    return out
