"""The bill of materials of a package: CycloneDX 1.6 with a model card, made from the manifest.

cyclonedx-python-lib has no model cards, so the document is written here; the tests check it against the schema that the
library ships. Nothing in it depends on when or where it was made.
"""

from __future__ import annotations

import uuid
from typing import Any

from potstill.components.licences.spdx import spdx_id
from potstill.core.artifacts.manifest import ClassifierManifest, FileEntry, Manifest
from potstill.core.artifacts.verdict import GateResult
from potstill.core.hashing import fingerprint

__all__ = ["BOM", "bill_of_materials"]

BOM = "bom.cdx.json"
"""Name of the file in the package; CycloneDX recommends the ending."""

Component = dict[str, Any]


def bill_of_materials(manifest: Manifest | ClassifierManifest) -> dict[str, Any]:
    """A CycloneDX document on the model of a package: its files, teacher, data sets, and the software that measured it.

    Args:
        manifest: the manifest, with the files that are in the package so far.
    """
    data = _data(manifest)
    software = [
        {"type": "library", "bom-ref": f"software:{name}", "name": name, "version": version}
        for name, version in sorted(manifest.versions.items())
    ]
    model = _model(manifest, data)
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"{manifest.PREDICATE}/{fingerprint(manifest.to_json())}")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial.urn,
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "potstill", "version": manifest.potstill}]},
            "component": model,
        },
        "components": [*data, *software],
        "dependencies": [{"ref": model["bom-ref"], "dependsOn": [part["bom-ref"] for part in data]}],
    }


def _model(manifest: Manifest | ClassifierManifest, data: list[Component]) -> Component:
    """The model itself, with its card and what it descends from."""
    classifies = isinstance(manifest, ClassifierManifest)
    metrics = [_metric(gate) for gate in manifest.verdict.gates if gate.value is not None]
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": manifest.name,
        "description": f"Distilled from {manifest.teacher.name}. Verdict of its gates: {manifest.verdict.verdict}.",
        **_licenses(manifest.license),
        "pedigree": {"ancestors": _ancestors(manifest)},
        "components": [_file(name, entry) for name, entry in sorted(manifest.files.items())],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "text-classification" if classifies else "text-generation",
                "architectureFamily": "transformer",
                "datasets": [{"ref": part["bom-ref"]} for part in data],
                "inputs": [{"format": "text"}],
                "outputs": [{"format": "label" if classifies else "text"}],
            },
            **({"quantitativeAnalysis": {"performanceMetrics": metrics}} if metrics else {}),
        },
    }


def _ancestors(manifest: Manifest | ClassifierManifest) -> list[Component]:
    """The teacher, and the model that the weights come from where it is another one."""
    teacher: Component = {
        "type": "machine-learning-model", "name": manifest.teacher.name, **_licenses(manifest.teacher.license),
    }  # fmt: skip
    identity = manifest.teacher.identity
    if identity and identity.weights_sha256:
        teacher["hashes"] = [{"alg": "SHA-256", "content": identity.weights_sha256}]
    found = [teacher]
    if isinstance(manifest, Manifest) and manifest.student.base_model != manifest.teacher.name:
        found.append({"type": "machine-learning-model", "name": manifest.student.base_model})
    return found


def _data(manifest: Manifest | ClassifierManifest) -> list[Component]:
    return [
        {
            "type": "data",
            "bom-ref": f"data:{key}",
            "name": file.file,
            "hashes": [{"alg": "SHA-256", "content": file.sha256}],
            **_licenses(manifest.data.license),
            "data": [{"type": "dataset", "name": key}],
        }
        for key, file in sorted(manifest.data.files.items())
    ]


def _file(name: str, entry: FileEntry) -> Component:
    return {"type": "file", "name": name, "hashes": [{"alg": "SHA-256", "content": entry.sha256}]}


def _metric(gate: GateResult) -> dict[str, Any]:
    """A measured gate; CycloneDX has numbers as text."""
    metric: dict[str, Any] = {"type": f"{gate.name} ({gate.unit})", "value": f"{gate.value:g}"}
    bounds = {"lowerBound": gate.low, "upperBound": gate.high}
    interval = {key: f"{value:g}" for key, value in bounds.items() if value is not None}
    return metric | ({"confidenceInterval": interval} if interval else {})


def _licenses(tag: str) -> dict[str, Any]:
    """The licence of a part: by its SPDX identifier, or by its name where it has none."""
    if tag == "unknown":
        return {}
    known = spdx_id(tag)
    return {"licenses": [{"license": {"id": known} if known else {"name": tag}}]}
