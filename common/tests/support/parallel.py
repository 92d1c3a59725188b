"""A trainer's first update, in one process or several: its gradients and the settings of DistributedDataParallel.

Weights are not compared, because the length of Adam's first step does not depend on the length of the gradient.
`first_update` starts this file as a script: FILE TRAINER FLAGS.
"""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from support.scripts import run_script

_FLAGS = ("broadcast_buffers", "find_unused_parameters", "static_graph", "gradient_as_bucket_view")


@dataclass(frozen=True)
class FirstUpdate:
    """The gradients that the optimiser of the main process received.

    Attributes:
        gradient: gradients of all trained parameters in one vector.
        unused: number of parameters without a gradient.
        flags: flags of DistributedDataParallel that are on; None without it.
    """

    gradient: Tensor
    unused: int
    flags: set[str] | None

    def distance(self, other: FirstUpdate) -> float:
        """Return the norm of the difference of two gradients, divided by the other's norm."""
        return ((self.gradient - other.gradient).norm() / other.gradient.norm()).item()


def first_update(trainer: Path, *flags: object, processes: int = 1) -> FirstUpdate:
    """Run a trainer with one process until its first update, with several to its end."""
    with tempfile.TemporaryDirectory() as folder:
        run_script(__file__, f"{folder}/0", trainer, *flags, processes=processes)
        return FirstUpdate(**torch.load(f"{folder}/0", weights_only=False))


def _record(file: str) -> None:
    """Write the first update of this process to `file`."""
    wrapped: list[DistributedDataParallel] = []
    build = DistributedDataParallel.__init__

    def remember(self: DistributedDataParallel, *arguments: object, **keywords: object) -> None:
        build(self, *arguments, **keywords)
        wrapped.append(self)

    def before_step(optimizer: Optimizer, *_: object) -> None:
        if Path(file).exists():
            return
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad.flatten() for parameter in trained if parameter.grad is not None]
        flags = {flag for flag in _FLAGS if getattr(wrapped[0], flag)} if wrapped else None
        torch.save(asdict(FirstUpdate(torch.cat(gradients), len(trained) - len(gradients), flags)), file)
        if not wrapped:
            sys.exit(0)

    DistributedDataParallel.__init__ = remember
    register_optimizer_step_pre_hook(before_step)


if __name__ == "__main__":
    first, sys.argv = sys.argv[1], sys.argv[2:]
    if os.environ.get("RANK", "0") == "0":
        _record(first)
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
