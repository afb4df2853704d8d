"""Importers: items of a suite from files of other kinds. One file per kind, and one table of all."""

from __future__ import annotations

from potstill.components.suites.importers.bfcl import import_bfcl
from potstill.components.suites.importers.clinc150 import import_clinc150
from potstill.components.suites.importers.csv_file import import_csv
from potstill.components.suites.importers.gsm8k import import_gsm8k
from potstill.components.suites.importers.ifeval import import_ifeval
from potstill.components.suites.importers.imported import Imported, Importer, Source
from potstill.components.suites.importers.promptfoo import import_promptfoo
from potstill.components.suites.importers.rows import import_items, import_rows

__all__ = ["IMPORTERS", "Imported", "Importer", "Source"]

IMPORTERS: dict[str, Importer] = {
    "items": import_items,
    "rows": import_rows,
    "csv": import_csv,
    "clinc150": import_clinc150,
    "gsm8k": import_gsm8k,
    "bfcl": import_bfcl,
    "ifeval": import_ifeval,
    "promptfoo": import_promptfoo,
}
"""Importers by the name of the kind of file."""
