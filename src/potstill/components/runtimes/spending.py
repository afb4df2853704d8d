"""What a run spends on an endpoint's answers, and the hard stop before it passes a limit of its budget.

Each request reserves what it may take at most before it is sent, and what it took is counted when its answer arrives.
So requests in flight cannot pass a limit together. The length of a prompt is an estimate: 4 bytes per token.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from potstill.components.runtimes.journal import Spent, Usage
from potstill.core.errors import BudgetError, UsageError
from potstill.core.format import format_count, format_price
from potstill.core.recipe.budget import Budget
from potstill.core.recipe.fields import COSMETIC, Section
from potstill.core.recipe.terms import TokenPrice

__all__ = ["Account", "Billing", "Spending", "estimate"]

_BYTES_PER_TOKEN = 4


class Billing(Section):
    """What an endpoint charges, and what a run may spend. None of it changes an answer."""

    budget: Annotated[Budget, COSMETIC] = Budget()
    price: Annotated[TokenPrice | None, COSMETIC] = None
    """Price of 10^6 tokens; None where it is not known."""
    source: Annotated[str, COSMETIC] = ""
    """Where the price is from."""


def estimate(request: Mapping[str, Any], max_new_tokens: int) -> Usage:
    """The tokens that a request may take: about so many of its prompt, and at most so many of its answer."""
    prompt = json.dumps([request.get("messages"), request.get("tools")], ensure_ascii=False)
    return Usage(-(-len(prompt.encode("utf-8", "replace")) // _BYTES_PER_TOKEN), max_new_tokens)


class Spending:
    """What a run has spent at all of its endpoints.

    Args:
        budget: the limits.
        clock: seconds, for `budget.minutes`.
    """

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self.requests, self.tokens, self.money = 0, 0, 0.0
        self._clock = clock
        self._begun: float | None = None

    def add(self, requests: int, tokens: int, money: float) -> None:
        """Count what is spent, or, where it is negative, what was reserved and not needed."""
        self.requests += requests
        self.tokens += tokens
        self.money += money

    def passed(self, requests: int, tokens: int, money: float) -> str | None:
        """The first limit that so much more would pass, in words; None where there is room."""
        budget = self.budget
        if budget.requests is not None and self.requests + requests > budget.requests:
            return (
                f"budget.requests: {budget.requests:,}, of which {self.requests:,} are spent, leaves no room for "
                f"{format_count(requests, 'more request')}"
            )
        if budget.tokens is not None and self.tokens + tokens > budget.tokens:
            return (
                f"budget.tokens: {budget.tokens:,}, of which {self.tokens:,} are spent, leaves no room for "
                f"{format_count(requests, 'request')} of up to {format_count(tokens, 'token')}"
            )
        if budget.money is not None and self.money + money > budget.money:
            return (
                f"budget.money: {format_price(budget.money)}, of which {format_price(self.money)} is spent, leaves no "
                f"room for {format_count(requests, 'request')} of up to {format_price(money)}"
            )
        return None

    def start_clock(self) -> None:
        """Begin to count minutes."""
        if self._begun is None:
            self._begun = self._clock()

    @property
    def is_late(self) -> bool:
        """Whether the minutes are over."""
        minutes = self.budget.minutes
        return minutes is not None and self._begun is not None and self._clock() - self._begun >= 60 * minutes


class Account:
    """One endpoint's part of a run's spending.

    Args:
        spending: of the whole run.
        price: of this endpoint's tokens; None where it is not known.
        source: where the price is from.
        at_once: number of requests that are sent together at first.
    """

    def __init__(self, spending: Spending, price: TokenPrice | None, source: str, at_once: int) -> None:
        self.spending, self.source, self.at_once = spending, source, at_once
        self._price = price
        self._opened = False

    @classmethod
    def of(cls, billing: Billing, at_once: int) -> Account:
        """The account of a run's only endpoint."""
        return cls(Spending(billing.budget), billing.price, billing.source, at_once)

    def cost(self, usage: Usage) -> float:
        """Price of so many tokens; 0 where it is not known."""
        price = self._price
        return (usage.prompt * price.input + usage.completion * price.output) / 1e6 if price else 0.0

    def open(self, spent: Spent) -> None:
        """Count what earlier calls of the run have spent at this endpoint, once."""
        if not self._opened:
            self.spending.add(spent.requests, sum(spent.usage), self.cost(spent.usage))
            self._opened = True

    def describe(self, estimates: Sequence[Usage]) -> str:
        """What requests may take, in words."""
        usage = _sum(estimates)
        text = f"about {format_count(usage.prompt, 'token')} of prompts and at most {usage.completion:,} of answers"
        if self._price is None:
            return text
        return f"{text}, at most {format_price(self.cost(usage))} ({self.source})"

    def require_first(self, estimates: Sequence[Usage]) -> None:
        """Check that the budget has room for the requests that are sent first.

        Raises:
            UsageError: it has not.
        """
        usage = _sum(first := estimates[: self.at_once])
        if problem := self.spending.passed(len(first), sum(usage), self.cost(usage)):
            raise UsageError(
                f"{problem}, which are sent first. Nothing was sent. Raise this limit, or lower "
                "generate.max_new_tokens or teacher.max_concurrency, then run again; answers so far are kept."
            )

    def reserve(self, usage: Usage) -> None:
        """Reserve what one request may take.

        Raises:
            BudgetError: a limit leaves no room for it, or the minutes are over.
        """
        self.spending.start_clock()
        if self.spending.is_late:
            raise BudgetError(
                f"budget.minutes: {self.spending.budget.minutes:g} minutes are over. All answers so far are kept: run "
                "again, with this limit or a higher one, and only the others are asked for."
            )
        if problem := self.spending.passed(1, sum(usage), self.cost(usage)):
            raise BudgetError(
                f"{problem}. All answers so far are kept: raise this limit, then run again, and only the others are "
                "asked for."
            )
        self.spending.add(1, sum(usage), self.cost(usage))

    def settle(self, reserved: Usage, used: Usage) -> None:
        """Count what a request took, in place of what it reserved."""
        self.spending.add(0, sum(used) - sum(reserved), self.cost(used) - self.cost(reserved))


def _sum(usages: Sequence[Usage]) -> Usage:
    return Usage(sum(usage.prompt for usage in usages), sum(usage.completion for usage in usages))
