"""Convert the authors' released file to a model folder of safetensors, without executing code in it.

python essaformer/convert.py --checkpoint RELEASED.pth --output essaformer_chikusei_x4
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common import config
from common.errors import UserError, command
from common.networks.weights import WEIGHTS, locate
from essaformer.checkpoints import load_model, load_scaling, save_scaling


@dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Flags of this script."""

    checkpoint: Path
    """The released file: a pickled whole module, or plain tensors under the published names."""
    output: Path
    """The model folder to write: model.safetensors, config.json, scaling.json."""


@command
def main() -> None:
    """Read, convert, write."""
    options = config.parse(ConvertConfig, __doc__)
    if (options.output / WEIGHTS).exists():
        raise UserError(f"{options.output}: holds a model already; choose another --output")
    checkpoint = locate(options.checkpoint)
    model = load_model(checkpoint)
    save_scaling(load_scaling(checkpoint), options.output)
    model.save_pretrained(options.output)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{options.output}: {parameters:,} parameters, {model.bands} bands, x{model.scale}")


if __name__ == "__main__":
    main()
