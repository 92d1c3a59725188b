"""Loading the authors' weights and ours, and converting between the two sets of tensor names.

The release wraps LayerNorm and the resizing convolutions in inner modules, and calls the transformer block of a
fusion block `att_channel`. Nothing else differs, and no tensor is reshaped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.networks.weights import load_network, load_strictly
from fftformer.model import FFTformer

# (published, ours): parts of tensor names
_RENAMED = (
    ("patch_embed.proj.", "patch_embed."),
    ("norm1.body.", "norm1."),
    ("norm2.body.", "norm2."),
    ("norm.body.", "norm."),
    ("down1_2.body.1.", "down1_2."),
    ("down2_3.body.1.", "down2_3."),
    ("up3_2.body.1.", "up3_2."),
    ("up2_1.body.1.", "up2_1."),
    (".att_channel.", ".block."),
)


def convert_released(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert published tensors to our state dict; the sizes are kept.

    Raises:
        UserError: names every tensor that is unknown, missing or of a wrong shape, or says that the tensors are of
            another network.
    """
    return dict(_from_released(state_dict, "the released state dict").state_dict())


def export_released(model: FFTformer) -> dict[str, Tensor]:
    """Our weights under the published names, for tools that read the authors' files (spandrel, chaiNNer).

    `torch.save(export_released(model), "deblur.pth")` writes such a file. These tools compute the released product
    of spectra only. They compute `ffn_expansion` from the first level, so dim · ffn_expansion should be a whole
    number.

    Raises:
        ValueError: the model conjugates a spectrum (`conjugate=True`), which these tools would ignore.
    """
    if any(getattr(module, "conjugate", False) for module in model.modules()):
        raise ValueError("a model with conjugate=True has no released form; the published code has no conjugate")
    return {_published_name(name): value.detach().cpu().clone() for name, value in model.state_dict().items()}


def load_model(path: str | Path) -> FFTformer:
    """Load a network from a folder written by `save_pretrained`, or from the authors' released file.

    The released file (`.pth`, `.pt` or `.safetensors`, plain or wrapped in `params`) is recognised by its tensor
    names; the network's sizes are taken from the tensors' shapes.

    Returns:
        the network in evaluation mode, on the CPU, in the floating-point type of the file.

    Raises:
        UserError: the file does not exist, is damaged, or has the weights of another network.
    """
    return load_network(path, FFTformer, _from_released)


def _configuration(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The keywords of `FFTformer` that fit the names and shapes of published tensors."""

    def depth(level: str) -> int:
        found = (re.match(rf"{level}\.(\d+)\.", name) for name in tensors)
        return max((int(match[1]) + 1 for match in found if match), default=1)

    stem, last = tensors.get("patch_embed.proj.weight"), tensors.get("encoder_level3.0.ffn.project_out.weight")
    if stem is None or last is None or stem.ndim != 4 or last.ndim != 4:
        raise UserError(
            f"{source}: holds another model ({len(tensors)} tensors, first {next(iter(tensors), 'none')}), expected "
            "FFTformer's published tensors (patch_embed.proj.weight, encoder_level1.0.ffn.fft, ...)"
        )
    dim = stem.shape[0]
    return {
        "dim": dim,
        "num_blocks": tuple(depth(f"encoder_level{level}") for level in (1, 2, 3)),
        "num_refinement_blocks": depth("refinement"),
        # From the widest level, because int(width * expansion) is rounded down at every level.
        "ffn_expansion": last.shape[1] / last.shape[0],
    }


def _from_released(tensors: Mapping[str, Tensor], source: str) -> FFTformer:
    with torch.device("meta"):
        model = FFTformer(**_configuration(tensors, source))
    expected = {_published_name(name): name for name in model.state_dict()}
    # Unknown names are kept as they are, so that `load_strictly` lists them in its error.
    ours = {expected.get(name, name): value for name, value in tensors.items()}
    floating = next(iter(tensors.values())).dtype
    model = model.to(floating).to_empty(device="cpu")
    load_strictly(model, ours, source)
    return model


def _published_name(name: str) -> str:
    for published, ours in _RENAMED:
        if name.startswith(ours) or f".{ours}" in name or (ours.startswith(".") and ours in name):
            name = name.replace(ours, published)
    return name
