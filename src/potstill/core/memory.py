"""Memory that is held for speed: large freed blocks, and the logits of a chunk of tokens."""

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

    Otherwise every large tensor is mapped and faulted in again. Does nothing and returns False where the C library is
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
    """Maximum number of tokens whose logits a fused loss holds at once on a CPU, between 256 and 1024.

    The buffers take 96 MiB, or half of the memory that the heads need anyway (the student's head, its gradient and the
    teacher's head), whichever is more. A product packs its head once per chunk, so larger chunks are faster. More than
    1024 tokens gain nothing, and fewer than 256 cost much.

    Args:
        vocab: size of the vocabulary.
        student: hidden size of the student.
        teacher: hidden size of the teacher, where its logits are computed too.
    """
    buffers = 2 if teacher else 1
    most = max(_CHUNK_BYTES // (4 * vocab), (2 * student + teacher) // 2) // buffers
    return min(max(_CHUNK_TOKENS[0], most // ALIGNED_ROWS * ALIGNED_ROWS), _CHUNK_TOKENS[1])
