"""Fast implementations of AMGCFN. To understand the paper you need not read this folder.

Each has its own backward pass and processes the scene in pieces that fit into the processor's cache.
"""

from __future__ import annotations

import torch
from torch import Tensor


def usable(x: Tensor) -> bool:
    """Whether to use the fast forms for a map: float32 or float64, and no compilation or export.

    Compilers and exporters need standard operations, and half precision needs sums in a wider type.
    """
    return (
        x.dtype in (torch.float32, torch.float64)
        and not x.is_meta
        and not torch.is_autocast_enabled(x.device.type)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )
