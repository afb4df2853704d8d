"""`potstill search RECIPE`: which student --write means, and what it does to the recipe's file."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner

from potstill.apps.plan.candidates import Goal, feasible_candidates
from potstill.apps.plan.write import write_student
from potstill.cli.main import main
from potstill.components.hardware.devices import find_device
from potstill.components.hardware.fit import Serving
from potstill.components.models.source import load_config
from potstill.core.errors import PotstillError, RecipeError, UsageError
from potstill.core.recipe import Recipe, load_recipe

if TYPE_CHECKING:
    from click.testing import Result

    from workshop import Workshop

HEAD = """# A recipe with comments.
name: lights   # kept

data: {prompts: train.jsonl, test: test.jsonl, tools: tools.json}
chat:
  context: 256
teacher:
  model: teacher
generate: {max_new_tokens: 64}
"""
TAIL = """
# about the package
package:

  system: Hi.   # and so is this
"""
SECTIONS = {
    "plain": "student:\n  init: teacher_layers\n  layers: 2\nexport:\n  quantization: Q8_0\n",
    "blank and comment lines": (
        "student:   # of what?\n\n  init: teacher_layers\n# in between\n  layers: 2\n\n  # of four\n  kv_heads: 1\n"
        "export:\n\n# why\n  parity_tolerance: 1\n\n  quantization: Q8_0   # measured\n"
    ),
    "quoted keys": '"student":\n  init: teacher_layers\n  "layers": 2\n\'export\' :\n  quantization: Q8_0\n',
    "a blank before the colon": "student :\n  init: teacher_layers\n  layers: 2\nexport :\n  quantization: Q8_0\n",
    "flow": "student: {init: teacher_layers,\n  layers: 2}   # two\nexport: {quantization: Q8_0}\n",
    "no export": "student:\n  init: teacher_layers\n  layers: 2\n",
    "empty export": "student:\n  init: teacher_layers\n  layers: 2\nexport:\n  # quantization: Q6_K\n",
    "a shape": (
        "student:\n  init: scratch\n  # wide\n\n  shape: llama:layers=2,hidden=64,ffn=96,heads=4\n"
        "export:\n  quantization: Q8_0\n"
    ),
}
ROW: dict[str, Any] = {"student": {"init": "teacher_layers", "layers": 3, "kv_heads": 1}, "quantization": "Q4_K_M"}


def written(workshop: Workshop, text: str, row: dict[str, Any] = ROW) -> tuple[str, dict[str, Any]]:
    """The recipe's text and values after `write_student`; nothing else is left in the folder."""
    path, before = workshop.folder / "recipe.yaml", yaml.safe_load(text)
    path.write_bytes(text.encode())
    files = set(workshop.folder.iterdir())
    write_student(path, row["student"], row["quantization"])
    assert set(workshop.folder.iterdir()) == files
    after = path.read_bytes().decode()
    values = yaml.safe_load(after)
    assert values["student"] == row["student"]
    assert values["export"] == {**(before.get("export") or {}), "quantization": row["quantization"]}
    assert {k: v for k, v in values.items() if k not in ("student", "export")} == {
        k: v for k, v in before.items() if k not in ("student", "export")
    }
    recipe = load_recipe(path)
    assert isinstance(recipe, Recipe)
    assert (recipe.student.layers, recipe.student.kv_heads, recipe.export.quantization) == (3, 1, "Q4_K_M")
    return after, values


# ---- the file ----


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("case", SECTIONS)
def test_a_student_replaces_another_and_the_rest_stays(workshop: Workshop, case: str, newline: str) -> None:
    text = (HEAD + SECTIONS[case] + TAIL).replace("\n", newline)
    after, _ = written(workshop, text)
    assert after.startswith(HEAD.replace("\n", newline))
    assert TAIL.replace("\n", newline) in after
    # one kind of line end
    assert after.count("\n") == after.count(newline)
    assert len(re.findall(r"(?m)^['\"]?student", after)) == len(re.findall(r"(?m)^['\"]?export", after)) == 1


def test_sections_at_the_end_of_a_file_without_a_last_newline(workshop: Workshop) -> None:
    after, _ = written(workshop, HEAD + "package: {system: Hi.}\nstudent: {init: teacher_layers, layers: 2}")
    assert after.startswith(HEAD)
    bare, _ = written(workshop, HEAD + "student: {init: teacher_layers, layers: 2}\npackage: {system: Hi.}")
    assert "package: {system: Hi.}\n" in bare


def test_a_links_file_is_written_and_its_mode_kept(workshop: Workshop) -> None:
    path, link = workshop.folder / "recipe.yaml", workshop.folder / "link.yaml"
    path.write_text(HEAD + SECTIONS["plain"] + TAIL)
    path.chmod(0o640)
    link.symlink_to(path)
    write_student(link, ROW["student"], ROW["quantization"])
    assert link.is_symlink() and not path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert yaml.safe_load(path.read_text())["student"] == ROW["student"]


