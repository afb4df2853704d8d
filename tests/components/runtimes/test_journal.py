"""The journal: what was answered is not asked again, and what has changed is not used."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import random
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from potstill.components.runtimes import Answer, FinishReason, OnAnswers, OnAsk, Sampling
from potstill.components.runtimes.journal import Journal
from potstill.components.runtimes.journal_file import answers_digest, open_file
from potstill.components.runtimes.journaled import AskedTogether, JournaledRuntime
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
        self,
        rows: Sequence[Row],
        sampling: Sampling,
        label: str,
        on_answers: OnAnswers | None = None,
        on_ask: OnAsk | None = None,
    ) -> list[Answer]:
        answers: list[Answer] = []
        for group, request in self.requests(rows, sampling):
            if self.stop_after is not None and len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            if on_ask:
                on_ask(list(group))
            batch = []
            for i, words in zip(group, request["words"], strict=True):
                finish: FinishReason = "refused" if words == self.refused else "stop"
                detail = "no" if finish == "refused" else None
                batch.append((i, Answer(f"said {words}", finish, 5, 7, 0.1, detail=detail)))
            self.asked += request["words"]
            answers += [answer for _, answer in batch]
            if on_answers:
                on_answers(batch)
        return answers


def rows(*words: str) -> list[Row]:
    return [Row(messages=(Message(role="user", content=each),)) for each in words]


WORDS = tuple(f"w{i}" for i in range(10))


def journal(tmp_path: Path, url: str = "http://h/v1") -> Journal:
    teacher = ApiTeacher(kind="api", model="some/model", base_url=url)
    return Journal.for_step(tmp_path / "runs" / "r" / "generate-1", teacher, None)


def ask(teacher: Counted, kept: Journal, *words: str, seed: int = 0) -> list[str]:
    """The texts of the answers to these words."""
    return [a.text for a in JournaledRuntime(teacher, kept).answer(rows(*words), Sampling(9, seed=seed), "train")]


@pytest.mark.parametrize(("together", "kept"), [(1, 6), (4, 4)])
def test_only_what_is_not_there_is_asked(tmp_path: Path, together: int, kept: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(Counted(together, stop_after=kept), journal(tmp_path), *WORDS)
    again = Counted(together)
    assert ask(again, journal(tmp_path), *WORDS) == [f"said {w}" for w in WORDS]
    assert again.asked == list(WORDS[kept:])
    never = Counted(together)
    assert ask(never, journal(tmp_path), *WORDS) == [f"said {w}" for w in WORDS]
    assert never.asked == []


def test_equal_requests_are_asked_once_and_another_seed_is_another_request(tmp_path: Path) -> None:
    teacher = Counted()
    assert ask(teacher, journal(tmp_path), "a", "b", "a") == ["said a", "said b", "said a"]
    assert sorted(teacher.asked) == ["a", "b"]
    ask(teacher, journal(tmp_path), "c", "a")
    assert teacher.asked[2:] == ["c"]
    ask(teacher, journal(tmp_path), "a", seed=1)
    assert teacher.asked[3:] == ["a"]


def test_a_group_of_rows_is_asked_as_a_whole(tmp_path: Path) -> None:
    """The answers of a batch belong together: with another row in it, the batch is another request."""
    ask(Counted(4), journal(tmp_path), *WORDS[:8])
    teacher = Counted(4)
    ask(teacher, journal(tmp_path), *WORDS[:4], "new", *WORDS[4:7])
    assert teacher.asked == ["new", *WORDS[4:7]]


def test_every_address_has_a_store_that_only_its_owner_reads(tmp_path: Path) -> None:
    ask(Counted(), journal(tmp_path), *WORDS)
    with pytest.raises(KeyboardInterrupt):
        ask(Counted(stop_after=0), journal(tmp_path, "http://other/v1"), *WORDS)
    paths = list((tmp_path / "runs" / ".answers").glob("*.sqlite"))
    assert len(paths) == 2
    for path in paths:
        assert path.name.startswith("some-model-")
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("count", "refused", "fails"), [(10, 4, False), (10, 5, True), (25, 5, False), (25, 6, True), (2, 2, True)]
)
def test_a_share_of_the_rows_may_be_refused(tmp_path: Path, count: int, refused: int, fails: bool) -> None:
    class Refusing(Counted):
        def answer(
            self,
            rows: Sequence[Row],
            sampling: Sampling,
            label: str,
            on_answers: OnAnswers | None = None,
            on_ask: OnAsk | None = None,
        ) -> list[Answer]:
            answers = [Answer("fine", "stop", 1, 1, 0.1) for _ in rows]
            answers[count - refused :] = [Answer("", "refused", 0, 0, 0.1, detail="400: policy")] * refused
            for index, answer in enumerate(answers):
                assert on_answers and on_ask
                on_ask([index])
                on_answers([(index, answer)])
            return answers

    asked = [str(i) for i in range(count)]
    if not fails:
        assert ask(Refusing(), journal(tmp_path), *asked) == ["fine"] * (count - refused) + [""] * refused
        return
    with pytest.raises(TeacherError, match=rf"h/v1: it refuses {min(refused, 5)} of [0-9]+ rows, .*400: policy.*20%"):
        ask(Refusing(), journal(tmp_path), *asked)
    again = Counted()
    ask(again, journal(tmp_path), *asked)
    assert again.asked == asked[count - refused :]  # refusals of a run that failed are asked again


def test_a_refusal_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(Counted(stop_after=5, refused="w1"), journal(tmp_path), *WORDS)
    resumed = Counted(refused="w1")
    ask(resumed, journal(tmp_path), *WORDS)
    assert resumed.asked == list(WORDS[5:])
    ask(never := Counted(), journal(tmp_path), *WORDS)
    assert never.asked == []


def table(kept: Journal) -> list[dict[str, object]]:
    """The rows of the file, read as anyone would."""
    with closing(sqlite3.connect(kept.path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM requests ORDER BY asked, key")]


def test_a_row_is_there_before_its_request_is_sent_and_says_how_it_ended(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    seen = []

    class Watched(Counted):
        def answer(
            self, rows: Sequence[Row], sampling: Sampling, label: str, on_answers: Any = None, on_ask: Any = None
        ) -> list[Answer]:
            def on_its_way(batch: Any) -> None:
                seen.append(sorted(str(row["state"]) for row in table(kept)))
                on_answers(batch)

            return super().answer(rows, sampling, label, on_its_way, on_ask)

    ask(Watched(refused="b"), kept, "a", "b")
    assert seen == [["asked"], ["answered", "asked"]]
    states = {row["state"]: row for row in table(kept)}
    assert set(states) == {"answered", "rejected"}
    assert states["answered"]["prompt_tokens"] == 5 and states["answered"]["completion_tokens"] == 7
    assert states["rejected"]["reason"] == "no"
    assert all(row["run"] == "r" and row["sent"] == 1 and row["asked"] and row["ended"] for row in table(kept))


def test_what_was_sent_when_a_run_was_killed_is_sent_again_and_said(tmp_path: Path) -> None:
    kept = journal(tmp_path)

    class Killed(Counted):
        def answer(self, *args: Any, **kwargs: Any) -> list[Answer]:
            kwargs.get("on_ask", args[-1])([0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask(Killed(), kept, "a")
    ((state, sent),) = [(row["state"], row["sent"]) for row in table(kept)]
    assert (state, sent) == ("asked", 1)
    with kept.opened() as opened:
        assert opened.unanswered([str(table(kept)[0]["key"])]) == 1
    assert ask(Counted(), kept, "a") == ["said a"]
    ((state, sent),) = [(row["state"], row["sent"]) for row in table(kept)]
    assert (state, sent) == ("answered", 2)


def test_neither_requests_nor_keys_are_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    kept = journal(tmp_path)

    class Quiet(Counted):
        def answer(self, rows: Sequence[Row], *args: Any, **kwargs: Any) -> list[Answer]:
            return [replace(answer, text="x") for answer in super().answer(rows, *args, **kwargs)]

    ask(Quiet(), kept, "the words of the prompt")
    content = b"".join(path.read_bytes() for path in kept.path.parent.iterdir())
    assert b"sk-secret" not in content and b"words of the prompt" not in content.replace(b"said the words", b"")


def test_answers_of_earlier_versions_are_taken_over_once(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.path.parent.mkdir(parents=True)
    lines = []
    for word in ("a", "b"):
        key = kept.key({"words": [word], "seed": 0})
        answers = json.dumps([{"text": f"old {word}", "finish_reason": "stop", "prompt_tokens": 1,
                               "completion_tokens": 1, "seconds": 0.1}])  # fmt: skip
        check = hashlib.sha256((key + answers).encode()).hexdigest()
        lines.append(f'{{"key":"{key}","check":"{check}","answers":{answers}}}\n')
    old = kept.path.with_suffix(".jsonl")
    old.write_text(lines[0] + lines[1].replace("old b", "odd b"))  # the second has changed
    assert kept.held([kept.key({"words": [word], "seed": 0}) for word in ("a", "b")]) == {
        kept.key({"words": ["a"], "seed": 0})
    }
    assert ask(Counted(), kept, "a", "b") == ["old a", "said b"]
    assert not old.exists() and old.with_name(f"{old.name}.imported").exists()
    assert ask(Counted(), kept, "a", "b") == ["old a", "said b"]


def test_a_flipped_bit_anywhere_is_never_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is damaged is asked again, and said; every other answer that SQLite can still reach is used."""
    kept, draw = journal(tmp_path), random.Random(0)
    ask(Counted(), kept, *WORDS)
    whole = kept.path.read_bytes()
    named = 0
    for _ in range(60):
        for left in kept.path.parent.iterdir():
            left.unlink()
        broken = bytearray(whole)
        broken[draw.randrange(len(whole))] ^= 1 << draw.randrange(8)
        kept.path.write_bytes(broken)
        assert ask(teacher := Counted(), kept, *WORDS) == [f"said {w}" for w in WORDS]
        said = capsys.readouterr().err
        assert not teacher.asked or ("damaged" in said and "damaged-1." in said)
        if "damaged" in said:
            named += 1
            assert kept.path.with_name(f"{kept.path.name}.damaged-1").read_bytes() == bytes(broken)
        ask(never := Counted(), kept, *WORDS)
        assert never.asked == [] and capsys.readouterr().err == ""
    assert named > 10


