"""Text is cut in llama.cpp as tokenizer.json cuts it, or the tokenizer is refused or the difference named."""

from __future__ import annotations

import copy
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest

from potstill.components.conversion import tokenizer as module
from potstill.components.conversion.convert import convert_checkpoint
from potstill.components.conversion.pretokenizers import APPROXIMATE, PRE_TOKENIZERS, pre_tokenizer_name
from potstill.components.conversion.sentencepiece import BYTE_TOKENS, read_sentencepiece
from potstill.components.conversion.tokenizer import TokenizerMetadata, read_tokenizer
from potstill.components.conversion.tokenizer_file import TokenizerFile
from potstill.core.errors import StepError

EXACT = [name for found in PRE_TOKENIZERS.values() for name, _ in found if name not in APPROXIMATE]
SPECIALS = ["<|end|>", "a <|start|> b<|end|><|end|>c", " <|end|>\n", "<tool_call>\n{}\n</tool_call>", "x<tool_call>y"]


def ids_of(tokenizer: dict[str, Any], texts: list[str]) -> list[list[int]]:
    """What `tokenizers` makes of texts, with what it adds around them."""
    from tokenizers import Tokenizer

    rust = Tokenizer.from_str(json.dumps(tokenizer))
    return [rust.encode(text, add_special_tokens=True).ids for text in texts]


@pytest.fixture
def disagreements(
    tmp_path: Path, random_model: Any, make_checkpoint: Any, llama_cpp: Any
) -> Callable[..., tuple[list[str], tuple[str, ...]]]:
    """The texts that llama.cpp cuts differently from a tokenizer.json, and the notes of the conversion."""

    def find(
        tokenizer: dict[str, Any], texts: list[str], chat_template: str | None = None, **settings: Any
    ) -> tuple[list[str], tuple[str, ...]]:
        vocab = [*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer["added_tokens"])]
        model = random_model("Llama", vocab_size=max(vocab) + 6, hidden_size=32, num_hidden_layers=1)
        folder, out = make_checkpoint(model, tokenizer, **settings), tmp_path / "tokenizer.gguf"
        summary = convert_checkpoint(folder, out, chat_template=chat_template)
        server = llama_cpp(out)
        pairs = zip(texts, ids_of(tokenizer, texts), strict=True)
        return [text for text, ids in pairs if server.tokenize(text) != ids], summary.notes

    return find


def with_steps(tokenizer: dict[str, Any], steps: Any, ignore_merges: bool = False) -> dict[str, Any]:
    """A copy that cuts in these steps (a `tokenizers` pre-tokenizer) first."""
    out = copy.deepcopy(tokenizer)
    out["pre_tokenizer"] = json.loads(steps.__getstate__())
    out["model"]["ignore_merges"] = ignore_merges
    return out


@pytest.mark.parametrize("name", [*EXACT, *APPROXIMATE])
def test_pre_tokenizers_cut_alike(
    name: str, hostile_bpe: Any, make_pre_tokenizer: Any, disagreements: Any, hostile_texts: Any, more_texts: Any
) -> None:
    steps, ignores = next((s, i) for s, found in PRE_TOKENIZERS.items() for n, i in found if n == name)
    tokenizer = with_steps(hostile_bpe, make_pre_tokenizer(steps), ignores)
    assert pre_tokenizer_name(TokenizerFile.model_validate(tokenizer), "here") == name
    if name in APPROXIMATE:  # these are cut alike in plain words only, and the conversion says so
        plain = [text for text in hostile_texts if text.isascii() and not any(map(str.isdigit, text))]
        hostile_texts, more_texts = plain, []
    differing, notes = disagreements(tokenizer, [*hostile_texts, *more_texts, *SPECIALS])
    assert differing == []
    assert any("only close to the original" in note for note in notes) == (name in APPROXIMATE)


