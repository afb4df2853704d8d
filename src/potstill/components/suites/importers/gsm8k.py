"""Items from GSM8K: word problems whose answer is a number.

Source: Cobbe et al. (2021), "Training Verifiers to Solve Math Word Problems".
"""

from __future__ import annotations

from potstill.components.suites.importers.imported import Imported, Source, json_lines, user_item
from potstill.core.errors import DataError

__all__ = ["import_gsm8k"]

_SYSTEM = "Solve the problem step by step. End with #### and the answer as a number."
_LEVELS = ((2, "1 to 2 steps"), (4, "3 to 4 steps"))


def import_gsm8k(source: Source) -> Imported:
    """The problems of a split, from the folder or the file; each is tagged with its number of calculations."""
    path = source.path / f"{source.split}.jsonl" if source.path.is_dir() else source.path
    found = Imported()
    for where, value in json_lines(path):
        question, answer = value.get("question"), value.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str) or "####" not in answer:
            raise DataError(f"{where}: a line of GSM8K has a question, and an answer that ends in #### and a number.")
        steps = answer.count("<<")
        level = next((name for most, name in _LEVELS if steps <= most), "5 steps or more")
        number = answer.rpartition("####")[2].strip().replace(",", "")
        expected = {"kind": "numeric", "value": number}
        found.items.append(user_item(question, expected, where, system=_SYSTEM, tags=[level], source="GSM8K"))
    return found
