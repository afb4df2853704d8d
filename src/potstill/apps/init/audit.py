"""What a log of requests holds: its tasks, what a program can check, what a student could take, and what it costs."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from potstill.apps.init.guess import guess_answers
from potstill.apps.init.sources.found import Request
from potstill.components.filters.near_duplicates import duplicate_groups
from potstill.components.sizing.prices import ListedPrice, listed_price
from potstill.core.recipe.terms import TokenPrice
from potstill.core.records import Row
from potstill.core.words import printable

__all__ = ["Audit", "LogCost", "LoggedTask", "audit_log"]

_ALIKE = 0.5  # resemblance of the prompts of one task: they share a template, and differ in what is filled in
_FEWEST, _SHARE = 5, 0.01  # requests of a task; rarer ones are no task
_LONGEST = 8192  # tokens of a prompt that a small student reads well
_BYTES_PER_TOKEN = 4.0  # of English, where the log has no counts
_DAY = 86_400


@dataclass(frozen=True)
class LoggedTask:
    """Requests with one system message, or one template.

    name        how its prompts begin
    requests    number of its requests
    kinds       number of requests by what the answer is
    checkable   requests with an answer that a program can check: calls, JSON, labels, numbers, short answers
    takeable    checkable requests whose prompt a small student can read: up to 8,192 tokens
    """

    name: str
    requests: int
    kinds: Mapping[str, int]
    checkable: int
    takeable: int


@dataclass(frozen=True)
class LogCost:
    """What the requests cost, in the currency of the prices.

    total        of the requests whose model has a known price
    takeable     of those among them that a student could take
    priced       number of requests whose model has a known price
    estimated    number of these whose tokens are not in the log, and are estimated from the length of the texts
    per_month    `total` for 30 days; None where the log covers less than a day or has no times
    sources      where the prices were read
    """

    total: float
    takeable: float
    priced: int
    estimated: int
    per_month: float | None
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Audit:
    """What a log holds.

    requests    number of requests that could be read
    distinct    number of distinct prompts
    left_out    number of entries that could not be read
    models      number of requests by model
    days        time from the first request to the last; None where the log has no times
    tasks       most frequent first
    others      requests that belong to no task
    cost        None where no price is known
    """

    requests: int
    distinct: int
    left_out: int
    models: Mapping[str, int]
    days: float | None
    tasks: tuple[LoggedTask, ...]
    others: int
    cost: LogCost | None

    @property
    def checkable(self) -> int:
        """Requests of the tasks with an answer that a program can check."""
        return sum(task.checkable for task in self.tasks)

    @property
    def takeable(self) -> int:
        """Requests that a student could take, at most."""
        return sum(task.takeable for task in self.tasks)


def audit_log(requests: Sequence[Request], left_out: int, price: TokenPrice | None = None) -> Audit:
    """Group the requests of a log into tasks, and count.

    Args:
        requests: what was read.
        left_out: number of entries that could not be read.
        price: of 10^6 tokens of prompt and of answer, for every model; None: the built-in list.
    """
    groups: dict[int, list[int]] = defaultdict(list)
    for number, group in enumerate(duplicate_groups([_template(each.row) for each in requests], _ALIKE)):
        groups[group].append(number)
    fewest = max(_FEWEST, _SHARE * len(requests))
    tasks, takeable = [], set[int]()
    for members in sorted(groups.values(), key=len, reverse=True):
        if len(members) >= fewest:
            task, taken = _task([requests[number] for number in members])
            tasks.append(task)
            takeable |= {members[place] for place in taken}
    times = [each.time for each in requests if each.time is not None]
    days = (max(times) - min(times)) / _DAY if times else None
    return Audit(
        requests=len(requests),
        distinct=len({each.row.row_id for each in requests}),
        left_out=left_out,
        models=dict(Counter(each.model or "unknown" for each in requests).most_common()),
        days=days,
        tasks=tuple(tasks),
        others=len(requests) - sum(task.requests for task in tasks),
        cost=_cost(requests, takeable, days, price),
    )


def _template(row: Row) -> str:
    """The text that requests of one task share: the system message, or else the first message; numbers do not count."""
    first = next((m for m in row.messages if m.role in ("system", "developer")), row.messages[0])
    return re.sub(r"\d+", "0", first.content or "")


def _task(requests: Sequence[Request]) -> tuple[LoggedTask, list[int]]:
    """The task of some requests, and the places of those that a student could take."""
    found = guess_answers([each.row for each in requests], right=False)
    checkable = [place for place, kind in enumerate(found.kinds) if kind not in ("free text", "no answer")]
    takeable = [place for place in checkable if _prompt_tokens(requests[place]) <= _LONGEST]
    name = printable(_template(requests[0].row), 60)
    return LoggedTask(name, len(requests), dict(found.counts), len(checkable), len(takeable)), takeable


def _prompt_tokens(request: Request) -> float:
    text = request.row.model_dump_json(include={"messages", "tools"}, exclude_defaults=True)
    return request.prompt_tokens if request.prompt_tokens is not None else len(text.encode()) / _BYTES_PER_TOKEN


def _answer_tokens(request: Request) -> float:
    said = request.row.completion
    text = said.model_dump_json(exclude_defaults=True) if said else ""
    return request.completion_tokens if request.completion_tokens is not None else len(text.encode()) / _BYTES_PER_TOKEN


def _cost(
    requests: Sequence[Request], takeable: set[int], days: float | None, price: TokenPrice | None
) -> LogCost | None:
    own = ListedPrice(price.input, price.output, "the given price") if price else None
    total = taken = 0.0
    priced = estimated = 0
    sources: set[str] = set()
    for number, request in enumerate(requests):
        found = own or (listed_price(request.model) if request.model else None)
        if found is None:
            continue
        cost = found.of(_prompt_tokens(request), _answer_tokens(request))
        total += cost
        taken += cost if number in takeable else 0.0
        priced += 1
        estimated += request.prompt_tokens is None or request.completion_tokens is None
        sources.add(found.label)
    if not priced:
        return None
    per_month = total / days * 30 if days is not None and days >= 1 else None
    return LogCost(total, taken, priced, estimated, per_month, tuple(sorted(sources)))
