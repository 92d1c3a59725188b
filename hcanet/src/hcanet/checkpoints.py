"""Weights in the authors' published form: tensors of 3-D convolutions → ours, and loading of files in either form."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.files import write_json
from common.networks.weights import load_network, load_strictly
from hcanet.literal import HCANet3D, middle_slices
from hcanet.model import HCANet
from hcanet.scenes import Scaling

PREPARATION = "preparation.json"
"""File of a model folder that says how scenes are prepared for the network."""
FIRST = "patch_embed.proj.weight"


def convert_released(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors → our state dict, with the middle slices of the 3-D kernels, which alone have an effect.

    Raises:
        UserError: tensors are unknown, missing or misshapen (the message names them), or are not of an HCANet. Shapes
            must be those of the published 3-D form.
    """
    return dict(_from_released(state_dict, "the released state dict").state_dict())


def load_model(path: str | Path) -> HCANet:
    """Load a network from a folder written by `save_pretrained`, or from a file in the published form.

    The file may be the published trainer's checkpoint, a dict with `net`, `optimizer` and `scheduler`. The network's
    sizes follow from the tensors' shapes. `load_model(file).save_pretrained(folder)` converts a file.

    Returns:
        the network in evaluation mode, on CPU, in the file's floating type.

    Raises:
        UserError: the file does not exist, is damaged, or belongs to another network.
    """
    return load_network(path, HCANet, _from_released)


def _from_released(tensors: Mapping[str, Tensor], source: str) -> HCANet:
    configuration = _configuration(tensors, source)
    try:
        published = _empty(HCANet3D, configuration, tensors)
        model = _empty(HCANet, configuration, tensors)
    except ValueError as error:
        raise UserError(f"{source}: holds no network that can be built ({error})") from None
    load_strictly(published, tensors, source)
    model.load_state_dict(middle_slices(dict(tensors)))
    return model


def _empty(kind: Any, configuration: dict[str, Any], tensors: Mapping[str, Tensor]) -> Any:
    """A network without values, in the tensors' type."""
    with torch.device("meta"):
        model = kind(**configuration)
    return model.to(tensors[FIRST].dtype).to_empty(device="cpu")


def _configuration(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The keywords of `HCANet` for published tensors, from their names and shapes."""
    first = tensors.get(FIRST)
    if first is None or first.ndim != 5:
        raise UserError(
            f"{source}: holds another model ({len(tensors)} tensors, first {next(iter(tensors), 'none')}), expected "
            f"HCANet's published tensors ({FIRST} with five axes, encoder_level1.0.attn.qkv.weight, ...)"
        )
    dim, bands = first.shape[:2]

    def depth(level: str) -> int:
        return len({match[1] for name in tensors if (match := re.match(rf"{level}\.(\d+)\.", name))})

    def heads(level: int) -> int:
        temperature = tensors.get(f"encoder_level{level}.0.attn.temperature")
        return 2 ** (level - 1) if temperature is None or not temperature.ndim else len(temperature)

    attention = [name for name in tensors if name.endswith(".attn.qkv.weight")]
    return {
        "bands": bands,
        "dim": dim,
        "num_blocks": tuple(depth(f"encoder_level{level}") for level in (1, 2, 3)),
        "num_refinement_blocks": depth("refinement"),
        "heads": tuple(heads(level) for level in (1, 2, 3)),
        "ffn_expansion": _expansion(tensors, dim),
        "bias": any(name.replace("weight", "bias") in tensors for name in attention),
        "norm": "WithBias" if any(name.endswith(".norm1.body.bias") for name in tensors) else "BiasFree",
    }


def _expansion(tensors: Mapping[str, Tensor], dim: int) -> float:
    """An expansion that gives the hidden widths of the tensors: the released 2.66 if it fits."""
    low, high = 0.0, float("inf")
    for level in (1, 2, 3):
        weight = tensors.get(f"encoder_level{level}.0.ffn.project_out.weight")
        if weight is not None and weight.ndim == 5:
            hidden, width = weight.shape[1], dim * 2 ** (level - 1)
            low, high = max(low, hidden / width), min(high, (hidden + 1) / width)
    return 2.66 if low <= 2.66 < high else (low + high) / 2 if low < high < float("inf") else max(low, 0.1)


@dataclass(frozen=True)
class Preparation:
    """How scenes are prepared for a network; stored in its model folder.

    Attributes:
        scaling: how scenes are scaled to [0, 1]: "percentile" or "minmax".
        tile: side of the training patches in pixels; tiles should have the same with the released local branch.
        eigen_images: number of eigen-images that the network was trained on, see `eigen.py`; 0 for bands.
        outliers: whether outliers are replaced before the eigen-images are computed.
    """

    scaling: Scaling = "percentile"
    tile: int = 128
    eigen_images: int = 0
    outliers: bool = False


def save_preparation(preparation: Preparation, folder: Path) -> None:
    """Write a preparation into a model folder; call it before the weights are written, so that they never lack it."""
    write_json(folder / PREPARATION, asdict(preparation))


def load_preparation(checkpoint: Path) -> Preparation:
    """Read the preparation of a model folder; files in the published form were trained on patches of 128.

    Raises:
        UserError: the file in the model folder is damaged.
    """
    path = checkpoint / PREPARATION
    if not path.is_file():
        return Preparation()
    try:
        found = Preparation(**json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: does not describe a preparation ({error})") from None
    if found.scaling not in ("percentile", "minmax") or not isinstance(found.tile, int) or found.tile < 1:
        raise UserError(f"{path}: has scaling {found.scaling!r} and tile {found.tile!r}; expected percentile or minmax")
    return found
