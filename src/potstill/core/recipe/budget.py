"""The recipe's section on what an endpoint's answers may cost."""

from __future__ import annotations

from typing import Annotated

from potstill.core.recipe.fields import COSMETIC, Count, Positive, Section

__all__ = ["Budget"]


class Budget(Section):
    """Limits on what a run asks of an endpoint, over all of its calls; it stops before it would pass one of them."""

    requests: Annotated[Count | None, COSMETIC] = None
    """Maximum number of requests, where retries after a fault are not counted; default: no limit."""
    tokens: Annotated[Count | None, COSMETIC] = None
    """Maximum number of tokens of prompts and answers together; default: no limit."""
    money: Annotated[Positive | None, COSMETIC] = None
    """Maximum cost, in the currency of the prices; default: no limit."""
    minutes: Annotated[Positive | None, COSMETIC] = None
    """Time for which one stage may send requests in one call of `potstill run`, in minutes; default: no limit."""

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        return any(value is not None for value in (self.requests, self.tokens, self.money, self.minutes))
