"""What the generate stage leaves: summary.json, and files of rows.

train.jsonl, validation.jsonl   rows with the teacher's answers, to learn from
rejected.jsonl                  rows whose answers are not learnt from, each with its reason
tools.json                      the tools of the rows that name none
SPLIT.logprobs.jsonl            log-probabilities of the answers' tokens, where an endpoint was asked for them
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from potstill.core.artifacts.base import Artifact, Part
from potstill.core.files import read_json_lines
from potstill.core.format import format_percent
from potstill.core.records import Row, read_rows

__all__ = [
    "REJECTED",
    "TOOLS",
    "Generated",
    "GeneratedSplit",
    "SplitCounts",
    "TeacherCounts",
    "TeacherIdentity",
    "VerdictCounts",
    "logprobs_file",
    "read_generated",
    "read_logprobs",
    "rows_file",
]

GeneratedSplit = Literal["train", "validation"]

TOOLS = "tools.json"
REJECTED = "rejected.jsonl"


def rows_file(split: GeneratedSplit) -> str:
    """Name of the file with the answered rows of a split."""
    return f"{split}.jsonl"


def logprobs_file(split: GeneratedSplit) -> str:
    """Name of the file with the log-probabilities of a split."""
    return f"{split}.logprobs.jsonl"


def read_generated(rows: Path, tools: Path, limit: int | None = None) -> list[Row]:
    """The answered rows of a split; none where the split has none.

    Args:
        rows: the file of the split.
        tools: tools.json of the same step.
        limit: the number of rows to read, from the top; None: all.

    Raises:
        DataError: a file is broken.
    """
    return read_rows(rows, tools=tools, need_completion=True, limit=limit) if rows.stat().st_size else []


def read_logprobs(path: Path) -> dict[str, str]:
    """The packed log-probabilities of answers, by row id; answers that came without them are not in it."""
    return {entry["row_id"]: entry["logprobs"] for _, entry in read_json_lines(path)}


class TeacherIdentity(Part):
    """Which teacher answered; this is in the provenance of each row.

    kind              `local` or `api`
    model             the hub id, the name of the folder, or the endpoint's name of the model
    revision          revision on the hub; None: the hub's default
    weights_sha256, template_sha256, tokenizer_sha256   hashes of a local teacher; None for an endpoint
    endpoint          address of an endpoint; None for a local teacher
    """

    kind: Literal["local", "api"]
    model: str
    revision: str | None = None
    weights_sha256: str | None = None
    template_sha256: str | None = None
    tokenizer_sha256: str | None = None
    endpoint: str | None = None


_REASONS = {
    "repeated": "the prompt is repeated",
    "empty": "the answer is empty",
    "length": "the answer is cut off at generate.max_new_tokens or chat.context",
    "model": "another model answered",
    "unfinished": "the endpoint ended the answer for a reason of its own, such as a content filter",
    "refused": "the endpoint refuses the prompt",
    "boundary": "the answer cannot be separated from the prompt",
    "context": "prompt and answer are longer than chat.context",
    "calls": "a call cannot be read or run",
    "gold": "the row's gold says that the answer is wrong",
    "values": "a value is not in the prompt",
    "agreement": "most answers to the prompt differ",
    "unknown": "no checker can tell",
    "pii": "the row has personal data",
    "refusal": "the answer declines",
    "near_duplicates": "the prompt is nearly that of another row",
    "decontamination": "the prompt is nearly that of a test row",
    "superseded": "another teacher's answer was taken, or asked for",
    "outvoted": "most teachers, or the right one, answer otherwise",
    "no majority": "the teachers disagree",
}


class VerdictCounts(Part):
    """How many answers of a split pass one checker, how many fail it, and how many it cannot judge.

    passed    answers that it finds right, as far as it looks
    failed    answers that it finds wrong; they are rejected
    unknown   answers that it cannot judge
    """

    passed: int = 0
    failed: int = 0
    unknown: int = 0

    def __add__(self, other: VerdictCounts) -> VerdictCounts:
        return VerdictCounts(
            passed=self.passed + other.passed,
            failed=self.failed + other.failed,
            unknown=self.unknown + other.unknown,
        )


class TeacherCounts(Part):
    """What one of several teachers did for a split.

    teacher   who it is
    prompts   number of prompts that it was asked
    wins      number of these whose answer to learn from is its own, or the same as its own
    """

    teacher: TeacherIdentity
    prompts: int
    wins: int


class SplitCounts(Part):
    """Counts of one split.

    prompts             rows that were read
    own_answers         number of these with an answer in the file, for which the teacher was not asked
    kept                rows with answers to learn from
    rejected            number of rejected rows, by reason
    completion_tokens   tokens of all answers
    thinking            number of answers with thinking
    left_out            number of kept answers of which the student's chat template leaves a part out, by part
    verified            verdicts on the answers that are fit to learn from in form, by checker
    teachers            what each of several teachers did; empty for a single one
    compared            number of prompts to which several teachers gave an answer that is fit in form
    agreed              number of these to which all of them gave the same
    """

    prompts: int
    kept: int
    rejected: dict[str, int]
    completion_tokens: int
    thinking: int = 0
    left_out: dict[str, int] = Field(default_factory=dict)
    own_answers: int = 0
    verified: dict[str, VerdictCounts] = Field(default_factory=dict)
    teachers: tuple[TeacherCounts, ...] = ()
    compared: int = 0
    agreed: int = 0

    @property
    def shares(self) -> str | None:
        """How often each of several teachers won, and how often they agree, in words; None for a single one."""
        if not any(each.prompts for each in self.teachers):
            return None
        said = [
            f"{each.teacher.model}: {each.wins:,} of {each.prompts:,} prompts won"
            + (f" ({format_percent(each.wins / each.prompts)})" if each.prompts else "")
            for each in self.teachers
        ]
        if self.compared:
            share = format_percent(self.agreed / self.compared)
            said.append(f"all that answered agree on {self.agreed:,} of {self.compared:,} prompts ({share})")
        return "; ".join(said)

    @property
    def verdicts(self) -> str | None:
        """What each checker that could judge an answer said, in words; None where none could."""
        said = [
            f"{name}: {counts.passed:,} pass, {counts.failed:,} fail, {counts.unknown:,} unknown"
            for name, counts in self.verified.items()
            if counts.passed or counts.failed
        ]
        return "; ".join(said) or None

    @property
    def lost(self) -> str | None:
        """How many rows are not used, and why; None where every row is."""
        if not self.rejected:
            return None
        reasons = ", ".join(f"{_REASONS.get(name, name)}: {count:,}" for name, count in self.rejected.items())
        lost = sum(self.rejected.values())
        verb = "is" if lost == 1 else "are"
        return f"{self.kept:,} of {self.kept + lost:,} answers are used, and {lost:,} {verb} not ({reasons})"


class Generated(Artifact):
    """Which teacher answered, and the counts of each split.

    teacher     who answered
    reasoning   whether the thinking in answers is learnt
    splits      the counts of `train` and of `validation`
    """

    FILE: ClassVar[str] = "summary.json"
    FORMAT: ClassVar[int] = 5

    teacher: TeacherIdentity
    reasoning: Literal["learn", "drop"] = "learn"
    splits: dict[str, SplitCounts]

    def findings(self) -> list[str]:
        """What a person must know about the answers."""
        train, found = self.splits["train"], list[str]()
        if train.thinking:
            done = "it is left out of the rows" if self.reasoning == "drop" else "it is learnt with the answer"
            found.append(
                f"generate: {train.thinking} of {train.prompts} answers have thinking; {done} "
                f"(chat.reasoning: {self.reasoning})."
            )
        for name, counts in self.splits.items():
            if counts.shares:
                found.append(f"generate: {name}: teachers ({counts.shares}).")
            if counts.verdicts:
                found.append(f"generate: {name}: answers verified ({counts.verdicts}).")
            if counts.lost:
                found.append(f"generate: {name}: {counts.lost}. They are in {REJECTED}, each with its reason.")
        for part, count in train.left_out.items():
            found.append(
                f"generate: the student's chat template leaves {part} out of {count} of {train.kept} answers, so the "
                "student learns them without it. Choose a template that writes it, or a teacher that does not."
            )
        return found
