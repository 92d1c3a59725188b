"""Weights in the authors' published form: their tensor names → ours, and loading of files in either form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.errors import UserError
from common.files import write_json
from common.networks.weights import load_network, load_strictly
from essaformer.model import ESSAformer
from essaformer.scaling import Scaling, read_scaling

SCALING = "scaling.json"
"""File of a model folder that says how the values of scenes are scaled."""

# (published, ours), parts of dotted names
_RENAMED = (
    (r"^blockup\.convup\.convu\.0\.", "encode_up.conv1."),
    (r"^blockup\.convup\.convu\.3\.", "encode_up.conv2."),
    (r"^blockup\.convup\.convu\.6\.", "encode_up.conv3."),
    (r"^blockup\.convup\.", "encode_up."),
    (r"^blockup\.convdown\.convd\.0\.", "encode_down.conv1."),
    (r"^blockup\.convdown\.convd\.3\.", "encode_down.conv2."),
    (r"^blockup\.convdown\.convd\.6\.", "encode_down.conv3."),
    (r"^blockup\.convdown\.", "encode_down."),
    (r"^blockup\.convupsample\.(0|2|4)\.", "upsample.convs.{}."),
    (r"^blockup\.convdownsample\.(0|2|4)\.", "downsample.convs.{}."),
    (r"\.attn\.lnqkv\.", ".attn.qkv."),
    (r"\.attn\.ln\.", ".attn.out."),
)


def convert_released(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors → our state dict of the same sizes.

    Raises:
        UserError: tensors are unknown, missing or misshapen (the message names them), or are not of an ESSAformer.
    """
    return dict(_from_released(state_dict, "the released state dict").state_dict())


def load_model(path: str | Path) -> ESSAformer:
    """Load a network from a folder written by `save_pretrained`, or from the authors' released file.

    The released file is a pickled whole module under the key `model`; its tensors are read without executing
    code in it (`common.networks.foreign`). Files of plain tensors with the published names can be loaded too. The
    network's sizes follow from the tensors' shapes. `load_model(file).save_pretrained(folder)` converts a file.

    Returns:
        the network in evaluation mode, on CPU, in the file's floating type.

    Raises:
        UserError: the file does not exist, is damaged, or belongs to another network.
    """
    return load_network(path, ESSAformer, _from_released)


def save_scaling(scaling: Scaling, folder: Path) -> None:
    """Write into a model folder how values are scaled for the network; call it before the weights are written."""
    write_json(folder / SCALING, asdict(scaling))


def load_scaling(checkpoint: Path) -> Scaling:
    """Return how scenes are scaled for a checkpoint; by its maximum for released files and folders without the file.

    Raises:
        UserError: the file in the model folder is damaged.
    """
    path = checkpoint / SCALING
    return read_scaling(path) if path.is_file() else Scaling("maximum")


def published_to_ours(name: str) -> str:
    """Return our name of a published tensor; unknown names stay unchanged."""
    for pattern, ours in _RENAMED:
        if match := re.search(pattern, name):
            # The release counts the pixel shuffles between the convolutions: 0, 2, 4.
            name = name.replace(match[0], ours.format(*(int(number) // 2 for number in match.groups())))
    return name


def _configuration(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The keywords of `ESSAformer` for published tensors, from their names and shapes."""
    stem, up = tensors.get("conv_first.weight"), tensors.get("blockup.convupsample.0.weight")
    if stem is None or up is None or stem.ndim != 4 or up.ndim != 4:
        raise UserError(
            f"{source}: holds another model ({len(tensors)} tensors, first {next(iter(tensors), 'none')}), expected "
            "ESSAformer's published tensors (conv_first.weight, blockup.convup.attn.lnqkv.weight, ...)"
        )
    dim, bands = stem.shape[:2]
    doublings = sum(re.fullmatch(r"blockup\.convupsample\.\d+\.weight", name) is not None for name in tensors)
    return {"bands": bands, "dim": dim, "scale": 3 if up.shape[0] == 9 * dim else 2**doublings}


def _from_released(tensors: Mapping[str, Tensor], source: str) -> ESSAformer:
    configuration = _configuration(tensors, source)
    try:
        with torch.device("meta"):
            model = ESSAformer(**configuration)
    except ValueError as error:
        raise UserError(f"{source}: holds no network that can be built ({error})") from None
    model = model.to(next(iter(tensors.values())).dtype).to_empty(device="cpu")
    # Unknown names stay unchanged, so that the strict loader reports them.
    load_strictly(model, {published_to_ours(name): value for name, value in tensors.items()}, source)
    return model
