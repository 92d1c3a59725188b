"""Reference cases: what the authors' released networks compute.

A case is one `.npz` file with the results of a released network in float64, for weights and inputs that are generated
from a seed. Every tensor has its own generator, seeded by the case's seed and the CRC-32 of the tensor's published
name, so no checkpoint file is needed.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ReferenceCase:
    """What the released network computes for seeded weights and inputs.

    Attributes:
        meta: constructor arguments, tensor names and shapes, loss, gradient norms.
        arrays: outputs and input gradients, kept with a stride where they are large.
    """

    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @classmethod
    def load(cls, path: str | Path) -> ReferenceCase:
        """Read one `.npz` case."""
        with np.load(path) as archive:
            arrays = {key: archive[key] for key in archive.files if key != "meta"}
            return cls(json.loads(str(archive["meta"])), arrays)

    @property
    def state_dict(self) -> dict[str, Tensor]:
        """The seeded weights under their published names, float64."""
        seed = self.meta["seed"]
        return {name: torch.from_numpy(_tensor(name, tuple(shape), seed)) for name, shape in self.meta["spec"]}

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The seeded (or stored) inputs by label; floating ones are float64 and require a gradient."""
        inputs = {}
        for label, shape in self.meta["inputs"].items():
            stored = self.arrays.get(f"input_{label}")
            value = torch.from_numpy(self._draw(label, shape) if stored is None else stored)
            inputs[label] = value.double().requires_grad_() if value.is_floating_point() else value
        return inputs

    def check(
        self,
        outputs: Sequence[Tensor],
        inputs: Mapping[str, Tensor],
        parameters: Mapping[str, nn.Parameter],
        *,
        output_tolerance: float = 1e-6,
        gradient_tolerance: float = 1e-4,
    ) -> None:
        """Compare outputs, input gradients and every parameter's gradient norm with the case.

        Args:
            outputs: the network's outputs, shaped as published.
            inputs: the tensors that went in, from `inputs`.
            parameters: published name → our parameter, for every parameter of the case.
            output_tolerance: relative to the largest reference value; also for input gradients.
            gradient_tolerance: relative, on L2 norms.

        Raises:
            AssertionError: names what differs and by how much.
        """
        stride = self.meta["output_stride"]
        loss = torch.zeros((), dtype=torch.float64)
        for i, (output, shape) in enumerate(zip(outputs, self.meta["outputs"], strict=True)):
            assert list(output.shape) == shape, f"output {i}: {tuple(output.shape)}, expected {shape}"
            _close(f"output {i}", output, self.arrays[f"output{i}"], stride, output_tolerance)
            loss = loss + (output * torch.from_numpy(self._draw(f"projection{i}", shape))).mean()
        loss.backward()
        for label, value in inputs.items():
            if f"grad_{label}" in self.arrays:
                assert value.grad is not None, f"input {label} received no gradient"
                _close(
                    f"gradient of input {label}", value.grad, self.arrays[f"grad_{label}"], stride, gradient_tolerance
                )
        norms = self.meta["grad_norm"]
        assert set(norms) == set(parameters), f"parameters differ: {sorted(set(norms) ^ set(parameters))}"
        # A convolution bias that a batch norm follows has a gradient of pure rounding noise.
        noise = 1e-12 * max(norm or 0.0 for norm in norms.values())
        for name, expected in norms.items():
            gradient = parameters[name].grad
            if expected is None:
                assert gradient is None, f"{name} is unused in the release but received a gradient"
                continue
            assert gradient is not None, f"{name} received no gradient"
            error = abs(gradient.norm().item() - expected)
            assert error <= gradient_tolerance * expected + noise, (
                f"{name}: gradient norm {gradient.norm():.8g}, expected {expected:.8g}"
            )

    def _draw(self, label: str, shape: Sequence[int]) -> np.ndarray:
        return np.random.default_rng([self.meta["seed"], zlib.crc32(f"input:{label}".encode())]).standard_normal(shape)


def _tensor(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
    noise = generator.standard_normal(shape)
    if name.endswith("running_var"):
        return 1.0 + 0.5 * generator.random(shape)
    if name.endswith("running_mean"):
        return 0.1 * noise
    if name.endswith(".fft"):
        return 1.0 + 0.1 * noise
    if len(shape) <= 1:
        return (1.0 if name.endswith("weight") else 0.0) + 0.1 * noise
    fan_in = shape[-1] if len(shape) == 3 else int(np.prod(shape[1:]))
    return noise / np.sqrt(fan_in)


def _close(what: str, ours: Tensor, reference: np.ndarray, stride: int, tolerance: float) -> None:
    expected = torch.from_numpy(reference).flatten()
    difference = (ours.detach().flatten()[::stride] - expected).abs().max().item()
    bound = tolerance * expected.abs().max().item()
    assert difference <= bound, f"{what}: differs by {difference:.3g}, allowed {bound:.3g}"
