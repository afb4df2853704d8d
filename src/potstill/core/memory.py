"""How much memory is held for speed: large blocks that are freed, and the logits of a chunk of tokens."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["ALIGNED_ROWS", "keep_freed_memory", "loss_chunk_tokens"]

ALIGNED_ROWS = 8
"""Products over another number of rows are slower by up to a sixth (docs/decisions.md)."""

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_NEVER = 2**31 - 1
_CHUNK_TOKENS = (256, 1024)
_CHUNK_BYTES = 96 << 20


def keep_freed_memory() -> bool:
    """Ask glibc to keep large freed blocks for the next tensor instead of giving them back to the system.

    Without it every large tensor is mapped and faulted in anew. Does nothing, and returns False, where the C library is
    not glibc. See mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _NEVER) and mallopt(_M_TRIM_THRESHOLD, _NEVER))


def loss_chunk_tokens(vocab: int, student: int, teacher: int = 0) -> int:
    """Most tokens whose logits a fused loss holds at once on a CPU: buffers of 96 MiB, or of half of what is there
    anyway, whichever is more; at least 256 tokens, at most 1024.

    There anyway: the student's head, its gradient, and the teacher's head. A product packs its head once for each
    chunk, so larger chunks are faster; more than 1024 tokens gain nothing, and fewer than 256 cost much.

    Args:
        vocab: size of the vocabulary.
        student: hidden size.
        teacher: its hidden size, where its logits are computed too.
    """
    buffers = 2 if teacher else 1
    most = max(_CHUNK_BYTES // (4 * vocab), (2 * student + teacher) // 2) // buffers
    return min(max(_CHUNK_TOKENS[0], most // ALIGNED_ROWS * ALIGNED_ROWS), _CHUNK_TOKENS[1])
