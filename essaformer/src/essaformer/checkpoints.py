"""Weights in the authors' published form: their tensor names → ours, and files of either form."""

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
"""File of a model folder that says how the values of its scenes were scaled."""

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
        UserError: one sentence that names every unknown, missing and misshapen tensor, or says
            that this is no ESSAformer at all.
    """
    return dict(_from_released(state_dict, "the released state dict").state_dict())


def load_model(path: str | Path) -> ESSAformer:
    """A network from a folder written by `save_pretrained`, or from the authors' released file.

    The released file is a pickled whole module under the key `model`; its tensors are read without running
    anything from it (`common.networks.foreign`). Files of plain tensors in the published names load too. The network's
    sizes are taken from the tensors' shapes. `load_model(file).save_pretrained(folder)` converts.

    Returns:
        the network in evaluation mode, on CPU, in the file's floating type.

    Raises:
        UserError: no such file, damaged, or another model's; one sentence.
    """
    return load_network(path, ESSAformer, _from_released)


def save_scaling(scaling: Scaling, folder: Path) -> None:
    """Say in a model folder how values are scaled before the network sees them; write it before the weights."""
    write_json(folder / SCALING, asdict(scaling))


def load_scaling(checkpoint: Path) -> Scaling:
    """How scenes are scaled for a checkpoint; released files and plain folders take a scene's maximum.

    Raises:
        UserError: the file in the model folder is damaged.
    """
    path = checkpoint / SCALING
    return read_scaling(path) if path.is_file() else Scaling("maximum")


def published_to_ours(name: str) -> str:
    """Our name of a published tensor; unknown names as they are."""
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
    # Unknown names pass through as they are, so that the strict loader names them.
    load_strictly(model, {published_to_ours(name): value for name, value in tensors.items()}, source)
    return model