REFUSED = {
    "flow": "{name: lights, student: {init: teacher_layers, layers: 2}}\n",
    "twice": HEAD + SECTIONS["plain"] + "student:\n  init: teacher_layers\n  layers: 1\n" + TAIL,
    "anchor": HEAD + "student: &mine\n  init: teacher_layers\n  layers: 2\n" + TAIL,
    "alias": HEAD.replace("chat:", "chat: &chat") + "student: *chat\n" + TAIL,
    "not at the left": "\n".join(f"  {line}" for line in (HEAD + SECTIONS["plain"] + TAIL).splitlines()),
    "a question mark": HEAD + "? student\n: {init: teacher_layers, layers: 2}\n" + TAIL,
    "block text": HEAD + "student:\n  init: checkpoint\n  model: |-\n    teacher\n" + TAIL,
}


@pytest.mark.parametrize("case", REFUSED)
def test_ambiguous_recipes_are_left_alone(workshop: Workshop, case: str) -> None:
    refused(workshop, REFUSED[case], ROW, RecipeError, "where section student begins and ends")


def refused(workshop: Workshop, text: str, row: dict[str, Any], kind: type[PotstillError], message: str) -> None:
    """`write_student` raises, and leaves file and folder as they were."""
    path = workshop.folder / "recipe.yaml"
    path.write_text(text)
    files = set(workshop.folder.iterdir())
    with pytest.raises(kind, match=message) as caught:
        write_student(path, row["student"], row["quantization"])
    assert path.read_text() == text
    assert set(workshop.folder.iterdir()) == files
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_recipe_that_would_not_be_valid_is_left_as_it_is(workshop: Workshop) -> None:
    text = HEAD + SECTIONS["plain"] + "train: {objective: {targets: top_k}}\n" + TAIL
    row = {**ROW, "student": {**ROW["student"], "vocabulary": "workload"}}
    refused(workshop, text, row, RecipeError, "not valid, and was left as it is.*student.vocabulary")
    # an anchor within the section that another one needs
    text = HEAD + "student:\n  init: teacher_layers\n  layers: &two 2\n" + "seed: *two\n" + TAIL
    refused(workshop, text, ROW, RecipeError, "not valid, and was left as it is.*undefined alias")


