"""The fast paths of AMGCFN. The plain forms give the same results, so you can skip this folder.

Each has a backward pass of its own and visits the scene in pieces that stay in the processor's cache.
"""

from __future__ import annotations

import torch
from torch import Tensor


def usable(x: Tensor) -> bool:
    """Whether the fast forms take this map: single or double precision, outside of compilers and exporters.

    Compilers and exporters need plain operations; half precision needs sums that are wider than its numbers.
    """
    return (
        x.dtype in (torch.float32, torch.float64)
        and not x.is_meta
        and not torch.is_autocast_enabled(x.device.type)
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )
