"""Items from IFEval's input_data.jsonl: instructions on the form of an answer.

Source: Zhou et al. (2023), "Instruction-Following Evaluation for Large Language Models".
"""

from __future__ import annotations

from typing import Any

from potstill.components.checkers.instructions import INSTRUCTIONS
from potstill.components.suites.importers.imported import Imported, Source, json_lines, user_item
from potstill.core.errors import DataError

__all__ = ["import_ifeval"]


def import_ifeval(source: Source) -> Imported:
    """The prompts of the file, each tagged with the families of its instructions.

    Prompts that ask for an answer in a certain language are left out and counted.
    """
    found = Imported()
    for where, value in json_lines(source.path):
        prompt, names, parameters = (value.get(key) for key in ("prompt", "instruction_id_list", "kwargs"))
        if (
            not isinstance(prompt, str)
            or not isinstance(names, list)
            or not isinstance(parameters, list)
            or len(names) != len(parameters)
        ):
            raise DataError(f"{where}: a line of IFEval has a prompt, an instruction_id_list and as many kwargs.")
        if unknown := next((name for name in names if name not in INSTRUCTIONS), None):
            found.left_out[f"the instruction {unknown!r} cannot be verified"] += 1
            continue
        rules = [_rule(name, values) for name, values in zip(names, parameters, strict=True)]
        tags = list(dict.fromkeys(name.partition(":")[0] for name in names))
        expected = {"kind": "constraints", "rules": rules}
        found.items.append(user_item(prompt, expected, where, tags=tags, source="IFEval"))
    return found


def _rule(name: str, values: Any) -> dict[str, Any]:
    """An instruction with its parameters; the data set has null for those that others have."""
    given = values.items() if isinstance(values, dict) else ()
    return {"name": name, "values": {key: _whole(each) for key, each in given if each is not None}}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value
