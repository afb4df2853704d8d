"""The page: all sections in one template."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from potstill import __version__
from potstill.core.format import format_level
from potstill.stages.report.calibration import calibration_section
from potstill.stages.report.charts import MARKERS
from potstill.stages.report.classified import (
    ClassifierFacts,
    classifier_provenance,
    classifier_sections,
    classifier_verdict,
)
from potstill.stages.report.cost import cost_section
from potstill.stages.report.distillation import distillation_section
from potstill.stages.report.errors import errors_section
from potstill.stages.report.facts import Facts
from potstill.stages.report.fidelity import fidelity_section
from potstill.stages.report.provenance import provenance_section
from potstill.stages.report.quality import quality_section, regressions_section
from potstill.stages.report.readings import readings_section
from potstill.stages.report.runtime import runtime_section
from potstill.stages.report.text import unbroken
from potstill.stages.report.training import training_section
from potstill.stages.report.verdict import verdict_section
from potstill.stages.report.worth import worth_section

__all__ = ["render_classifier_page", "render_page"]


def render_page(facts: Facts) -> str:
    """The page's HTML; the same facts give the same bytes."""
    return (
        _templates()
        .get_template("page.html.jinja")
        .render(
            name=facts.inputs.name,
            teacher=facts.manifest.teacher.name,
            version=__version__,
            level=unbroken(format_level(facts.metrics.confidence)),
            markers=MARKERS,
            verdict=verdict_section(facts),
            leaked=facts.metrics.leaked.sentence,
            quality=quality_section(facts),
            errors=errors_section(facts),
            worth=worth_section(facts.metrics.worth),
            distillation=distillation_section(facts),
            runtime=runtime_section(facts),
            notes=facts.manifest.notes,
            cost=cost_section(facts),
            fidelity=fidelity_section(facts),
            calibration=calibration_section(facts.metrics),
            training=training_section(facts),
            regressions=regressions_section(facts),
            teacher_right=exact.k if (exact := facts.metrics.models.teacher.exact) else 0,
            readings=readings_section(facts),
            coverage=facts.coverage,
            provenance=provenance_section(facts),
        )
    )


def render_classifier_page(facts: ClassifierFacts) -> str:
    """The HTML of a classifier's page; the same facts give the same bytes."""
    return (
        _templates()
        .get_template("classifier.html.jinja")
        .render(
            name=facts.inputs.name,
            teacher=facts.manifest.teacher.name,
            version=__version__,
            verdict=classifier_verdict(facts),
            page=classifier_sections(facts),
            worth=worth_section(facts.metrics.worth),
            calibration=calibration_section(facts.metrics),
            provenance=classifier_provenance(facts),
        )
    )


def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("potstill.stages.report", ""),
        autoescape=True,  # a model's answer is shown as text, whatever it contains
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
