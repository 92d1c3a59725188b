"""Helpers of the test suites: reference cases of the released networks, and two real processes.

A reference case is one `.npz` that holds what an authors' released network computes in float64
for weights and inputs that are rebuilt from a seed: every tensor is drawn from its own
generator, seeded by the case's seed and the CRC-32 of the tensor's published name, so no
checkpoint file is needed.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
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


@dataclass(frozen=True)
class Finished:
    """What a script printed; of several processes, all of it."""

    stdout: str
    stderr: str


class Script:
    """A project's script in one or several real processes on CPU, started as by a launcher.

    The processes fork from a server that has imported torch and done nothing else, which saves
    the seconds of importing it anew. `accelerate launch --cpu --num_processes 2` would quietly
    run one process, so ranks are given through the environment as `torchrun` does.
    """

    def __init__(self, script: str | Path, *arguments: object, processes: int = 1) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["common.testing", "common.run", "common.figures", "torch._dynamo"])
        self._folder = tempfile.TemporaryDirectory()
        environments = [{"ACCELERATE_USE_CPU": "true"} for _ in range(processes)]
        if processes > 1:
            group = {"WORLD_SIZE": f"{processes}", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{_free_port()}"}
            for rank, environment in enumerate(environments):
                environment.update(group, RANK=f"{rank}", LOCAL_RANK=f"{rank}")
        command = [str(script), *map(str, arguments)]
        self.processes = [
            context.Process(target=_run_in_child, args=(command, environment, f"{self._folder.name}/{rank}"))
            for rank, environment in enumerate(environments)
        ]
        for process in self.processes:
            process.start()

    def finish(self, status: int | None = 0, timeout: float = 300) -> Finished:
        """Wait for the end.

        Args:
            status: the expected exit status of every process; None for any non-zero one.
        """
        for process in self.processes:
            process.join(timeout)
            if process.exitcode is None or process.exitcode != 0:
                for other in self.processes:  # like a launcher: one failure ends them all
                    other.join(10)
                    other.kill()
                    other.join()
        texts = [[Path(f"{self._folder.name}/{r}.{n}") for r in range(len(self.processes))] for n in ("out", "err")]
        done = Finished(*("".join(path.read_text() for path in paths if path.exists()) for paths in texts))
        self._folder.cleanup()
        for process in self.processes:
            right = process.exitcode != 0 if status is None else process.exitcode == status
            assert right, f"exit status {process.exitcode}, expected {status}\n{done.stdout}\n{done.stderr}"
        return done


def run_script(script: str | Path, *arguments: object, processes: int = 1, status: int | None = 0) -> Finished:
    """Run a script to its end; see `Script`."""
    return Script(script, *arguments, processes=processes).finish(status)


def _run_in_child(command: list[str], environment: dict[str, str], log: str) -> None:
    os.environ.update(environment)
    for name, descriptor in (("out", 1), ("err", 2)):
        os.dup2(os.open(f"{log}.{name}", os.O_WRONLY | os.O_CREAT), descriptor)
    torch.set_num_threads(1)
    sys.argv = command
    sys.path.insert(0, str(Path(command[0]).parent))
    runpy.run_path(command[0], run_name="__main__")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def real_data(name: str) -> Path:
    """Return the folder of a real data set under `$FULLPAPER_DATA`, or skip the test and say so."""
    import pytest  # noqa: PLC0415 - only the test suites have it

    root = os.environ.get("FULLPAPER_DATA")
    if not root:
        pytest.skip(f"real data: set FULLPAPER_DATA to a folder that holds {name}/")
    folder = Path(root) / name
    if not folder.exists():
        pytest.skip(f"real data: {folder} does not exist")
    return folder
