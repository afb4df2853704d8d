"""Training from stored targets is the same as training with the teacher online."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fixtures import make_model
from potstill.components.chat.format import Example
from potstill.components.runtimes.load import load_causal_lm
from potstill.components.targets import TargetsMeta, TargetsReader, TargetsWriter
from potstill.components.training.attention import grouped_attention
from potstill.components.training.batches import pack
from potstill.components.training.learner import LanguageTask, Learner
from potstill.components.training.students import from_teacher_layers
from potstill.core.recipe import Train
from potstill.stages.targets.scoring import write_targets


def examples(count: int = 9) -> list[Example]:
    rng = np.random.default_rng(0)
    return [Example(tuple(rng.integers(3, 300, n).tolist()), n // 2, True) for n in rng.integers(5, 60, count).tolist()]


def meta(vocab: int, **kind: object) -> TargetsMeta:
    who = {"teacher_hash": "a", "tokenizer_hash": "b", "template_hash": "c", "dtype": "float32"}
    return TargetsMeta.model_validate({"vocab_size": vocab, **who, **kind})


def test_all_tokens_stored_is_the_online_divergence(tmp_path: Path) -> None:
    """With k as large as the vocabulary, only the grid of the stored log-probabilities differs."""
    teacher = load_causal_lm(make_model(tmp_path)).eval()
    student, vocab, rows = from_teacher_layers(teacher, 2), teacher.config.vocab_size, examples()
    wanted = meta(vocab, kind="top_k", k=vocab)
    with TargetsWriter(tmp_path / "store", wanted) as writer:
        write_targets(teacher, rows, writer, 128)
    stored = LanguageTask(stored=TargetsReader(tmp_path / "store", wanted))
    with grouped_attention(student, teacher), torch.no_grad():
        online = Learner(student, LanguageTask(teacher), vocab, False)(pack(rows, 0))
        offline = Learner(student, stored, vocab, False)(pack(rows, 0, stored.targets))
    tokens = sum(e.n_supervised for e in rows)
    # the grid of an eighth of a nat gives (1/8)^2 / 24 nats of divergence
    assert float(offline.divergence) / tokens == pytest.approx(float(online.divergence) / tokens, abs=1e-3)
    assert float(offline.cross_entropy) == pytest.approx(float(online.cross_entropy), rel=1e-5)


def test_counts_have_the_gradient_of_the_online_divergence_on_average(tmp_path: Path) -> None:
    teacher = load_causal_lm(make_model(tmp_path)).eval()
    student, vocab, rows = from_teacher_layers(teacher, 2), teacher.config.vocab_size, examples()
    head = student.get_output_embeddings().weight

    def gradient(objective: LanguageTask) -> torch.Tensor:
        student.zero_grad()
        with grouped_attention(student, teacher):
            Learner(student, objective, vocab, False)(pack(rows, 0, objective.targets)).loss.backward()
        assert head.grad is not None
        return head.grad.clone()

    whole = gradient(LanguageTask(teacher))
    drawn = []
    for seed in range(6):
        wanted = meta(vocab, kind="counts", draws=255, seed=seed)
        with TargetsWriter(tmp_path / f"store{seed}", wanted) as writer:
            write_targets(teacher, rows, writer, 128)
        drawn.append(gradient(LanguageTask(stored=TargetsReader(tmp_path / f"store{seed}", wanted))))
    errors = [float((d - whole).norm() / whole.norm()) for d in drawn]
    mean_error = float((torch.stack(drawn).mean(0) - whole).norm() / whole.norm())
    # unbiased: the mean of six is closer than one, by a factor of about the root of six
    assert mean_error < 0.6 * float(np.median(errors))


def test_a_store_is_continued(tmp_path: Path) -> None:
    teacher, rows = load_causal_lm(make_model(tmp_path)), examples()
    wanted = meta(teacher.config.vocab_size, kind="counts", draws=20, seed=0)
    with TargetsWriter(tmp_path / "store", wanted) as writer:
        write_targets(teacher, rows[:4], writer, 64)
    with TargetsWriter(tmp_path / "store", wanted) as writer:
        write_targets(teacher, rows, writer, 64)
    assert len(TargetsReader(tmp_path / "store", wanted)) == len(rows)


def test_a_teacher_in_bf16_scores_in_bf16(tmp_path: Path) -> None:
    folder, rows = make_model(tmp_path), examples()
    student = from_teacher_layers(load_causal_lm(folder), 2)
    found, seen = {}, []
    for dtype in ("float32", "bfloat16"):
        teacher = load_causal_lm(folder, dtype).eval()
        teacher.base_model.norm.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
        with grouped_attention(student, teacher), torch.no_grad():
            found[dtype] = float(
                Learner(student, LanguageTask(teacher), teacher.config.vocab_size, False)(pack(rows, 0)).loss
            )
    assert seen == [torch.float32, torch.bfloat16]
    assert found["float32"] != found["bfloat16"] == pytest.approx(found["float32"], rel=0.1)


def test_settings_that_nothing_would_read_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"forward_kl\.beta"):
        Train.model_validate({"objective": {"beta": 0.3}})
    with pytest.raises(ValueError, match=r"jsd\.targets"):
        Train.model_validate({"objective": {"name": "jsd", "targets": "counts"}})
    assert Train.model_validate({"objective": {"name": "skew_kl", "alpha": 0.2}}).objective.parameters == {"alpha": 0.2}