def test_a_changed_answer_costs_that_answer_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = journal(tmp_path)
    ask(Counted(), kept, *WORDS)
    with closing(sqlite3.connect(kept.path)) as connection, connection:
        connection.execute("UPDATE requests SET answers = CAST(replace(answers, 'said w3', 'said no') AS BLOB)")
    assert ask(teacher := Counted(), kept, *WORDS) == [f"said {w}" for w in WORDS]
    assert teacher.asked == ["w3"] and "damaged in 1 place" in capsys.readouterr().err


@pytest.mark.parametrize("text", [b"\x00" * 9999, b"[" * 99_999, b"SQLite format 3\x00" + b"\xff" * 5000, b""])
def test_a_file_of_anything_else_is_replaced(tmp_path: Path, text: bytes) -> None:
    kept = journal(tmp_path)
    kept.path.parent.mkdir(parents=True)
    kept.path.write_bytes(text)
    ask(teacher := Counted(), kept, *WORDS)
    assert teacher.asked == list(WORDS)
    assert bool(list(kept.path.parent.glob("*.damaged-1"))) == bool(text)


def test_a_damaged_file_that_another_run_uses_is_left_alone(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    ask(Counted(), kept, *WORDS)
    with kept.opened(), closing(sqlite3.connect(kept.path)) as connection:
        with connection:
            connection.execute("UPDATE requests SET answers = x'00'")
        with pytest.raises(StepError, match="the journal is damaged, and another run uses it"), kept.opened():
            pass


@pytest.mark.parametrize("answers", [b'[{"text":1}]', b"[]", b'[{"text":"x"}]', b"[" * 5000 + b"]" * 5000])
def test_answers_of_another_shape_with_a_right_digest_are_not_used(tmp_path: Path, answers: bytes) -> None:
    kept = journal(tmp_path)
    key = kept.key({"words": ["w0"], "seed": 0})
    kept.path.parent.mkdir(parents=True)
    with closing(open_file(kept.path)) as connection, connection:
        connection.execute(
            "INSERT INTO requests (key, state, answers, digest) VALUES (?, 'answered', ?, ?)",
            (key, answers, answers_digest(key, "answered", answers)),
        )
    ask(teacher := Counted(), kept, "w0")
    assert teacher.asked == ["w0"]


def test_a_journal_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    kept = journal(tmp_path)
    kept.path.mkdir(parents=True)
    with pytest.raises(StepError, match=r"cannot be used \(it is not a file\)"):
        ask(Counted(), kept, *WORDS)


def _ask_many(folder: Path, words: list[str]) -> None:
    for word in words:
        ask(Counted(), journal(folder), word)


def test_several_processes_share_a_journal(tmp_path: Path) -> None:
    parts = [[f"p{part}-{i}" for i in range(20)] for part in range(3)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_ask_many, args=(tmp_path, part)) for part in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    never = Counted()
    ask(never, journal(tmp_path), *(word for part in parts for word in part))
    assert never.asked == []
