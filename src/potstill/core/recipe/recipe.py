"""The recipe of a language model: one YAML file that holds every setting of a run, with one class per section."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PrivateAttr, model_validator

from potstill.core.recipe.budget import Budget
from potstill.core.recipe.chat import Chat
from potstill.core.recipe.data import Data
from potstill.core.recipe.fields import Section
from potstill.core.recipe.gates import Gates
from potstill.core.recipe.generate import Generate
from potstill.core.recipe.schedule import Schedule, Trainer
from potstill.core.recipe.several import MemberTeacher, Teacher
from potstill.core.recipe.shipping import Evaluate, Export, Package
from potstill.core.recipe.student import Student
from potstill.core.recipe.target import Target
from potstill.core.recipe.targets import MAX_SERVED_LOGPROBS, StoredTargets, TopKTargets
from potstill.core.recipe.teacher import ApiTeacher, LocalTeacher
from potstill.core.recipe.terms import ASSUMED_DEVICE_HOUR, Economy, Licenses, Prices, TokenPrice
from potstill.core.recipe.train import Train
from potstill.core.recipe.worth import RungName, Worth

__all__ = ["Recipe", "RecipeFile"]


class RecipeFile(Section):
    """What every recipe has."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Name of the run and of the model, in letters, digits, `.`, `_` and `-`; required."""
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    """Seed of everything random; default: 0."""

    licenses: Licenses = Field(default_factory=dict)
    """Licences by name, as SPDX identifiers or the hub's tags: of the data, the teacher, the student (the model that it
    starts from) and the package (the model that ships); default: unknown."""

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def folder(self) -> Path:
        """Folder of the recipe's file; the working directory of a recipe that has none."""
        return self._folder

    def license_of(self, part: Literal["data", "teacher", "student", "package"]) -> str:
        """Licence of a part of the run, or "unknown"."""
        return self.licenses.get(part, "unknown")


