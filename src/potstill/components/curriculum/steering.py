"""Chooses which prompts to write next, so that the quotas of a curriculum are met with few prompts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from potstill.components.curriculum.asking import (
    ASKING,
    Draft,
    asked_text,
    check_templates,
    draw_call,
    finished_row,
    request_of,
)
from potstill.components.curriculum.coverage import coverage_of, in_cell, values_of
from potstill.components.curriculum.messy import MESSY
from potstill.components.curriculum.spec import CodeOperator, Curriculum, TeacherOperator
from potstill.core.errors import BudgetError, RecipeError
from potstill.core.records import Row

__all__ = ["require_reachable", "write_prompts"]

_LOWEST_RATE = 0.2  # of accepted prompts, that a few rejected ones may suggest
_ENOUGH = 5  # prompts of a cell from which its rate is taken
_PATIENCE = 4  # rounds without another accepted row, each with twice as many drafts as the one before
_EXAMPLES = 4

Ask = Callable[[Sequence[Row], int], list[str]]
"""Answers of the teacher to requests of a round."""
Judge = Callable[[list[Row]], Sequence[Row]]
"""The rows whose answers are accepted."""


def write_prompts(curriculum: Curriculum, seeds: Sequence[Row], ask: Ask, judge: Judge, seed: int) -> list[Row]:
    """The seeds and the prompts that were written until every quota was met, or the limit or the budget was reached.

    It also ends where four rounds in a row bring no further accepted row. The same answers give the same prompts.

    Args:
        curriculum: the quotas and the operators.
        seeds: rows to start from.
        ask: asks the teacher to write prompts.
        judge: has the prompts answered, and returns the rows that are learnt from.
        seed: seed of all choices.
    """
    rows, judged, best, idle = list(seeds), 0, -1, 0
    for number in range(curriculum.most_prompts):
        try:
            accepted = judge(rows)
        except BudgetError:
            if not judged:
                raise
            return rows[:judged]
        judged = len(rows)
        met = sum(min(cell.accepted, cell.quota) for cell in coverage_of(accepted, curriculum).cells)
        idle = 0 if met > best else idle + 1
        best = max(best, met)
        drafts = _Round(curriculum, seeds, f"{seed} {number}").drafts(accepted, rows[len(seeds) :], 2**idle)
        if not drafts or idle >= _PATIENCE:
            break
        try:
            rows += _new(_finished(drafts, curriculum, ask, number), rows)
        except BudgetError:
            break
    return rows


def _finished(drafts: Sequence[Draft], curriculum: Curriculum, ask: Ask, number: int) -> Iterator[Row]:
    asked = [draft for draft in drafts if draft.asking]
    answers = iter(ask([request_of(draft, curriculum) for draft in asked], number) if asked else ())
    for draft in drafts:
        row = finished_row(draft, next(answers) if draft.asking else None, curriculum)
        if row is not None:
            yield row


def _new(made: Iterator[Row], rows: Sequence[Row]) -> list[Row]:
    """The rows whose prompts are not there yet."""
    known = {row.row_id for row in rows}
    out = []
    for row in made:
        if row.row_id not in known:
            known.add(row.row_id)
            out.append(row)
    return out


class _Round:
    """The drafts of one round."""

    def __init__(self, curriculum: Curriculum, seeds: Sequence[Row], seed: str) -> None:
        self._curriculum, self._seeds, self._seed = curriculum, seeds, seed
        self._values = [values_of(row, curriculum) for row in seeds]
        self._draw = random.Random(seed)
        self._need: list[float] = []

    def drafts(self, accepted: Sequence[Row], written: Sequence[Row], times: int) -> list[Draft]:
        """Drafts for every quota that is not met, most needed first; `times` as many as seem to be needed."""
        cells = self._curriculum.cells
        # the seeds' own rows are accepted or not whatever is written, so only written ones give a rate
        grid = coverage_of(accepted, self._curriculum, written).cells
        made = coverage_of([row for row in accepted if "curriculum" in row.provenance], self._curriculum).cells
        self._need = [
            times * math.ceil(cell.missing / _rate(own.accepted, cell.written))
            for cell, own in zip(grid, made, strict=True)
        ]
        out: list[Draft] = []
        room = self._curriculum.most_prompts - len(written)
        while len(out) < room and max(self._need, default=0) > 0:
            number = max(range(len(cells)), key=lambda place: (self._need[place], -place))
            draft = self._draft(cells[number].of, len(out))
            if draft is None:
                self._need[number] = 0
                continue
            out.append(draft)
            for place, cell in enumerate(cells):
                self._need[place] -= in_cell(draft.values, cell.of)
            if not in_cell(draft.values, cells[number].of):
                self._need[number] -= 1
        return out

    def _draft(self, wanted: Mapping[str, str], number: int) -> Draft | None:
        ways = list(possible_ways(self._curriculum, self._seeds, self._values, wanted))
        if not ways:
            return None
        asking, parents = self._draw.choice(ways)
        parent = self._draw.choice(parents)
        writes = asking is not None and ASKING[asking].writes
        values = self._completed(wanted, {} if writes else self._values[parent], writes=writes)
        call = None
        if asking == "slot_grid":
            tool = values.get("tool") or self._any_tool()
            call = draw_call(tool, self._seeds, self._draw) if tool else None
            if call is None:
                return None
            right = {"tool": call.name, "behaviour": "tool_call"}
            values |= {axis: value for axis, value in right.items() if axis in self._curriculum.axes}
        messy = _messy(self._curriculum, values, self._values[parent] if not writes else {})
        if asking is None and not messy:
            return None
        return Draft(self._seeds[parent], values, asking, messy, f"{self._seed} {number}", call, self._examples(values))

    def _completed(self, wanted: Mapping[str, str], own: Mapping[str, str], *, writes: bool) -> dict[str, str]:
        """The wanted values, those that the parent has, and for the other axes those that are most needed."""
        out = {**own, **wanted}
        for axis, values in self._curriculum.axes.items():
            by_code = any(value.operator for value in values.values())
            if axis in wanted or (axis in own and not by_code) or not (writes or by_code):
                continue
            if axis in ("tool", "label") and any(name in wanted for name in ("tool", "label", "behaviour")):
                continue  # they say together what the right answer is
            if axis == "behaviour" and ("tool" in wanted or "label" in wanted):
                continue
            free = [name for name, value in values.items() if value.operator != "missing_information"]
            chosen = max(free, key=lambda name: (self._needed(axis, name), values[name].default))
            if not by_code or self._needed(axis, chosen) > 0 or axis not in own:
                out[axis] = chosen
        return out

    def _needed(self, axis: str, value: str) -> float:
        cells = zip(self._curriculum.cells, self._need, strict=True)
        return max((need for cell, need in cells if cell.of.get(axis) == value), default=0.0)

    def _any_tool(self) -> str | None:
        names = sorted({tool["function"]["name"] for row in self._seeds for tool in row.tools})
        return self._draw.choice(names) if names else None

    def _examples(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """Texts of the seeds that share most of the values."""
        order = self._draw.sample(range(len(self._seeds)), len(self._seeds))
        order.sort(key=lambda place: -sum(self._values[place].get(axis) == value for axis, value in values.items()))
        return tuple(asked_text(self._seeds[place]) for place in order[:_EXAMPLES])


def _rate(accepted: int, written: int) -> float:
    return max(_LOWEST_RATE, accepted / written) if written >= _ENOUGH else 1.0


def _messy(curriculum: Curriculum, values: Mapping[str, str], own: Mapping[str, str]) -> tuple[CodeOperator, ...]:
    """The code operators that make the values which the parent does not have."""
    named = (curriculum.axes[axis].get(value) for axis, value in values.items() if own.get(axis) != value)
    return tuple(value.operator for value in named if value and value.operator)


def possible_ways(
    curriculum: Curriculum, seeds: Sequence[Row], values: Sequence[Mapping[str, str]], wanted: Mapping[str, str]
) -> Iterator[tuple[TeacherOperator | None, list[int]]]:
    """The operators that can make a prompt with the wanted values, each with the seeds that it can start from."""
    messy = _messy(curriculum, wanted, {})
    free = {axis: value for axis, value in wanted.items() if not curriculum.axes[axis][value].operator}
    fitting = [place for place, own in enumerate(values) if in_cell(own, free)]
    for name in messy:
        if not MESSY[name].keeps_gold:
            fitting = [place for place in fitting if MESSY[name].apply(seeds[place], "0") is not None]
    if messy and fitting:
        yield None, fitting
    needs_gold = "missing_information" in messy
    for operator in curriculum.operators:
        if not ASKING[operator].writes:
            if fitting:
                yield operator, fitting
        elif operator == "slot_grid":
            tools = {tool["function"]["name"] for row in seeds for tool in row.tools}
            asks_for_call = free.get("behaviour", "tool_call") == "tool_call" and "label" not in free
            if tools and asks_for_call and free.get("tool", next(iter(tools))) in tools:
                yield operator, [place for place, row in enumerate(seeds) if row.tools]
        elif "tool" not in free and not needs_gold:
            yield operator, fitting or list(range(len(seeds)))


def require_reachable(curriculum: Curriculum, seeds: Sequence[Row], path: Path) -> None:
    """Check that every quota can be met.

    Raises:
        RecipeError: a quota asks for rows that no operator can make and the prompts do not have, or a template is not
            valid.
    """
    check_templates(curriculum, path)
    values = [values_of(row, curriculum) for row in seeds]
    for cell in curriculum.cells:
        have = sum(in_cell(own, cell.of) for own in values)
        if have < cell.rows and not any(possible_ways(curriculum, seeds, values, cell.of)):
            name = ", ".join(f"{axis}: {value}" for axis, value in cell.of.items())
            raise RecipeError(
                f"{path}: the quota of {cell.rows} rows with {name} cannot be met: {have} of the {len(seeds)} prompts "
                "have these values, and no operator can write others. Add such prompts to data.prompts, add an "
                "operator that writes them (self_instruct; slot_grid for tools), or lower the quota."
            )
