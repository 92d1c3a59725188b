"""When the fast forms are used."""

from __future__ import annotations

import torch
from torch import Tensor


def usable(x: Tensor) -> bool:
    """Whether to use the fast forms for a map: float32 or float64 on a CPU, and no compilation or export.

    Compilers fuse operations themselves, and half precision needs the float32 sums of the normal form.
    """
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )
