"""What the export tests share: hostile texts, a tokenizer made on the spot, tiny checkpoints, llama.cpp in-process."""

# ruff: noqa: RUF001 (look-alike letters are what the texts are for)

from __future__ import annotations

import json
import random
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TEXTS = [
    *[
        "",
        " ",
        "   leading",
        "trailing   ",
        "\n\n\n",
        "\r\n",
        " \n \n x",
        "\t\tdef f(x):\n\t\treturn x+1\n",
        "    if x:\n",
    ],
    *[
        "Hello, world!",
        "Hello   world",
        "it's I'LL you'Re DON'T 'S we'd've",
        "1 12 123 1234 12345678901",
        "3.14159e-10",
    ],
    *[
        "1,234,567.89",
        "x²+y³=z¹⁰",
        "½ ⅓ Ⅷ ①②",
        "١٢٣ ४५६ 𝟘𝟙",
        "Ünïcödé ñandú Straße",
        "cafe\u0301 n\u0303",
        "Привет мир",
    ],
    *[
        "日本語のテキスト。漢字カタカナ",
        "한국어 안녕하세요",
        "中文，标点！“引号”",
        "مرحبا كَتَبَ",
        "שָׁלוֹם",
        "हिन्दी में",
        "ภาษาไทย น้ำ",
    ],
    *[
        "🙂",
        "👩‍👩‍👧‍👦 👍🏽 🇫🇷",
        "a🙂b",
        "\u00a0nbsp\u00a0\u2003em\u3000id",
        "zero\u200bwidth\ufeffbom",
        "don’t “smart” — …",
    ],
    *[
        '{"name": "f", "arguments": {"x": [1, 2.5, null]}}',
        '<tool_call>\n{"name": "set"}\n</tool_call>',
        "$100 + €50 < ¥9 ^~`|",
    ],
    *[
        "\x01\x02\x7f",
        "\ue000\U000f0000",
        "CamelCaseHTTPServer",
        "https://a.b/c?d=%20#e",
        "word" * 20,
        "a " * 20,
        "0" * 10,
    ],
    *["'", "''", " 's", "x's", "\u2028\u2029\x85\x0b", "ſ'ſ ǅ ʰ ª", "ＦＵＬＬ　ｗｉｄｔｈ１２"],
]


def fuzz(count: int, seed: int = 0) -> list[str]:
    """Random mixtures of what pre-tokenizers cut at."""
    generator = random.Random(seed)
    parts = [
        "'s",
        "'LL",
        " ",
        "  ",
        "\n",
        "a",
        "Ab",
        "12345",
        "3",
        "...",
        "é",
        "中",
        "'",
        "\t",
        "ſ",
        "/",
        "\r\n",
        " !",
        "-x",
        "ा",
    ]
    letters = (
        "aBzé12٣½ \t\n.,'!?-_/中かな한ЖяΩअमाท🙂👍🏽\u200d\u00a0\u3000\u0301ǅʰ²Ⅷ$+<=>^~`|€\"{}[]()\\:;@#&sStTrReEmMdDlL"
    )
    return [
        "".join(generator.choices(parts if i % 2 else letters, k=generator.randint(1, 9 if i % 2 else 24)))
        for i in range(count)
    ]


def pre_tokenizer(steps: tuple[str, ...]) -> Any:
    """A `tokenizers` pre-tokenizer from the steps of `potstill.components.conversion.pretokenizers.PRE_TOKENIZERS`."""
    from tokenizers import Regex, pre_tokenizers

    made: list[Any] = []
    for step in steps:
        if step == "gpt2":
            made.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True))
        elif step in {"digit", "digits"}:
            made.append(pre_tokenizers.Digits(individual_digits=step == "digit"))
        elif step == "punctuation":
            made.append(pre_tokenizers.Punctuation(behavior="contiguous"))
        else:
            made.append(pre_tokenizers.Split(Regex(step), "isolated"))
    if "gpt2" not in steps:
        made.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    return pre_tokenizers.Sequence(made)


