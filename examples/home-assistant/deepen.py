"""Put new layers between those of a trained model. It starts as good as it was, with more weights to train.

    python examples/home-assistant/deepen.py --model build/commands --layers 14 --out build/deep

The old layers are spread evenly. A new layer has random weights but changes nothing at first: the two matrices that
write into the residual stream are zero, as in the block expansion of LLaMA Pro (Wu et al., 2024, arXiv:2401.02415).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

SILENT = ("self_attn.o_proj", "mlp.down_proj")


def deepen(folder: Path, layers: int, out: Path) -> None:
    """Write the Llama in `folder`, deepened to `layers` layers, and its tokenizer to `out`.

    Raises:
        ValueError: the model already has as many layers or more.
    """
    from transformers import AutoModelForCausalLM

    from potstill.components.models.layers import even_layers
    from potstill.components.runtimes.load import load_causal_lm
    from potstill.components.training.students import save_model

    model = load_causal_lm(folder)
    old = model.config.num_hidden_layers
    if layers <= old:
        raise ValueError(f"{folder} has {old} layers: give a larger number.")
    config = type(model.config).from_dict(model.config.to_dict())
    config.num_hidden_layers = layers
    torch.manual_seed(0)
    deeper = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, module in deeper.named_modules():
        if name.endswith(SILENT):
            torch.nn.init.zeros_(module.weight)
    place = even_layers(layers, old)
    state = {}
    for name, tensor in model.state_dict().items():
        head, mark, tail = name.partition(".layers.")
        index, dot, rest = tail.partition(".")
        state[f"{head}{mark}{place[int(index)]}{dot}{rest}" if mark else name] = tensor
    deeper.load_state_dict(deeper.state_dict() | state)
    save_model(deeper, folder, out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the trained model")
    parser.add_argument("--layers", type=int, required=True, help="number of layers of the new model")
    parser.add_argument("--out", type=Path, required=True, help="folder for the new model")
    args = parser.parse_args()
    deepen(args.model, args.layers, args.out)


if __name__ == "__main__":
    main()
