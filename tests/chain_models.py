"""A model that says what it is told to say, a random one, and both as GGUF files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from fixtures import make_tokenizer

CALL = '<tool_call>\n{"name": "set_light", "arguments": {"room": "kitchen", "state": "on"}}\n</tool_call>'
# Each token is followed by the next of its chain. The newline is what ChatML's generation prompt ends with.
CHAINS = [
    [
        "\n",
        "<tool_call>",
        '\n{"name": "set_light", "arguments": ',
        '{"room": "kitchen", "state": "on"}}\n',
        "</tool_call>",
        "<|im_end|>",
    ],
    ["<ask-call>", "<tool_call>"],
    ["<ask-bytes>", "Ã", "©", "<word>", "<|im_end|>"],  # é in byte-level BPE's alphabet: one letter in two tokens
    ["<ask-endless>", "<again>", "<again>"],
    ["<ask-end-of-text>", "<bye>", "<|endoftext|>"],
]


def make_chain_model(folder: Path, context: int = 512) -> Path:
    """A Llama whose next token depends on the last one alone: what attention and feed-forward add is zero."""
    import torch
    from tokenizers import AddedToken, Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    make_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    known = tokenizer.get_vocab(with_added_tokens=True)
    new = [t for t in dict.fromkeys(itertools.chain(*CHAINS)) if t not in known and t != "\n"]
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in new])
    tokenizer.save(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.token_to_id("<|im_end|>"),
    )
    model = LlamaForCausalLM(config)
    ids = [[tokenizer.token_to_id("Ċ" if t == "\n" else t) for t in chain] for chain in CHAINS]
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_()
        model.lm_head.weight.normal_(std=0.01)
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        for chain in ids:
            for before, after in itertools.pairwise(chain):
                model.lm_head.weight[after] += 0.2 * model.model.embed_tokens.weight[before]
    model.save_pretrained(folder)
    return folder


def make_random_model(folder: Path) -> Path:
    """A random Llama, confident enough for its tokens to differ, with a padded vocabulary."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    make_tokenizer(folder)
    size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size + 22,  # two added tokens, and padding
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def to_gguf(folder: Path, template: str = "own") -> Path:
    """The folder's model as an F32 file beside it; with suffix .plain.gguf for the template `plain`."""
    from potstill.components.chat.format import load_chat
    from potstill.components.conversion.convert import convert_checkpoint
    from potstill.components.conversion.file_template import file_template

    out = folder.with_suffix(".gguf" if template == "own" else f".{template}.gguf")
    convert_checkpoint(folder, out, quantization="F32", chat_template=file_template(load_chat(folder, template)))
    return out