def test_what_may_not_be_written_is_reported(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    text, path = HEAD + SECTIONS["plain"] + TAIL, workshop.folder / "recipe.yaml"
    path.write_text(text)
    path.chmod(0o444)
    with pytest.raises(UsageError, match="is read-only, and was left as it is"):
        write_student(path, ROW["student"], ROW["quantization"])
    path.chmod(0o644)

    def no(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # by mode bits alone a test that runs as root would not be stopped
    for name in ("pathlib.Path.write_bytes", "os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(name, no)
            refused(workshop, text, ROW, UsageError, r"cannot be written \(Permission denied\), and was left as it is")


# ---- the row ----


def search(workshop: Workshop, *words: str) -> Result:
    return CliRunner().invoke(main, ["search", str(workshop.folder / "recipe.yaml"), *words])


def listed(workshop: Workshop, *words: str) -> dict[str, Any]:
    done = search(workshop, "--json", *words)
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_write_takes_a_row_of_a_device_and_an_id_anywhere(workshop: Workshop) -> None:
    workshop.recipe(target={"device": "pi5"})
    rows = listed(workshop)["students"]
    by_row = listed(workshop, "--write", "2")["written"]
    assert by_row["id"] == rows[1]["id"]
    recipe = workshop.recipe(target={"device": "a board of ours"})
    found = listed(workshop)
    assert found["device"].startswith("this machine")
    chosen = found["students"][-1]["id"]
    for row in ("1", "2"):
        done = search(workshop, "--write", row)
        assert done.exit_code == 2 and done.stdout == ""
        assert "rows change with what is measured on this machine" in done.stderr
        assert found["students"][0]["id"] in done.stderr
    assert load_recipe(workshop.folder / "recipe.yaml") == recipe
    done = search(workshop, "--write", chosen.upper())
    assert done.exit_code == 0, done.output
    assert f"recipe.yaml: student and export.quantization are those of {chosen} now" in done.stderr
    after = yaml.safe_load((workshop.folder / "recipe.yaml").read_text())
    keys, quantization = chosen.rsplit("/", 1)
    wanted = {key: int(value) for key, value in (pair.split("=") for pair in keys.split(","))}
    assert after["student"] == {"init": "teacher_layers", **wanted}
    assert after["export"]["quantization"] == quantization


def test_a_student_that_no_list_has_can_be_written(workshop: Workshop) -> None:
    workshop.recipe(target={"device": "pi5"})
    rows = {one["id"] for one in listed(workshop)["students"]}
    found = feasible_candidates(load_config(str(workshop.model)), Goal(find_device("pi5"), Serving(256)))
    other = next(one.id for one in found if one.id not in rows)
    assert listed(workshop, "--write", other)["written"]["id"] == other
    after = yaml.safe_load((workshop.folder / "recipe.yaml").read_text())
    assert after["export"]["quantization"] == other.rsplit("/")[-1]


@pytest.mark.parametrize("asked", ["99", "0", "layers=77/Q8_0", "-1", "", "²"])
@pytest.mark.parametrize("style", [[], ["--json"]])
def test_a_row_that_is_not_there_prints_and_changes_nothing(workshop: Workshop, asked: str, style: list[str]) -> None:
    workshop.recipe(target={"device": "pi5"})
    path = workshop.folder / "recipe.yaml"
    before = path.read_bytes()
    done = search(workshop, "--write", asked, *style)
    assert done.exit_code == 2 and done.stdout == "" and "--write" in done.stderr
    assert path.read_bytes() == before


def test_a_refused_write_prints_nothing(workshop: Workshop) -> None:
    workshop.recipe(target={"device": "pi5"})
    path = workshop.folder / "recipe.yaml"
    path.chmod(0o444)
    done = search(workshop, "--write", "1")
    assert done.exit_code == 2 and done.stdout == "" and "read-only" in done.stderr


# ---- the teacher ----


def test_a_teacher_that_cannot_be_pruned_names_what_can(workshop: Workshop) -> None:
    for kind in ("BitNetForCausalLM", "Gemma2ForCausalLM"):
        workshop.make_model("teacher", architectures=[kind])
        workshop.recipe(target={"device": "pi5"})
        done = search(workshop)
        assert done.exit_code == 2
        assert f"a student cannot be cut from {kind}; LlamaForCausalLM," in done.stderr
        assert "search with the config.json of one" in done.stderr and "GGUF" not in done.stderr


def test_a_teacher_behind_an_endpoint_is_reported(workshop: Workshop) -> None:
    workshop.recipe(
        teacher={"kind": "api", "base_url": "http://localhost:1/v1"},
        student={"init": "checkpoint", "model": "teacher", "layers": None},
        train={"objective": "sft", "control": "none"},
    )
    done = search(workshop)
    assert done.exit_code == 2 and "behind an endpoint" in done.stderr


def test_a_teacher_that_the_recipe_trains_from_scratch_is_cut_in_its_own_shape(workshop: Workshop) -> None:
    shape = "llama:layers=12,hidden=128,ffn=512,heads=4,kv_heads=2"
    workshop.recipe(teacher={"finetune": {"rows": "train.jsonl", "shape": shape}}, target={"device": "pi5"})
    found = listed(workshop)["students"]
    assert {one["student"].get("layers", 12) for one in found} > {10}
    assert max(one["student"].get("layers", 12) for one in found) > 4


def test_only_where_tokens_are_compared_must_the_tokenizer_be_one(workshop: Workshop) -> None:
    by_text: list[dict[str, Any]] = [{}, {"train": {"objective": "sft", "control": "none"}}]
    by_token: list[dict[str, Any]] = [
        {"train": {"objective": "reverse_kl"}}, {"train": {"objective": {"hidden": {}}}},
        {"train": {"objective": {"on_policy": {"share": 0.5}}}},
        {"gates": {"kl_mean": 1.0}}, {"gates": {"top1_agreement": 0.5}},
    ]  # fmt: skip
    for wanted, cases in ((False, by_text), (True, by_token)):
        for changes in cases:
            assert (workshop.recipe(**changes).same_tokenizer_key is not None) is wanted, changes


def test_the_teachers_context_bounds_the_students(workshop: Workshop) -> None:
    workshop.recipe(target={"device": "pi5"})
    done = search(workshop, "--context", "257")
    assert done.exit_code == 2 and done.stdout == ""
    assert "--context 257: the teacher was made for 256 tokens at most" in done.stderr
    assert listed(workshop, "--context", "256")["context"] == 256


def test_a_vocabulary_is_neither_more_than_the_teachers_nor_less_than_its_bytes(workshop: Workshop) -> None:
    workshop.recipe(target={"device": "pi5"})
    for asked, message in (("385", "the teacher has 384 tokens"), ("256", "added ones: give 2"), ("255", "give 256")):
        done = search(workshop, "--vocabulary", asked)
        assert done.exit_code == 2 and message in done.stderr, done.stderr
    found = listed(workshop, "--vocabulary", "300")
    assert all(one["student"]["vocabulary"] == "workload" for one in found["students"])


def test_capitals_do_not_make_another_file(workshop: Workshop) -> None:
    workshop.recipe()
    path = Path(workshop.folder / "recipe.yaml").rename(workshop.folder / "R.YAML")
    for command in ("plan", "search"):
        done = CliRunner().invoke(main, [command, str(path), "--device", "pi5", "--json"])
        assert done.exit_code == 0, done.output
        assert "students" in json.loads(done.stdout) or json.loads(done.stdout)["name"] == "lights"
