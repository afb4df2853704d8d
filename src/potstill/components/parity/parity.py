"""Parity: the GGUF in llama.cpp is compared with the checkpoint: tokens, template, end of answer and probabilities.

Generated answers are not compared. Where two tokens are almost equally likely, rounding decides, and the answers differ
from there on. Instead both sides read the same text, and the distributions of each next token are compared.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import gguf
import numpy as np

from potstill.components.chat.format import ChatFormat
from potstill.components.conversion.architecture import read_hyperparameters
from potstill.components.conversion.weights import Weights, plan_tensors
from potstill.components.parity.prompts import compare_template
from potstill.components.parity.text import compare_stops, compare_tokens
from potstill.components.runtimes.gguf import GGUFServer
from potstill.components.runtimes.gguf_runtime import GGUFRuntime
from potstill.core.artifacts.exported import Parity
from potstill.core.errors import ParityError
from potstill.core.records import Row

__all__ = ["check_parity"]


def check_parity(
    gguf_file: Path,
    checkpoint: Path,
    chat: ChatFormat,
    rows: Sequence[Row],
    *,
    tolerance: float,
    context: int,
    read_closely: int = 8,
) -> Parity:
    """Compare a GGUF (F16 or F32) in llama.cpp with the checkpoint it was made from.

    Four things are compared: token ids of rendered rows and of `TEST_TEXTS`; token ids of every row's prompt from the
    file's own chat template, if it has one; the tokens that end an answer; and, for each completion token, the whole
    distribution of log-probabilities (nats) given all tokens before it, over tokens likelier than 1e-4 on either side.
    The likeliest token must be the same, or within `tolerance` of the checkpoint's.

    Args:
        gguf_file: the file.
        checkpoint: Hugging Face folder.
        chat: the checkpoint's tokenizer, with the template that the student was trained with.
        rows: rows with completions.
        tolerance: largest accepted difference of log-probability, in nats.
        context: maximum length of a text in tokens; longer rows are cut.
        read_closely: number of rows, from the first, whose answers are compared too.

    Raises:
        ParityError: names the difference, its place, both values, and what to do.
        StepError: llama.cpp does not load the file.
    """
    # torch is loaded here and not above, because the check compares text alone
    from potstill.components.parity.distributions import comparable_examples, compare_log_probs
    from potstill.components.runtimes.hf import HFRuntime
    from potstill.components.runtimes.load import load_causal_lm

    few = rows[:read_closely]
    examples = comparable_examples(chat, few, context)
    threads = max(1, (os.cpu_count() or 2) // 2)
    with GGUFServer(gguf_file, context=context, threads=threads, exact=True) as server:
        tokenization = compare_tokens(server, chat, few)
        template = compare_template(server, chat, rows) if _has_template(gguf_file) else None
        stop_tokens = compare_stops(server, chat)
        tested = GGUFRuntime(server, chat, context)
        trusted = HFRuntime(load_causal_lm(checkpoint), chat, context)
        try:
            log_probs = compare_log_probs(tested, trusted, examples, tolerance)
        except ParityError as error:
            raise ParityError(f"{gguf_file.name}: {error} {_explain(gguf_file, checkpoint)}") from None
    return Parity(
        tokenization=tokenization, template=template, stop_tokens=stop_tokens, log_probs=log_probs, tolerance=tolerance
    )


def _has_template(gguf_file: Path) -> bool:
    return "tokenizer.chat_template" in gguf.GGUFReader(gguf_file).fields


def _explain(gguf_file: Path, checkpoint: Path) -> str:
    """Sentences that name the tensors that differ from the checkpoint's, and say what to do."""
    weights = Weights(checkpoint)
    tensors = plan_tensors(weights, read_hyperparameters(checkpoint))
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(gguf_file).tensors}
    odd = []
    for tensor in tensors:
        if tensor.name not in stored:
            odd.append(f"{tensor.name} is missing")
            continue
        expected = np.concatenate(list(weights.read(tensor)))
        found = gguf.dequantize(stored[tensor.name].data, stored[tensor.name].tensor_type)
        close = 0.01 * float(np.abs(expected).max())
        if found.shape != expected.shape:
            odd.append(f"{tensor.name} has shape {found.shape}, not {expected.shape}")
        elif not np.allclose(found, expected, rtol=0.01, atol=close):
            reordered = np.allclose(np.sort(found, None), np.sort(expected, None), rtol=0.01, atol=close)
            odd.append(f"{tensor.name} holds {'the same values in another order' if reordered else 'other values'}")
    if odd:
        more = f" and {len(odd) - 1} more tensors differ" if len(odd) > 1 else ""
        return f"The file was not made from this checkpoint: {odd[0]}{more}. Export it again."
    return (
        "The file holds the checkpoint's weights, so the arithmetic differs: by rounding, if the difference is small "
        "(then raise export.parity_tolerance), or because llama.cpp computes a part of the model differently."
    )
