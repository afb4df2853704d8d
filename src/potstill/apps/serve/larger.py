"""The larger model that withheld answers are passed on to, at any OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from potstill.apps.serve.attempt import find_problem
from potstill.apps.serve.requests import ChatRequest
from potstill.apps.serve.settings import Larger
from potstill.components.chat.tool_calls import ParsedAnswer
from potstill.components.checkers.calls import calls_match
from potstill.components.checkers.normalise import normalised
from potstill.components.runtimes.chat_reply import ChatCompletion
from potstill.core.records import GoldCall

if TYPE_CHECKING:
    from openai import AsyncOpenAI

__all__ = ["LargerModel", "Unreachable", "agree"]


class Unreachable(Exception):
    """The larger model does not answer, or its answer does not fit the request."""


class LargerModel:
    """A model at an endpoint, which must answer within some seconds."""

    def __init__(self, larger: Larger, seconds: float) -> None:
        from openai import AsyncOpenAI

        self.model = larger.model
        self._client: AsyncOpenAI = AsyncOpenAI(base_url=larger.url, api_key=larger.key, timeout=seconds, max_retries=1)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    async def ask(self, request: ChatRequest, max_tokens: int) -> tuple[dict[str, Any], ParsedAnswer]:
        """The larger model's reply to a request, and the reply as it was read.

        Raises:
            Unreachable: it does not answer, or its calls or its JSON text do not fit the request.
        """
        from openai import OpenAIError

        body = request.for_endpoint(max_tokens) | {"model": self.model}
        try:
            reply = (await self._client.chat.completions.create(**body)).model_dump(mode="json", exclude_none=True)
            parsed = ChatCompletion.model_validate(reply).parsed
        except (OpenAIError, ValueError):  # pydantic's errors are ValueErrors
            raise Unreachable from None
        if find_problem(request, parsed) is not None:
            raise Unreachable
        return reply, parsed


def agree(first: ParsedAnswer, second: ParsedAnswer) -> bool:
    """Whether two answers are the same: equal calls in any order, or equal words but for case and spacing."""
    if first.calls or second.calls:
        return calls_match(first.calls, _exactly(second))
    words: Sequence[Any] = [normalised(each.content, ("case", "spaces")) for each in (first, second)]
    return bool(words[0] == words[1])


def _exactly(answer: ParsedAnswer) -> list[GoldCall]:
    return [
        GoldCall(name=call.name, arguments={key: [value] for key, value in call.arguments.items()})
        for call in answer.calls
    ]