class Recipe(RecipeFile):
    """A whole run for a language model."""

    data: Data
    chat: Chat = Chat()
    teacher: Teacher
    budget: Budget = Budget()
    generate: Generate = Generate()
    student: Student
    train: Train = Train()
    trainer: Trainer = Trainer()
    worth: Worth = Worth()
    export: Export = Export()
    evaluate: Evaluate = Evaluate()
    gates: Gates = Gates()
    target: Target = Target()
    package: Package = Package()
    prices: Prices = Field(default_factory=dict)
    """Prices by name, in one currency: `input` and `output` (10^6 tokens of the teacher's endpoint, or of the one that
    the student replaces; default: the built-in list), `device_hour` (an hour in which the device answers: energy and
    wear; default: 0.003, for 10 W at 0.30 per kWh) and `train_hour` (an hour of training; default: 0)."""

    @property
    def token_price(self) -> TokenPrice | None:
        """Price of the endpoint's tokens, where the recipe has one."""
        return TokenPrice(self.prices["input"], self.prices["output"]) if "input" in self.prices else None

    @property
    def economy(self) -> Economy:
        """Prices of an hour of the device and of training."""
        return Economy(self.prices.get("device_hour", ASSUMED_DEVICE_HOUR), self.prices.get("train_hour", 0.0))

    @property
    def schedule(self) -> Schedule:
        """All settings of the student's training."""
        return Schedule.of(self.train, self.trainer, scratch=self.student.init == "scratch")

    @property
    def finetune_schedule(self) -> Schedule:
        """All settings of the teacher's fine-tuning."""
        settings = self.teacher.finetune
        assert settings is not None
        return Schedule.of(settings, self.trainer, scratch=settings.shape is not None)

    @property
    def member_teachers(self) -> tuple[MemberTeacher, ...]:
        """The teachers of a recipe with several; none where there is one."""
        return self.teacher.teachers if self.teacher.kind == "several" else ()

    @property
    def lead_teacher(self) -> LocalTeacher | ApiTeacher:
        """The teacher that the student is compared with."""
        if self.teacher.kind != "several":
            return self.teacher
        return self.teacher.lead.model_copy(update={"offline": self.teacher.offline})

    def license_of(self, part: Literal["data", "teacher", "student", "package"]) -> str:
        """Licence of a part of the run, or "unknown"; that of several teachers has all of theirs."""
        named = super().license_of(part)
        if part != "teacher" or not self.member_teachers:
            return named
        return ", ".join(dict.fromkeys(member.license or named for member in self.member_teachers))

    @property
    def local_teacher(self) -> LocalTeacher:
        """The teacher's section, where the caller knows that the teacher is local."""
        assert self.teacher.kind == "local"
        return self.teacher

    @property
    def stored_targets(self) -> StoredTargets | None:
        """What is stored of the teacher's distributions before the training; None for nothing."""
        return self.train.objective.stored_targets

    @property
    def scores_online(self) -> bool:
        """Whether the teacher's distributions are computed while the student trains."""
        return self.train.objective.name != "sft" and self.stored_targets is None

    @property
    def trains_with_teacher(self) -> bool:
        """Whether the teacher is in memory while the student trains: it teaches then, or the student starts from it."""
        return self.teacher.kind == "local" and (
            self.scores_online or self.train.objective.hidden is not None or self.student.init == "teacher_layers"
        )

    @property
    def same_tokenizer_key(self) -> str | None:
        """A key that compares student and teacher token by token, so that both need one tokenizer; None: no such key.

        Text needs no common tokenizer, and forward_kl then compares spans of text.
        """
        objective = self.train.objective
        if objective.name == "sft":
            return None
        by_id = {
            f"train.objective: {objective.name}": objective.name != "forward_kl",
            "train.objective.hidden": objective.hidden is not None,
            "train.objective.on_policy": objective.on_policy is not None,
            "gates.kl_mean": self.gates.kl_mean is not None,
            "gates.top1_agreement": self.gates.top1_agreement is not None,
        }
        return next((key for key, reads in by_id.items() if reads), None)

    @property
    def student_rung(self) -> RungName:
        """The rung of the worth ladder that the student itself is."""
        objective = self.train.objective
        if objective.name == "sft":
            return "text"
        return "recipe" if objective.hidden or objective.on_policy else "distributions"

    @property
    def shipped_rung(self) -> RungName:
        """The rung of the worth ladder that is exported and judged."""
        return self.worth.ship or self.student_rung

    @property
    def shipped_objective(self) -> str:
        """Name of the objective of the model that ships."""
        return "sft" if self.shipped_rung == "text" else self.train.objective.name

    @property
    def worth_models(self) -> dict[str, RungName]:
        """The rungs that are trained apart from the student and its control, by the model's name, cheapest first.

        The second training seed's model of a rung is named `text-2`, and so on.
        """
        student, rungs = self.student_rung, self.worth.rungs
        has_text = self.train.has_control and "text" in rungs
        first: dict[RungName, bool] = {
            "labels": "labels" in rungs and (self.data.labelled is not None or self.generate.samples > 0),
            "text": has_text and self.worth.budget == "seconds",
            "distributions": "distributions" in rungs and student == "recipe",
        }
        later = first | {"text": has_text} | {student: True}
        numbers = range(2, self.worth.seeds + 1)
        return {rung: rung for rung, asked in first.items() if asked} | {
            f"{rung}-{number}": rung for number in numbers for rung, asked in later.items() if asked
        }

    @property
    def requested_logprobs(self) -> int | None:
        """Number of log-probabilities that an endpoint is asked for at each token of its answers; None: for none."""
        stored = self.stored_targets
        return stored.k if self.teacher.kind == "api" and isinstance(stored, TopKTargets) else None

    @model_validator(mode="after")
    def _endpoint_can_teach(self) -> Self:
        if self.teacher.kind == "local":
            return self
        stored = self.stored_targets
        if self.teacher.kind == "several" and self.train.objective.name != "sft":
            raise ValueError("several teachers teach by their text alone: set train.objective: sft")
        if self.teacher.kind == "several" and self.generate.samples == 0:
            raise ValueError("generate.samples: 0 asks no teacher, and this recipe has several: leave it out")
        if self.teacher.kind == "several" and self.teacher.policy == "vote" and self.generate.samples > 1:
            raise ValueError("policy: vote counts one answer of each teacher: leave generate.samples out")
        if self.scores_online or (stored is None and self.train.has_control):
            raise ValueError(
                "an api teacher cannot run while the student trains: set train.objective: sft to learn from its text; "
                "or, if it gives log-probabilities and the student has its tokenizer, "
                f"train.objective.targets: {{kind: top_k, k: {MAX_SERVED_LOGPROBS}}}"
            )
        if self.student.init != "checkpoint":
            raise ValueError("an api teacher has no weights to start from: set student.init: checkpoint")
        if stored is not None and stored.kind == "counts":
            raise ValueError(
                "train.objective.targets.kind: counts are sampled from whole distributions, and an api teacher gives "
                "its likeliest tokens only: set train.objective.targets: "
                f"{{kind: top_k, k: {MAX_SERVED_LOGPROBS}}}"
            )
        if isinstance(stored, TopKTargets) and (problem := self._unfit_for_logprobs(stored)):
            raise ValueError(problem)
        return self

    def _unfit_for_logprobs(self, stored: TopKTargets) -> str | None:
        """What in the recipe does not go with an endpoint's log-probabilities."""
        objective, answers = self.train.objective, self.generate
        if stored.k > MAX_SERVED_LOGPROBS:
            return (
                f"train.objective.targets.k: {stored.k} is more tokens than endpoints give: at most "
                f"{MAX_SERVED_LOGPROBS} with OpenAI's API, and with vLLM unless it is started otherwise. "
                f"Set k: {MAX_SERVED_LOGPROBS} or less"
            )
        if objective.temperature != 1:
            return (
                f"train.objective.temperature: {objective.temperature:g} would soften distributions of which an api "
                "teacher gives the likeliest tokens only, at temperature 1: leave it out"
            )
        if objective.hidden is not None:
            return "train.objective.hidden needs the teacher's weights, which an endpoint keeps: leave it out"
        if self.student.vocabulary == "workload":
            return (
                "student.vocabulary: workload drops tokens that an api teacher's log-probabilities are of: set "
                "student.vocabulary: full"
            )
        if answers.samples != 1:
            return (
                f"generate.samples: {answers.samples}: log-probabilities are of one answer per prompt, which the "
                "endpoint gives: leave it out, or learn from the text alone with train.objective: sft"
            )
        if answers.temperature not in (0, 1) or (answers.temperature and answers.top_p != 1):
            what = f"top_p: {answers.top_p:g}" if answers.temperature == 1 else f"temperature: {answers.temperature:g}"
            return (
                f"generate.{what}: some endpoints give log-probabilities as the model has them, and some as they are "
                "after temperature and top_p, and do not say which. Set generate.temperature to 0 or 1, where they "
                "agree, and leave top_p out"
            )
        return None

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        teacher, stored = self.teacher, self.stored_targets
        if self.student.init == "teacher_layers" and teacher.kind == "local":
            held = f"offload: {teacher.offload}" if teacher.offload else f"dtype: {teacher.dtype}"
            if teacher.offload or teacher.dtype == "int8":
                raise ValueError(
                    f"teacher.{held} leaves no whole weights in memory for student.init: teacher_layers to take. "
                    "Leave it out, or start the student from a checkpoint"
                )
        if self.train.objective.name == "sft" and self.train.has_control:
            raise ValueError("train.objective is sft already, so its control would be itself: leave train.control out")
        if stored and self.student.vocabulary == "workload":
            raise ValueError(
                f"targets of kind {stored.kind} are stored in the teacher's token ids, which a student with "
                "student.vocabulary: workload does not have: set train.objective.targets: online, or "
                "student.vocabulary: full"
            )
        if stored and self.trainer.kernel not in ("auto", "torch"):
            raise ValueError(
                f"trainer.kernel: {self.trainer.kernel} is for targets: online, and stored targets are scored in plain "
                "torch: leave it out"
            )
        if self.data.curriculum and self.generate.samples == 0:
            raise ValueError(
                "data.curriculum has prompts written, which the teacher answers: leave generate.samples: 0 out, or "
                "data.curriculum"
            )
        if self.data.unanswered and self.train.objective.on_policy is None:
            raise ValueError(
                "data.unanswered has prompts that the student answers itself while it learns: set "
                "train.objective.on_policy, or leave data.unanswered out"
            )
        if self.train.lora_rank and self.student.init == "scratch":
            raise ValueError("train.lora_rank leaves all other weights as they are: leave it out with init 'scratch'")
        trained = {self.student_rung, *self.worth_models.values()} | ({"text"} if self.train.has_control else set())
        if self.worth.ship and self.worth.ship not in trained:
            raise ValueError(
                f"worth.ship: {self.worth.ship}: this recipe trains no such rung. Take it into worth.rungs, or leave "
                "worth.ship out"
            )
        if self.worth.ship == "text" and self.gates.beats_control:
            raise ValueError("worth.ship: text ships the control itself, which gates.beats_control compares with")
        if self.gates.beats_control and not self.train.has_control:
            raise ValueError("gates.beats_control needs train.control: sft")
        if self.budget.is_set and teacher.kind == "local":
            raise ValueError("budget limits what is asked of an endpoint, and the teacher is local: leave budget out")
        if ("input" in self.prices) != ("output" in self.prices):
            raise ValueError("prices.input and prices.output belong together: set both, or neither")
        if "student" in self.licenses and self.student.init != "checkpoint":
            raise ValueError(
                f"licenses.student is the licence of student.model, and init: {self.student.init} has no such model. "
                "The licence of the model that ships is licenses.package"
            )
        return self
