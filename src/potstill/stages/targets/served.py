"""The targets of an endpoint's answers, from the log-probabilities that came with them."""

from __future__ import annotations

from collections.abc import Sequence

from potstill.components.chat.format import ChatFormat, Example
from potstill.components.runtimes.log_probs import unpack_tokens
from potstill.components.targets import TargetsWriter, sequence_key
from potstill.components.targets.served import (
    ServedRow,
    ServedTokens,
    count_rows,
    require_distributions,
    require_same_tokens,
)
from potstill.core.artifacts.training import ServedRowCounts
from potstill.core.progress import progress_bar
from potstill.core.records import Row

__all__ = ["write_served_targets"]


def write_served_targets(
    rows: Sequence[Row],
    examples: Sequence[Example],
    logprobs: Sequence[str | None],
    chat: ChatFormat,
    writer: TargetsWriter,
    where: str,
) -> ServedRowCounts:
    """Add every row that the store does not hold yet; returns how many rows have distributions.

    Args:
        rows: the answered rows.
        examples: each row in the student's tokens.
        logprobs: the packed log-probabilities of each row's answer.
        chat: the student's chat format.
        writer: writes the store.
        where: the endpoint, for messages.

    Raises:
        StepError: more than half of the rows have no distributions; the message says why.
    """
    tokens = ServedTokens(chat)
    found: list[ServedRow] = []
    with progress_bar("store targets", len(rows)) as ticker:
        for row, example, packed in zip(rows, examples, logprobs, strict=True):
            served = tokens.targets(row, example, unpack_tokens(packed) if packed else None)
            key = sequence_key(example.ids, example.n_prompt)
            if key not in writer:
                writer.add_likeliest(key, served.ids, served.log_probs)
            found.append(served._replace(ids=[], log_probs=[]))
            ticker.advance()
    require_same_tokens(rows, found, where)
    require_distributions(found, where)
    return count_rows(found)