def test_the_comparison_catches_a_wrong_pre_tokenizer(
    monkeypatch: pytest.MonkeyPatch, hostile_bpe: Any, disagreements: Any, hostile_texts: list[str]
) -> None:
    """Planted fault: GPT-2's vocabulary under the names of near relatives."""
    for wrong in ("qwen2", "smollm", "default"):
        monkeypatch.setattr(module, "pre_tokenizer_name", lambda tokenizer, where, name=wrong: name)
        assert len(disagreements(hostile_bpe, hostile_texts)[0]) >= 3


def test_unknown_pre_tokenizers_are_refused_by_name(hostile_bpe: dict[str, Any]) -> None:
    from tokenizers import Regex, pre_tokenizers

    near = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\p{N}{1,2}"), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    with pytest.raises(
        StepError, match=r"no pre-tokenizer of llama.cpp .*: \\p\{N\}\{1,2\}\. .*gpt-2, smollm, llama-bpe"
    ):
        pre_tokenizer_name(TokenizerFile.model_validate(with_steps(hostile_bpe, near)), "here")
    with pytest.raises(StepError, match=r'step \{"type": "Whitespace"\} has no counterpart'):
        pre_tokenizer_name(TokenizerFile.model_validate(with_steps(hostile_bpe, pre_tokenizers.Whitespace())), "here")
    with pytest.raises(StepError, match="add_prefix_space"):
        pre_tokenizer_name(
            TokenizerFile.model_validate(with_steps(hostile_bpe, pre_tokenizers.ByteLevel(True))), "here"
        )


def test_other_spellings_of_a_pre_tokenizer_are_known(hostile_bpe: dict[str, Any], make_pre_tokenizer: Any) -> None:
    qwen2 = next(steps for steps, found in PRE_TOKENIZERS.items() if found[0][0] == "qwen2")
    tokenizer = with_steps(hostile_bpe, make_pre_tokenizer(qwen2))
    split = tokenizer["pre_tokenizer"]["pretokenizers"][0]
    split |= {"behavior": "Removed", "invert": True}
    assert pre_tokenizer_name(TokenizerFile.model_validate(tokenizer), "here") == "qwen2"
    split |= {"behavior": "Removed", "invert": False}
    with pytest.raises(StepError, match="has no counterpart"):
        pre_tokenizer_name(TokenizerFile.model_validate(tokenizer), "here")


def test_ignore_merges_must_be_llama_cpps_where_it_matters(hostile_bpe: dict[str, Any]) -> None:
    tokenizer = copy.deepcopy(hostile_bpe)
    tokenizer["model"]["ignore_merges"] = True
    assert (
        pre_tokenizer_name(TokenizerFile.model_validate(tokenizer), "here") == "gpt-2"
    )  # merges lead to every token: it makes no difference
    tokenizer["model"]["vocab"]["zebra"] = 1505
    with pytest.raises(StepError, match=r"`ignore_merges` is true, but .* 1 tokens .*'zebra'"):
        pre_tokenizer_name(TokenizerFile.model_validate(tokenizer), "here")


def test_bos_and_eos_around_a_text(hostile_bpe: dict[str, Any], disagreements: Any, hostile_texts: list[str]) -> None:
    from tokenizers import processors

    ids = {token["content"]: token["id"] for token in hostile_bpe["added_tokens"]}
    both = processors.TemplateProcessing("<|start|> $A <|end|>", "$A $B", list(ids.items())[:2])
    tokenizer = copy.deepcopy(hostile_bpe) | {"post_processor": json.loads(both.__getstate__())}
    settings = {"bos_token": "<|start|>", "eos_token": "<|end|>"}
    assert disagreements(tokenizer, hostile_texts[:9], **settings)[0] == []
    with pytest.raises(StepError, match=r"starts a text with tokens \[1\]"):
        disagreements(tokenizer, [], bos_token="<tool_call>", eos_token="<|end|>")
    with pytest.raises(StepError, match=r"ends a text with tokens \[0\]"):
        disagreements(tokenizer, [], bos_token="<|start|>", eos_token="<|start|>")


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., TokenizerMetadata]:
    """Reads a tokenizer from a folder with these files and nothing else."""

    def make(tokenizer: dict[str, Any], vocab_size: int = 1510, chat: bool = False, **files: Any) -> TokenizerMetadata:
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        for stem, value in ({"tokenizer": tokenizer, "tokenizer_config": {"eos_token": "<|end|>"}} | files).items():
            (tmp_path / f"{stem}.json").write_text(json.dumps(value), encoding="utf-8")
        return read_tokenizer(tmp_path, vocab_size, chat=chat, name="student")

    return make


