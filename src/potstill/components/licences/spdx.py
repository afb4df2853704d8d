"""SPDX identifiers of the licences that hubs name by tags in lower case."""

from __future__ import annotations

__all__ = ["spdx_id"]

_SPDX = (
    "Apache-2.0", "MIT", "BSD-3-Clause", "ISC", "CC0-1.0", "Unlicense", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-SA-3.0",
    "CC-BY-SA-4.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0",
)  # fmt: skip
_BY_TAG = {identifier.lower(): identifier for identifier in _SPDX}


def spdx_id(tag: str) -> str | None:
    """The SPDX identifier of a licence; None for one that SPDX does not list, such as those of Llama and Gemma."""
    return _BY_TAG.get(tag.lower())
