"""Report: the one page a person reads. Self-contained, without a script, and without anything from the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from potstill.core.files import write_text
from potstill.core.recipe import Recipe

__all__ = ["VERSION", "run"]

VERSION = 2


def run(recipe: Recipe, steps: Mapping[str, Path], out: Path) -> None:
    """Write `out/report.html`, whole or not at all.

    Args:
        recipe: the recipe.
        steps: directories of the finished steps: train, evaluate, gate; generate, export and package where they are.
        out: step directory.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from potstill import __version__
    from potstill.stages.report.charts import MARKERS
    from potstill.stages.report.facts import read_facts
    from potstill.stages.report.money import tell_cost
    from potstill.stages.report.sources import tell_origin, tell_training
    from potstill.stages.report.story import (
        tell_distillation,
        tell_fidelity,
        tell_kept,
        tell_regressions,
        tell_size,
        tell_verdict,
    )

    facts = read_facts(recipe, steps)
    pages = Environment(
        loader=PackageLoader("potstill.stages.report", ""),
        autoescape=True,  # models write whatever they like: it is shown, never run
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = pages.get_template("page.html.jinja").render(
        name=recipe.name,
        teacher=facts.manifest.get("teacher", {}).get("name"),
        version=__version__,
        markers=MARKERS,
        verdict=tell_verdict(facts),
        kept=tell_kept(facts),
        distillation=tell_distillation(facts),
        size=tell_size(facts),
        cost=tell_cost(facts),
        fidelity=tell_fidelity(facts),
        training=tell_training(facts),
        regressions=tell_regressions(facts),
        origin=tell_origin(facts),
    )
    write_text(out / "report.html", page)
