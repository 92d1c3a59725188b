"""Process a scene of any size with a network, window by window, in one or several processes.

    read a window and its surroundings → network → one file per window → GeoTIFFs, when all windows are finished

The files of finished windows lie in a folder beside the output. This folder is the journal: a file gets its name when
its data are on disk, so the same command, repeated after a kill, computes only the missing windows. A window depends
only on the scene, not on other windows or on the process that computes it. The output therefore has the same bytes for
any number of processes, interrupted or not.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from tqdm.auto import tqdm

from common import launch, memory
from common.environment import choose_device
from common.errors import UserError
from common.files import PLAN, atomic_path, finished_windows, make_room, remove_windows, sync, write_json
from common.hyperspectral.layers import BLOCK, Layer, make_cog, write_layer
from common.hyperspectral.raster import CACHE, Box, Raster, boxes
from common.hyperspectral.scene import Scene

LIBRARIES = {"cpu": 800 * 2**20, "cuda": 3 * 2**30}
"""Resident bytes of the interpreter with all libraries, and with those of a GPU."""
LARGEST = 512
"""Largest side of a window, so that a kill loses little."""

Compute = Callable[[Scene, Box, Box], Sequence[np.ndarray]]
"""(pixels that were read, their box in the scene, the window's box in them) → `(rows, columns, bands)` per layer."""
Reach = Callable[[slice, int], slice]
"""(window, length of the axis) → the range that has to be read for it."""


def halo(size: int) -> Reach:
    """Return the reach of windows that need `size` more rows and columns on every side, up to the scene's border."""
    return lambda window, length: slice(max(window.start - size, 0), min(window.stop + size, length))


def around(reach: Reach, window: Box, shape: tuple[int, int]) -> tuple[Box, Box]:
    """Return the box of the scene that is read for a window, and the window's place in this box."""
    box = _both(lambda axis: reach(window[axis], shape[axis]))
    return box, _both(lambda axis: slice(window[axis].start - box[axis].start, window[axis].stop - box[axis].start))


def window_side(left: float, needed: Callable[[int], float]) -> int:
    """Return the largest side of windows that fits into memory, a power of two of at least 16.

    Args:
        left: bytes for one window.
        needed: side → bytes of a window with all that is read and computed for it.

    Raises:
        UserError: not even windows of 16 pixels fit.
    """
    sides = [side for side in (16, 32, 64, 128, 256, LARGEST) if needed(side) <= left]
    if not sides:
        more = (needed(16) - left) / 2**20
        raise UserError(f"--memory is too small for windows of this scene; add at least {more:.0f} MiB")
    return sides[-1]


def tile_side(left: float, needed: Callable[[int, int], float], limit: int) -> int:
    """Return the largest side of overlapping tiles with which windows of twice that side fit into memory.

    Larger tiles would be computed again for many windows.

    Args:
        left: bytes for one window.
        needed: sides of window and tile → bytes of a window with all that is read and computed for it.
        limit: largest side that is taken.
    """
    sides = [side for side in range(8, min(limit, LARGEST // 2) + 1, 8) if needed(2 * side, side) <= left]
    return sides[-1] if sides else min(limit, 8)


class Stream:
    """A scene on disk, the network for it, and the processes that share its windows.

    Args:
        source: the scene's file.
        output: the file that is finished last. Finished windows lie in the folder `OUTPUT.windows`.
        model: is moved to the device of this process.
        flags: of the script: its `no_data, memory, device, existing, cog`. With `--existing replace`, windows of
            another command are dropped.

    Attributes:
        source: the opened scene.
        device: of several processes each has a GPU of its own, unless `--device` names one.
        left: what of `--memory` is left for a window and the network's maps. The process's size at the moment has no
            part in it, so that the same command chooses the same windows.

    Raises:
        UserError: see `Raster`.
    """

    def __init__(self, source: str, output: Path, model: nn.Module, flags: Any) -> None:
        self.output, self.folder, self.flags = output, output.with_name(f"{output.name}.windows"), flags
        device = choose_device(flags.device)
        # The main process puts the files together while the others have nothing to do.
        self.accelerator = launch.accelerator(cpu=device.type == "cpu", patience=timedelta(days=30))
        self.device = self.accelerator.device if flags.device in ("auto", "cuda") else device
        self.model, self.source = model.to(self.device), Raster(source, flags.no_data)
        if self.accelerator.is_main_process:
            print("".join(f"note: {note}\n" for note in self.source.notes), end="")
        weights = sum(tensor.nbytes for tensor in model.state_dict().values())
        self.left = (
            memory.budget(flags.memory, device) - LIBRARIES[device.type] - 2 * weights - CACHE - self.source.block_bytes
        )

    def begin(self, **settings: Any) -> bool:
        """Open the journal.

        Args:
            settings: all that changes values of the output besides scene and network; values of JSON.

        Returns:
            False where this command had finished the output before it was interrupted: nothing is left to do.

        Raises:
            UserError: it holds windows of another command, or another command's output exists.
        """
        network, state = hashlib.sha256(), self.source.path.stat()
        for tensor in self.model.state_dict().values():
            network.update(tensor.numpy(force=True).tobytes())
        scene = [str(self.source.path.resolve()), state.st_size, state.st_mtime_ns]
        wanted = {"input": scene, "no_data": self.source.no_data, "network": network.hexdigest(), **settings}
        finished = finished_windows(self.output)
        exists = self.output.exists() and self.flags.existing == "refuse"  # finished, or `make_room` had refused it
        plan = (finished if exists else self.folder) / PLAN
        found = json.loads(plan.read_text(encoding="utf-8")) if plan.exists() else {}
        # Compared as text: NaN equals NaN there.
        other = [key for key in wanted if json.dumps(wanted[key]) != json.dumps(found.get(key))]
        if exists and other:
            make_room(self.output, "refuse")
        if found and other and self.flags.existing != "replace":
            raise UserError(
                f"{self.folder}: holds windows of a command with another {', '.join(other)}; repeat that command, "
                "add --existing replace, or choose another --output"
            )
        self.accelerator.wait_for_everyone()  # nobody writes before all have looked
        if self.accelerator.is_main_process and exists:
            remove_windows(finished)
            print(f"{self.output}: was finished before the interruption")
        elif self.accelerator.is_main_process and other:
            shutil.rmtree(self.folder, ignore_errors=True)
            write_json(plan, wanted)
        self.accelerator.wait_for_everyone()
        return not exists

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Compute a value of the whole scene once, in the main process; all processes get it, also after a kill."""
        path = self.folder / f"{name}.json"
        if self.accelerator.is_main_process and not path.exists():
            write_json(path, compute())
        self.accelerator.wait_for_everyone()
        return json.loads(path.read_text(encoding="utf-8"))

    def run(self, layers: Sequence[Layer], compute: Compute, reach: Reach, side: int) -> None:
        """Compute this process's share of the windows; the main process then writes the files.

        Args:
            layers: the files; the last one is `output`.
            compute: called for windows with data; this method sets the pixels without data.
            side: side of the windows, a multiple of 16.
        """
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        windows = boxes(self.source.shape, side)
        mine = range(rank, len(windows), world)
        todo = [number for number in mine if not self._part(number).exists()]
        hidden, done = not self.accelerator.is_main_process, len(mine) - len(todo)
        with tqdm(total=len(mine), initial=done, unit="window", disable=hidden) as bar:
            for number in todo:
                arrays = self._window(windows[number], layers, compute, reach)
                with atomic_path(self._part(number)) as temporary:
                    np.savez_compressed(temporary, *arrays)
                bar.update()
        self.accelerator.wait_for_everyone()
        if not self.accelerator.is_main_process:
            return
        for index, layer in enumerate(layers):
            whole = self.folder / layer.path.name
            write_layer(whole, layer, self.source, self._finished(side, index, layer))
            if self.flags.cog:
                make_cog(whole, classes=layer.dtype.kind in "iu" and layer.bands == 1)
            sync(whole)
            os.replace(whole, layer.path)
            sync(layer.path.parent)
        # Removing many files takes time; under its new name the folder says that the output is finished.
        finished = finished_windows(self.output)
        os.replace(self.folder, finished)
        remove_windows(finished)
        height, width = (length * layers[-1].scale for length in self.source.shape)
        print(f"{height} × {width}, {len(windows)} windows: {', '.join(str(layer.path) for layer in layers)}")

    def _window(self, window: Box, layers: Sequence[Layer], compute: Compute, reach: Reach) -> Sequence[np.ndarray]:
        box, inner = around(reach, window, self.source.shape)
        scene = self.source.read(box)
        valid = scene.valid[inner]
        if not valid.any():  # an empty window costs neither computing nor disk
            return []
        arrays = compute(scene, box, inner)
        for layer, values in zip(layers, arrays, strict=True):
            if not valid.all():
                values[~_enlarged(valid, layer.scale)] = layer.no_data
        return arrays

    def _finished(self, side: int, index: int, layer: Layer) -> Iterator[tuple[Box, np.ndarray]]:
        """Yield the pixels of several windows at a time, so that they are whole blocks of the output."""
        together = side * (BLOCK // math.gcd(side * layer.scale, BLOCK))
        across = -(-self.source.shape[1] // side)
        for large in boxes(self.source.shape, together):
            top, left = (axis.start for axis in large)
            rows, columns = shape = (large[0].stop - top, large[1].stop - left)
            size = (rows * layer.scale, columns * layer.scale, layer.bands)
            values = np.full(size, layer.no_data or 0, layer.dtype)
            some = False
            for window in boxes(shape, side):
                number = (top + window[0].start) // side * across + (left + window[1].start) // side
                with np.load(self._part(number)) as part:
                    if part.files:
                        values[_scaled(window, layer.scale)], some = part[f"arr_{index}"], True
            if some:
                yield _scaled(large, layer.scale), values

    def _part(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"


def _both(of: Callable[[int], slice]) -> Box:
    """Rows and columns."""
    return of(0), of(1)


def _scaled(box: Box, scale: int) -> Box:
    """A window in pixels of a layer."""
    return _both(lambda axis: slice(box[axis].start * scale, box[axis].stop * scale))


def _enlarged(valid: np.ndarray, scale: int) -> np.ndarray:
    return valid.repeat(scale, axis=0).repeat(scale, axis=1)
