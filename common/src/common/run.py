"""A training run: its folder, trackers, progress, exact resume and signals.

    run = Run(config, paper="fftformer", steps=config.iterations)
    ...
    model, optimizer = run.accelerator.prepare(model, optimizer)
    run.restore(model=model, optimizer=optimizer, schedule=schedule)
    for batch in run.batches(dataset):
        with run.accelerator.accumulate(model):
            ...
        if run.updated:
            run.log(loss=loss)

The loop and everything that belongs to the paper stay in the project's `train.py`. A step is an optimiser update. A
checkpoint is written after the body of a step, so it holds everything that the body changed. The folder is

    OUTPUT/  config.json  metrics.jsonl  tensorboard/  checkpoints/step_00012000/  model/  figures/  results.json
"""

from __future__ import annotations

import contextlib
import itertools
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import GradientAccumulationPlugin, ProjectConfiguration, broadcast, send_to_device, set_seed
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from common import checkpoints, environment, launch, recording
from common.config import LoaderConfig, RunConfig
from common.errors import UserError
from common.files import write_json
from common.log import Log
from common.networks.cards import write_card
from common.networks.weights import Pretrained
from common.sampling import endless_loader

# Steps between two checks of the losses and of other processes' signals when --log-every is 0.
_CHECK_EVERY = 100

Configuration = TypeVar("Configuration", bound=RunConfig)


