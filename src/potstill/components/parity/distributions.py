"""Distributions of the next token, in llama.cpp and in the checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from potstill.components.chat.format import ChatFormat, Example
from potstill.components.parity.differences import shown_before
from potstill.components.runtimes.gguf_runtime import GGUFRuntime
from potstill.components.runtimes.hf import HFRuntime
from potstill.core.artifacts.exported import LogProbParity
from potstill.core.errors import ParityError
from potstill.core.progress import progress_bar
from potstill.core.records import Row

__all__ = ["comparable_examples", "compare_log_probs"]

Array = NDArray[np.float32]

_MIN_LOG_PROB = float(np.log(1e-4))  # tokens less likely than this on both sides are not compared


def comparable_examples(chat: ChatFormat, rows: Sequence[Row], context: int) -> list[tuple[Row, Example]]:
    """The rows' token ids, cut to the context; rows without a completion in it are left out."""
    out = []
    for row in rows:
        if row.completion is None:
            continue
        try:
            example = chat.example(row)
        except ValueError:  # the row cannot be trained on, so it was not trained on
            continue
        if example.n_prompt < min(context, len(example.ids)):
            out.append((row, Example(example.ids[:context], example.n_prompt, example.eos_supervised)))
    if not out:
        raise ParityError(
            f"None of {len(rows)} rows has a completion within {context} tokens, so the exported file cannot be "
            "compared with the checkpoint. Raise chat.context, or give rows with shorter prompts."
        )
    return out


def compare_log_probs(
    tested: GGUFRuntime, trusted: HFRuntime, examples: Sequence[tuple[Row, Example]], tolerance: float
) -> LogProbParity:
    """Compare the distributions of each completion token.

    Raises:
        ParityError: a difference is larger than `tolerance`, in nats.
    """
    tokens = agreed = 0
    largest = 0.0
    with progress_bar("compare file and checkpoint", len(examples)) as ticker:
        for row, example in examples:
            found_SV = tested.log_probs(example.ids, example.n_prompt)
            expected_SV: Array = trusted.log_probs(example.ids, example.n_prompt).numpy()
            difference_SV = _difference(expected_SV, found_SV)
            at, token = (int(i) for i in np.unravel_index(difference_SV.argmax(), difference_SV.shape))
            if difference_SV[at, token] > tolerance:
                raise _too_different(tested.chat, row, example, at, token, expected_SV, found_SV, tolerance)
            top_S, other_S = expected_SV.argmax(1), found_SV.argmax(1)
            every_S = np.arange(len(top_S))
            gap_S = expected_SV[every_S, top_S] - expected_SV[every_S, other_S]
            if gap_S.max() > tolerance:
                at = int(gap_S.argmax())
                raise _too_different(tested.chat, row, example, at, int(other_S[at]), expected_SV, found_SV, tolerance)
            tokens += len(top_S)
            agreed += int((top_S == other_S).sum())
            largest = max(largest, float(difference_SV.max()))
            ticker.advance()
    return LogProbParity(
        rows=len(examples),
        tokens=tokens,
        max_difference=largest,
        argmax_agreement=agreed / tokens,
        near_ties=tokens - agreed,
    )


def _difference(expected_SV: Array, found_SV: Array) -> Array:
    """Absolute difference of tokens that either side finds likely enough; infinite where one side is not a number."""
    counted_SV = np.maximum(expected_SV, found_SV) > _MIN_LOG_PROB
    difference_SV = np.nan_to_num(np.abs(expected_SV - found_SV), nan=np.inf)
    return np.where(counted_SV | np.isinf(difference_SV), difference_SV, np.float32(0))


def _too_different(
    chat: ChatFormat,
    row: Row,
    example: Example,
    at: int,
    token: int,
    expected_SV: Array,
    found_SV: Array,
    tolerance: float,
) -> ParityError:
    position = example.n_prompt + at
    before = shown_before(chat, example.ids[:position])
    return ParityError(
        f"llama.cpp does not answer like the checkpoint. In {row.name}, at token {position} (after {before!r}), "
        f"the log-probability of {chat.tokenizer.id_to_token(token)!r} is {found_SV[at, token]:.4f} in llama.cpp and "
        f"{expected_SV[at, token]:.4f} in the checkpoint, where the likeliest token has {expected_SV[at].max():.4f}; "
        f"export.parity_tolerance is {tolerance}."
    )
