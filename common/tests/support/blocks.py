"""The contract of the papers' blocks for other networks, as a test class.

    class TestBRABlock(BlockContract):
        block = staticmethod(BRABlock)

A block takes `(B, C, H, W)` of any size and gives the same shape, type and memory format; its gain starts at zero; it
compiles, exports, copies and loads.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

SIZES = ((1, 1), (1, 5), (7, 7), (13, 17), (20, 20), (21, 16), (37, 53), (64, 64))


class BlockContract:
    """A test class to inherit from; the subclass sets `block`.

    Attributes:
        block: channels and keywords → a block.
        channels: of most tests.
        tolerance: of float32 against float64 and against ONNX Runtime, relative to the largest value.
        half_tolerance: of bfloat16 and float16 against float64, on the same rounded input and weights.
        dynamic: whether height and width are free in exported files; else only the batch is.
        second_derivatives: whether the block has them; PyTorch's fused attention on CPUs has none.
        keywords: given to every block.
    """

    block: ClassVar[Callable[..., nn.Module]]
    channels: ClassVar[int] = 16
    tolerance: ClassVar[float] = 1e-4
    half_tolerance: ClassVar[float] = 0.05
    dynamic: ClassVar[bool] = True
    second_derivatives: ClassVar[bool] = True
    keywords: ClassVar[dict[str, Any]] = {}

    def bare(self, block: nn.Module, x: Tensor) -> Tensor | None:
        """Return the result of the paper's own module, taken from a block without gain; None: not compared."""
        del block, x
        return None

    def make(self, channels: int | None = None, **keywords: Any) -> nn.Module:
        """A block of fixed weights, in evaluation mode, whose gain is one where it has one."""
        torch.manual_seed(0)
        block = type(self).block(channels or self.channels, **self.keywords | keywords).eval()
        if isinstance(getattr(block, "gain", None), nn.Parameter):
            nn.init.ones_(block.gain)
        return block

    def maps(self, *shape: int, seed: int = 1, dtype: torch.dtype = torch.float32) -> Tensor:
        """Random maps."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)

    @pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
    def test_any_size_keeps_its_shape(self, size: tuple[int, int]) -> None:
        channels = 64 if size == (20, 20) else self.channels
        x = self.maps(2, channels, *size)
        with torch.no_grad():
            y = self.make(channels)(x)
        assert y.shape == x.shape and y.dtype == x.dtype and y.isfinite().all()
        assert not torch.equal(y, x)

    @pytest.mark.parametrize("batch", [0, 1, 3])
    def test_any_batch_and_samples_do_not_meet(self, batch: int) -> None:
        x, block = self.maps(batch, self.channels, 13, 17), self.make()
        with torch.no_grad():
            y = block(x)
            assert y.shape == x.shape
            for i in range(batch):
                torch.testing.assert_close(y[i : i + 1], block(x[i : i + 1]), atol=1e-4, rtol=1e-4)

    def test_it_starts_as_the_identity_to_the_bit_and_learns(self) -> None:
        torch.manual_seed(0)
        block = type(self).block(self.channels, **self.keywords).train()
        x = self.maps(2, self.channels, 13, 17)
        assert torch.equal(block(x), x)
        block(x).square().mean().backward()
        assert block.gain.grad is not None and block.gain.grad.abs().max() > 0
        with torch.no_grad():
            block.gain -= 0.1 * block.gain.grad
        assert not torch.equal(block(x), x)

    def test_without_gain_it_is_the_bare_function(self) -> None:
        block, x = self.make(gain=None), self.maps(2, self.channels, 16, 24)
        assert getattr(block, "gain", None) is None
        assert set(block.state_dict()) < set(self.make().state_dict())
        with torch.no_grad():
            y, expected = block(x), self.bare(block, x)
        assert y.shape == x.shape and not torch.equal(y, x)
        if expected is not None:
            assert _apart(y, expected) <= 1e-6

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
    def test_the_type_goes_through(self, dtype: torch.dtype) -> None:
        block = self.make().to(dtype)
        x = self.maps(2, self.channels, 16, 21, dtype=dtype)
        exact = copy.deepcopy(block).double()(x.double())
        with torch.no_grad():
            y = block(x)
        assert y.dtype == dtype
        half = dtype in (torch.bfloat16, torch.float16)
        assert _apart(y, exact) <= (self.half_tolerance if half else self.tolerance)

    def test_under_autocast(self) -> None:
        block, x = self.make(), self.maps(2, self.channels, 16, 21)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            y = block(x)
        assert y.dtype == x.dtype
        assert _apart(y, block(x)) <= self.half_tolerance

    def test_memory_format_out_is_that_of_in(self) -> None:
        block, x = self.make(), self.maps(2, self.channels, 13, 17)
        with torch.no_grad():
            plain = block(x)
            y = block.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
        assert plain.is_contiguous() and y.is_contiguous(memory_format=torch.channels_last)
        assert _apart(y, plain) <= self.tolerance

    @pytest.mark.parametrize("shape", [(16, 4), (2, 16, 4), (2, 5, 8, 8)])
    def test_a_foreign_layout_is_one_sentence(self, shape: tuple[int, ...]) -> None:
        with pytest.raises((ValueError, TypeError)) as caught:
            self.make()(torch.zeros(shape))
        assert "\n" not in str(caught.value) and str(tuple(shape)) in str(caught.value)

    def test_it_compiles_whole_forward_and_backward(self) -> None:
        block = self.make().train()
        compiled = torch.compile(copy.deepcopy(block), fullgraph=True, backend="aot_eager")
        gradients = []
        for one in (block, compiled):
            x = self.maps(2, self.channels, 13, 17).requires_grad_()
            one(x).square().mean().backward()
            gradients.append([x.grad, *(p.grad for p in one.parameters() if p.grad is not None)])
        assert len(gradients[0]) == len(gradients[1])
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)

    def test_second_derivatives_are_right(self) -> None:
        if not self.second_derivatives:
            pytest.skip("a part of this block has no second derivative in PyTorch")
        x = self.maps(1, self.channels, 8, 9, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradgradcheck(self.make().double(), (x,), fast_mode=True)

    def test_it_exports_with_free_sizes(self) -> None:
        block = self.make()
        dims = {0: torch.export.Dim.AUTO} | (
            {2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO} if self.dynamic else {}
        )
        program = torch.export.export(block, (self.maps(2, self.channels, 16, 24),), dynamic_shapes=(dims,))
        x = self.maps(3, self.channels, *((21, 30) if self.dynamic else (16, 24)), seed=5)
        with torch.no_grad():
            assert _apart(program.module()(x), block(x)) <= self.tolerance

    @pytest.mark.parametrize("dynamo", [True, False])
    @pytest.mark.parametrize("frozen", [False, True], ids=["trainable", "frozen"])
    def test_onnx_gives_the_same_on_another_input(self, dynamo: bool, frozen: bool, tmp_path: Path) -> None:
        runtime = pytest.importorskip("onnxruntime")
        block = self.make().requires_grad_(not frozen)
        path, x = tmp_path / "block.onnx", self.maps(1, self.channels, 16, 24)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(block, (x,), path, dynamo=dynamo, input_names=["x"], output_names=["y"], verbose=False)
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        other = self.maps(1, self.channels, 16, 24, seed=7)
        (y,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
        with torch.no_grad():
            assert _apart(torch.from_numpy(np.asarray(y)), block(other)) <= self.tolerance

    def test_copies_files_and_the_meta_device_keep_it(self, tmp_path: Path) -> None:
        block, x = self.make(), self.maps(1, self.channels, 13, 17)
        save_file(block.state_dict(), tmp_path / "block.safetensors")
        with torch.device("meta"):
            empty = type(self).block(self.channels, **self.keywords)
        empty.to_empty(device="cpu").load_state_dict(load_file(tmp_path / "block.safetensors"))
        with torch.no_grad():
            expected = block(x)
            for one in (copy.deepcopy(block), pickle.loads(pickle.dumps(block)), empty.eval()):
                assert torch.equal(one(x), expected)

    def test_no_state_depends_on_the_size_seen(self) -> None:
        block, x = self.make(), self.maps(1, self.channels, 13, 17)
        names = set(block.state_dict())
        with torch.no_grad():
            before = block(x)
            block(self.maps(1, self.channels, 20, 9))
            assert torch.equal(block(x), before)
        assert set(block.state_dict()) == names


def _apart(one: Tensor, other: Tensor) -> float:
    """Largest difference relative to the other's largest value."""
    other = other.detach().double()
    return ((one.detach().double() - other).abs().max() / other.abs().max()).item()
