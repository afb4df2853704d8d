"""The bill of materials is valid CycloneDX 1.6, and says what the manifest says."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from finished_run import RECIPE, finished_run, made_up_example
from potstill.components.licences.licences import load_terms
from potstill.components.licences.spdx import spdx_id
from potstill.components.packages.bom import BOM
from potstill.core.artifacts.manifest import Manifest
from potstill.core.hashing import hash_file
from potstill.stages.package.stage import STAGE
from stage_runs import run_stage


def schema(name: str) -> Any:
    path = resources.files("cyclonedx.schema._res").joinpath(f"{name}.SNAPSHOT.schema.json")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def validator() -> Any:
    """Of CycloneDX 1.6, with the schemas that it refers to."""
    names = ("bom-1.6", "spdx", "jsf-0.82")
    registry = jsonschema_rs.Registry(
        [(f"http://cyclonedx.org/schema/{name}.SNAPSHOT.schema.json", schema(name)) for name in names]
    )
    return jsonschema_rs.Draft7Validator(schema("bom-1.6"), registry=registry, validate_formats=True)


def package(folder: Path, recipe: str = RECIPE) -> Path:
    with made_up_example():
        run_stage(STAGE, *finished_run(folder / "run", recipe), folder / "out")
    return folder / "out" / "package"


@pytest.mark.parametrize("license", ["apache-2.0", "llama3.1", "unknown"])
def test_it_is_valid(tmp_path: Path, validator: Any, license: str) -> None:
    folder = package(tmp_path, RECIPE.replace("teacher: apache-2.0", f"teacher: {license}"))
    assert [str(error) for error in validator.iter_errors(json.loads((folder / BOM).read_text()))] == []


def test_a_wrong_document_is_found(tmp_path: Path, validator: Any) -> None:
    """So that the check above means something."""
    value = json.loads((package(tmp_path) / BOM).read_text())
    value["metadata"]["component"]["modelCard"]["modelParameters"]["approach"]["type"] = "distilled"
    assert not validator.is_valid(value)


def test_it_names_files_data_teacher_and_measurements(tmp_path: Path) -> None:
    folder = package(tmp_path)
    value, manifest = json.loads((folder / BOM).read_text()), Manifest.read(folder)
    model = value["metadata"]["component"]
    assert model["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    hashes = {part["name"]: part["hashes"][0]["content"] for part in model["components"]}
    assert hashes["lights-Q8_0.gguf"] == hash_file(folder / "lights-Q8_0.gguf")
    data = {part["name"]: part["hashes"][0]["content"] for part in value["components"] if part["type"] == "data"}
    assert data == {file.file: file.sha256 for file in manifest.data.files.values()}
    (teacher,) = model["pedigree"]["ancestors"]
    assert teacher["name"] == manifest.teacher.name and teacher["hashes"][0]["content"] == "ab" * 32
    metrics = {m["type"]: m for m in model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]}
    assert metrics["exact match (rate)"]["confidenceInterval"] == {"lowerBound": "0.921", "upperBound": "0.957"}
    assert BOM in manifest.files


def test_every_identifier_is_one_of_spdx() -> None:
    known = schema("spdx")["enum"]
    found = [identifier for terms in load_terms() for tag in terms.tags if (identifier := spdx_id(tag))]
    assert len(found) == 14 and set(found) <= set(known)
