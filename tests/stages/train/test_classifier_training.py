"""The loss of a classifier is that of its definition, on rows of any length, with and without a trimmed vocabulary."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import PreTrainedModel

from fixtures import labelled_rows, make_encoder
from potstill.components.chat.trimming import trim_folder, trim_tokenizer
from potstill.components.models.layers import even_layers
from potstill.components.runtimes.classifier import Classifier, load_classifier, load_text_tokenizer
from potstill.components.training.classifier import ClassifierTask, ClassRow, class_rows
from potstill.components.training.loop import LoopOptions, train_model
from potstill.components.training.students import from_teacher_layers, save_model
from potstill.components.training.vocabulary import cut_embedding
from potstill.core.errors import DataError, StepError
from potstill.core.recipe import Schedule
from potstill.core.records import LabelledRow

LABELS = ["light", "music", "oos", "weather"]
# of unequal lengths, so that a batch has several groups
TEXTS = ["play the song", "show the lamp in the kitchen " * 4, "what about the rain", "play the lantern in the hall"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random BERT of four layers. Do not write into it."""
    return make_encoder(tmp_path_factory.mktemp("encoders") / "bert")


def teacher_of(encoder: Path, layers: int = 4) -> PreTrainedModel:
    """A teacher with low entropy, and without dropout."""
    torch.manual_seed(3)
    model = load_classifier(encoder, LABELS)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data *= 6  # otherwise the states of all layers would be nearly the same
    return from_teacher_layers(model, layers).eval()


def rows_of(folder: Path, texts: list[str]) -> list[ClassRow]:
    rows = [LabelledRow(text=text, label=LABELS[n % 4]) for n, text in enumerate(texts)]
    return class_rows(rows, LABELS, load_text_tokenizer(folder, 64))