def test_types_and_padding(hostile_bpe: dict[str, Any], read: Any) -> None:
    found = read(hostile_bpe)
    size = len(hostile_bpe["model"]["vocab"]) + 2
    kinds = {text: gguf.TokenType(kind) for text, kind in zip(found.tokens, found.types, strict=True)}
    assert kinds["<|start|>"] is gguf.TokenType.CONTROL
    assert kinds["<tool_call>"] is gguf.TokenType.USER_DEFINED
    assert kinds["e"] is gguf.TokenType.NORMAL
    assert found.types.count(gguf.TokenType.UNUSED) == 1510 - size
    assert (found.tokens[-1], kinds["[PAD1509]"]) == ("[PAD1509]", gguf.TokenType.UNUSED)
    # a token with a part of its own is special whatever its flag says, as in transformers
    named = read(hostile_bpe, tokenizer_config={"eos_token": {"content": "<tool_call>"}})
    assert named.types[named.special["eos"]] == gguf.TokenType.CONTROL
    with pytest.raises(StepError, match=r"resize_token_embeddings"):
        read(hostile_bpe, vocab_size=size - 1)


def test_special_ids_come_from_all_files(hostile_bpe: dict[str, Any], read: Any) -> None:
    ids = {token["content"]: token["id"] for token in hostile_bpe["added_tokens"]}
    end, start, call, close = (ids[text] for text in ("<|end|>", "<|start|>", "<tool_call>", "</tool_call>"))
    assert read(hostile_bpe).special == {"bos": end, "eos": end}  # never llama.cpp's default, id 11
    found = read(
        hostile_bpe,
        tokenizer_config={"bos_token": "<|start|>", "pad_token": "</tool_call>", "unk_token": "<|end|>"},
        config={"eos_token_id": 99999, "bos_token_id": 7},
        generation_config={"eos_token_id": [end, call]},
    )
    assert found.special == {"bos": start, "eos": end, "eot": call, "pad": close, "unk": end}
    with pytest.raises(StepError, match="no end-of-sequence token, so the student would never stop"):
        read(hostile_bpe, tokenizer_config={})
    with pytest.raises(StepError, match=r"'<eos>' of tokenizer_config.json is not in it"):
        read(hostile_bpe, tokenizer_config={"eos_token": "<eos>"})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("model", "type"), "Unigram", "a Unigram tokenizer cannot be exported"),
        (("model", "dropout"), 0.1, "BPE tokenizer with dropout"),
        (("model", "merges"), [], "has no merges"),
        (("normalizer",), {"type": "Lowercase"}, "normalizer Lowercase cannot be exported"),
        (("post_processor",), {"type": "BertProcessing"}, "post-processor BertProcessing"),
        (("model", "byte_fallback"), True, r"256 of the 256 byte tokens \(<0x00> first\)"),
    ],
)
def test_other_tokenizers_are_refused(
    path: tuple[str, ...], value: Any, message: str, hostile_bpe: dict[str, Any], read: Any
) -> None:
    tokenizer = copy.deepcopy(hostile_bpe)
    inner = tokenizer
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(StepError, match=message):
        read(tokenizer)


def test_nfc_is_noted(hostile_bpe: dict[str, Any], disagreements: Any) -> None:
    tokenizer = hostile_bpe | {"normalizer": {"type": "NFC"}}
    differing, notes = disagreements(tokenizer, ["café", "cafe\u0301"])
    assert differing == ["cafe\u0301"]
    assert any("NFC" in note for note in notes)