@pytest.fixture(scope="session")
def hostile_bpe() -> dict[str, Any]:
    """tokenizer.json of a byte-level BPE whose merges cross every boundary a pre-tokenizer could draw.

    It is trained without one, so a pre-tokenizer put into it later shows in the ids wherever it cuts.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|end|>", "<|start|>"],
        min_frequency=1,
        show_progress=False,
    )
    tokenizer.train_from_iterator([*TEXTS, *fuzz(300)], trainer)
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    tokenizer.pre_tokenizer = pre_tokenizer(("gpt2",))
    value: dict[str, Any] = json.loads(tokenizer.to_str())
    return value


@pytest.fixture
def make_checkpoint(tmp_path: Path, hostile_bpe: dict[str, Any]) -> Callable[..., Path]:
    """Writes a folder: a model, a tokenizer.json and its tokenizer_config.json."""

    def make(model: Any, tokenizer: dict[str, Any] | None = None, name: str = "student", **settings: Any) -> Path:
        folder = tmp_path / name
        model.save_pretrained(folder)
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer or hostile_bpe), encoding="utf-8")
        settings = settings or {"eos_token": "<|end|>"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        return folder

    return make


def tiny(family: str, vocab_size: int = 1511, seed: int = 0, **changes: Any) -> Any:
    """A random model of a family (Llama, Mistral, Qwen2, Qwen3) with uneven norms and biases, in eval mode."""
    import torch
    import transformers

    sizes = {
        "vocab_size": vocab_size,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.15,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    config = getattr(transformers, f"{family}Config")(**(sizes | changes))
    torch.manual_seed(seed)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


class LlamaCpp:
    """A GGUF file in llama.cpp, asked over its own HTTP server."""

    def __init__(self, path: Path) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx, params.n_parallel, params.port = 512, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_ram_mib, params.warmup, params.verbosity = 0, False, -1
        self._server = xllamacpp.Server(params)

    def _post(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(
            self._server.listening_address + route, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        # no proxy from the environment: it cannot reach this machine's own ports
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as reply:
            value: dict[str, Any] = json.load(reply)
        return value

    def tokenize(self, text: str) -> list[int]:
        """Ids of a text, special tokens in it and around it included."""
        body = {"content": text, "add_special": True, "parse_special": True}
        ids: list[int] = self._post("/tokenize", body)["tokens"]
        return ids

    def log_probs(self, ids: list[int], vocab_size: int, whole_token: int) -> np.ndarray[Any, Any]:
        """Log-probability of every next token, float64 of vocab_size.

        `whole_token` is sampled: the server leaves the probabilities out where a token ends inside a letter.
        """
        body = {"prompt": ids, "n_predict": 1, "n_probs": vocab_size, "logit_bias": [[whole_token, 1000.0]]}
        found = self._post("/completion", body | {"cache_prompt": False})["completion_probabilities"][0]["top_logprobs"]
        out = np.full(vocab_size, -np.inf)
        out[[entry["id"] for entry in found]] = [entry["logprob"] for entry in found]
        return out

    def close(self) -> None:
        """Stop the server."""
        del self._server


@pytest.fixture
def llama_cpp() -> Iterator[Callable[[Path], LlamaCpp]]:
    """Loads GGUF files in llama.cpp, and stops them all when the test ends."""
    running: list[LlamaCpp] = []

    def load(path: Path) -> LlamaCpp:
        running.append(LlamaCpp(path))
        return running[-1]

    yield load
    for server in running:
        server.close()


@pytest.fixture
def random_model() -> Callable[..., Any]:
    """The maker of random models, `tiny`."""
    return tiny


@pytest.fixture
def make_pre_tokenizer() -> Callable[[tuple[str, ...]], Any]:
    """The maker of pre-tokenizers, `pre_tokenizer`."""
    return pre_tokenizer


@pytest.fixture
def hostile_texts() -> list[str]:
    """Texts that tokenizers disagree on."""
    return TEXTS


@pytest.fixture
def more_texts() -> list[str]:
    """Random texts that no tokenizer here was trained on."""
    return fuzz(120, seed=1)
