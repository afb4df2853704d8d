"""What the export stage leaves with the GGUF file: exported.json."""

from __future__ import annotations

from typing import ClassVar

from potstill.core.artifacts.base import Artifact, Part

__all__ = [
    "Exported",
    "FinishPoint",
    "Finished",
    "LogProbParity",
    "Parity",
    "StopTokenParity",
    "TemplateParity",
    "TokenizationParity",
]


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


class FinishPoint(Part):
    """Mean KL from the checkpoint on held-out rows after so many steps, in nats per token."""

    step: int
    kl: float


class Finished(Part):
    """How the quantized model was trained before it was written.

    steps                             planned number of steps
    stopped                           steps after which it ended: fewer where the KL rose
    kept                              steps after which the kept weights were; 0: nothing was better than no training
    rows                              rows per step
    learning_rate, norm_learning_rate rates of quantized weights, and of weights in F32
    held_out_rows, held_out_tokens    what the KL is measured on
    kl_before, kl_after               mean KL from the checkpoint, in nats per token
    weight_difference                 largest difference between a weight in training and in the file
    """

    steps: int
    stopped: int
    kept: int
    rows: int
    learning_rate: float
    norm_learning_rate: float
    held_out_rows: int
    held_out_tokens: int
    kl_before: float
    kl_after: float
    points: tuple[FinishPoint, ...]
    seconds: float
    weight_difference: float = 0.0

    @property
    def won_back(self) -> float:
        """Share of the KL that quantization cost and training won back."""
        return 1 - self.kl_after / self.kl_before if self.kl_before else 0.0

    @property
    def sentence(self) -> str:
        """What happened, in a sentence."""
        what = f"trained for {self.kept} steps in its own format"
        if self.kept == 0:
            what = f"trained for {self.stopped} steps in its own format, which helped nothing and was undone"
        kl = f"{self.kl_before:.3g} nats per token before and {self.kl_after:.3g} after"
        return f"The file was {what}: its mean KL from the checkpoint on {self.held_out_rows} held-out rows was {kl}."


class Exported(Artifact):
    """The exported file, and the proof that it answers like the checkpoint.

    file           name of the GGUF in the step's directory
    bytes_f16      size of the same model in F16
    tensor_types   number of tensors by GGUF type
    notes          differences between llama.cpp and the checkpoint that a user should know
    finished       how the quantized model was trained before it was written; None: it was not
    """

    FILE: ClassVar[str] = "exported.json"
    FORMAT: ClassVar[int] = 2

    file: str
    quantization: str
    bytes: int
    bytes_f16: int
    bits_per_weight: float
    parameters: int
    tensor_types: dict[str, int]
    notes: tuple[str, ...]
    parity: Parity
    finished: Finished | None = None
