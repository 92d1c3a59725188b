"""Weights in the authors' published form: their tensor names ↔ ours, and loading of files in either form.

Values stay the same: modules are renamed, and the two mixing matrices lose their leading axis of 1.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from common.errors import UserError
from common.networks.weights import load_network, load_strictly
from lsgavit.model import LSGAViT, PatchMerging

_TOKENIZER = (
    ("patch_embed.conv3d_features.0.", "tokenizer.conv3d."),
    ("patch_embed.conv3d_features.1.", "tokenizer.norm3d."),
    ("patch_embed.conv2d_features.0.", "tokenizer.conv2d."),
    ("patch_embed.conv2d_features.1.", "tokenizer.norm2d."),
    ("patch_embed.proj.", "tokenizer.proj."),
    ("patch_embed.norm.", "tokenizer.norm."),
)
_BLOCK = (
    ("attn.token_wA", "attention.mix_tokens"),
    ("attn.token_wV", "attention.mix_channels"),
    ("attn.qkv.", "attention.qkv."),
    ("attn.proj.", "attention.out."),
    ("mlp.fc1.", "mlp.0."),
    ("mlp.fc2.", "mlp.2."),
)
# Constants that the released state dict may contain; ours are computed from the window's size.
_CONSTANTS = ("gauss_pos_index", "relative_position_index", "attn_mask")


def convert_released(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors → our state dict of the same sizes.

    Raises:
        UserError: tensors are unknown, missing or misshapen (the message names them), or are not of an LSGA-ViT.
    """
    return dict(_from_released(state_dict, "the released state dict").state_dict())


def load_model(path: str | Path) -> LSGAViT:
    """Load a network from a folder written by `save_pretrained`, or from the authors' released file.

    The released file (`.pth`, `.pt` or `.safetensors`) is recognised by its tensor names; all
    sizes except the numbers of heads follow from the tensors' shapes, see `released_configuration`.

    Returns:
        the network in evaluation mode, on CPU, in the file's floating type.

    Raises:
        UserError: the file does not exist, is damaged, or belongs to another network.
    """
    return load_network(path, LSGAViT, _from_released)


def released_configuration(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """Return the keywords of `LSGAViT` for published tensors, from their names and shapes.

    Tensors do not depend on the number of heads. The released training script has 12 in the first three stages and 24
    in the fourth; the constructor's default of width 96 has 3, 6, 12 and 24.
    """
    stem, head = tensors.get("patch_embed.conv2d_features.0.weight"), tensors.get("head.weight")
    mixing = tensors.get("layers.0.blocks.0.attn.token_wA")
    side = math.isqrt(mixing.shape[1]) if mixing is not None and mixing.ndim == 3 else 0
    if stem is None or stem.ndim != 4 or head is None or head.ndim != 2 or mixing is None or side**2 != mixing.shape[1]:
        raise UserError(
            f"{source}: holds another model ({len(tensors)} tensors, first {next(iter(tensors), 'none')}), expected "
            "LSGA-ViT's published tensors (patch_embed.conv3d_features.0.weight, layers.0.blocks.0.attn.token_wA, ...)"
        )
    blocks = {(int(m[1]), int(m[2])) for name in tensors if (m := re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name))}
    stages = 1 + max(stage for stage, _ in blocks)
    depths = tuple(sum(stage == number for stage, _ in blocks) for number in range(stages))
    return {
        "image_size": side,
        "bands": stem.shape[1] // 4,
        "num_classes": head.shape[0],
        "embed_dim": stem.shape[0],
        "depths": depths,
        "num_heads": ((3, 6, 12, 24) if stem.shape[0] == 96 else (12, 12, 12, 24))[:stages],
    }


def published_names(model: LSGAViT) -> dict[str, str]:
    """Return published name → our name, for every tensor of `model`."""
    prefixes, stage, index = {}, 0, 0
    for position, block in enumerate(model.blocks):
        if isinstance(block, PatchMerging):
            prefixes[f"blocks.{position}."] = f"layers.{stage}.downsample."
            stage, index = stage + 1, 0
        else:
            prefixes[f"blocks.{position}."] = f"layers.{stage}.blocks.{index}."
            index += 1
    names = {}
    for ours in model.state_dict():
        published = ours
        for theirs, own in _TOKENIZER:
            published = published.replace(own, theirs)
        if match := re.match(r"blocks\.\d+\.", ours):
            published = published.replace(match[0], prefixes[match[0]])
            for theirs, own in _BLOCK:
                published = published.replace(own, theirs)
        names[published] = ours
    return names


def _from_released(tensors: Mapping[str, Tensor], source: str) -> LSGAViT:
    model = LSGAViT(**released_configuration(tensors, source))
    names = published_names(model)
    ours = {}
    for published, value in tensors.items():
        if published.rpartition(".")[2] in _CONSTANTS:
            continue
        mixing = published.endswith((".token_wA", ".token_wV")) and value.ndim == 3
        # Unknown names stay unchanged, so that the strict loader reports them.
        ours[names.get(published, published)] = value[0] if mixing else value
    model = model.to(tensors["head.weight"].dtype)
    load_strictly(model, ours, source)
    return model
