"""When the fast forms are taken."""

from __future__ import annotations

import torch
from torch import Tensor


def usable(x: Tensor) -> bool:
    """Whether the fast forms take this map: single or double precision on a CPU, outside of compilers and exporters.

    These have fusions of their own, and half precision needs the sums in float32 of the plain form.
    """
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64)
        and x.numel() > 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )
