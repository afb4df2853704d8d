"""The store of answers: what was answered is not asked again, and what has changed is not used."""

from __future__ import annotations

import json
import multiprocessing
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from potstill.components.runtimes import Answer, FinishReason, OnAnswers, Sampling
from potstill.components.runtimes.answer_store import AnswerStore, AskedTogether, StoredRuntime
from potstill.core.errors import StepError, TeacherError
from potstill.core.recipe.teacher import ApiTeacher
from potstill.core.records import Message, Row


class Counted:
    """Answers `said N` in groups of a size; can stop after a number of rows, as a kill does."""

    def __init__(self, together: int = 1, stop_after: int | None = None, refused: str = "") -> None:
        self.together, self.stop_after, self.refused = together, stop_after, refused
        self.asked: list[str] = []

    def requests(self, rows: Sequence[Row], sampling: Sampling) -> list[AskedTogether]:
        words = [str(row.messages[0].content) for row in rows]
        groups = [range(i, min(i + self.together, len(rows))) for i in range(0, len(rows), self.together)]
        return [AskedTogether(g, {"words": [words[i] for i in g], "seed": sampling.seed}) for g in groups]

    def answer(
        self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
    ) -> list[Answer]:
        answers: list[Answer] = []
        for group, request in self.requests(rows, sampling):
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            batch = []
            for i, words in zip(group, request["words"], strict=True):
                finish: FinishReason = "refused" if words == self.refused else "stop"
                batch.append((i, Answer(f"said {words}", finish, 5, 7, 0.1)))
            self.asked += request["words"]
            answers += [answer for _, answer in batch]
            if on_answers:
                on_answers(batch)
        return answers


def rows(*words: str) -> list[Row]:
    return [Row(messages=(Message(role="user", content=each),)) for each in words]


WORDS = tuple(f"w{i}" for i in range(10))


def store(tmp_path: Path, url: str = "http://h/v1") -> AnswerStore:
    teacher = ApiTeacher(kind="api", model="some/model", base_url=url)
    return AnswerStore.for_step(tmp_path / "runs" / "r" / "generate-1", teacher, None)


def ask(teacher: Counted, kept: AnswerStore, *words: str, seed: int = 0) -> list[str]:
    """The texts of the answers to these words."""
    return [a.text for a in StoredRuntime(teacher, kept).answer(rows(*words), Sampling(9, seed=seed), "train")]


@pytest.mark.parametrize(("together", "kept"), [(1, 6), (4, 4)])
def test_only_what_is_not_there_is_asked(tmp_path: Path, together: int, kept: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(Counted(together, stop_after=kept), store(tmp_path), *WORDS)
    again = Counted(together)
    assert ask(again, store(tmp_path), *WORDS) == [f"said {w}" for w in WORDS]
    assert again.asked == list(WORDS[kept:])
    never = Counted(together)
    assert ask(never, store(tmp_path), *WORDS) == [f"said {w}" for w in WORDS]
    assert never.asked == []


def test_equal_requests_are_asked_once_and_another_seed_is_another_request(tmp_path: Path) -> None:
    teacher = Counted()
    assert ask(teacher, store(tmp_path), "a", "b", "a") == ["said a", "said b", "said a"]
    assert sorted(teacher.asked) == ["a", "b"]
    ask(teacher, store(tmp_path), "c", "a")
    assert teacher.asked[2:] == ["c"]
    ask(teacher, store(tmp_path), "a", seed=1)
    assert teacher.asked[3:] == ["a"]


def test_a_group_of_rows_is_asked_as_a_whole(tmp_path: Path) -> None:
    """The answers of a batch belong together: with another row in it, the batch is another request."""
    ask(Counted(4), store(tmp_path), *WORDS[:8])
    teacher = Counted(4)
    ask(teacher, store(tmp_path), *WORDS[:4], "new", *WORDS[4:7])
    assert teacher.asked == ["new", *WORDS[4:7]]


def test_every_address_has_a_store_that_only_its_owner_reads(tmp_path: Path) -> None:
    ask(Counted(), store(tmp_path), *WORDS)
    with pytest.raises(KeyboardInterrupt):
        ask(Counted(stop_after=0), store(tmp_path, "http://other/v1"), *WORDS)
    (path,) = (tmp_path / "runs" / ".answers").glob("*.jsonl")
    assert path.name.startswith("some-model-")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("count", "refused", "fails"), [(10, 4, False), (10, 5, True), (25, 5, False), (25, 6, True), (2, 2, True)]
)
def test_a_share_of_the_rows_may_be_refused(tmp_path: Path, count: int, refused: int, fails: bool) -> None:
    class Refusing(Counted):
        def answer(
            self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: OnAnswers | None = None
        ) -> list[Answer]:
            answers = [Answer("fine", "stop", 1, 1, 0.1) for _ in rows]
            answers[count - refused :] = [Answer("", "refused", 0, 0, 0.1, detail="400: policy")] * refused
            for index, answer in enumerate(answers):
                assert on_answers
                on_answers([(index, answer)])
            return answers

    asked = [str(i) for i in range(count)]
    if not fails:
        assert ask(Refusing(), store(tmp_path), *asked) == ["fine"] * (count - refused) + [""] * refused
        return
    with pytest.raises(TeacherError, match=rf"h/v1: it refuses {min(refused, 5)} of [0-9]+ rows, .*400: policy.*20%"):
        ask(Refusing(), store(tmp_path), *asked)
    again = Counted()
    ask(again, store(tmp_path), *asked)
    assert again.asked == asked[count - refused :]  # refusals of a run that failed are asked again


def test_a_refusal_is_kept_once_the_run_did_not_fail(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(Counted(stop_after=5, refused="w1"), store(tmp_path), *WORDS)
    resumed = Counted(refused="w1")
    ask(resumed, store(tmp_path), *WORDS)
    assert resumed.asked == ["w1", *WORDS[5:]]
    ask(never := Counted(), store(tmp_path), *WORDS)
    assert never.asked == []


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    kept = store(tmp_path)
    ask(Counted(), kept, *WORDS)
    whole = kept.path.read_bytes()
    for cut in (1, 40, 200):
        kept.path.write_bytes(whole[:-cut])
        ask(teacher := Counted(), kept, *WORDS)
        assert teacher.asked == ["w9"]
        assert len(kept.path.read_bytes().splitlines()) == 10
    assert not list(kept.path.parent.glob("*.damaged-*"))


def test_any_damage_is_named_and_costs_only_the_lines_it_is_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, draw = store(tmp_path), random.Random(0)
    ask(Counted(), kept, *WORDS)
    whole = kept.path.read_bytes()
    for trial in range(60):
        broken = bytearray(whole)
        place = draw.randrange(len(whole) - 1)
        broken[place] ^= 1 << draw.randrange(8)
        kept.path.write_bytes(broken)
        hit = 2 if whole[place : place + 1] == b"\n" else 1
        ask(teacher := Counted(), kept, *WORDS)
        assert len(teacher.asked) == hit
        assert "damaged" in (said := capsys.readouterr().err) and f"damaged-{trial + 1}." in said
        assert kept.path.with_name(f"{kept.path.name}.damaged-{trial + 1}").read_bytes() == bytes(broken)
        ask(never := Counted(), kept, *WORDS)
        assert never.asked == [] and capsys.readouterr().err == ""


@pytest.mark.parametrize("text", [b"\x00" * 99 + b"\n", b"[" * 99_999 + b"\n", b'{"key":1}\n', b"\xff\xfe\n", b""])
def test_a_file_of_anything_else_is_replaced(tmp_path: Path, text: bytes) -> None:
    kept = store(tmp_path)
    kept.path.parent.mkdir(parents=True)
    kept.path.write_bytes(text)
    ask(teacher := Counted(), kept, *WORDS)
    assert teacher.asked == list(WORDS)
    assert bool(list(kept.path.parent.glob("*.damaged-1"))) == bool(text)


def test_answers_of_another_shape_with_a_right_checksum_are_not_used(tmp_path: Path) -> None:
    from potstill.components.runtimes.answer_store import _check

    kept = store(tmp_path)
    key = kept.key({"words": ["w0"], "seed": 0})
    kept.path.parent.mkdir(parents=True)
    for answers in ('[{"text":1}]', "[]", '[{"text":"x"}]', "[" * 5000 + "]" * 5000):
        line = {"key": key, "check": _check(key, answers.encode())}
        kept.path.write_text(json.dumps(line, separators=(",", ":"))[:-1] + f',"answers":{answers}}}\n')
        ask(teacher := Counted(), kept, "w0")
        assert teacher.asked == ["w0"]


def test_a_store_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    kept = store(tmp_path)
    kept.path.mkdir(parents=True)
    with pytest.raises(StepError, match=r"cannot be used \(it is not a file\)"):
        ask(Counted(), kept, *WORDS)


def _ask_many(folder: Path, words: list[str]) -> None:
    for word in words:
        ask(Counted(), store(folder), word)


def test_several_processes_share_a_store(tmp_path: Path) -> None:
    parts = [[f"p{part}-{i}" for i in range(20)] for part in range(3)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_ask_many, args=(tmp_path, part)) for part in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    never = Counted()
    ask(never, store(tmp_path), *(word for part in parts for word in part))
    assert never.asked == []
