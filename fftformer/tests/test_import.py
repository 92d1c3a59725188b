"""`import fftformer` imports nothing that the parts do not need."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, torch
before = set(sys.modules)
import fftformer.blocks
parts = set(sys.modules) - before
import fftformer
fftformer.create_model
network = set(sys.modules) - before
print(*sorted({name.partition(".")[0] for name in parts}), sep=",")
print(int("torch._dynamo" in network), int("torch._inductor" in network))
assert set(fftformer.__all__) <= set(dir(fftformer))
"""


def test_parts_need_torch_only_and_nothing_loads_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    packages, compiler = done.stdout.splitlines()
    assert not {"numpy", "scipy", "cv2", "accelerate", "safetensors", "huggingface_hub"} & set(packages.split(","))
    assert compiler == "0 0"
