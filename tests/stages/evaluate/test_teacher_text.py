"""The teacher's distributions over its own text, in a student's vocabulary."""

from __future__ import annotations

import numpy as np

from potstill.stages.evaluate.teacher_text import TeacherText, TeacherTexts


def test_fidelity_is_measured_over_the_kept_tokens() -> None:
    texts = [TeacherText((2, 3, 0), (1, 2)), TeacherText((2, 1), (1,))]
    expected = [np.log([[0.1, 0.5, 0.2, 0.2], [0.2, 0.2, 0.3, 0.3]]), np.log([[0.25] * 4])]
    found = TeacherTexts(texts, expected).in_vocabulary([0, 2, 3])
    assert found.texts == [TeacherText((1, 2, 0), (1, 2))]  # the other has a token that the student lacks
    np.testing.assert_allclose(np.exp(found.log_probs[0]), [[0.2, 0.4, 0.4], [0.25, 0.375, 0.375]])


def test_without_texts_nothing_is_compared() -> None:
    assert TeacherTexts().compare(lambda ids, positions: None, "student") is None
