"""What the export stage leaves with the GGUF file: exported.json."""

from __future__ import annotations

from typing import ClassVar

from potstill.core.artifacts.base import Artifact, Part

__all__ = ["Exported", "LogProbParity", "Parity", "StopTokenParity", "TemplateParity", "TokenizationParity"]


class TokenizationParity(Part):
    """Texts whose token ids were compared, and how many are the same."""

    texts: int
    identical: int


class TemplateParity(Part):
    """Rows whose prompts from the file's own chat template were compared, and how many are the same."""

    rows: int
    identical: int


class StopTokenParity(Part):
    """Tokens that end an answer in the checkpoint, and how many also end one in llama.cpp."""

    tokens: int
    identical: int


class LogProbParity(Part):
    """Distributions of completion tokens, the file's against the checkpoint's.

    max_difference     largest difference of log-probability, in nats
    argmax_agreement   fraction of tokens with the same likeliest token
    near_ties          tokens with another likeliest token, each within the tolerance of the checkpoint's
    """

    rows: int
    tokens: int
    max_difference: float
    argmax_agreement: float
    near_ties: int


class Parity(Part):
    """The comparison of the GGUF before quantization (F16) with the checkpoint that it was made from.

    template    None for a file without a chat template
    tolerance   largest accepted difference of log-probability, in nats
    """

    tokenization: TokenizationParity
    template: TemplateParity | None
    stop_tokens: StopTokenParity
    log_probs: LogProbParity
    tolerance: float


class Exported(Artifact):
    """The exported file, and the proof that it answers like the checkpoint.

    file           name of the GGUF in the step's directory
    bytes_f16      size of the same model in F16
    tensor_types   number of tensors by GGUF type
    notes          differences between llama.cpp and the checkpoint that a user should know
    """

    FILE: ClassVar[str] = "exported.json"

    file: str
    quantization: str
    bytes: int
    bytes_f16: int
    bits_per_weight: float
    parameters: int
    tensor_types: dict[str, int]
    notes: tuple[str, ...]
    parity: Parity
