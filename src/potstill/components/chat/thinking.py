"""Thinking in a model's text: where it begins and ends, and what is left as the answer."""

from __future__ import annotations

import re

__all__ = ["without_thinking"]

_TAGS = (
    ("<think>", "</think>"),  # Qwen, DeepSeek, and most others
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("<mm:think>", "</mm:think>"),
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|channel>thought", "<channel|>"),  # Gemma
)
# gpt-oss writes one channel after another: analysis is thinking, final is the answer
_ANALYSIS = re.compile(
    r"<\|channel\|>analysis(?! to=)[^<]{0,40}<\|message\|>.*?(?:<\|end\|>|(?=<\|start\|>))", re.DOTALL
)
_OPEN_ANALYSIS = re.compile(r"<\|channel\|>analysis(?! to=)[^<]{0,40}<\|message\|>")
_FINAL = re.compile(r"(?:<\|start\|>assistant)?<\|channel\|>final(?:<\|message\|>)?|<\|return\|>$")

_QUOTED_BEFORE = re.compile(r"[`'\"\u2018\u201c(]$|\w[ ]$")
_QUOTED_AFTER = re.compile(r"[`'\")\u2019\u201d,.]|[ ](?!\s*[<\[{])\w")
_LONGEST_LINE = 2000  # characters before a tag that are looked at
_IN_JSON = re.compile(r"[{:,\[]\s*\"")


def without_thinking(text: str) -> tuple[str, bool]:
    """The text without its thinking, and whether it ends before the thinking does, so that there is no answer.

    A closing tag without an opening one ends thinking that the prompt has opened. A tag that a sentence
    only mentions, or that is inside a JSON string, does not count.
    """
    rest = _FINAL.sub("", _ANALYSIS.sub("", text)) if "<|channel|>" in text else text
    if _OPEN_ANALYSIS.search(rest):
        return "", True
    for opening, closing in _TAGS:
        if opening in rest or closing in rest:
            rest, unclosed = _without(rest, opening, closing)
            if unclosed:
                return "", True
    return rest, False


def _without(text: str, opening: str, closing: str) -> tuple[str, bool]:
    kept, at = "", 0
    while (end := _find_tag(text, closing, at)) >= 0:
        start = _find_tag(text, opening, at, before=end)
        kept = kept + text[at:start] if start >= 0 else ""
        at = end + len(closing)
    start = _find_tag(text, opening, at)
    return kept + text[at:], start >= 0


def _find_tag(text: str, tag: str, at: int, before: int | None = None) -> int:
    """The first place of a tag that is not merely mentioned; -1 where there is none."""
    found = text.find(tag, at, before)
    while found >= 0 and _is_spoken_of(text, found, found + len(tag)):
        found = text.find(tag, found + 1, before)
    return found


def _is_spoken_of(text: str, start: int, end: int) -> bool:
    line = text[max(text.rfind("\n", 0, start) + 1, start - _LONGEST_LINE) : start]
    if line.replace('\\"', "").count('"') % 2 and _IN_JSON.search(line):
        return True
    closes = text.startswith(("</", "[/", "<|END", "<|end"), start)
    before, after = _QUOTED_BEFORE.search(line), _QUOTED_AFTER.match(text, end)
    if closes:  # "reasoning </think> answer" ends thinking; "write `</think>`" does not
        return before is not None and line[-1] in "`'\"\u2018\u201c("
    return before is not None and after is not None
