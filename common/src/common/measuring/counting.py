"""Count the operations and bytes of a computation, and measure how many of each the device processes per second.

`operations` are those of matrix products, convolutions, attention and Fourier transforms; a multiplication with an
addition counts as two, and a sparse matrix as a dense one. `bytes` are all that the operators read and write, each
operand once, as if nothing stayed in a cache. Both give a time at the device's measured speed; the longer one is the
bound. Work can be faster than the bound if operators are fused or operands stay in a cache.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

_ATEN = torch.ops.aten


def _transform(shape: Any, dims: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Operations of a Fourier transform, 5 n log₂ n for n complex numbers; real ones count half in `_half`."""
    length = math.prod(max(shape[dim], (out_shape or shape)[dim]) for dim in dims)
    return round(5 * math.prod(shape) * math.log2(max(length, 2)))


def _half(*arguments: Any, **keywords: Any) -> int:
    return _transform(*arguments, **keywords) // 2


def _convolution_backward(grad: Any, x: Any, weight: Any, *rest: Any, **_: Any) -> int:
    transposed, wanted = rest[4], rest[7]
    places = x if transposed else grad
    return 2 * places[0] * math.prod(places[2:]) * math.prod(weight) * sum(wanted[:2])


def _linear(x: Any, weight: Any, *_: Any, **__: Any) -> int:
    return 2 * math.prod(x) * weight[0]


FORMULAS: dict[Any, Callable[..., int]] = {
    _ATEN._fft_c2c: _transform,
    _ATEN._fft_r2c: _half,
    _ATEN._fft_c2r: _half,
    _ATEN.convolution_backward: _convolution_backward,
    torch.ops.mkldnn._linear_pointwise: _linear,
}
"""Operator → formula of its operations, where torch counts none or, for grouped convolutions, too many.

A formula is called with shapes instead of tensors.
"""


@dataclass(frozen=True)
class Count:
    """Counts of one computation; None if an operator of a project hides what it computes."""

    operations: int | None
    bytes: int | None


def count(run: Callable[[], Any]) -> Count:
    """Run a computation once and count its operations and bytes."""
    traffic = _Traffic()
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter, traffic:
        run()
    return Count(None, None) if traffic.hidden else Count(counter.get_total_flops(), traffic.bytes)


class _Traffic(TorchDispatchMode):
    """Sums the bytes of operands and results of every operator that is not a view."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.hidden = 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        own = func.namespace not in ("aten", "prims", "prim", "profiler")
        self.hidden |= own and func._overloadpacket not in flop_registry and func._overloadpacket not in FORMULAS
        read, written = _parts((args, kwargs)), _parts(result)
        known = {x.untyped_storage()._cdata for x in read}
        is_view = not func._schema.is_mutable and all(x.untyped_storage()._cdata in known for x in written)
        if not is_view and "empty" not in func._schema.name:
            self.bytes += sum(min(x.numel() * x.element_size(), x.untyped_storage().nbytes()) for x in read + written)
        return result


@dataclass(frozen=True)
class Device:
    """Measured speed of a device: bytes per second of a large copy, operations per second of a large matrix product."""

    bandwidth: float
    rate: float

    def bound(self, counted: Count) -> tuple[float, str]:
        """Return the least seconds of the work and what limits it (memory or arithmetic); 0 if nothing was counted."""
        memory = (counted.bytes or 0) / self.bandwidth
        arithmetic = (counted.operations or 0) / self.rate
        return max((memory, "memory"), (arithmetic, "arithmetic"))


def _parts(values: Any) -> list[Tensor]:
    """The dense tensors among values, and the dense parts of sparse tensors."""
    found = []
    for x in tree_leaves(values):
        if isinstance(x, Tensor) and x.layout == torch.strided:
            found.append(x)
        elif isinstance(x, Tensor) and x.layout == torch.sparse_coo:
            found += [x._indices(), x._values()]
        elif isinstance(x, Tensor):
            found += [x.crow_indices(), x.col_indices(), x.values()]
    return found


def measure(device: torch.device, dtype: str, *, side: int, mib: int) -> Device:
    """Measure a device; see `Device`.

    Args:
        dtype: "float32", "tf32" or "bfloat16".
        side: rows and columns of the matrices.
        mib: MiB that the copy reads and writes in total.
    """
    with precision(dtype):
        kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        source = torch.randn(mib * 2**17, device=device)  # half of the MiB is read, the other half written
        target = torch.empty_like(source)
        product, copy = (
            min(timed(run, device) for _ in range(5)) for run in (lambda: a @ b, lambda: target.copy_(source))
        )
    return Device(2 * source.nbytes / copy, 2 * side**3 / product)


def timed(run: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds of one call, on a GPU between two events, else by the clock."""
    if device.type == "cuda":
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        before.record()
        run()
        after.record()
        torch.cuda.synchronize(device)
        return before.elapsed_time(after) / 1000
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Set the precision of float32 matrix products and convolutions on a GPU: full ("float32") or TF32 (all others)."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if dtype == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = dtype != "float32"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]
