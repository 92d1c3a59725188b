"""Weights in the authors' published form: their tensor names ↔ ours, and files of either form.

No value changes: modules are renamed, and the two mixing matrices lose their leading axis of 1.
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
# Constants that the released state dict may carry; ours are built from the window's size.
_CONSTANTS = ("gauss_pos_index", "relative_position_index", "attn_mask")


def convert_released(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published tensors → our state dict of the same sizes.

    Raises:
        UserError: one sentence that names every unknown, missing and misshapen tensor, or says
            that this is no LSGA-ViT at all.
    """
    return dict(_from_released(state_dict, "the released state dict").state_dict())


def load_model(path: str | Path) -> LSGAViT:
    """A network from a folder written by `save_pretrained`, or from the authors' released file.

    The released file (`.pth`, `.pt` or `.safetensors`) is recognised by its tensor names; all
    sizes but the heads (12, as released) are taken from the tensors' shapes.

    Returns:
        the network in evaluation mode, on CPU, in the file's floating type.

    Raises:
        UserError: no such file, damaged, or another model's; one sentence.
    """
    return load_network(path, LSGAViT, _from_released)


def released_configuration(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The keywords of `LSGAViT` for published tensors, from their names and shapes.

    Heads leave no trace in a tensor; the released training script has 12 in every stage but a
    fourth (24), its constructor's default of width 96 has 3, 6, 12 and 24.
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
    """Published name → our name, for every tensor of `model`."""
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
        # Unknown names pass through as they are, so that the strict loader names them.
        ours[names.get(published, published)] = value[0] if mixing else value
    model = model.to(tensors["head.weight"].dtype)
    load_strictly(model, ours, source)
    return model
