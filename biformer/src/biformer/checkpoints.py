"""Loading the authors' weights and ours, and converting between the two sets of tensor names.

Only names differ; no tensor is reshaped. In the release the network STL has its own class, with other names inside a
stage (`stages.0.blocks.1`, `mlp.2`) than the other networks (`stages.0.1`, `mlp.3`). The released ImageNet weights are
not averaged; from a file that also has averaged weights (`model_ema`), these can be loaded instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from biformer.model import BiFormer
from biformer.stages import BiFormerStage
from common.errors import UserError
from common.networks.weights import load_network, load_strictly, locate, read_tensors

# (published, ours): regular expressions; a rule that does not match does not change the name
_RULES = (
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.([123])\.", r"stages.\1.downsample."),
    (r"^stages\.(\d)\.(?:blocks\.)?(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.attn\.qkv\.qkv\.", ".attn.qkv."),
    (r"\.attn\.(wo|proj)\.", ".attn.out."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.[23]\.", ".mlp.fc2."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
)
_AVERAGES = ("model_ema", "state_dict_ema")


def convert_released(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert published tensors to our state dict; the sizes are kept.

    Raises:
        UserError: names every tensor that is unknown, missing or of a wrong shape, or says that the tensors are of
            another network.
    """
    return dict(_from_released(state_dict, "the released state dict").state_dict())


def export_released(model: BiFormer) -> dict[str, Tensor]:
    """Our weights under the published names, for code that reads the authors' files."""
    names, state = published_names(model), model.state_dict()
    return {names[name]: value.detach().cpu().clone() for name, value in state.items()}


def load_model(path: str | Path, *, ema: bool = False) -> BiFormer:
    """Load a network from a folder written by `save_pretrained`, or from the authors' released file.

    The released file (`.pth`, `.pt` or `.safetensors`, plain or wrapped in `model`) is recognised by its tensor names;
    the variant is taken from the tensors' shapes.

    Args:
        path: folder or file.
        ema: load the averaged weights of a training checkpoint that has both, instead of the raw weights. The authors
            released raw weights.

    Returns:
        the network in evaluation mode, on the CPU, in the floating-point type of the file.

    Raises:
        UserError: the file does not exist, is damaged, has the weights of another network, or has no averaged weights.
    """
    if not ema:
        return load_network(path, BiFormer, _from_released)
    found = locate(path)
    if found.is_dir():
        raise UserError(f"{found}: a model folder holds one set of weights; name the run's model_ema folder instead")
    return _from_released(read_tensors(found, _AVERAGES), str(found)).eval()


def configuration(tensors: Mapping[str, Tensor], source: str) -> dict[str, Any]:
    """The keywords of `BiFormer` that fit the names and shapes of published tensors.

    Numbers of heads, regions and top-k cannot be seen from tensors; they are those of the release.

    Args:
        tensors: the published tensors by name.
        source: names the tensors in the error.

    Raises:
        UserError: the tensors are of another network.
    """
    ours = from_published(tensors)
    stem, head = ours.get("stem.0.weight"), ours.get("head.fc.weight")
    hidden = ours.get("stages.0.blocks.0.mlp.fc1.weight")
    blocks = {(int(m[1]), int(m[2])) for name in ours if (m := re.match(r"stages\.(\d)\.blocks\.(\d+)\.", name))}
    depths = tuple(sum(stage == number for stage, _ in blocks) for number in range(4))
    norms = [norm for i in range(4) if (norm := ours.get(f"stages.{i}.blocks.0.norm1.weight")) is not None]
    if stem is None or stem.ndim != 4 or hidden is None or hidden.ndim != 2 or len(norms) < 4:
        raise UserError(
            f"{source}: holds another model ({len(tensors)} tensors, first {next(iter(tensors), 'none')}), expected "
            "BiFormer's published tensors (downsample_layers.0.0.weight, stages.0.0.attn.qkv.qkv.weight, ...)"
        )
    return {
        "in_chans": stem.shape[1],
        "num_classes": 0 if head is None else head.shape[0],
        "depths": depths,
        "dims": tuple(norm.shape[0] for norm in norms),
        "mlp_ratio": hidden.shape[0] / hidden.shape[1],
        "overlapping": stem.shape[-1] == 3,
        "position": "stages.0.blocks.0.pos_embed.weight" in ours,
    }


def from_published(tensors: Mapping[str, Any], model: nn.Module | None = None) -> dict[str, Tensor]:
    """Rename published tensors without checks; tensors with our names keep them. timm calls this before loading.

    Args:
        tensors: the content of a file; tensors inside an entry `model` are taken out.
        model: not used; timm passes it.
    """
    tensors = tensors.get("model", tensors)
    published = any(name.startswith("downsample_layers.") for name in tensors)
    return {_our_name(name) if published else name: value for name, value in tensors.items()}


def published_names(model: BiFormer) -> dict[str, str]:
    """The published name of each of our tensors."""
    first = model.stages[0]
    assert isinstance(first, BiFormerStage)
    swin_layout = first.blocks[0].pos_embed is None
    return {name: _published_name(name, swin_layout) for name in model.state_dict()}


def _published_name(name: str, swin_layout: bool) -> str:
    name = re.sub(r"^stem\.", "downsample_layers.0.", name)
    name = re.sub(r"^stages\.([123])\.downsample\.", r"downsample_layers.\1.", name)
    if name.startswith("stages.3."):
        name = name.replace(".attn.out.", ".attn.proj.")
    else:
        name = name.replace(".attn.out.", ".attn.wo.").replace(".attn.qkv.", ".attn.qkv.qkv.")
    name = name.replace(".mlp.fc1.", ".mlp.0.").replace(".mlp.fc2.", ".mlp.2." if swin_layout else ".mlp.3.")
    if not swin_layout:
        name = name.replace(".blocks.", ".")
    return name.replace("head.fc.", "head.")


def _our_name(name: str) -> str:
    for published, ours in _RULES:
        name = re.sub(published, ours, name)
    return name


def _from_released(tensors: Mapping[str, Tensor], source: str) -> BiFormer:
    keywords = configuration(tensors, source)
    with torch.device("meta"):
        model = BiFormer(**keywords)
    floating = next(value.dtype for value in tensors.values() if value.is_floating_point())
    model = model.to(floating).to_empty(device="cpu")
    load_strictly(model, from_published(tensors), source)
    return model
