"""The recipe's sections, one class a stage (`potstill.core.recipe.recipe` puts them together).

Paths are relative to the recipe's own folder, which `load_recipe` passes as context.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from potstill.core.recipe.fields import Count, LocalPath, ModelName, Positive, Section, Share, beside_recipe
from potstill.core.records import Behaviour

__all__ = [
    "Chat",
    "Data",
    "Economy",
    "Evaluate",
    "Export",
    "Finetune",
    "Gates",
    "Generate",
    "Offload",
    "Package",
    "Price",
    "Quantization",
    "Schedule",
    "Section",
    "Shape",
    "Student",
    "Target",
    "Teacher",
]

Offload = Literal["cpu", "disk"]
Quantization = Literal["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K"]


def _template_beside_recipe(template: str, info: ValidationInfo) -> str:
    return template if template in ("own", "plain") else str(beside_recipe(Path(template), info))


class Data(Section):
    """The workload. `prompts` are answered by the teacher and trained on; `test` rows carry golds and are never
    trained on."""

    prompts: LocalPath
    """Rows the teacher answers and the student learns from."""
    validation: LocalPath | None = None
    """Rows for the validation curve, answered by the teacher too."""
    test: LocalPath
    """Rows that are judged."""
    tools: LocalPath | None = None
    """Tools of every row that names none of its own (JSON, OpenAI's shape)."""
    limit: Count | None = None
    """Use only so many prompts."""
    test_limit: Count | None = None
    """Judge only so many test rows."""
    license: str = "unknown"
    """SPDX identifier of the data's licence."""


class Chat(Section):
    """How messages become text. `template`: `own` (the tokenizer's), `plain` (contents joined, no roles), or a Jinja
    file."""

    template: Annotated[str, AfterValidator(_template_beside_recipe)] = "own"
    """`own`, `plain`, or the path of a Jinja file."""
    tool_format: Literal["auto", "hermes", "llama3", "mistral"] = "auto"
    """How tool calls are written in an answer."""
    context: Count = 1024
    """Most tokens of prompt and answer together."""


class Shape(Section):
    """A model's shape, for training from scratch."""

    architecture: Literal["llama", "qwen2", "qwen3"] = "llama"
    layers: Count
    hidden: Count
    ffn: Count
    heads: Count
    kv_heads: Count | None = None
    """Default: as many as heads."""
    head_dim: Count | None = None
    """Default: hidden / heads."""
    tied: bool = True
    """Input and output embeddings are one matrix."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.head_dim is None and self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) is no multiple of heads ({self.heads}); set head_dim")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"heads ({self.heads}) is no multiple of kv_heads ({self.kv_heads})")
        return self


class Schedule(Section):
    """One optimisation run: linear warm-up, cosine decay."""

    epochs: Positive = 3.0
    """Times each row is seen; a fraction is cut off the last."""
    batch_tokens: Count = 8192
    """Tokens of one micro-batch on one device."""
    accumulate: Count = 1
    """Micro-batches of one optimizer step; with several processes, shared among them."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: for the matrices of the layers; embeddings, head, norms and biases stay with AdamW, at the same rate."""
    learning_rate: Positive = 1e-3
    """Peak rate."""
    final_rate: Share = 0.1
    """What the rate has decayed to at the end, as a share of the peak."""
    warmup: Share = 0.05
    """Share of the steps with a rising rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Positive = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 is autocast; weights and optimizer stay fp32."""
    lora_rank: Count | None = None
    """Train adapters of this rank beside the layers' matrices, merged when done; left out, all weights are trained."""
    activation_checkpointing: bool = False
    """Keep each layer's input alone for the backward pass, and run the layer again there: less memory, more time."""
    checkpoint_every: Count = 200
    """Optimizer steps between checkpoints."""


class Finetune(Schedule):
    """Train the teacher itself first, on rows that carry the right answer."""

    rows: LocalPath
    """Rows with an answer each."""
    shape: Shape | None = None
    """Start from scratch in this shape, with the tokenizer of `teacher.model`; otherwise from its weights."""
    shallow_layers: Count | None = None
    """Every other step trains this many evenly spaced layers alone, so that a student of as many starts well."""

    @model_validator(mode="after")
    def _adapters_have_weights(self) -> Self:
        if self.shape and self.lora_rank:
            raise ValueError("lora_rank leaves all other weights as they are, and with shape those are random")
        if self.shape and self.shallow_layers and self.shallow_layers >= self.shape.layers:
            raise ValueError(
                f"shallow_layers: {self.shallow_layers} is not less than shape.layers: {self.shape.layers}"
            )
        return self


class Price(Section):
    """What an endpoint takes for 10^6 tokens, in one currency."""

    input: Annotated[float, Field(ge=0)]
    """For 10^6 tokens of prompt."""
    output: Annotated[float, Field(ge=0)]
    """For 10^6 tokens of answer."""


class Teacher(Section):
    """`local`: a folder or hub id, run by transformers. `api`: a model behind an OpenAI-compatible endpoint."""

    kind: Literal["local", "api"] = "local"
    model: ModelName
    """Folder beside the recipe, or hub id; with `api`, the name the endpoint knows it by."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    base_url: str | None = None
    """api: for example http://localhost:11434/v1."""
    api_key_env: str = "OPENAI_API_KEY"
    """api: name of the environment variable that holds the key."""
    max_concurrency: Count = 8
    """api: requests under way at once."""
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    """local: what its weights are held in; int8: those of its layers, by bitsandbytes, and bfloat16 the others."""
    offload: Offload | None = None
    """local: where its layers wait until each is to run: in host memory beside an accelerator (cpu), or in their files
    (disk). Slower, and needs memory for one layer; left out, all of it is in memory."""
    license: str = "unknown"
    """SPDX identifier, or the hub's licence tag."""
    price: Price | None = None
    """What its tokens cost, or those of the endpoint that the student replaces. Default: prices.toml, if it knows."""
    finetune: Finetune | None = None

    @property
    def saved_dtype(self) -> Literal["float32", "bfloat16"]:
        """What a fine-tuned one is saved in: what 8 bits leave out could not be had back."""
        return "float32" if self.dtype == "float32" else "bfloat16"

    @model_validator(mode="after")
    def _kind_fits(self) -> Self:
        if self.kind == "api" and not self.base_url:
            raise ValueError('kind "api" needs base_url, for example http://localhost:11434/v1')
        if self.kind == "api" and self.finetune:
            raise ValueError('finetune needs kind "local": an endpoint\'s weights cannot be trained here')
        if self.kind == "local" and self.base_url:
            raise ValueError('base_url belongs to kind "api"; for a local teacher give model alone')
        if self.kind == "api" and self.offload:
            raise ValueError('offload needs kind "local": an endpoint holds its own weights')
        if self.offload and self.dtype == "int8":
            raise ValueError("dtype int8 cannot be offloaded: set dtype: bfloat16, or leave offload out")
        return self


class Generate(Section):
    """How the teacher answers."""

    max_new_tokens: Count = 128
    """Longest answer, in training data and in evaluation."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy."""
    top_p: Share = 1.0
    """Nucleus to draw from."""
    batch_size: Count = 64
    """local: rows decoded together."""
    keep_truncated: bool = False
    """Keep answers cut off by max_new_tokens (text continuation): learnt from without an end token."""


class Student(Section):
    """Where the student's weights start."""

    init: Literal["teacher_layers", "scratch", "checkpoint"] = "teacher_layers"
    """From the teacher's own layers, from random weights, or from a model."""
    layers: Count | None = None
    """teacher_layers: how many of the teacher's layers to keep; all if a width is cut and this is left out."""
    layer_choice: Literal["even", "influence"] = "even"
    """teacher_layers: evenly spaced, first and last among them; or those that change their input most on the rows."""
    hidden: Count | None = None
    """teacher_layers: hidden channels to keep, by activation on the rows."""
    ffn: Count | None = None
    """teacher_layers: FFN channels to keep in each layer, by activation on the rows."""
    kv_heads: Count | None = None
    """teacher_layers: key-value heads to keep in each layer, each with the query heads that share it."""
    shape: Shape | None = None
    """scratch: the shape."""
    model: ModelName | None = None
    """checkpoint: folder or hub id. With another tokenizer than the teacher's, the objective is forward_kl (over spans
    of text that both cut alike) or sft."""
    license: str = "unknown"
    """checkpoint: SPDX identifier of that model's licence, or the hub's tag."""
    tied: bool | None = None
    """Whether input and output embeddings are one matrix (the input's); left out, as in the model it starts from."""
    vocabulary: Literal["full", "workload"] = "full"
    """All of the tokenizer's tokens; or those in the generated rows, with what it takes to write any other text."""

    @model_validator(mode="after")
    def _init_fits(self) -> Self:
        needed = {
            "teacher_layers": ("layers", "hidden", "ffn", "kv_heads"),
            "scratch": ("shape",),
            "checkpoint": ("model",),
        }
        for init, keys in needed.items():
            given = [key for key in keys if getattr(self, key) is not None]
            if init == self.init and not given:
                raise ValueError(f"init {init!r} needs {' or '.join(keys)}")
            if init != self.init and given:
                raise ValueError(f"{given[0]} is read only with init {init!r}, not {self.init!r}")
        if self.tied is not None and self.init == "scratch":
            raise ValueError("with init 'scratch', tied is said in shape")
        if self.layer_choice == "influence" and (self.init != "teacher_layers" or self.layers is None):
            raise ValueError("layer_choice 'influence' is read only with init 'teacher_layers' and layers")
        return self

    @property
    def measured(self) -> bool:
        """Whether the teacher's activations are needed to cut it."""
        return self.layer_choice == "influence" or any((self.hidden, self.ffn, self.kv_heads))


class Export(Section):
    """The file that ships."""

    quantization: Quantization = "Q8_0"
    parity_rows: Count = 8
    """Rows on which the converted file is compared with the checkpoint."""
    parity_tolerance: Positive = 0.05
    """Largest accepted difference in log-probability (nats) between the F16 file and the checkpoint."""


class Evaluate(Section):
    """What is measured on the shipped file, and beside it."""

    threads: Count = 2
    """llama.cpp's threads."""
    fidelity_rows: Count = 32
    """Teacher's answers over which distributions are compared."""
    latency_requests: Count = 30
    """Timed requests."""


class Gates(Section):
    """Thresholds; a gate left out is not judged."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """One-sided level of every test."""
    exact: Share | None = None
    """Floor of exact match."""
    behaviours: dict[Behaviour, Share] = Field(default_factory=dict)
    """Floors by behaviour, for example {refuse: 0.9}."""
    retention: Share | None = None
    """Floor of exact match relative to the teacher's."""
    beats_control: bool = False
    """The distilled checkpoint must answer significantly more items right than the control."""
    quantization_drop: Share | None = None
    """Largest accepted loss of exact match from checkpoint to shipped file."""
    kl_mean: Positive | None = None
    """Largest accepted KL from the teacher, nats per token."""
    top1_agreement: Share | None = None
    """Floor of the share of tokens where both would say the same."""


class Economy(Section):
    """What the device costs to own and to run. The defaults are assumptions: set what is true of yours."""

    watts: Annotated[float, Field(ge=0)] = 10.0
    """Drawn while it answers."""
    kwh_price: Annotated[float, Field(ge=0)] = 0.30
    """Of electricity, in the currency of teacher.price."""
    device_price: Annotated[float, Field(ge=0)] = 0.0
    """Of the device; 0 where it is there anyway."""
    years: Positive = 3.0
    """Until it is written off."""
    busy: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of that time in which it answers."""
    train_hour_price: Annotated[float, Field(ge=0)] = 0.0
    """Of an hour of the machine that trains; 0 where it is there anyway."""


class Target(Section):
    """Budgets of the device."""

    device: str = "unnamed"
    file_mb: Positive | None = None
    """Largest file, in 10^6 bytes."""
    memory_mb: Positive | None = None
    """Largest peak resident memory, in 10^6 bytes."""
    ttft_ms: Positive | None = None
    """Longest median time to the first token."""
    decode_tokens_per_s: Positive | None = None
    """Slowest median decoding."""
    economy: Economy = Field(default_factory=Economy)
    """What it costs to own and to run, for `potstill plan`."""


class Package(Section):
    """What the package says of itself."""

    system: str | None = None
    """System message of the Modelfile."""
    license: str = "unknown"
    """SPDX identifier of the student's licence."""
