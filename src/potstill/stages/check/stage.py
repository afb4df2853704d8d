"""Check: what a run needs and whether it can work, by arithmetic and by rendering every row, before it is paid for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from potstill.components.chat.format import ChatSettings
from potstill.components.models.folder import resolve_model
from potstill.components.models.handover import optional_file
from potstill.core.artifacts.check import CheckResult
from potstill.core.hashing import HashedPath
from potstill.core.recipe import Finetune, Recipe
from potstill.core.steps import Done, Stage
from potstill.stages.check.room import confirm

__all__ = ["STAGE", "CheckInputs"]


@dataclass(frozen=True)
class CheckInputs:
    """The whole recipe, in parts: `recipe` is without what the other fields hold.

    teacher, base   a model's name, as the recipe has it, with the hash of its files; None where there is no such model
    licenses        licences by the names of the recipe
    member_licenses licences of several teachers
    """

    recipe: Recipe
    chat: ChatSettings
    prompts: HashedPath
    validation: HashedPath | None
    test: HashedPath
    tools: HashedPath | None
    limit: dict[str, int]
    teacher: HashedPath | None
    finetune: Finetune | None
    finetune_rows: HashedPath | None
    labelled: HashedPath | None
    unanswered: HashedPath | None
    curriculum: HashedPath | None
    base: HashedPath | None
    licenses: dict[str, str]
    member_licenses: tuple[str | None, ...]

    def whole_recipe(self) -> Recipe:
        """The recipe with all of its parts."""
        recipe, teacher = self.recipe, dict[str, object]()
        data = {
            "prompts": self.prompts.path,
            "validation": self.validation and self.validation.path,
            "test": self.test.path,
            "labelled": self.labelled and self.labelled.path,
            "unanswered": self.unanswered and self.unanswered.path,
            "curriculum": self.curriculum and self.curriculum.path,
            "tools": self.tools and self.tools.path,
            "limit": self.limit,
        }
        template = self.chat.template if isinstance(self.chat.template, str) else str(self.chat.template.path)
        if self.teacher:
            rows = {"rows": self.finetune_rows.path} if self.finetune_rows else {}
            finetune = self.finetune and self.finetune.model_copy(update=rows)
            teacher = {"model": str(self.teacher.path), "finetune": finetune}
        if recipe.member_teachers:
            named = zip(recipe.member_teachers, self.member_licenses, strict=True)
            teacher = {"teachers": tuple(member.model_copy(update={"license": tag}) for member, tag in named)}
        student = {"model": str(self.base.path)} if self.base else {}
        return recipe.model_copy(
            update={
                "data": recipe.data.model_copy(update=data),
                "chat": recipe.chat.model_copy(update={"template": template}),
                "teacher": recipe.teacher.model_copy(update=teacher),
                "student": recipe.student.model_copy(update=student),
                "licenses": self.licenses,
            }
        )


def _model(name: str) -> HashedPath:
    """A model by its name, with the hash of its files; of a model on the hub only the small files are fetched."""
    return HashedPath(Path(name), HashedPath.of_model(resolve_model(name, weights=False)).sha256)


def inputs(recipe: Recipe, done: Done) -> CheckInputs:
    """The inputs of the check."""
    data, teacher, student = recipe.data, recipe.teacher, recipe.student
    return CheckInputs(
        recipe=recipe,
        chat=ChatSettings.of(recipe.chat),
        prompts=HashedPath.of_file(data.prompts),
        validation=optional_file(data.validation),
        test=HashedPath.of_file(data.test),
        tools=optional_file(data.tools),
        limit={str(name): rows for name, rows in data.limit.items()},
        teacher=_model(teacher.model) if teacher.kind == "local" else None,
        finetune=teacher.finetune,
        finetune_rows=optional_file(teacher.finetune.rows) if teacher.finetune else None,
        labelled=optional_file(data.labelled),
        unanswered=optional_file(data.unanswered),
        curriculum=optional_file(data.curriculum),
        base=_model(student.model) if student.model else None,
        licenses={str(part): name for part, name in recipe.licenses.items()},
        member_licenses=tuple(member.license for member in recipe.member_teachers),
    )


def run(inputs: CheckInputs, out: Path) -> None:
    """Write check.json; nothing is written where the check fails.

    Raises:
        RecipeError: the recipe cannot work; the message names the key.
        DataError: a row cannot be used; the message names file and line.
    """
    from potstill.stages.check.check import check_recipe

    check_recipe(inputs.whole_recipe()).write(out)


def _confirm(folder: Path, runs: Path) -> list[str]:
    return confirm(CheckResult.read(folder), runs)


STAGE = Stage("check", (), inputs, run, version=9, confirm=_confirm)
