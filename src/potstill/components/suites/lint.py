"""What is doubtful about a suite, before anything is frozen or measured."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.suites.checks import check_answer, check_expected
from potstill.components.suites.folder import Suite
from potstill.components.suites.items import Item
from potstill.core.errors import DataError
from potstill.core.format import format_count
from potstill.core.hashing import fingerprint
from potstill.core.messages import Call
from potstill.core.stats import items_if_all_better, items_if_unchanged

__all__ = ["LintFinding", "lint"]


@dataclass(frozen=True)
class LintFinding:
    """A doubt about a suite: an `error` makes an item useless, a `warning` is for a person to decide."""

    level: Literal["error", "warning"]
    what: str


def lint(suite: Suite, *, alpha: float = 0.05, margin: float = 0.05) -> list[LintFinding]:
    """Everything that is doubtful about a suite, errors first.

    Args:
        suite: the suite.
        alpha: level of the gates that the suite is for.
        margin: drop that these gates must be able to exclude, as a share.
    """
    found = [*_items(suite), *_contradictions(suite.items), *_tags(suite.items, alpha, margin)]
    return sorted(found, key=lambda each: each.level != "error")


def _items(suite: Suite) -> Iterator[LintFinding]:
    for item in suite.items:
        name = item.name
        try:
            check_expected([item])
        except DataError as error:
            yield LintFinding("error", str(error))
            continue
        if not item.prompt.strip():
            yield LintFinding("warning", f"{name}: there is no message of the user.")
        if (right := _own_answer(item)) and not check_answer(item, right).right:
            yield LintFinding("error", f"{name}: its own right answer is judged wrong. Check what it expects.")
        if _is_given_away(item):
            yield LintFinding("warning", f"{name}: an answer that repeats the prompt is judged right.")
        if not item.tags:
            yield LintFinding("warning", f"{name}: it has no tag, so it counts in no behaviour.")


def _own_answer(item: Item) -> ParsedAnswer | None:
    """The answer that the item itself calls right, where it says one."""
    expected = item.expected
    match expected.kind:
        case "exact":
            return ParsedAnswer((), expected.text)
        case "one_of":
            return ParsedAnswer((), expected.texts[0])
        case "numeric":
            return ParsedAnswer((), f"#### {expected.value}")
        case "contains_all":
            return ParsedAnswer((), "\n".join(expected.texts))
        case "calls" if expected.calls:
            made = [Call(name=c.name, arguments={k: v[0] for k, v in c.arguments.items()}) for c in expected.calls]
            return ParsedAnswer(tuple(made), "")
    return None


def _is_given_away(item: Item) -> bool:
    """Whether the prompt itself, as an answer, is judged right."""
    words = item.expected.kind in ("exact", "one_of", "regex", "numeric", "contains_all")
    return words and check_answer(item, ParsedAnswer((), item.prompt)).right


def _contradictions(items: Sequence[Item]) -> Iterator[LintFinding]:
    """The same question with different right answers; a group says that both are meant."""
    asked: defaultdict[str, list[Item]] = defaultdict(list)
    for item in items:
        messages = [message.without_ids().for_template() for message in item.messages]
        asked[fingerprint({"messages": messages, "tools": item.tools})].append(item)
    for same in asked.values():
        groups = {item.group for item in same}
        if len(same) > 1 and (None in groups or len(groups) > 1):
            ids = ", ".join(item.item_id for item in same)
            yield LintFinding(
                "warning", f"items {ids} ({same[0].shown_prompt}) ask the same and expect different answers."
            )


def _tags(items: Sequence[Item], alpha: float, margin: float) -> Iterator[LintFinding]:
    counts = Counter(tag for item in items for tag in item.tags)
    fewest, enough = items_if_all_better(alpha), items_if_unchanged(margin, alpha)
    for tag, count in sorted(counts.items()):
        if count < fewest:
            problem = f"a gate can never fail it, because that takes {format_count(fewest, 'item')} that break"
        elif enough and count < enough:
            problem = (
                f"a gate can never pass it, because {format_count(enough, 'item')} without a change are needed to "
                f"exclude a drop of {100 * margin:g} points"
            )
        else:
            continue
        yield LintFinding("warning", f"tag {tag!r} has {format_count(count, 'item')}: {problem}.")
