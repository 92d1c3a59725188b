"""Named variants, released tensor names → ours, and loading of models from either kind of checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amgcfn.convolution import KERNELS
from amgcfn.model import AMGCFN, HOPS, LEVELS
from common.errors import UserError
from common.networks import variants
from common.networks.weights import load_network, load_strictly

_HEADS = 6
_ATTENTION = "CNN_Multihead.attn_conv"
_VARIANTS = {"amgcfn": {"bands": 200, "num_classes": 16}}


def list_models() -> list[str]:
    """Return the names of the variants."""
    return list(_VARIANTS)


def create_model(name: str = "amgcfn", **overrides: Any) -> AMGCFN:
    """Build a variant; `"amgcfn"` is the published network of Indian Pines.

    Args:
        overrides: `bands, num_classes, node_features, graph_dim, conv_dim`.

    Raises:
        ValueError: the name or a keyword is unknown; the message lists the valid ones.
    """
    return variants.build(AMGCFN, _VARIANTS, name, overrides)


def cafm_names() -> dict[str, str]:
    """Return released module name → ours, for CAFM."""
    names = {"conv1_spatial": "spatial.0", "conv2_spatial": "spatial.2"}
    for theirs, ours in (("avg", "average"), ("max", "maximum")):
        for branch in ("1", "2"):
            names[f"{theirs}{branch}"] = f"{ours}{branch}.0"
            names[f"{theirs}{branch}{branch}"] = f"{ours}{branch}.2"
    return names


def released_names() -> dict[str, str]:
    """Return released module name → ours, for all modules except the pixel attention (see `convert_released`)."""
    names = {
        "feat_in": "embed",
        "BN_GCN": "embed_norm",
        "GCN_fc_out": "graph_classifier",
        "CNN_fc_out": "conv_classifier",
        "Cross_fc_out": "fused_classifier",
    }
    for theirs, ours in (
        ("query", "query"),
        ("key", "key"),
        ("value", "value"),
        ("dense", "out"),
        ("LayerNorm", "norm"),
    ):
        names[f"GCN_Multihead.{theirs}"] = f"node_attention.{ours}"
    for hop in range(HOPS):
        names[f"BN_GCN{hop + 1}"] = f"graph_blocks.{hop}.norm"
        for conv in ("conv1", "conv2"):
            names[f"GCNBlock{hop + 1}.{conv}"] = f"graph_blocks.{hop}.{conv}"
    for level in range(LEVELS):
        for branch, _ in enumerate(KERNELS):
            theirs, ours = f"CNNlayer{'ABC'[branch]}{level + 1}", f"levels.{level}.blocks.{branch}"
            for part, own in (("BN", "norm"), ("conv_in", "pointwise"), ("conv_out", "depthwise")):
                names[f"{theirs}.{part}"] = f"{ours}.{own}"
    return names | {f"cross.{theirs}": f"fusion.{ours}" for theirs, ours in cafm_names().items()}


def convert_released(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the released tensors to ours.

    The six one-channel convolutions of the pixel attention become one grouped convolution, and
    CAFM's 1×1 convolutions become linear layers.

    Args:
        state_dict: tensors as saved by the authors' code.

    Raises:
        UserError: names are unknown or missing; lists them.
    """
    names = released_names()
    converted: dict[str, Tensor] = {}
    unknown = []
    for name, value in state_dict.items():
        module, _, leaf = name.rpartition(".")
        if module in names:
            ours = names[module]
            # 1×1 convolutions of CAFM → linear
            flat = ours.startswith(("fusion.average", "fusion.maximum")) and value.ndim == 4
            converted[f"{ours}.{leaf}"] = value.flatten(1) if flat else value
        elif not (module.startswith(_ATTENTION) and module.removeprefix(_ATTENTION).isdigit()):
            unknown.append(name)
    missing = []
    for leaf in ("weight", "bias"):
        parts = [f"{_ATTENTION}{head}.{leaf}" for head in range(_HEADS)]
        missing += [part for part in parts if part not in state_dict]
        if all(part in state_dict for part in parts):
            converted[f"pixel_attention.conv.{leaf}"] = torch.cat([state_dict[part] for part in parts])
    back = {ours: theirs for theirs, ours in names.items()}
    expected = AMGCFN(bands=1, num_classes=1).state_dict()  # names only
    for name in expected:
        if name not in converted and not name.startswith("pixel_attention."):
            module, _, leaf = name.rpartition(".")
            missing.append(f"{back[module]}.{leaf}")
    unknown += [name for name in converted if name not in expected]
    if unknown or missing:
        raise UserError(
            f"not the released AMGCFN tensors: {len(unknown)} unknown ({', '.join(unknown[:4])}), "
            f"{len(missing)} missing ({', '.join(missing[:4])})"
        )
    return converted


def load_model(path: str | Path) -> AMGCFN:
    """Load a folder written by `save_pretrained`, or a file of released tensors.

    The sizes of a released network follow from its tensors.

    Returns:
        the network in evaluation mode.

    Raises:
        UserError: the file does not exist, is damaged, or belongs to another network.
    """
    return load_network(path, AMGCFN, _from_released)


def _from_released(released: Mapping[str, Tensor], source: str) -> AMGCFN:
    try:
        tensors = convert_released(released)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    model = AMGCFN(
        bands=tensors["levels.0.blocks.0.pointwise.weight"].shape[1],
        num_classes=len(tensors["fused_classifier.bias"]),
        node_features=tensors["embed.weight"].shape[1],
        graph_dim=len(tensors["embed.bias"]),
        conv_dim=len(tensors["levels.0.blocks.0.pointwise.bias"]),
    )
    load_strictly(model, tensors, source)
    return model