class Run(Generic[Configuration]):
    """One training run; see the module's docstring for the order of calls.

    Args:
        config: the configuration; if it is not a `LoaderConfig`, a step is one float32 forward pass.
        paper: project name, for the default folder and messages.
        steps: optimiser updates of the full schedule; `config.max_steps` can end it earlier.
        alone: this process trains by itself, for example one seed, and does not wait for other processes.

    Attributes:
        accelerator: prepares model and optimiser, runs the backward pass.
        folder: the run's folder.
        step: optimiser updates done, counting the one in progress.
        updated: whether this batch completed an update.
        best: best score so far, set by `keep_if_best`.

    Raises:
        UserError: the folder holds another configuration's run, or one that `--resume none` would overwrite.
    """

    def __init__(self, config: Configuration, *, paper: str, steps: int, alone: bool = False) -> None:
        self.config, self.paper = config, paper
        self.loading = config if isinstance(config, LoaderConfig) else LoaderConfig(batch_size=1)
        self.folder = config.output or Path("runs") / f"{paper}_{config.preset}"
        self.steps = steps
        self.total = steps if config.max_steps is None else min(steps, config.max_steps)
        launch.prepare()
        # DistributedDataParallel with torch's defaults, as in the releases of FFTformer and BiFormer. It does not
        # search for unused parameters: every trained parameter gets a gradient.
        self.accelerator = Accelerator(
            mixed_precision=self.loading.mixed_precision,
            # Accumulation continues across epochs, because the stream of samples has no end.
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                num_steps=self.loading.gradient_accumulation, sync_with_dataloader=False
            ),
            log_with="tensorboard",
            project_config=ProjectConfiguration(project_dir=str(self.folder)),
        )
        launch.use_all_cores(self.accelerator.device)
        launch.check_precision(self.loading.mixed_precision, self.accelerator.device)
        if self.accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
            raise UserError("FSDP and DeepSpeed are not supported; run `accelerate config` for plain data parallelism")
        self.processes = 1 if alone else self.accelerator.num_processes
        self.rank = 0 if alone else self.accelerator.process_index
        self.is_main = self.rank == 0
        set_seed(config.seed + self.rank)
        self.step, self.updated = 0, False
        self.best: float | None = None
        self._stop = False
        self._log = Log(self.accelerator, self.folder, processes=self.processes, is_main=self.is_main)
        self._restored = checkpoints.find(self.folder / "checkpoints", config.resume)
        self._open_folder()

    def restore(self, **parts: Any) -> None:
        """Load the checkpoint that `--resume` names into `parts`, and remember them for saving.

        Args:
            parts: all objects with `state_dict` and `load_state_dict` that training changes; None is skipped.

        Raises:
            UserError: the checkpoint does not fit; names the part.
        """
        self._parts = {name: part for name, part in parts.items() if part is not None}
        if self.accelerator.scaler is not None:
            self._parts["scaler"] = self.accelerator.scaler
        if self._restored is not None:
            progress = checkpoints.load(self._restored, self._unwrapped(), rank=self.rank)
            self.step, self.best, self._log.pending = progress["step"], progress["best"], progress["pending"]
            self.say(f"continuing from {self._restored}")
            if progress["processes"] != self.processes:
                self.say(f"note: {progress['processes']} processes before, {self.processes} now: not bitwise equal")
        self._log.cut(after=self.step)
        if self.is_main:
            purge = {"tensorboard": {"purge_step": self.step + 1}}
            self.accelerator.init_trackers("tensorboard", init_kwargs=purge)

    def batches(self, dataset: Dataset[Any]) -> Iterator[Any]:
        """Yield batches on the device until the last step, saving, logging and stopping in between.

        Args:
            dataset: accepts `(epoch, index)` keys; see `common.sampling`.
        """
        flags = self.loading
        loader = endless_loader(
            dataset, batch_size=flags.batch_size, workers=flags.workers, seed=self.config.seed, rank=self.rank,
            processes=self.processes, start=self.step * flags.gradient_accumulation,
        )  # fmt: skip
        return self._iterate(iter(loader) if self.step < self.total else iter(()))

    def updates(self) -> Iterator[None]:
        """Yield once per step, for training without a loader (a whole scene is one sample)."""
        return self._iterate(itertools.repeat(None))

    def _iterate(self, samples: Iterator[Any]) -> Iterator[Any]:
        before = {name: signal.signal(name, self._request_stop) for name in (signal.SIGTERM, signal.SIGUSR1)}
        interval = 0.5 if sys.stderr.isatty() else 20  # seconds between two lines
        form: dict[str, Any] = {"unit": "step", "dynamic_ncols": True, "mininterval": interval}
        bar = tqdm(total=self.total, initial=self.step, disable=not self.is_main, **form)
        micro = 0
        try:
            while self.step < self.total:
                batch = send_to_device(next(samples), self.accelerator.device, non_blocking=True)
                micro += 1
                self.updated = micro % self.loading.gradient_accumulation == 0
                self.step += self.updated
                yield batch
                if not self.updated:
                    continue
                bar.update()
                if self.step % (self.config.log_every or _CHECK_EVERY) == 0 or self.step == self.steps:
                    size = self.loading.batch_size * self.loading.gradient_accumulation * self.processes
                    means = self._log.flush(self.step, size, quiet=not self.config.log_every)
                    bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})
                stopping = self._stop_requested()
                if stopping or self.due(self.config.save_every):
                    self._save()
                if stopping and self.step < self.total:
                    self.say(f"stopped at step {self.step}; the same command continues from there")
                    self.close()
                    sys.exit(0)
        finally:
            bar.close()
            for name, handler in before.items():
                signal.signal(name, handler)

    def log(self, **values: float | Tensor) -> None:
        """Record scalars of this step. Their means over `log_every` steps are written; with 0, nothing is written."""
        self._log.add(**values)

    def write(self, **values: float) -> None:
        """Write scalars of this step at once to metrics.jsonl and TensorBoard (validation scores)."""
        self._log.write(self.step, **values)

    def picture(self, name: str, path: Path) -> None:
        """Also show a PNG file of the figures folder in TensorBoard; call on the main process only."""
        tracker = self.accelerator.get_tracker("tensorboard", unwrap=True)
        tracker.add_image(name, np.asarray(Image.open(path).convert("RGB")), self.step, dataformats="HWC")

    def due(self, every: int) -> bool:
        """Whether this update is a multiple of `every`, or the last one; with 0, only the last one."""
        return self.updated and (self.step == self.total or (every > 0 and self.step % every == 0))

    def keep_if_best(self, score: float, model: torch.nn.Module, name: str = "model") -> bool:
        """Export `model` to OUTPUT/`name` when `score` (higher is better) is the best so far."""
        if self.best is not None and score <= self.best:
            return False
        self.best = score
        self.export(model, name)
        return True

    @contextlib.contextmanager
    def scoring(self, model: torch.nn.Module) -> Iterator[Any]:
        """Yield the unwrapped network in evaluation mode; afterwards it returns to its former mode.

        All processes get the main process's buffers, because BatchNorms have measured other statistics in each.
        """
        network = self.accelerator.unwrap_model(model)
        if self.processes > 1:
            for buffer in network.buffers():
                buffer.copy_(broadcast(buffer))
        training = network.training
        network.eval()
        # torch would compile the network again without gradients or for images of another size, which takes minutes.
        stance = torch.compiler.set_stance("force_eager") if self.config.compile else contextlib.nullcontext()
        try:
            with stance:
                yield network
        finally:
            network.train(training)

    def export(self, model: torch.nn.Module, name: str = "model") -> None:
        """Write the network's published form and its card to OUTPUT/`name`."""
        if self.is_main:
            network = self.accelerator.unwrap_model(model)
            assert isinstance(network, Pretrained)
            network.save_pretrained(self.folder / name)
            write_card(self.folder / name)

    def say(self, message: str) -> None:
        """Print on the main process, without breaking the progress bar."""
        if self.is_main:
            tqdm.write(message)

    def wait(self) -> None:
        """Wait for the other processes of this run."""
        if self.processes > 1:
            self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Flush the trackers."""
        if self.is_main:
            for tracker in self.accelerator.trackers:
                tracker.finish()

    def _open_folder(self) -> None:
        """Compare the folder's configuration with ours, then write ours."""
        path = self.folder / "config.json"
        described = recording.describe(self.config)
        if path.exists() and self.config.resume == "none" and any((self.folder / "checkpoints").glob("step_*")):
            raise UserError(
                f"{self.folder}: already holds a run; choose another --output, or continue with --resume auto"
            )
        if path.exists() and self._restored is not None and self.config.resume == "auto":
            recording.check_same(path, described)
        self.wait()
        if self.is_main:
            checkpoints.remove_partial(self.folder / "checkpoints")
            provenance = environment.provenance(self.accelerator.device)
            write_json(path, {"paper": self.paper, **described, **provenance, "processes": self.processes})

    def _save(self) -> None:
        """Write a checkpoint; refuse to do so if a scalar since the last line of metrics.jsonl is not finite."""
        pending = self._log.collect(self.step)
        progress = {"step": self.step, "best": self.best, "processes": self.processes, "pending": pending}
        folder = self.folder / "checkpoints" / f"step_{self.step:08d}"
        checkpoints.save(folder, self._unwrapped(), progress, rank=self.rank, wait=self.wait)

    def _unwrapped(self) -> dict[str, Any]:
        return {
            name: self.accelerator.unwrap_model(part) if isinstance(part, torch.nn.Module) else part
            for name, part in self._parts.items()
        }

    def _request_stop(self, *_: object) -> None:
        self._stop = True

    def _stop_requested(self) -> bool:
        """Whether any process received a signal. All processes check at the same step, so that all stop after it."""
        if self.processes == 1:
            return self._stop
        if self.step % (self.config.log_every or _CHECK_EVERY) and self.step != self.total:
            return False
        flag = torch.tensor(int(self._stop), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum"))
