"""The targets of an endpoint's answers, from what it said of their tokens: nothing is asked, and nothing computed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
from potstill.core.files import read_json_lines
from potstill.core.progress import progress_bar
from potstill.core.records import Row

__all__ = ["read_tokens_of", "write_served_targets"]


def read_tokens_of(generated: Path, split: str) -> dict[str, str]:
    """By row id, what the endpoint said of the answer's tokens, packed; rows of which it said nothing are not in it."""
    path = generated / f"{split}.tokens.jsonl"
    if not path.is_file():
        return {}
    return {entry["row_id"]: entry["tokens"] for _, entry in read_json_lines(path)}


def write_served_targets(
    rows: Sequence[Row],
    examples: Sequence[Example],
    said: Sequence[str | None],
    chat: ChatFormat,
    writer: TargetsWriter,
    where: str,
) -> dict[str, int]:
    """Add every row that the store does not hold yet; returns how many have distributions, and how many text alone.

    Args:
        rows: the answered rows.
        examples: each in the student's tokens.
        said: of each what the endpoint said of its tokens, packed.
        chat: the student's.
        writer: of the store.
        where: the endpoint, for messages.

    Raises:
        StepError: more than half of the rows have no distributions; the message says why.
    """
    tokens = ServedTokens(chat)
    found: list[ServedRow] = []
    with progress_bar("targets", len(rows)) as ticker:
        for row, example, packed in zip(rows, examples, said, strict=True):
            served = tokens.targets(row, example, unpack_tokens(packed) if packed else None)
            key = sequence_key(example.ids, example.n_prompt)
            if key not in writer:
                writer.add_likeliest(key, served.ids, served.log_probs)
            found.append(served._replace(ids=[], log_probs=[]))
            ticker.advance()
    require_same_tokens(rows, found, where)
    require_distributions(found, where)
    return count_rows(found)
