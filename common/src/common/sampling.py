"""Sample order that is a function of (seed, position), so that a resumed run computes the same order.

The order is an endless stream: permutation 0 of the data set, permutation 1, and so on, each a function of
(seed, epoch). Global batch g holds the stream's positions [g·B, (g + 1)·B) whatever the number of processes, so two
processes with batch 4 see exactly what one process with batch 8 sees.

Data sets are indexed with `(epoch, index)` and derive their augmentation from (seed, epoch,
index), which keeps samples independent of worker count and of restarts.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sized
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler


class EndlessSampler(Sampler[tuple[int, int]]):
    """One process's share of an endless stream of `(epoch, index)` keys.

    Args:
        length: samples in the data set.
        batch_size: samples per process and batch.
        seed: seed of the permutations.
        rank, processes: this process's number and the number of processes, which share every global batch.
        start: global batches already consumed.
    """

    def __init__(
        self, length: int, *, batch_size: int, seed: int, rank: int = 0, processes: int = 1, start: int = 0
    ) -> None:
        if length < 1:
            raise ValueError("the data set is empty")
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.processes, self.start = rank, processes, start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        current, order = -1, np.empty(0, dtype=np.int64)
        first = (self.start * self.processes + self.rank) * self.batch_size
        while True:
            for position in range(first, first + self.batch_size):
                epoch, offset = divmod(position, self.length)
                if epoch != current:
                    current, order = epoch, np.random.default_rng([self.seed, epoch]).permutation(self.length)
                yield epoch, int(order[offset])
            first += self.processes * self.batch_size


def endless_loader(dataset: Dataset[Any], *, batch_size: int, workers: int, seed: int, **share: int) -> DataLoader[Any]:
    """Return a loader that never ends and continues at global batch `start`.

    Args:
        dataset: accepts `(epoch, index)` keys and has a length.
        workers: loading processes; 0 loads in this one.
        share: `rank`, `processes` and `start` of `EndlessSampler`.
    """
    assert isinstance(dataset, Sized)
    sampler = EndlessSampler(len(dataset), batch_size=batch_size, seed=seed, **share)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=begin_worker,
        # Without a generator of its own the loader would draw from the global one and shift it.
        generator=torch.Generator().manual_seed(seed),
    )


def begin_worker(_: int) -> None:
    """Make a loading process ignore signals and end with its training process; a loader's `worker_init_fn`.

    A signal to the whole group (a scheduler's, Ctrl-C) must not kill workers before the last step is saved. And a
    trainer killed with SIGKILL cannot end its workers; where a fork server starts them (the default from Python 3.14
    on), torch does not notice either, and they would wait for work for ever.
    """
    os.setpgid(0, 0)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