# In order of rank. Many can be made in two ways (th+e, t+he), as SentencePiece makes them.
PIECES = re.findall(
    r"\S+",
    "▁t he th in ▁a ▁the the at er re ▁s ▁▁ on her ther ▁c cat ▁cat ▁there other ▁o ▁other ▁▁▁▁ sat ▁sat and ▁and 12 "
    "34 1234 ing ▁on hen then ▁then ▁ther ere there here ▁he ▁her ▁in",
)


@pytest.fixture(scope="module")
def spm() -> dict[str, Any]:
    """A SentencePiece-style tokenizer.json: as there, every pair of tokens that joins to a token is a merge."""
    controls = ["<unk>", "<s>", "</s>"]
    letters = sorted({letter for piece in PIECES for letter in piece} | set(",.'!?é中"))
    vocab = {text: index for index, text in enumerate([*controls, *BYTE_TOKENS, *letters, *PIECES])}
    cuts = [(piece, cut) for piece in PIECES for cut in range(1, len(piece))]
    merges = [[piece[:cut], piece[cut:]] for piece, cut in cuts if piece[:cut] in vocab and piece[cut:] in vocab]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    return {
        "version": "1.0",
        "added_tokens": [{"id": index, "content": text, **plain} for index, text in enumerate(controls)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": merges,
        },
    }


SPM = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def near_words() -> list[str]:
    """Texts of the letters that the pieces are made of, where every order of merging gives something else."""
    generator = random.Random(0)
    return ["".join(generator.choices("there in at cson d12", k=20)) for _ in range(150)]


def test_sentencepiece_cuts_alike(
    spm: Any, disagreements: Any, hostile_texts: list[str], more_texts: list[str]
) -> None:
    texts = [*hostile_texts, *more_texts, *near_words(), "<s>the</s> cat", "a</s></s> b"]
    assert disagreements(spm, texts, **SPM) == ([], ())


def test_the_comparison_catches_wrong_scores(monkeypatch: pytest.MonkeyPatch, spm: Any, disagreements: Any) -> None:
    """Planted fault: no scores, as in a file that was written for byte-level BPE."""

    def flat(*given: Any, **options: Any) -> Any:
        found = read_sentencepiece(*given, **options)
        return type(found)(dict.fromkeys(found.scores, 0.0), found.add_space_prefix, found.notes)

    monkeypatch.setattr(module, "read_sentencepiece", flat)
    assert len(disagreements(spm, near_words(), **SPM)[0]) > 10


def test_sentencepiece_types(spm: dict[str, Any], read: Any) -> None:
    found = read(spm, tokenizer_config=SPM)
    assert [gguf.TokenType(kind).name for kind in found.types[:4]] == ["UNKNOWN", "CONTROL", "CONTROL", "BYTE"]
    assert (found.model, found.merges, found.add_space_prefix) == ("llama", None, True)
    assert found.scores is not None
    assert len(found.scores) == 1510


def test_merges_that_llama_cpp_cannot_follow_are_noted(spm: dict[str, Any], read: Any) -> None:
    tokenizer = copy.deepcopy(spm)
    pairs: list[list[str]] = tokenizer["model"]["merges"]
    twice = next(pair for pair in pairs if sum("".join(other) == "".join(pair) for other in pairs) > 1)
    pairs.remove(twice)
    assert any("1 pairs are merged by only one of them" in note for note in read(tokenizer, tokenizer_config=SPM).notes)
    pairs.append(twice)
    assert any("1 pairs are merged by only one of them" in note for note in read(tokenizer, tokenizer_config=SPM).notes)


