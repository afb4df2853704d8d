"""What the page says of a run: verdict, what was kept, whether distillation paid, size and speed. Facts in, words
out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from potstill.core.format import format_p_value, format_points
from potstill.core.stats import mcnemar_exact, paired_drop_interval
from potstill.stages.report.charts import Rate, kept_chart
from potstill.stages.report.facts import Facts
from potstill.stages.report.words import (
    BEHAVIOURS,
    MODELS,
    count,
    interval,
    mark_differences,
    number,
    percent,
    quantity,
    rate,
    shorten,
    size,
    unbroken,
)

__all__ = ["tell_distillation", "tell_fidelity", "tell_kept", "tell_regressions", "tell_size", "tell_verdict"]

_PROMPT = 400  # characters of a prompt that are shown
_TONES = {"PASS": "pass", "FAIL": "fail", "INCONCLUSIVE": "open"}
_WORDS = {"PASS": "Passes", "FAIL": "Fails", "INCONCLUSIVE": "Inconclusive"}
_APART, _MEET = " Their 95\N{NO-BREAK SPACE}% intervals do not meet.", " Their 95\N{NO-BREAK SPACE}% intervals meet."
_BADGES = {"PASS": "Pass", "FAIL": "Fail", "INCONCLUSIVE": "Inconclusive"}
_GATES = {"kl_mean": "KL from the teacher", "top1_agreement": "top-1 agreement", "exact": "exact match"}


# ---- verdict ----


def _gate_name(name: str) -> str:
    behaviour = name.removeprefix("exact ")
    return _GATES.get(name) or (f"exact match: {BEHAVIOURS[behaviour].lower()}" if behaviour in BEHAVIOURS else name)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _counted(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _headline(gates: list[dict[str, Any]]) -> str:
    """One sentence or two: how many gates hold, and which do not."""
    if not gates:
        return "The recipe sets no gates, so nothing was judged. The numbers are below."
    by_verdict = {v: [_gate_name(g["name"]) for g in gates if g["verdict"] == v] for v in _WORDS}
    held, failed, undecided = (by_verdict[v] for v in ("PASS", "FAIL", "INCONCLUSIVE"))
    if len(held) == len(gates):
        return f"{'The one gate holds' if len(gates) == 1 else f'All {len(gates)} gates hold'} for the shipped file."
    parts = []
    if failed:
        parts.append(f"{_counted(len(failed), 'gate fails', 'gates fail')}: {_listed(failed)}.")
    if undecided:
        items = "cannot be decided with these test items"
        parts.append(f"{_counted(len(undecided), 'gate', 'gates')} {items}: {_listed(undecided)}.")
    return " ".join([*parts, f"{len(held)} of {len(gates)} hold."])


def tell_verdict(facts: Facts) -> dict[str, Any]:
    """The verdict in a word, in a sentence, and gate by gate."""
    verdict, gates = facts.verdict["verdict"], facts.verdict["gates"]
    return {
        "tone": _TONES[verdict],
        "word": _WORDS[verdict],
        "headline": _headline(gates),
        "gates": [
            {
                "name": _gate_name(g["name"]),
                "tone": _TONES[g["verdict"]],
                "verdict": _BADGES[g["verdict"]],
                "value": quantity(g["value"], g["unit"]),
                "interval": interval(g["low"], g["high"], g["unit"]),
                "threshold": quantity(g["threshold"], g["unit"]),
                "detail": unbroken(g["detail"]),
            }
            for g in gates
        ],
        "figures": _figures(facts),
    }


def _figures(facts: Facts) -> list[dict[str, str]]:
    """The few numbers that stand beside the verdict."""
    models, run = facts.metrics["models"], facts.metrics["runtime"]
    teacher, shipped = models["teacher"] or {}, models["gguf"]
    out = []
    if shipped["exact"] and teacher.get("exact") and teacher["exact"]["k"]:
        kept = percent(shipped["exact"]["rate"] / teacher["exact"]["rate"])
        out.append({"value": kept, "name": "of the teacher's right answers kept"})
    elif shipped["fidelity"]:
        out.append({"value": f"{shipped['fidelity']['kl_mean']:.3g} nats", "name": "KL from the teacher, mean"})
    if shipped["bytes"]:
        against = f", {percent(shipped['bytes'] / teacher['bytes'])} of the teacher" if teacher.get("bytes") else ""
        out.append({"value": size(shipped["bytes"]), "name": f"file{against}"})
    out.append({"value": f"{run['peak_rss_mb']:.3g} MB", "name": "memory at the peak"})
    out.append({"value": f"{run['ttft_ms']['median']:.3g} ms", "name": "to the first token"})
    out.append({"value": number(run["decode_tokens_per_s"]["median"]), "name": "tokens a second"})
    return out


# ---- what was kept ----


def tell_kept(facts: Facts) -> dict[str, Any] | None:
    """Chart and table of exact matches by behaviour; None when the test rows have no right answers."""
    models = {name: facts.metrics["models"].get(name) for name in MODELS}
    present = {name: model for name, model in models.items() if model and model["exact"]}
    if "gguf" not in present:
        return None
    shipped = present["gguf"]
    names = [*shipped["behaviours"], *(["all"] if len(shipped["behaviours"]) != 1 else [])]
    rows, groups = [], {}
    for name in names:
        found = {m: v["exact"] if name == "all" else v["behaviours"].get(name) for m, v in present.items()}
        title = "All of them" if name == "all" else BEHAVIOURS.get(name, name)
        groups[f"{title} ({found['gguf']['n']})"] = {
            m: Rate(r["rate"], r["low"], r["high"]) for m, r in found.items() if r
        }
        rows.append({"name": title, "cells": [rate(found.get(m)) for m in present], "total": name == "all"})
    label = "Share of test items answered right. " + " ".join(
        f"{title}: " + ", ".join(f"{MODELS[m].lower()} {percent(r.rate)}" for m, r in group.items()) + "."
        for title, group in groups.items()
    )
    return {
        "models": [{"key": m, "name": MODELS[m]} for m in present],
        "rows": rows,
        "changes": _changes(present, names),
        "chart": kept_chart(groups, label),
        "against": [s for s in (_against(facts, "gguf_vs_teacher"), _against(facts, "gguf_vs_student")) if s],
    }


def _changes(present: dict[str, dict[str, Any]], names: list[str]) -> list[dict[str, Any]]:
    """Teacher and shipped file side by side, and the difference in points."""
    out = []
    for name in names:
        before, after = (
            (present[m]["exact"] if name == "all" else present[m]["behaviours"].get(name)) if m in present else None
            for m in ("teacher", "gguf")
        )
        assert after
        points = 100 * (after["rate"] - before["rate"]) if before else None
        out.append(
            {
                "name": "All of them" if name == "all" else BEHAVIOURS.get(name, name),
                "teacher": percent(before["rate"]) if before else None,
                "shipped": percent(after["rate"]),
                "change": None if points is None else _signed(points),
                "total": name == "all",
            }
        )
    return out


def _signed(points: float) -> str:
    return format_points(points / 100).replace("-", "\N{MINUS SIGN}")


def _against(facts: Facts, pair: str) -> str | None:
    found = facts.metrics["paired"].get(pair)
    if not found or not found["n"]:
        return None
    other = {"gguf_vs_teacher": "the teacher", "gguf_vs_student": "the checkpoint it was quantized from"}[pair]
    return f"Against {other}, on the same {found['n']:,} items: {found['broken']:,} lost, {found['fixed']:,} gained."


def tell_regressions(facts: Facts) -> list[dict[str, Any]]:
    """Items the teacher gets right and the shipped file does not, differences marked."""
    out = []
    for item in facts.metrics.get("regressions") or []:
        teacher, student = mark_differences(item["teacher"], item["student"])
        behaviour = BEHAVIOURS.get(item["behaviour"], item["behaviour"])
        shown = {"prompt": shorten(item["prompt"], _PROMPT), "expected": shorten(item["expected"])}
        out.append({**item, **shown, "behaviour": behaviour, "teacher": teacher, "student": student})
    return out


# ---- whether distillation paid ----


def tell_distillation(facts: Facts) -> dict[str, Any]:
    """The distilled student against its matched control, plainly; `bar` is None when no items tell them apart."""
    return {"bar": None, **_distillation(facts)}


def _distillation(facts: Facts) -> dict[str, Any]:
    control = facts.metrics["models"].get("control")
    if not control:
        why = (
            "This student learnt from the teacher's text alone, so it would be its own control."
            if facts.recipe.train.objective.name == "sft"
            else "The recipe asks for no control (train.control: none), so nobody can tell what distillation added."
        )
        return {"tone": "none", "word": "Not measured", "says": why}
    pair = facts.metrics["paired"].get("student_vs_control")
    if pair and pair["n"]:
        return _paid_by_items(pair, facts.recipe.gates.alpha)
    return _paid_by_fidelity(facts.metrics["models"]["student"], control)


def _p_value(p: float) -> str:
    return format_p_value(p)


def _paid_by_items(pair: dict[str, int], alpha: float) -> dict[str, Any]:
    lost, gained, n = pair["broken"], pair["fixed"], pair["n"]
    better, worse = mcnemar_exact(gained, lost), mcnemar_exact(lost, gained)
    bounds = paired_drop_interval(gained, lost, n)
    points = (
        f"a gain of {_signed(100 * (gained - lost) / n)} points (95 % interval {_signed(100 * bounds.low)} to "
        f"{_signed(100 * bounds.high)}; exact McNemar test, {_p_value(min(better, worse))})"
    )
    facts = (
        f"Same start, same rows, same steps, same seed. Of {n:,} test items the distilled student gets {gained} right "
        f"that the plainly fine-tuned one gets wrong, and {lost} wrong that it gets right: {points}."
    )
    word, tone, lead = "No difference shown", "open", "These items do not show that distillation added anything."
    if better < alpha:
        word, tone, lead = "It paid", "pass", "Learning from the teacher's distributions beat learning from its text."
    elif worse < alpha:
        word, tone, lead = "It did not pay", "fail", "Plain fine-tuning on the teacher's text did better."
    bar = {"gained": gained, "lost": lost} if gained + lost else None
    return {"tone": tone, "word": word, "says": unbroken(f"{lead} {facts}"), "bar": bar}


def _paid_by_fidelity(student: dict[str, Any], control: dict[str, Any]) -> dict[str, Any]:
    a, b = student["fidelity"], control["fidelity"]
    if not a or not b:
        says = "There is neither a right answer to count nor a distribution to compare."
        return {"tone": "none", "word": "Not measured", "says": says}
    says = (
        "There are no right answers to count. By nearness to the teacher, the distilled student is at "
        f"{a['kl_mean']:.3g} "
        "nats and the plainly fine-tuned one, from the same start, rows, steps and seed, at "
        f"{b['kl_mean']:.3g} (mean KL)."
    )
    apart = "kl_high" in a and "kl_high" in b
    if apart and a["kl_high"] < b["kl_low"]:
        return {"tone": "pass", "word": "It paid", "says": says + _APART}
    if apart and b["kl_high"] < a["kl_low"]:
        return {"tone": "fail", "word": "It did not pay", "says": says + _APART}
    return {"tone": "open", "word": "No difference shown", "says": says + (_MEET if apart else "")}


# ---- size, speed, fidelity ----


def tell_size(facts: Facts) -> dict[str, Any]:
    """Rows of measures: the shipped file, the teacher, the budget, and how much of the budget is used."""
    run, target, models = facts.metrics["runtime"], facts.recipe.target, facts.metrics["models"]
    teacher, shipped = models["teacher"] or {}, models["gguf"]
    ttft, speed = run["ttft_ms"], run["decode_tokens_per_s"]
    rows = [
        _measure("File", _told(shipped, "bytes", size), teacher=_times(teacher, shipped, "bytes", size)),
        _measure("Parameters", _told(shipped, "params", count), teacher=_times(teacher, shipped, "params", count)),
        _measure("Peak memory", f"{number(run['peak_rss_mb'])} MB"),
        _measure("Load", f"{run['load_s']:.2f} s"),
        _measure("Time to first token", f"{number(ttft['median'])} ms", _spread(ttft) + f"; p95 {number(ttft['p95'])}"),
        _measure("Decode speed", f"{number(speed['median'])} tokens/s", _spread(speed)),
    ]
    budgets = {
        0: (target.file_mb, (shipped["bytes"] or 0) / 1e6, "MB"),
        2: (target.memory_mb, run["peak_rss_mb"], "MB"),
        4: (target.ttft_ms, ttft["median"], "ms"),
    }
    for index, (limit, value, unit) in budgets.items():
        if limit is not None:
            share = value / limit
            rows[index] |= {
                "budget": f"at most {limit:g} {unit}",
                "share": share,
                "used": unbroken(f"{100 * share:.0f} % used"),
            }
    if target.decode_tokens_per_s is not None:
        times = speed["median"] / target.decode_tokens_per_s
        rows[5] |= {
            "budget": f"at least {target.decode_tokens_per_s:g} tokens/s",
            "share": 1 / times if times else 1.0,
            "used": f"{times:.3g} times that",
        }
    device = None if target.device == "unnamed" else target.device
    how = (
        f"Measured in llama.cpp in a process of its own: {run['threads']} threads, a context of "
        f"{run['context']:,} tokens, "
        f"{run['requests']} requests one after the other; medians, with the 95 % interval of the median. "
        "The teacher does "
        "not run there, so its memory and speed are not measured."
    )
    return {"rows": [r for r in rows if r["value"]], "how": unbroken(how), "device": device}


def _measure(name: str, value: str | None, spread: str | None = None, teacher: str | None = None) -> dict[str, Any]:
    row = {"name": name, "value": value, "spread": spread, "teacher": teacher}
    return row | {"budget": None, "share": None, "used": None}


def _spread(timed: dict[str, float]) -> str:
    return interval(timed["low"], timed["high"])


def _told(model: dict[str, Any], key: str, say: Callable[[float], str]) -> str | None:
    return say(model[key]) if model[key] else None


def _times(teacher: dict[str, Any], shipped: dict[str, Any], key: str, say: Callable[[float], str]) -> str | None:
    if not teacher.get(key) or not shipped[key]:
        return None
    return f"{say(teacher[key])} ({teacher[key] / shipped[key]:.3g} times as much)"


def tell_fidelity(facts: Facts) -> dict[str, Any] | None:
    """Rows of nearness to the teacher; None when it gives no distributions."""
    rows = []
    for name in ("gguf", "student", "control"):
        found = (facts.metrics["models"].get(name) or {}).get("fidelity")
        if found:
            least = "\N{GREATER-THAN OR EQUAL TO} " if found["lower_bound"] else ""
            rows.append(
                {
                    "key": name,
                    "name": MODELS[name],
                    "kl_mean": f"{least}{found['kl_mean']:.3g}",
                    "kl_interval": interval(found.get("kl_low"), found.get("kl_high")),
                    "kl_p99": f"{least}{found['kl_p99']:.3g}",
                    "top1": percent(found["top1_agreement"]),
                    "top1_interval": interval(found.get("top1_low"), found.get("top1_high"), "rate"),
                    "tokens": found["tokens"],
                    "bound": found["lower_bound"],
                }
            )
    if not rows:
        return None
    return {"rows": rows, "tokens": rows[0]["tokens"], "bound": any(r["bound"] for r in rows)}
