"""Released tensor names → ours, and models from either kind of checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from amgcfn.convolution import KERNELS
from common.errors import UserError

_HEADS = 6


def _released_prefixes() -> dict[str, str]:
    """Released module → our module, for all that differ in name only."""
    names = {
        "feat_in": "embed",
        "BN_GCN": "embed_norm",
        "GCN_fc_out": "graph_classifier",
        "CNN_fc_out": "conv_classifier",
        "Cross_fc_out": "fused_classifier",
        "GCN_Multihead.query": "node_attention.query",
        "GCN_Multihead.key": "node_attention.key",
        "GCN_Multihead.value": "node_attention.value",
        "GCN_Multihead.dense": "node_attention.out",
        "GCN_Multihead.LayerNorm": "node_attention.norm",
    }
    for hop in (1, 2, 3):
        names[f"BN_GCN{hop}"] = f"graph_blocks.{hop - 1}.norm"
        for conv in ("conv1", "conv2"):
            names[f"GCNBlock{hop}.{conv}"] = f"graph_blocks.{hop - 1}.{conv}"
    for level in (1, 2, 3):
        for branch in range(len(KERNELS)):
            theirs, ours = f"CNNlayer{'ABC'[branch]}{level}", f"levels.{level - 1}.blocks.{branch}"
            names |= {f"{theirs}.BN": f"{ours}.norm", f"{theirs}.conv_in": f"{ours}.pointwise"}
            names |= {f"{theirs}.conv_out": f"{ours}.depthwise"}
    return names | {f"cross.{theirs}": f"fusion.{ours}" for theirs, ours in CAFM_PREFIXES.items()}


CAFM_PREFIXES = {
    "conv1_spatial": "spatial.0",
    "conv2_spatial": "spatial.2",
    **{
        f"{theirs}{branch * layer}": f"{ours}{branch}.{2 * layer - 2}"
        for theirs, ours in (("avg", "average"), ("max", "maximum"))
        for branch in ("1", "2")
        for layer in (1, 2)
    },
}
