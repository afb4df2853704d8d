"""Items from CLINC150: one intent of 150, or none of them.

Source: Larson et al. (2019), "An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction".
"""

from __future__ import annotations

from typing import Any

from potstill.components.suites.importers.imported import Imported, Source, user_item
from potstill.core.errors import DataError
from potstill.core.files import read_json_object

__all__ = ["import_clinc150"]

_OUT_OF_SCOPE = "oos"


def import_clinc150(source: Source) -> Imported:
    """The utterances of a split, from the folder with data_full.json; each is tagged with its domain.

    The system message names all intents, and the answer is the name of one, or `oos`. Domains come from domains.json.
    """
    path = source.path / "data_full.json" if source.path.is_dir() else source.path
    data = read_json_object(path, advice="Give the folder of CLINC150, which has data_full.json.")
    intents = sorted({label for name, part in data.items() for _, label in _pairs(path, name, part)} - {_OUT_OF_SCOPE})
    domains = {
        intent: domain
        for domain, names in read_json_object(path.with_name("domains.json"), missing_ok=True).items()
        for intent in names
    }
    system = (
        f"Name the intent of the message. Answer with one of these names, or with {_OUT_OF_SCOPE} if none fits: "
        f"{', '.join(intents)}."
    )
    found = Imported()
    names = [name for name in (source.split, f"oos_{source.split}") if name in data]
    if not names:
        raise DataError(f"{path}: it has no split {source.split!r}. Its parts are {', '.join(data)}.")
    for name in names:
        for text, label in _pairs(path, name, data[name]):
            tags = ["out of scope"] if label == _OUT_OF_SCOPE else [domains.get(label, "in scope")]
            expected = {"kind": "one_of", "texts": [label]}
            found.items.append(
                user_item(text, expected, f"{path}: {name}", system=system, tags=tags, source="CLINC150")
            )
    return found


def _pairs(path: Any, name: str, part: Any) -> list[tuple[str, str]]:
    if not isinstance(part, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(each, str) for each in pair) for pair in part
    ):
        raise DataError(f"{path}: {name} must be a list of [text, intent]. Give the folder of CLINC150.")
    return [(text, label) for text, label in part]
