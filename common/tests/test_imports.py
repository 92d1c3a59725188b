"""Importing the package loads no compiler, no parser, no TensorBoard: they come when they are needed."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import importlib, pkgutil, sys, common
for module in pkgutil.iter_modules(common.__path__):
    importlib.import_module(f"common.{module.name}")
print(*sorted(sys.modules))
"""
HEAVY = {"torch._dynamo", "torch._inductor", "torch.onnx", "tensorboard", "torch.utils.tensorboard", "tyro", "timm",
         "torchvision", "matplotlib.pyplot", "skimage", "h5py", "tifffile"}  # fmt: skip


def test_imports_are_light() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert {"common.run", "common.figures", "common.networks.weights", "torch"} <= loaded
    assert not loaded & HEAVY
