"""The filters of `generate.filters`: rows that they drop are rejected with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from potstill.components.filters.rows import FILTERS, find_dropped
from potstill.core.records import read_rows

if TYPE_CHECKING:
    from potstill.stages.generate.stage import GenerateInputs
    from potstill.stages.generate.teaching import Taught

__all__ = ["with_filters"]


def with_filters(inputs: GenerateInputs, taught: Taught) -> Taught:
    """The same split, without the rows that a filter drops; every kept row names the filters that it has passed."""
    names = inputs.settings.filters
    if not names:
        return taught
    tools = inputs.tools.path if inputs.tools else None
    test = read_rows(inputs.test.path, tools=tools) if inputs.test else []
    before, kept = len(taught.kept) + len(taught.rejected), []
    passed = [{"filter": f"{name}@{FILTERS[name].version}", "decision": "keep"} for name in names]
    for row, dropped in zip(taught.kept, find_dropped(taught.kept, names, test), strict=True):
        if dropped is None:
            kept.append(row.model_copy(update={"provenance": {**row.provenance, "filters": passed}}))
            continue
        name, evidence = dropped
        drop = {"filter": f"{name}@{FILTERS[name].version}", "decision": "drop", "evidence": evidence}
        before_it = passed[: names.index(name)]
        provenance = {**row.provenance, "filters": [*before_it, drop], "rejected": name}
        taught.rejected.append(row.model_copy(update={"provenance": provenance}))
    taught.kept = kept
    if len(taught.kept) + len(taught.rejected) != before:
        raise AssertionError(f"{before} rows came in, and {len(taught.kept) + len(taught.rejected)} went out")
    return taught