def test_space_prefixes(spm: dict[str, Any], read: Any, disagreements: Any) -> None:
    def metaspace(scheme: str, split: bool = False) -> dict[str, Any]:
        pre = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split}
        return copy.deepcopy(spm) | {"normalizer": None, "pre_tokenizer": pre}

    replace_only = copy.deepcopy(spm) | {"normalizer": spm["normalizer"]["normalizers"][1]}
    texts = ["the cat", "</s>the cat</s>the", "<s>a\nb", " the", "  the"]
    assert disagreements(replace_only, texts, **SPM) == ([], ())
    assert disagreements(metaspace("never"), texts, **SPM) == ([], ())
    differing, notes = disagreements(metaspace("always"), texts, **SPM)
    assert (differing, len(notes)) == ([" the", "  the"], 1)
    # "first": as a chat template prompts, alike where the text starts with a special token
    differing, notes = disagreements(metaspace("first"), texts, chat_template="{{ messages }}", **SPM)
    assert (differing, len(notes)) == (["the cat"], 1)
    differing, notes = disagreements(metaspace("first"), texts, **SPM)
    assert (differing, len(notes)) == (["</s>the cat</s>the", "<s>a\nb", " the", "  the"], 1)
    with pytest.raises(StepError, match=r"Metaspace.* cannot be exported"):
        read(metaspace("first", split=True), tokenizer_config=SPM)


def test_added_tokens_that_llama_cpp_finds_elsewhere(spm: dict[str, Any], read: Any, disagreements: Any) -> None:
    added = {"content": "<tool>", "single_word": False, "lstrip": False, "rstrip": False, "special": False}
    index = len(spm["model"]["vocab"])

    def with_token(**flags: Any) -> dict[str, Any]:
        out = copy.deepcopy(spm)
        out["added_tokens"].append({"id": index, **added, "normalized": False, **flags})
        return out

    texts = ["a <tool> b", "the<tool>cat"]
    assert disagreements(with_token(), texts, **SPM) == ([], ())
    with pytest.raises(StepError, match=r"'<tool>' is normalized.*AddedToken\(\.\.\., normalized=False\)"):
        read(with_token(normalized=True), tokenizer_config=SPM)
    differing, notes = disagreements(with_token(rstrip=True), texts, **SPM)
    assert (differing, notes) == (["a <tool> b"], ("llama.cpp ignores rstrip of added tokens ('<tool>'; 1 in all)",))


def test_a_name_that_changes_tokenization_is_refused(
    tmp_path: Path, spm: dict[str, Any], random_model: Any, make_checkpoint: Any
) -> None:
    folder = make_checkpoint(random_model("Llama"), spm, **SPM)
    with pytest.raises(StepError, match=r"The name 'My-Phi-3-mini' makes llama\.cpp drop the spaces"):
        convert_checkpoint(folder, tmp_path / "x.gguf", metadata={"general.name": "My-Phi-3-mini"})
    convert_checkpoint(folder, tmp_path / "x.gguf", metadata={"general.name": "kitchen"})


@pytest.mark.parametrize(("name", "pre"), [("gpt-2", "gpt-2"), ("llama-spm", "default")])
def test_real_tokenizers_cut_alike(
    name: str, pre: str, tmp_path: Path, shared_data: Path, random_model: Any, llama_cpp: Any, hostile_texts: list[str]
) -> None:
    source = shared_data / "tokenizers" / name
    if not source.is_dir():
        pytest.skip(f"{name} is not there")
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = [*tokenizer["model"]["vocab"].values(), *(token["id"] for token in tokenizer["added_tokens"])]
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = random_model("Llama", vocab_size=max(vocab) + 1, num_key_value_heads=1, tie_word_embeddings=True, **sizes)
    model.save_pretrained(tmp_path / "student")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / file, tmp_path / "student")
    summary = convert_checkpoint(tmp_path / "student", tmp_path / "student.gguf")
    assert summary.tokenizer_pre == pre
    texts = [*hostile_texts, *(f"a {token['content']} b" for token in tokenizer["added_tokens"][:20])]
    server = llama_cpp(tmp_path / "student.gguf")
    assert [t for t, ids in zip(texts, ids_of(tokenizer, texts), strict=True) if server.tokenize(t) != ids] == []