def one_by_one(model: PreTrainedModel, row: ClassRow) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (C,) and last hidden states (S, H) of a single row without padding, in float64."""
    with torch.no_grad():
        out = model.double()(torch.tensor([row.ids]), output_hidden_states=True)
    model.float()
    return out.logits[0], out.hidden_states[-1][0]


def test_layers_are_the_teachers_and_evenly_spaced(encoder: Path) -> None:
    teacher = teacher_of(encoder)
    student = from_teacher_layers(teacher, 2)
    for own, taught in enumerate(even_layers(4, 2)):
        for name, weight in student.bert.encoder.layer[own].state_dict().items():
            assert torch.equal(weight, teacher.bert.encoder.layer[taught].state_dict()[name])
    for name in ("bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight", "classifier.weight"):
        assert torch.equal(student.state_dict()[name], teacher.state_dict()[name])
    assert student.config.num_hidden_layers == 2
    assert student.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize("trimmed", [False, True])
def test_the_loss_is_that_of_rows_one_by_one(encoder: Path, tmp_path: Path, trimmed: bool) -> None:
    teacher = teacher_of(encoder)
    student = from_teacher_layers(teacher, 2).eval()
    rows = rows_of(encoder, TEXTS)
    soft = hard = cosine = 0.0
    for row in rows:
        (p_C, taught_SH), (q_C, own_SH) = one_by_one(teacher, row), one_by_one(student, row)
        log_p_C, log_q_C = (x.div(2).log_softmax(-1) for x in (p_C, q_C))
        soft += 4 * float((log_p_C.exp() * (log_p_C - log_q_C)).sum())
        hard += float(F.cross_entropy(q_C, torch.tensor(row.label)))
        cosine += float((1 - F.cosine_similarity(own_SH, taught_SH, dim=-1)).mean())
    kept = None
    if trimmed:
        vocabulary = trim_folder(encoder, (i for row in rows for i in row.ids), tmp_path / "tokenizer")
        cut_embedding(student, vocabulary)
        rows, kept = [vocabulary.example(row) for row in rows], vocabulary.kept
    objective = ClassifierTask(teacher, temperature=2.0, hard_label_weight=0.3, cosine_weight=0.5, kept_ids=kept)
    batch = objective.batch(rows, student.config.pad_token_id)
    assert len(batch.groups) > 1
    found = objective.learner(student, 0, False)(batch)
    assert float(found.divergence) == pytest.approx(soft, rel=1e-3)
    assert float(found.cross_entropy) == pytest.approx(hard, rel=1e-3)
    assert found.loss.item() == pytest.approx(0.7 * soft + 0.3 * hard + 0.5 * cosine, rel=1e-3)


def test_the_teacher_gets_no_gradient_and_is_not_saved(encoder: Path) -> None:
    teacher = teacher_of(encoder)
    objective = ClassifierTask(teacher, cosine_weight=1.0)
    learner = objective.learner(from_teacher_layers(teacher, 2), 0, False)
    learner(objective.batch(rows_of(encoder, TEXTS), 0)).loss.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert {name.partition(".")[0] for name in learner.state_dict()} == {"student"}
    with pytest.raises(StepError, match="autocast is off"):
        objective.learner(from_teacher_layers(teacher, 2), 0, True)(objective.batch(rows_of(encoder, TEXTS), 0))


def test_it_learns_and_a_resumed_run_ends_in_the_same_bits(encoder: Path, tmp_path: Path) -> None:
    """With dropout too: the checkpoint holds the random states."""
    teacher = teacher_of(encoder)
    rows = rows_of(encoder, [row["text"] for row in labelled_rows(["play"])])
    schedule = Schedule(epochs=4, batch_tokens=256, learning_rate=3e-3, checkpoint_every=6)
    ends = []
    for name in ("whole", "cut"):
        objective = ClassifierTask(teacher, temperature=2.0, cosine_weight=0.1)
        for stop in (None,) if name == "whole" else (15, None):
            student = from_teacher_layers(teacher, 2)
            try:
                train_model(
                    student, _Stops(objective, stop), rows, rows[:8], schedule,
                    LoopOptions(out=tmp_path / name, name="student", vocab_size=0, pad_id=0, seed=5),
                )  # fmt: skip
            except KeyboardInterrupt:
                assert (tmp_path / name / "student" / "checkpoint-6").is_dir()
        ends.append(student.state_dict())
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    log = [json.loads(line) for line in (tmp_path / "cut" / "student.log.jsonl").read_text().splitlines()]
    assert log[-1]["divergence"] < 0.7 * log[0]["divergence"]
    assert log[-1]["validation_divergence"] < log[0]["divergence"]


class _Stops(ClassifierTask):
    """A task whose run is interrupted before batch number `stop`."""

    def __init__(self, objective: ClassifierTask, stop: int | None) -> None:
        super().__init__(objective.teacher, temperature=2.0, cosine_weight=0.1)
        self.__dict__["left"] = stop

    def batch(self, examples, pad_id):  # type: ignore[no-untyped-def]
        if self.__dict__["left"] is not None:
            self.__dict__["left"] -= 1
            if self.__dict__["left"] < 0:
                raise KeyboardInterrupt
        return super().batch(examples, pad_id)


def test_a_saved_classifier_gives_the_same_logits_in_any_batch(encoder: Path, tmp_path: Path) -> None:
    model = teacher_of(encoder)
    save_model(model, encoder, tmp_path / "saved")
    served = Classifier(tmp_path / "saved", 64)
    assert served.labels == LABELS
    together_BC = served.classify(TEXTS * 20)
    for text, row_C, row in zip(TEXTS, together_BC, rows_of(encoder, TEXTS), strict=False):
        torch.testing.assert_close(row_C, served.logits([text])[0], rtol=1e-3, atol=1e-3)
        # fp32 with weights of six times their size; attending to padding would give a hundred times this difference
        torch.testing.assert_close(row_C.double(), one_by_one(model, row)[0], rtol=1e-3, atol=1e-3)


def test_a_label_without_a_class_is_rejected(encoder: Path) -> None:
    row = LabelledRow(text="play it", label="dance", where="test.jsonl:1")
    with pytest.raises(DataError, match=r"test\.jsonl:1: no row of data\.train has the label 'dance'"):
        class_rows([row], LABELS, load_text_tokenizer(encoder, 64))


@given(
    texts=st.lists(st.text(alphabet="playsongthe zxq!", max_size=20), max_size=4), extra=st.sets(st.integers(0, 250))
)
def test_wordpiece_texts_of_kept_tokens_are_tokenized_as_before(
    encoder: Path, texts: list[str], extra: set[int]
) -> None:
    whole = load_text_tokenizer(encoder, 64)
    cut = [whole.encode(text) for text in texts]
    used = extra.union(*(encoding.ids for encoding in cut))
    vocabulary = trim_tokenizer(json.loads(whole.to_str()), used)
    trimmed = Tokenizer.from_str(json.dumps(vocabulary.tokenizer))
    for text, encoding in zip(texts, cut, strict=True):
        again = trimmed.encode(text)
        assert again.tokens == encoding.tokens
        assert [vocabulary.kept[index] for index in again.ids] == encoding.ids


@given(text=st.text(alphabet="abcdefghijklmnopqrstuvwxyz ?", max_size=30))
def test_wordpiece_can_write_what_it_could_write_before(encoder: Path, text: str) -> None:
    whole = load_text_tokenizer(encoder, 64)
    trimmed = Tokenizer.from_str(json.dumps(trim_tokenizer(json.loads(whole.to_str()), []).tokenizer))
    assert trimmed.get_vocab_size() < whole.get_vocab_size()
    assert ("[UNK]" in trimmed.encode(text).tokens) == ("[UNK]" in whole.encode(text).tokens)
