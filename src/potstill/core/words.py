"""Known words that are close to a mistyped one, for messages."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

__all__ = ["nearest_hint"]


def nearest_hint(word: object, known: Sequence[str], listed: str = "there are") -> str:
    """A clause that suggests the known word that is most like `word`, or else lists all of them after `listed`."""
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"{listed} {', '.join(known)}"
